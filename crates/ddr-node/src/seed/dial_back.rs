//! A member asks whether it can be reached: it is dialled at the addresses that it told before.
//!
//! Decides which addresses may be dialled and how often, and what the asker is told. It must never dial an
//! address that came with the request, nor tell a member about the ports of a machine that it does not speak from.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ddr_net::{Client, DialError, PeerInfo};
use ddr_proto::id::NodeId;
use ddr_proto::wire::{Contact, DialOutcome, DialTry, MAX_ADDRS, RefuseReason, Response};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Members that are dialled back at once; more are refused as busy.
const MAX_AT_ONCE: usize = 8;
/// A member is dialled back at most so often; sooner it is refused as busy.
pub(crate) const DIAL_BACK_EVERY: Duration = Duration::from_secs(2);
/// Members whose last time is remembered; while that many are, further ones are refused as busy.
const MAX_REMEMBERED: usize = 1024;

/// See the module comment.
pub(crate) struct DialBacks {
    client: Client,
    own: Contact,
    turns: Semaphore,
    last: Mutex<BTreeMap<NodeId, Instant>>,
}

impl DialBacks {
    pub(crate) fn new(client: Client, own: Contact) -> Self {
        Self { client, own, turns: Semaphore::new(MAX_AT_ONCE), last: Mutex::default() }
    }

    /// Dials `from` where it was `known` to be before it asked.
    pub(super) async fn answer(&self, from: PeerInfo, known: Option<Contact>) -> Response {
        let busy = Response::Refused { reason: RefuseReason::Busy };
        let Ok(_turn) = self.turns.try_acquire() else { return busy };
        if !self.may_ask(from.node) {
            return busy;
        }
        let mut tries = Vec::new();
        for addr in known.unwrap_or_else(|| self.nowhere()).addrs.into_iter().take(MAX_ADDRS) {
            let outcome = match is_allowed(addr, &self.own) {
                true => self.dial(addr, &from).await,
                false => DialOutcome::NotDialled,
            };
            tries.push(DialTry { addr, outcome });
            if outcome == DialOutcome::Reached {
                break;
            }
        }
        Response::Dialled { tries }
    }

    async fn dial(&self, addr: SocketAddr, from: &PeerInfo) -> DialOutcome {
        match self.client.knock(addr, from.node).await {
            Ok(()) => DialOutcome::Reached,
            // Why it failed says something about that machine. Only who speaks from there is told.
            Err(_) if !is_same(addr.ip(), from.remote.ip()) => DialOutcome::Failed,
            Err(error) => outcome(&error),
        }
    }

    /// Notes that `node` asks; false if it did so just now.
    fn may_ask(&self, node: NodeId) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| at.elapsed() < DIAL_BACK_EVERY);
        let may = last.len() < MAX_REMEMBERED && !last.contains_key(&node);
        if may {
            last.insert(node, Instant::now());
        }
        may
    }

    fn nowhere(&self) -> Contact {
        Contact { addrs: Vec::new(), ..self.own.clone() }
    }
}

/// Which failure it was.
pub(crate) fn outcome(error: &DialError) -> DialOutcome {
    match error.kind {
        ErrorKind::ConnectionRefused => DialOutcome::Refused,
        ErrorKind::TimedOut => DialOutcome::Silent,
        // Not the node, not of the swarm, or no TLS at all.
        ErrorKind::PermissionDenied | ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
            DialOutcome::Stranger
        }
        _ => DialOutcome::Failed,
    }
}

/// As for contacts of the overlay: where somebody can listen, not at this node, and on the loopback only for
/// a node that is on it, too.
fn is_allowed(addr: SocketAddr, own: &Contact) -> bool {
    let asked = Contact { addrs: vec![addr], ..own.clone() };
    let is_loopback = |addr: &SocketAddr| addr.ip().to_canonical().is_loopback();
    asked.is_dialable()
        && !own.addrs.contains(&addr)
        && (!is_loopback(&addr) || own.addrs.iter().any(is_loopback))
}

fn is_same(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn own(addr: &str) -> Contact {
        Contact { id: NodeId([1; 32]), addrs: vec![at(addr)], zone: String::new() }
    }

    #[test]
    fn only_places_of_others_are_dialled() {
        let far = own("10.0.0.1:5001");
        assert!(is_allowed(at("10.0.0.2:5001"), &far));
        for wrong in [
            "10.0.0.1:5001",
            "127.0.0.1:22",
            "[::ffff:127.0.0.1]:22",
            "0.0.0.0:5001",
            "10.0.0.2:0",
            "224.0.0.1:5001",
        ] {
            assert!(!is_allowed(at(wrong), &far), "{wrong}");
        }
        assert!(is_allowed(at("127.0.0.1:7"), &own("127.0.0.1:5001")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_is_dialled_back_every_two_seconds_at_most() {
        let network = ddr_net::MemoryNetwork::new();
        let carrier = network.carrier(at("10.0.0.1:5001"), NodeId([1; 32]));
        let client = Client::new(std::sync::Arc::new(carrier), ddr_net::ClientLimits::default());
        let dials = DialBacks::new(client, own("10.0.0.1:5001"));
        assert!(dials.may_ask(NodeId([2; 32])));
        assert!(!dials.may_ask(NodeId([2; 32])));
        assert!(dials.may_ask(NodeId([3; 32])));
        tokio::time::advance(DIAL_BACK_EVERY).await;
        assert!(dials.may_ask(NodeId([2; 32])));
        for number in 0..2 * MAX_REMEMBERED {
            let mut id = [9; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            dials.may_ask(NodeId(id));
        }
        assert_eq!(dials.last.lock().expect("not poisoned").len(), MAX_REMEMBERED);
    }
}
