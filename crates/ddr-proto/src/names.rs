//! Quorum arithmetic for tags: when a write is done and which answer a read may believe.
//!
//! The record of a name lives on its voters, the K nodes closest to the name's key. A write is done
//! when a majority W = K/2 + 1 keeps it or something newer; a read needs R = K + 1 - W answers, so
//! every read meets every earlier finished write in at least one voter (W + R = K + 1 > K). Where
//! there are [`FULL`] voters there may be more nodes, and who the closest are changes as nodes come and
//! go: there both ask [`MARGIN`] more, so a read meets a write in 2 * MARGIN + 1 voters, and may find as
//! many as 2 * MARGIN of them replaced by nodes that know nothing yet. The newest by (stamp, writer) wins. These are plain values: they count answers, they never wait;
//! the driver owns deadlines, verifies signatures and keys, and writes the newest back to voters
//! that were behind.

mod promises;
mod sets;

use std::cmp::Ordering;
use std::collections::BTreeMap;

pub use self::promises::{Ballot, MAX_PROMISES, NoPromise, PROMISE_MS, Promises};
pub use self::sets::{MergedEntry, MergedPage, SetDecision, SetPage, SetRead};
use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, NameRecord, SetEntry};

/// A record whose stamp lies further ahead of a storing node's clock is refused.
pub const MAX_AHEAD_MS: u64 = 60_000;
/// Bits of a stamp below the milliseconds.
pub const STAMP_COUNTER_BITS: u32 = 16;

/// What is kept as a register: of two records of one name, or of one member, the newer holds.
pub trait Register: Clone + Eq {
    /// The order of records of one register: the newest is the greatest.
    fn cmp_newness(&self, other: &Self) -> Ordering;
}

impl Register for NameRecord {
    fn cmp_newness(&self, other: &Self) -> Ordering {
        Self::cmp_newness(self, other)
    }
}

impl Register for SetEntry {
    fn cmp_newness(&self, other: &Self) -> Ordering {
        Self::cmp_newness(self, other)
    }
}

/// So many voters a name has at most; the K of design.md, section 7.
pub const FULL: usize = 20;
/// Voters that reads and writes ask beyond what is needed where voters may be replaced.
pub const MARGIN: usize = 2;

/// Voters that must keep a record before its write is done.
#[must_use]
pub const fn write_quorum(voters: usize) -> usize {
    voters / 2 + 1 + margin(voters)
}

/// Voters that must answer before a read may believe the newest answer.
#[must_use]
pub const fn read_quorum(voters: usize) -> usize {
    voters - voters / 2 + margin(voters)
}

const fn margin(voters: usize) -> usize {
    if voters < FULL { 0 } else { MARGIN }
}

/// The stamp of a new record: later than `seen`, and not before `now`.
#[must_use]
pub fn next_stamp(seen: Option<u64>, now: Timestamp) -> u64 {
    let clock = now.0.checked_shl(STAMP_COUNTER_BITS).unwrap_or(u64::MAX);
    seen.map_or(clock, |seen| clock.max(seen.saturating_add(1)))
}

/// The time by which a writer stamps: its own, but no later than as many of the voters have come as must keep
/// the record. Else a node that is far ahead leaves a record with those that are as far ahead, which the
/// others refuse: nobody has a majority for that name then. `clocks` are those of the voters that answered.
#[must_use]
pub fn common_time(own: Timestamp, clocks: Vec<Timestamp>, voters: usize) -> Timestamp {
    reached_time(clocks, voters).map_or(own, |reached| own.min(reached))
}

/// The time that as many of the voters have come to as must keep a record, or all that answered if these are
/// fewer; `None` where nobody did.
#[must_use]
pub fn reached_time(mut clocks: Vec<Timestamp>, voters: usize) -> Option<Timestamp> {
    clocks.sort_unstable_by(|a, b| b.cmp(a));
    let last = write_quorum(voters).min(clocks.len()).saturating_sub(1);
    clocks.get(last).copied()
}

/// The milliseconds of a stamp.
#[must_use]
pub const fn stamp_ms(stamp: u64) -> u64 {
    stamp >> STAMP_COUNTER_BITS
}

