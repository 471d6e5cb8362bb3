//! Reading a set page by page: the union of what the voters keep, the newest entry of each member.
//!
//! A page reaches as far as every answer reaches: a voter that has more says nothing about members
//! after its last one, so what others say beyond that waits for the next page. These are plain
//! values: the driver asks, waits, verifies signatures and writes back.

use std::collections::BTreeMap;

use super::{read_quorum, supersedes, write_quorum};
use crate::id::NodeId;

use crate::wire::{
    MAX_ENTRIES_PER_PAGE, MAX_PAGE_BYTES, MAX_VALUE_BYTES, Member, SetEntry, SetName,
};

/// Bytes of the shortest page that has no room for the longest entry, with what is around its value.
const LEAST_FULL_BYTES: usize = MAX_PAGE_BYTES - MAX_VALUE_BYTES - 2 * 1024;

/// What one voter keeps of a set, from some member on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SetPage {
    /// In the order of members, deleted ones included.
    pub entries: Vec<SetEntry>,
    /// True when the voter keeps members after these.
    pub more: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Vote {
    Pending,
    /// Counts for the quorum.
    Answered(SetPage),
    /// May lack members: it adds to the union only.
    Young(SetPage),
    Failed,
}

/// Counts and merges the answers for one page. Answers of non-voters and second answers change
/// nothing.
#[derive(Clone, Debug)]
pub struct SetRead {
    votes: BTreeMap<NodeId, Vote>,
}

/// Whether a page may be believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetDecision {
    /// Not enough answers yet.
    Wait,
    /// Enough answers; more may still come.
    Ready,
    /// Too many voters failed.
    Impossible {
        /// Answers that came.
        answered: usize,
        /// Answers that are needed.
        needed: usize,
    },
}

/// The newest entry of one member.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MergedEntry {
    /// The entry; it may say that the member is deleted.
    pub entry: SetEntry,
    /// Voters that answered with less. When fewer than [`write_quorum`] voters keep the entry, also
    /// those that have not answered yet; await the write before believing it.
    pub behind: Vec<NodeId>,
    /// How many voters are known to keep it.
    pub kept_by: usize,
}

/// What the voters keep together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MergedPage {
    /// In the order of members, deleted ones included.
    pub entries: Vec<MergedEntry>,
    /// Where the next page begins; `None` at the end of the set.
    pub next: Option<Member>,
}

impl SetPage {
    /// Whether the page is one of `set` from `from` on, of which `limit` entries were asked: its
    /// entries are of that set, in order, each once, and a page that has more is not short. Whoever
    /// gave one member at a time would make a list of many pages.
    #[must_use]
    pub fn is_of(&self, set: &SetName, from: &Member, limit: usize) -> bool {
        let mut least = from.clone();
        for entry in &self.entries {
            let member = entry.member();
            if entry.set() != *set || member < least {
                return false;
            }
            least = member.successor();
        }
        !self.more || self.is_full(limit)
    }
}

impl SetPage {
    /// Whether there was no room for another entry: by half, since a row may have rotted on a disk.
    fn is_full(&self, limit: usize) -> bool {
        let limit = limit.clamp(1, MAX_ENTRIES_PER_PAGE);
        let bytes = || self.entries.iter().map(|entry| entry.to_bytes().len()).sum::<usize>();
        self.entries.len() >= limit.div_ceil(2) || bytes() >= LEAST_FULL_BYTES
    }
}

impl SetRead {
    /// A read of what these voters keep.
    pub fn new(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { votes: voters.into_iter().map(|voter| (voter, Vote::Pending)).collect() }
    }

    /// A voter answered; the entries must be verified and [`SetPage::is_of`] the set.
    pub fn answered(&mut self, voter: NodeId, page: SetPage) {
        self.settle(voter, Vote::Answered(page));
    }

    /// A voter answered that may lack members.
    pub fn answered_young(&mut self, voter: NodeId, page: SetPage) {
        self.settle(voter, Vote::Young(page));
    }

    /// A voter cannot be reached, or lied.
    pub fn failed(&mut self, voter: NodeId) {
        self.settle(voter, Vote::Failed);
    }

