//! What one node asks another.

use ddr_oci::{RepositoryName, Tag, UpstreamHost};
use serde::{Deserialize, Serialize};

use super::{
    CELLS, Contact, KeyRange, MAX_RECORDS_PER_PUT, MAX_REVOKED, Mark, Member, NameRecord,
    Placement, PreheatOrder, ProviderRecord, SetEntry, WireError, at_most, decode, encode,
};
use crate::id::{Key, NodeId};

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