/// Whether a storing node may accept a stamp: at most [`MAX_AHEAD_MS`] ahead of its clock.
#[must_use]
pub const fn stamp_is_acceptable(stamp: u64, now: Timestamp) -> bool {
    stamp_ms(stamp) <= now.0.saturating_add(MAX_AHEAD_MS)
}

/// Whether a storing node that keeps `kept` must take `offered` instead.
#[must_use]
pub fn supersedes<R: Register>(offered: &R, kept: Option<&R>) -> bool {
    kept.is_none_or(|kept| offered.cmp_newness(kept).is_gt())
}

/// The voters of a name: the k nodes closest to its key, own node included when it is one of them.
///
/// `answered` are the nodes that a lookup of `key` brought, without the own node.
#[must_use]
pub fn voters(own: &Contact, answered: &[Contact], key: &Key, k: usize) -> Vec<Contact> {
    let mut voters: Vec<Contact> = answered.to_vec();
    voters.push(own.clone());
    voters.sort_by_key(|contact| contact.id.distance(key));
    voters.dedup_by_key(|contact| contact.id);
    voters.truncate(k);
    voters
}

#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a handful of these live at a time; a box would buy nothing"
)]
enum Vote {
    Pending,
    Answered(Option<NameRecord>),
    Failed,
}

/// Counts the answers of one read. Answers of non-voters and second answers change nothing.
#[derive(Clone, Debug)]
pub struct Read {
    votes: BTreeMap<NodeId, Vote>,
}

/// What a read knows so far.
#[derive(Clone, Debug, Eq, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a handful of these live at a time; a box would buy nothing"
)]
pub enum ReadDecision {
    /// Not enough answers yet.
    Wait,
    /// The name's newest record.
    Newest {
        /// The record; a tombstone when its digest is `None`.
        record: NameRecord,
        /// Voters that answered with less: write the record back to them. When fewer than
        /// [`write_quorum`] voters are known to keep it, also those that have not answered yet;
        /// await the write before believing it.
        behind: Vec<NodeId>,
        /// How many voters are known to keep it.
        kept_by: usize,
    },
    /// A majority knows nothing, others may still answer: the driver may wait a little longer.
    NothingYet,
    /// Every voter that can be reached knows nothing, and they are a quorum.
    Nothing,
    /// Too many voters failed.
    Impossible {
        /// Answers that came.
        answered: usize,
        /// Answers that are needed.
        needed: usize,
    },
}

impl Read {
    /// A read of the record that these voters keep.
    pub fn new(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { votes: voters.into_iter().map(|voter| (voter, Vote::Pending)).collect() }
    }

    /// A voter answered; the record must be verified and of the right key.
    pub fn answered(&mut self, voter: NodeId, record: Option<NameRecord>) {
        if let Some(vote @ Vote::Pending) = self.votes.get_mut(&voter) {
            *vote = Vote::Answered(record);
        }
    }

    /// A voter cannot be reached, or lied.
    pub fn failed(&mut self, voter: NodeId) {
        if let Some(vote @ Vote::Pending) = self.votes.get_mut(&voter) {
            *vote = Vote::Failed;
        }
    }

    /// How many voters answered.
    #[must_use]
    pub fn count_answered(&self) -> usize {
        self.answers().count()
    }

    /// The newest record that any voter told, however few they are: it may be outdated.
    #[must_use]
    pub fn newest(&self) -> Option<&NameRecord> {
        self.answers().filter_map(|(_, record)| record).max_by(|a, b| a.cmp_newness(b))
    }

    fn answers(&self) -> impl Iterator<Item = (NodeId, Option<&NameRecord>)> {
        self.votes.iter().filter_map(|(voter, vote)| match vote {
            Vote::Answered(record) => Some((*voter, record.as_ref())),
            Vote::Pending | Vote::Failed => None,
        })
    }