    /// Lets young voters count when nobody is left who could know more: every voter has spoken.
    pub fn count_young(&mut self) {
        if self.votes.values().any(|vote| matches!(vote, Vote::Pending | Vote::Failed)) {
            return;
        }
        for vote in self.votes.values_mut() {
            if let Vote::Young(page) = vote {
                *vote = Vote::Answered(std::mem::take(page));
            }
        }
    }

    /// Whether what [`Self::merge`] gives may be believed.
    #[must_use]
    pub fn decide(&self) -> SetDecision {
        let needed = read_quorum(self.votes.len()).max(1);
        let count = |wanted: fn(&Vote) -> bool| self.votes.values().filter(|v| wanted(v)).count();
        let answered = self.count_answered();
        if answered >= needed {
            return SetDecision::Ready;
        }
        let open = count(|vote| matches!(vote, Vote::Pending));
        // The young may come to count while nobody has failed.
        let failed = count(|vote| matches!(vote, Vote::Failed));
        let young = if failed == 0 { count(|vote| matches!(vote, Vote::Young(_))) } else { 0 };
        if open > 0 && answered + open + young >= needed {
            SetDecision::Wait
        } else {
            SetDecision::Impossible { answered, needed }
        }
    }

    /// How many voters answered whose answers count for the quorum.
    #[must_use]
    pub fn count_answered(&self) -> usize {
        self.votes.values().filter(|vote| matches!(vote, Vote::Answered(_))).count()
    }

    /// How many are asked.
    #[must_use]
    pub fn count_voters(&self) -> usize {
        self.votes.len()
    }

    /// True while an answer is missing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.votes.values().any(|vote| *vote == Vote::Pending)
    }

    /// True when every voter has answered: then nobody else knows of anything newer.
    #[must_use]
    pub fn has_heard_all(&self) -> bool {
        self.votes.values().all(|vote| matches!(vote, Vote::Answered(_) | Vote::Young(_)))
    }

    /// The newest entry of each member as far as all answers reach.
    #[must_use]
    pub fn merge(&self) -> MergedPage {
        let pages = || {
            self.votes.iter().filter_map(|(voter, vote)| match vote {
                Vote::Answered(page) | Vote::Young(page) => Some((*voter, page)),
                Vote::Pending | Vote::Failed => None,
            })
        };
        let last = |page: &SetPage| page.entries.last().map(SetEntry::member);
        let reach = pages().filter(|(_, page)| page.more).filter_map(|(_, page)| last(page)).min();
        let mut kept: BTreeMap<Member, BTreeMap<NodeId, &SetEntry>> = BTreeMap::new();
        for (voter, page) in pages() {
            for entry in &page.entries {
                let member = entry.member();
                if reach.as_ref().is_none_or(|reach| member <= *reach) {
                    kept.entry(member).or_default().insert(voter, entry);
                }
            }
        }
        let heard: Vec<NodeId> = pages().map(|(voter, _)| voter).collect();
        let unheard = self.votes.iter().filter(|(_, vote)| **vote == Vote::Pending);
        let unheard: Vec<NodeId> = unheard.map(|(voter, _)| *voter).collect();
        let quorum = write_quorum(self.votes.len());
        let entries = kept.into_values().filter_map(|kept| {
            let mut merged = merged(&heard, &kept)?;
            // See [`super::Read::decide`].
            if merged.kept_by < quorum {
                merged.behind.extend_from_slice(&unheard);
            }
            Some(merged)
        });
        let entries = entries.collect();
        MergedPage { entries, next: reach.map(|reach| reach.successor()) }
    }

    fn settle(&mut self, voter: NodeId, outcome: Vote) {
        if let Some(vote @ Vote::Pending) = self.votes.get_mut(&voter) {
            *vote = outcome;
        }
    }
}

fn merged(voters: &[NodeId], kept: &BTreeMap<NodeId, &SetEntry>) -> Option<MergedEntry> {
    let newest = *kept.values().max_by(|one, two| one.cmp_newness(two))?;
    let lacks = |voter: &&NodeId| supersedes(newest, kept.get(voter).copied());
    let behind: Vec<NodeId> = voters.iter().filter(lacks).copied().collect();
    Some(MergedEntry { entry: newest.clone(), kept_by: voters.len() - behind.len(), behind })
}
