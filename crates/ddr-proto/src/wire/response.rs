//! What a node answers.

use serde::{Deserialize, Serialize};

use super::{
    Contact, DialTry, KeepAnswer, MAX_ENTRIES_PER_PAGE, MAX_HISTORY, MAX_MARKS, MAX_MEMBERS_TOLD,
    MAX_NODES, MAX_RECORDS_PER_ANSWER, MAX_RECORDS_PER_PUT, Mark, NameRecord, PreheatState,
    ProviderRecord, ResolveAnswer, SetEntry, WireError, at_most, decode, dial, encode,
};

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
