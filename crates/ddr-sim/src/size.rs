//! How many bytes a message has, without making them.
//!
//! A test compares with the real encoding. [`OVERHEAD_BYTES`] stands for what carries a message:
//! HTTP/2 frames with indexed headers, the TLS record, TCP and IP headers.

use std::net::SocketAddr;

use ddr_proto::wire::{CELLS, Contact, KeyRange, NotSoon, ProviderRecord, Request, Response};

/// Bytes that carry one message, request or answer, on an open connection: HEADERS frame 9 + about
/// 20, DATA frame 9, TLS record 22, TCP and IPv4 headers 52.
pub const OVERHEAD_BYTES: u64 = 112;

const ID: usize = 32;
const PUZZLE: usize = 32;
const SIGNATURE: usize = 64;
const MARK: usize = 8;

/// Bytes of a request in its envelope.
#[must_use]
pub fn request_bytes(sender: &Contact, request: &Request) -> u64 {
    let body = match request {
        Request::FindNode { .. } | Request::FindProviders { .. } => ID,
        Request::PutProviders { records } => list(records, record),
        Request::Compare { range: keys, .. } => range(keys) + MARK + CELLS * MARK,
        Request::GetRecords { range: keys, marks, .. } => {
            range(keys) + MARK + list(marks, |_| MARK)
        }
        _ => 0,
    };
    (contact(sender) + PUZZLE + 1 + body) as u64
}

/// Bytes of an answer.
#[must_use]
pub fn response_bytes(response: &Response) -> u64 {
    let body = match response {
        Response::Pong { revoked, .. } => varint(u64::from(*revoked)) + PUZZLE,
        Response::Nodes { nodes } => list(nodes, contact),
        Response::Providers { records, nodes } => list(records, record) + list(nodes, contact),
        Response::Stored { accepted, not_soon } => {
            let hint = |hint: &NotSoon| 1 + varint(u64::from(hint.wait_s));
            varint(u64::from(*accepted)) + list(not_soon, hint)
        }
        Response::Compared { marks } => list(marks, |_| MARK),
        Response::Records { records } => list(records, record),
        _ => 1,
    };
    (1 + body) as u64
}

fn range(range: &KeyRange) -> usize {
    ID + varint(u64::from(range.bits))
}

fn record(record: &ProviderRecord) -> usize {
    let times = varint(record.issued_ms) + varint(record.expires_ms);
    ID + contact(&record.provider) + ID + 1 + times + 1 + SIGNATURE
}

fn contact(contact: &Contact) -> usize {
    let zone = varint(contact.zone.len() as u64) + contact.zone.len();
    ID + list(&contact.addrs, addr) + zone
}

fn addr(addr: &SocketAddr) -> usize {
    let ip = if addr.is_ipv4() { 4 } else { 16 };
    1 + ip + varint(u64::from(addr.port()))
}

fn list<T>(items: &[T], size: impl Fn(&T) -> usize) -> usize {
    varint(items.len() as u64) + items.iter().map(size).sum::<usize>()
}

/// Bytes of a number in seven-bit groups.
const fn varint(number: u64) -> usize {
    let bits = 64 - number.leading_zeros() as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

#[cfg(test)]
mod tests {
    use ddr_proto::wire::Mark;
    use ddr_proto::{Key, RequestEnvelope};

    use super::*;
    use crate::dice::Dice;
    use crate::identity::{Secret, contact as contact_of, host_addr};

    #[test]
    fn sizes_are_those_of_the_real_encoding() {
        let mut dice = Dice::new(5, 0);
        let signer = Secret::random(&mut dice).signer();
        let own = contact_of(signer.node_id(), host_addr(77), "us-e");
        let key = Key(dice.bytes());
        let now = 1_700_000_000_000;
        let record = ProviderRecord::sign(&signer, &own, key, true, now, now + 3_600_000);
        let requests = [
            Request::Ping,
            Request::FindNode { target: key },
            Request::FindProviders { key },
            Request::PutProviders { records: vec![record.clone(); 3] },
        ];
        for body in requests {
            let wanted = request_bytes(&own, &body);
            let envelope = RequestEnvelope { sender: own.as_ref().clone(), puzzle: [0; 32], body };
            assert_eq!(wanted, envelope.encode().len() as u64);
        }
        let nodes = vec![own.as_ref().clone(); 20];
        let responses = [
            Response::Pong { revoked: 300, puzzle: [1; 32] },
            Response::Compared { marks: vec![Mark([2; 8]); 5] },
            Response::Records { records: vec![record.clone(); 2] },
            Response::Nodes { nodes: nodes.clone() },
            Response::Providers { records: vec![record; 2], nodes },
            Response::Stored { accepted: 1, not_soon: vec![NotSoon { record: 0, wait_s: 3600 }] },
        ];
        for response in responses {
            assert_eq!(response_bytes(&response), response.encode().len() as u64);
        }
    }
}
