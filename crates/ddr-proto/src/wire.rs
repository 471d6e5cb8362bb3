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
mod signer;
mod swarm;

use ddr_oci::{RepositoryName, Tag, UpstreamHost};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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
pub use self::signer::Signer;
pub use self::swarm::{
    BusyAnswer, HaveMap, Holder, MAX_HAVE_PIECES, MAX_HOLDERS, MAX_MAP_BYTES,
    MAX_SIGNED_CHAIN_BYTES, MAX_SWARM_MESSAGES, SignedChain, SwarmBody, SwarmMessage, SwarmPost,
};
use crate::id::{Key, NodeId};

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

/// What one node asks another.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Are you there? Answered with [`Response::Pong`].
    Ping,
    /// The k nodes you know closest to `target` (Kademlia, section 2.3). Answer: `Nodes`.
    FindNode {
        /// The point to come near to.
        target: Key,
    },
    /// Holders of `key`, and the nodes closest to it. Answer: `Providers`.
    FindProviders {
        /// The content's key.
        key: Key,
    },
    /// Store these signed records (Kademlia's STORE). Answer: `Stored`.
    PutProviders {
        /// At most [`MAX_RECORDS_PER_PUT`].
        records: Vec<ProviderRecord>,
    },
    /// The name record that you keep under `key`. Answer: `Name`.
    GetName {
        /// The key of repository and tag.
        key: Key,
    },
    /// Store this name record if it is newer than yours. Answer: `NameStored`.
    PutName {
        /// The signed record.
        record: NameRecord,
    },
    /// Tokens that were revoked. Answer: `Pong`.
    Revoked {
        /// Serials, at most [`MAX_REVOKED`].
        serials: Vec<[u8; 16]>,
    },
    /// The entries that you keep of the set under `key`, in the order of members. Answer: `Set`.
    GetSet {
        /// The key of the set.
        key: Key,
        /// Only members that are not before this.
        from: Member,
        /// At most so many, and at most [`MAX_ENTRIES_PER_PAGE`].
        limit: u16,
    },
    /// Store this entry if it is newer than yours. Answer: `EntryStored`.
    PutEntry {
        /// The signed entry.
        entry: SetEntry,
    },
    /// Which provider records of these keys do you keep that I may lack? Answer: `Compared`.
    Compare {
        /// The keys.
        range: KeyRange,
        /// Of the marks.
        salt: Mark,
        /// The sums of the marks that I keep, one for each of the [`CELLS`] of the range.
        sums: [Mark; CELLS],
    },
    /// The provider records with these marks. Answer: `Records`.
    GetRecords {
        /// The keys.
        range: KeyRange,
        /// Of the marks.
        salt: Mark,
        /// At most [`MAX_RECORDS_PER_PUT`].
        marks: Vec<Mark>,
    },
    /// Bring an image to your disk, or say how that stands. Answer: `Preheat`.
    Preheat(PreheatOrder),
    /// Which of these parts do you keep? Answer: `Keeping`.
    Keep {
        /// Become a holder of those that you do not keep.
        take: bool,
        /// At most [`MAX_PARTS_PER_KEEP`] blobs.
        placement: Placement,
    },
    /// An operator says that this node is gone for good: it does not count any more. Answer: `Pong`.
    Gone {
        /// Who.
        node: NodeId,
    },
    /// Which record do you keep under `key`, and do you promise to accept nothing below this ballot?
    /// Answer: `Promise`. See [`crate::names::Promises`].
    PrepareName {
        /// The key of repository and tag.
        key: Key,
        /// The stamp that the record will have.
        stamp: u64,
        /// The public key that will sign it.
        writer: [u8; 32],
    },
    /// Store this name record if you have promised that and it takes no other digest away. Answer:
    /// `NameStored`.
    AcceptName {
        /// The signed record.
        record: NameRecord,
    },
    /// What you keep and kept of the name under `key`. Answer: `History`.
    GetHistory {
        /// The key of repository and tag.
        key: Key,
    },
    /// What does the registry say that the repository belongs to? Answer: `Resolved`.
    Resolve {
        /// A repository of another registry, by its name here.
        repository: RepositoryName,
        /// The tag.
        tag: Tag,
    },
    /// This registry said that it is asked too often. Answer: `Pong`.
    Paused {
        /// The registry.
        host: UpstreamHost,
        /// It is not to be asked for so many seconds.
        for_s: u32,
    },
    /// Whom do you count as members? Asked by a node that joins, so that it counts those, too, that it cannot
    /// reach now. Answer: `Members`.
    Members,
    /// Can I be reached? Dial me, over a connection of its own, at the addresses that you know of me. Answer:
    /// `Dialled`.
    DialMe,
    /// What does your clock say? Answer: `Time`.
    Time,
}

