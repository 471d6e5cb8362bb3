//! Invariants of what a peer or a person sends: messages, name records, join tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ddr_net::JoinToken;
use ddr_oci::Digest;
use ddr_proto::wire::{MAX_MESSAGE_BYTES, NameRecord, Request, RequestEnvelope, Response};

/// A message, read as a request and as a response.
pub(crate) fn wire(data: &[u8]) {
    if let Ok(envelope) = RequestEnvelope::decode(data) {
        assert!(data.len() <= MAX_MESSAGE_BYTES);
        assert!(envelope.check_limits().is_ok());
        assert_eq!(RequestEnvelope::decode(&envelope.encode()).as_ref(), Ok(&envelope));
        if let Request::PutProviders { records } = &envelope.body {
            for record in records {
                let _ = record.verify();
            }
        }
    }
    if let Ok(response) = Response::decode(data) {
        assert!(data.len() <= MAX_MESSAGE_BYTES);
        assert!(response.check_limits().is_ok());
        assert_eq!(Response::decode(&response.encode()).as_ref(), Ok(&response));
    }
}

/// A stored name record.
pub(crate) fn name_record(data: &[u8]) {
    let Ok(record) = NameRecord::from_bytes(data) else { return };
    assert_eq!(NameRecord::from_bytes(&record.to_bytes()).as_ref(), Ok(&record));
    assert!(record.cmp_newness(&record).is_eq());
    let _ = record.verify();
}

/// A token as text, and as the body of a token whose prefix, coding and checksum are right.
pub(crate) fn join_token(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        accepted_token(text);
    }
    let sum = Digest::sha256(data);
    let body = [data, &sum.as_bytes()[..4]].concat();
    accepted_token(&format!("{}{}", ddr_net::token::PREFIX, URL_SAFE_NO_PAD.encode(body)));
}

fn accepted_token(text: &str) {
    let Ok(token) = text.parse::<JoinToken>() else { return };
    assert!((1..=ddr_net::token::MAX_TOKEN_ADDRESSES).contains(&token.addresses().len()));
    let again: JoinToken = token.to_string().parse().expect("its own text");
    assert_eq!(again.serial(), token.serial());
}
