//! Invariants of what a peer, a person or a name server sends: messages, name records, join tokens,
//! DNS messages.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ddr_net::JoinToken;
use ddr_net::discover::message::{MAX_DNS_BYTES, MAX_RECORDS, Message};
use ddr_oci::Digest;
use ddr_proto::wire::{
    MAX_HISTORY, MAX_MESSAGE_BYTES, NameRecord, Request, RequestEnvelope, Response, SetEntry,
};

/// A message, read as a request and as a response.
pub(crate) fn wire(data: &[u8]) {
    if let Ok(envelope) = RequestEnvelope::decode(data) {
        assert!(data.len() <= MAX_MESSAGE_BYTES);
        assert!(envelope.check_limits().is_ok());
        assert_eq!(RequestEnvelope::decode(&envelope.encode()).as_ref(), Ok(&envelope));
        match &envelope.body {
            Request::PutProviders { records } => records.iter().for_each(|record| {
                let _ = record.verify();
            }),
            Request::PutEntry { entry } => set_entry(entry),
            Request::PutName { record } | Request::AcceptName { record } => kept_name(record),
            _ => {}
        }
    }
    if let Ok(response) = Response::decode(data) {
        assert!(data.len() <= MAX_MESSAGE_BYTES);
        assert!(response.check_limits().is_ok());
        assert_eq!(Response::decode(&response.encode()).as_ref(), Ok(&response));
        match &response {
            Response::Set { entries, .. } => entries.iter().for_each(set_entry),
            Response::History { records } => {
                assert!(records.len() <= MAX_HISTORY);
                records.iter().for_each(kept_name);
            }
            _ => {}
        }
    }
}

/// An entry of a set within its limits: it keeps its form, and its place is of bounded length.
fn set_entry(entry: &SetEntry) {
    assert_eq!(SetEntry::from_bytes(&entry.to_bytes()).as_ref(), Ok(entry));
    assert!(entry.member().check_limits().is_ok());
    assert!(entry.member() < entry.member().successor());
    assert!(entry.cmp_newness(entry).is_eq());
    let _ = (entry.slot(), entry.verify());
}

/// A stored name record.
pub(crate) fn name_record(data: &[u8]) {
    if let Ok(record) = NameRecord::from_bytes(data) {
        kept_name(&record);
    }
}

/// A name record: it keeps its form.
fn kept_name(record: &NameRecord) {
    assert_eq!(NameRecord::from_bytes(&record.to_bytes()).as_ref(), Ok(record));
    assert!(record.cmp_newness(record).is_eq());
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

/// A DNS message: within its limits, and what was understood of it keeps its form.
pub(crate) fn dns(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    assert!(data.len() <= MAX_DNS_BYTES);
    assert!(message.questions.len() + message.records.len() <= MAX_RECORDS);
    let bytes = message.encode();
    // Written without compression it may have become longer than any message that is read.
    if bytes.len() <= MAX_DNS_BYTES {
        assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
    }
}