/// A request with who asks; the sender must be the node that the connection proved.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RequestEnvelope {
    /// The asking node. Its ID must equal the identity of the connection.
    pub sender: Contact,
    /// The X of the dynamic puzzle; all zero where the swarm has none.
    pub puzzle: [u8; 32],
    /// The request itself.
    pub body: Request,
}

/// What a node answers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// I am here.
    Pong {
        /// How many revoked tokens I know.
        revoked: u32,
        /// The X of my dynamic puzzle; all zero where the swarm has none.
        puzzle: [u8; 32],
    },
    /// The nodes closest to the target that I know alive, nearest first.
    Nodes {
        /// At most [`MAX_NODES`].
        nodes: Vec<Contact>,
    },
    /// Holders that I know, and the nodes closest to the key.
    Providers {
        /// At most [`MAX_RECORDS_PER_ANSWER`], a random choice when I have more.
        records: Vec<ProviderRecord>,
        /// At most [`MAX_NODES`], nearest first.
        nodes: Vec<Contact>,
    },
    /// How many of the records I keep now.
    Stored {
        /// Records kept, those that I had already included.
        accepted: u32,
        /// Records that need not come again soon, because their keys have plenty of holders; at
        /// most [`MAX_RECORDS_PER_PUT`].
        not_soon: Vec<NotSoon>,
    },
    /// The name record that I keep, if any.
    Name {
        /// The newest that I have.
        record: Option<NameRecord>,
        /// My clock, Unix milliseconds: who writes next stamps no later than most clocks have come.
        clock_ms: u64,
    },
    /// Whether the name record was stored durably.
    NameStored {
        /// True when the sent record is now the one kept here.
        stored: bool,
        /// The newest that I have when it is another one.
        newest: Option<NameRecord>,
    },
    /// I do not answer that.
    Refused {
        /// Why.
        reason: RefuseReason,
    },
    /// A page of a set.
    Set {
        /// At most [`MAX_ENTRIES_PER_PAGE`], in the order of members, deleted ones included.
        entries: Vec<SetEntry>,
        /// True when I keep members after these.
        more: bool,
        /// True when I joined lately: there may be members that I was not given yet.
        young: bool,
    },
    /// Whether the entry was stored durably.
    EntryStored {
        /// True when the sent entry is now the one kept here.
        stored: bool,
        /// The newest that I have when it is another one.
        newest: Option<SetEntry>,
    },
    /// What I keep in the cells whose sums differ from mine.
    Compared {
        /// At most [`MAX_MARKS`].
        marks: Vec<Mark>,
    },
    /// Provider records that were asked for.
    Records {
        /// At most [`MAX_RECORDS_PER_PUT`].
        records: Vec<ProviderRecord>,
    },
    /// How a preheat stands.
    Preheat(PreheatState),
    /// Which parts I keep.
    Keeping(KeepAnswer),
    /// Whether I promise, and what I keep.
    Promise {
        /// `None`: promised. Else the stamp of the higher ballot that has the promise.
        outbid_by: Option<u64>,
        /// The newest record that I have.
        record: Option<NameRecord>,
        /// True when I joined lately: that I have none means nothing.
        young: bool,
    },
    /// Records of one name.
    History {
        /// At most [`MAX_HISTORY`], newest first.
        records: Vec<NameRecord>,
    },
    /// What a registry says of a tag.
    Resolved(ResolveAnswer),
    /// Nodes that were alive lately, this one and the asking one left out.
    Members {
        /// At most [`MAX_MEMBERS_TOLD`], those closest to the asking node.
        members: Vec<MemberSeen>,
    },
    /// What came of dials to the addresses that I know of you.
    Dialled {
        /// At most [`MAX_ADDRS`], none after one that reached you; empty when I know none.
        tries: Vec<DialTry>,
    },
    /// What my clock says.
    Time {
        /// Unix milliseconds.
        clock_ms: u64,
    },
}

/// A node that was alive lately.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct MemberSeen {
    /// Who.
    pub contact: Contact,
    /// So many seconds ago.
    pub ago_s: u32,
}

/// A record of a key with plenty of holders.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NotSoon {
    /// Its place in the request.
    pub record: u8,
    /// It need not be published again for so many seconds.
    pub wait_s: u16,
}

/// Why a node refuses a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum RefuseReason {
    /// Too much to do at the moment; ask somebody else.
    Busy,
    /// The message was not understood or went over a limit.
    Malformed,
    /// The sender's ID is not the one that the connection proved.
    WrongSender,
    /// The sender's ID does not solve the swarm's puzzles.
    PuzzleUnsolved,
    /// A signature or the identity behind it is wrong.
    BadSignature,
    /// The record's stamp lies too far ahead of the clock here.
    ClockAhead,
    /// This node does not serve that request now.
    Unsupported,
    /// The sender broke the rules lately: nothing of it is answered for a while.
    Struck,
    /// I was away for so long that I do not trust what I keep of that.
    Doubtful,
}

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