    /// What may be believed now.
    #[must_use]
    pub fn decide(&self) -> ReadDecision {
        let voters = self.votes.len();
        // Without voters there is nobody to believe.
        let needed = read_quorum(voters).max(1);
        let answered = self.count_answered();
        let pending = self.votes.values().filter(|vote| **vote == Vote::Pending).count();
        if answered < needed {
            if answered + pending < needed {
                return ReadDecision::Impossible { answered, needed };
            }
            return ReadDecision::Wait;
        }
        let Some(newest) = self.newest() else {
            return match pending {
                0 => ReadDecision::Nothing,
                _ if answered >= write_quorum(voters) => ReadDecision::NothingYet,
                _ => ReadDecision::Wait,
            };
        };
        let mut behind: Vec<NodeId> = self
            .answers()
            .filter(|(_, record)| record.is_none_or(|record| record.cmp_newness(newest).is_lt()))
            .map(|(voter, _)| voter)
            .collect();
        let kept_by = answered - behind.len();
        // Of an even number of voters a read quorum is no majority: if all of it keeps the record,
        // the other half may still lack it, and another reader may hear that half only.
        if kept_by < write_quorum(voters) {
            let unheard = self.votes.iter().filter(|(_, vote)| **vote == Vote::Pending);
            behind.extend(unheard.map(|(voter, _)| *voter));
        }
        ReadDecision::Newest { record: newest.clone(), behind, kept_by }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ack {
    Pending,
    Kept,
    Failed,
}

/// Counts the answers of one write. Answers of non-voters and second answers change nothing.
#[derive(Clone, Debug)]
pub struct Write<R = NameRecord> {
    record: R,
    acks: BTreeMap<NodeId, Ack>,
    newer: Option<R>,
}

/// What a write knows so far.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WriteDecision<R = NameRecord> {
    /// Not enough answers yet.
    Wait,
    /// A majority keeps the record, or one that is newer.
    Done {
        /// The newest record that a voter keeps instead: somebody else's later write.
        superseded_by: Option<R>,
    },
    /// Too many voters failed or refused. The record may still be kept by some.
    Impossible {
        /// Voters that keep it.
        kept: usize,
        /// Voters that must.
        needed: usize,
    },
}

impl<R: Register> Write<R> {
    /// A write of `record` to these voters.
    pub fn new(record: R, voters: impl IntoIterator<Item = NodeId>) -> Self {
        let acks = voters.into_iter().map(|voter| (voter, Ack::Pending)).collect();
        Self { record, acks, newer: None }
    }

    /// The record that is being written.
    #[must_use]
    pub const fn record(&self) -> &R {
        &self.record
    }

    /// A voter keeps the record durably.
    pub fn stored(&mut self, voter: NodeId) {
        self.settle(voter, Ack::Kept);
    }

    /// A voter did not store the record; `newest` is what it keeps instead, verified.
    ///
    /// A voter that keeps a newer record has this write behind it and counts as one that keeps it.
    pub fn not_stored(&mut self, voter: NodeId, newest: Option<R>) {
        let covers = |kept: &R| kept.cmp_newness(&self.record).is_ge();
        let Some(kept) = newest.filter(covers) else {
            return self.settle(voter, Ack::Failed);
        };
        if self.acks.get(&voter) == Some(&Ack::Pending)
            && kept != self.record
            && supersedes(&kept, self.newer.as_ref())
        {
            self.newer = Some(kept);
        }
        self.settle(voter, Ack::Kept);
    }

    /// A voter cannot be reached, or refused.
    pub fn failed(&mut self, voter: NodeId) {
        self.settle(voter, Ack::Failed);
    }

    /// How many voters are told.
    #[must_use]
    pub fn count_voters(&self) -> usize {
        self.acks.len()
    }

    /// How many voters keep the record, or something newer.
    #[must_use]
    pub fn count_kept(&self) -> usize {
        self.count(Ack::Kept)
    }

    fn count(&self, wanted: Ack) -> usize {
        self.acks.values().filter(|ack| **ack == wanted).count()
    }

    /// Whether the write is done.
    #[must_use]
    pub fn decide(&self) -> WriteDecision<R> {
        let needed = write_quorum(self.acks.len());
        let kept = self.count_kept();
        if kept >= needed {
            WriteDecision::Done { superseded_by: self.newer.clone() }
        } else if kept + self.count(Ack::Pending) < needed {
            WriteDecision::Impossible { kept, needed }
        } else {
            WriteDecision::Wait
        }
    }

    fn settle(&mut self, voter: NodeId, outcome: Ack) {
        if let Some(ack @ Ack::Pending) = self.acks.get_mut(&voter) {
            *ack = outcome;
        }
    }
}
