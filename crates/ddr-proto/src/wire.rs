//! Messages between nodes: what may be said, in how many bytes, and how it is read.
//!
//! Every message is one postcard value inside one HTTP body. Decoding is total: it returns a
//! message within all limits or a [`WireError`], never panics, and never keeps more memory than a
//! small multiple of [`MAX_MESSAGE_BYTES`]. This module checks form only; signatures, identities
//! and freshness are checked by whoever uses the content.

mod compare;
mod contact;
mod dial;
mod entry;
mod mirror;
mod preheat;
mod record;
mod replica;
mod request;
mod response;
mod signer;
mod swarm;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::compare::{CELLS, KeyRange, MAX_MARKS, Mark};
pub use self::contact::{Contact, MAX_ADDRS, MAX_ZONE_BYTES};
pub use self::dial::{DialOutcome, DialTry};
pub use self::entry::{
    ContentKind, Fact, FactRecord, MAX_MEMBER_BYTES, MAX_VALUE_BYTES, Member, SetEntry, SetName,
};
pub use self::mirror::{ResolveAnswer, UpstreamFailure};
pub use self::preheat::{MAX_PREHEAT_ERROR_BYTES, PreheatOrder, PreheatStage, PreheatState};
pub(crate) use self::record::Terms;
pub use self::record::{NameRecord, ProviderRecord, RecordError};
pub use self::replica::{
    KeepAnswer, Keeping, MAX_PARTS_PER_KEEP, MAX_PLACED_BLOBS, MAX_REPLICA_HOLDERS, PlacedPart,
    Placement,
};
pub use self::request::{Request, RequestEnvelope};
pub use self::response::{MemberSeen, NotSoon, RefuseReason, Response};
pub use self::signer::Signer;
pub use self::swarm::{
    BusyAnswer, HaveMap, Holder, MAX_HAVE_PIECES, MAX_HOLDERS, MAX_MAP_BYTES,
    MAX_SIGNED_CHAIN_BYTES, MAX_SWARM_MESSAGES, SignedChain, SwarmBody, SwarmMessage, SwarmPost,
};

/// Largest message in bytes, request or response.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Most nodes in one answer; k may be configured up to this.
pub const MAX_NODES: usize = 32;
/// Most provider records in one answer.
pub const MAX_RECORDS_PER_ANSWER: usize = 20;
/// Most provider records in one `PutProviders`.
pub const MAX_RECORDS_PER_PUT: usize = 128;
/// Most entries in one page of a set.
pub const MAX_ENTRIES_PER_PAGE: usize = 200;
/// Most bytes of the entries in one page of a set; what is left of a message is for the rest.
pub const MAX_PAGE_BYTES: usize = 60 * 1024;
/// Most records of one name in one answer, and that one node keeps of it.
pub const MAX_HISTORY: usize = 16;
/// Most members in one answer: more than vote on any name.
pub const MAX_MEMBERS_TOLD: usize = 64;
/// Most serials of revoked tokens in one message.
pub const MAX_REVOKED: usize = 1024;

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("message is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLarge,
    /// Not a message of this version, cut short, or followed by more bytes.
    #[error("message is malformed")]
    Malformed,
    /// A list or text in it is longer than its limit, which is named here.
    #[error("message exceeds the limit {0}")]
    OverLimit(&'static str),
}

fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).expect("every message type has a postcard form")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(WireError::TooLarge);
    }
    decode_any_length(bytes)
}

/// Reads one value that takes up all of `bytes`, whose length the caller has checked.
fn decode_any_length<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(WireError::Malformed),
    }
}

pub(crate) const fn at_most(len: usize, limit: usize, name: &'static str) -> Result<(), WireError> {
    if len > limit { Err(WireError::OverLimit(name)) } else { Ok(()) }
}