impl RequestEnvelope {
    /// The message as bytes.
    ///
    /// # Panics
    /// Never: every type in it has a postcard form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message; all limits hold for what is returned.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let envelope: Self = decode(bytes)?;
        envelope.check_limits()?;
        Ok(envelope)
    }

    /// Checks every list and text against its limit.
    pub fn check_limits(&self) -> Result<(), WireError> {
        self.sender.check_limits()?;
        match &self.body {
            Request::PutProviders { records } => {
                at_most(records.len(), MAX_RECORDS_PER_PUT, "MAX_RECORDS_PER_PUT")?;
                records.iter().try_for_each(|record| record.provider.check_limits())
            }
            Request::Revoked { serials } => at_most(serials.len(), MAX_REVOKED, "MAX_REVOKED"),
            Request::PutEntry { entry } => entry.check_limits(),
            Request::GetSet { from, .. } => from.check_limits(),
            Request::Compare { range, .. } => range.check_limits(),
            Request::GetRecords { range, marks, .. } => {
                at_most(marks.len(), MAX_RECORDS_PER_PUT, "MAX_RECORDS_PER_PUT")?;
                range.check_limits()
            }
            Request::Preheat(order) => order.check_limits(),
            Request::Keep { placement, .. } => placement.check_limits(),
            Request::Ping
            | Request::FindNode { .. }
            | Request::FindProviders { .. }
            | Request::GetName { .. }
            | Request::PutName { .. }
            | Request::Gone { .. }
            | Request::PrepareName { .. }
            | Request::AcceptName { .. }
            | Request::GetHistory { .. }
            | Request::Resolve { .. }
            | Request::Paused { .. }
            | Request::Members
            | Request::DialMe
            | Request::Time => Ok(()),
        }
    }
}

impl Response {
    /// The message as bytes.
    ///
    /// # Panics
    /// Never: every type in it has a postcard form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a message; all limits hold for what is returned.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let response: Self = decode(bytes)?;
        response.check_limits()?;
        Ok(response)
    }

    /// Checks every list and text against its limit.
    pub fn check_limits(&self) -> Result<(), WireError> {
        let (records, nodes): (&[ProviderRecord], &[Contact]) = match self {
            Self::Nodes { nodes } => (&[], nodes),
            Self::Providers { records, nodes } => (records, nodes),
            Self::Set { entries, .. } => {
                at_most(entries.len(), MAX_ENTRIES_PER_PAGE, "MAX_ENTRIES_PER_PAGE")?;
                return entries.iter().try_for_each(SetEntry::check_limits);
            }
            Self::Stored { not_soon, .. } => {
                return at_most(not_soon.len(), MAX_RECORDS_PER_PUT, "MAX_RECORDS_PER_PUT");
            }
            Self::Compared { marks } => return at_most(marks.len(), MAX_MARKS, "MAX_MARKS"),
            Self::Records { records } => {
                at_most(records.len(), MAX_RECORDS_PER_PUT, "MAX_RECORDS_PER_PUT")?;
                return records.iter().try_for_each(|record| record.provider.check_limits());
            }
            Self::Preheat(state) => return state.check_limits(),
            Self::Keeping(answer) => return answer.check_limits(),
            Self::History { records } => return at_most(records.len(), MAX_HISTORY, "MAX_HISTORY"),
            Self::EntryStored { newest: Some(newest), .. } => return newest.check_limits(),
            Self::Members { members } => {
                at_most(members.len(), MAX_MEMBERS_TOLD, "MAX_MEMBERS_TOLD")?;
                return members.iter().try_for_each(|member| member.contact.check_limits());
            }
            Self::Dialled { tries } => return dial::check_tries(tries),
            _ => return Ok(()),
        };
        at_most(records.len(), MAX_RECORDS_PER_ANSWER, "MAX_RECORDS_PER_ANSWER")?;
        at_most(nodes.len(), MAX_NODES, "MAX_NODES")?;
        records.iter().try_for_each(|record| record.provider.check_limits())?;
        nodes.iter().try_for_each(Contact::check_limits)
    }
}

impl NameRecord {
    /// The key under which this record is kept.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of_name(&self.repository, &self.tag)
    }

    /// The name that this record speaks about.
    #[must_use]
    pub const fn name(&self) -> (&RepositoryName, &Tag) {
        (&self.repository, &self.tag)
    }
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
