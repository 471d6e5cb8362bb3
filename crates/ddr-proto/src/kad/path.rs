//! One of the disjoint paths of a lookup (S/Kademlia, section 4.4).
//!
//! A path is a Kademlia lookup of its own (Kademlia, section 2.3): it knows only the nodes that it
//! started with and those that its own answers named, so a lying node can spoil the path that met
//! it and no other. The path never decides what was found; the lookup merges.

use std::sync::Arc;

use super::rtt::Pace;
use crate::id::{Distance, NodeId};
use crate::time::Timestamp;
use crate::wire::Contact;

/// A path keeps at most this many times k candidates, the nearest ones.
const CANDIDATES_PER_K: usize = 3;
/// A node whose word led to at least this many silent nodes, and to more than this many times as
/// many as answered, is not believed any more: what only such nodes have named is not asked.
const SILENT_TO_DISBELIEVE: usize = 4;
const SILENT_PER_ANSWER: usize = 3;
/// Nodes of a path whose word is weighed; those that answer after so many are always believed.
const MAX_SOURCES: u32 = 63;
/// Most of the nodes that one source has named that are asked for its word alone.
pub const MAX_FOLLOWED: usize = 8;
/// The source of the nodes that a path starts from: the own table, always believed.
const OWN_TABLE: u64 = 1;

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum State {
    Fresh,
    Asked { at: Timestamp },
    Answered,
    Failed,
}

#[derive(Debug)]
struct Candidate {
    distance: Distance,
    contact: Arc<Contact>,
    state: State,
    /// Bit i is set when source i has named it.
    named_by: u64,
}

/// Candidates of one path, nearest first.
#[derive(Debug, Default)]
pub(super) struct Path {
    candidates: Vec<Candidate>,
    /// Nodes that have named candidates; number i stands for source i + 1.
    sources: Vec<NodeId>,
}

/// What rules the steps of all paths of one lookup.
#[derive(Copy, Clone, Debug)]
pub(super) struct Rules {
    pub(super) k: usize,
    /// Of the nodes that one source has named so many are asked, however near others lie.
    pub(super) followed: usize,
    pub(super) alpha: usize,
    pub(super) now: Timestamp,
    pub(super) pace: Pace,
}

impl Path {
    /// Adds a node that an answer of `source` named, `None` for the own table.
    ///
    /// When there are too many, the farthest of those that the most talkative source was the first
    /// to name goes: a liar crowds out nobody but itself.
    pub(super) fn offer(
        &mut self,
        distance: Distance,
        contact: Arc<Contact>,
        source: Option<&NodeId>,
        k: usize,
    ) {
        let named_by = source.map_or(OWN_TABLE, |source| self.source_bit(source));
        match self.candidates.binary_search_by_key(&distance, |c| c.distance) {
            Ok(place) => self.candidates[place].named_by |= named_by,
            Err(place) => {
                let candidate = Candidate { distance, contact, state: State::Fresh, named_by };
                self.candidates.insert(place, candidate);
                if self.candidates.len() > CANDIDATES_PER_K * k {
                    self.drop_one();
                }
            }
        }
    }

    fn source_bit(&mut self, source: &NodeId) -> u64 {
        let known = self.sources.iter().rposition(|known| known == source);
        let number = known.unwrap_or(self.sources.len());
        if known.is_none() && number < MAX_SOURCES as usize {
            self.sources.push(*source);
        }
        1 << (number as u32 + 1).min(MAX_SOURCES)
    }

    fn drop_one(&mut self) {
        let mut fresh = [0_usize; 64];
        let first_source = |candidate: &Candidate| candidate.named_by.trailing_zeros() as usize;
        for candidate in self.candidates.iter().filter(|c| c.state == State::Fresh) {
            fresh[first_source(candidate)] += 1;
        }
        let most = fresh.iter().max().copied().unwrap_or(0);
        let far = self.candidates.iter().rposition(|candidate| {
            candidate.state == State::Fresh && fresh[first_source(candidate)] == most
        });
        let far = far.or_else(|| {
            self.candidates.iter().rposition(|c| !matches!(c.state, State::Asked { .. }))
        });
        if let Some(far) = far {
            self.candidates.remove(far);
        }
    }

    /// The sources that are believed, as bits.
    fn believed(&self, rules: &Rules) -> u64 {
        let (mut silent, mut answered) = ([0_usize; 64], [0_usize; 64]);
        for candidate in &self.candidates {
            let count = match candidate.state {
                State::Fresh => continue,
                State::Answered => &mut answered,
                State::Asked { at } if rules.now.since_ms(at) < rules.pace.slow_ms => continue,
                State::Asked { .. } | State::Failed => &mut silent,
            };
            let mut left = candidate.named_by;
            while left != 0 {
                count[left.trailing_zeros() as usize] += 1;
                left &= left - 1;
            }
        }
        let lied = |source: &u32| {
            let (silent, answered) = (silent[*source as usize], answered[*source as usize]);
            silent >= SILENT_TO_DISBELIEVE && silent > SILENT_PER_ANSWER * answered
        };
        let liars = (1..MAX_SOURCES).filter(lied).fold(0, |liars, source| liars | 1 << source);
        !liars
    }

    /// The next node to ask: the nearest one not asked yet among the k nearest that may answer.
    ///
    /// `elsewhere` tells that another path has taken a node; that path asks it, so here it counts
    /// as done. Slow nodes do not count among the k nearest nor as in flight.
    pub(super) fn next(
        &self,
        rules: &Rules,
        elsewhere: impl Fn(&Contact) -> bool,
    ) -> Option<Arc<Contact>> {
        if self.in_flight(rules) >= rules.alpha {
            return None;
        }
        self.next_unasked(rules, elsewhere)
    }

    /// Like [`Self::next`], whatever is in flight: `None` means that nobody is left to ask.
    pub(super) fn next_unasked(
        &self,
        rules: &Rules,
        elsewhere: impl Fn(&Contact) -> bool,
    ) -> Option<Arc<Contact>> {
        let believed = self.believed(rules);
        let may_answer = |candidate: &&Candidate| match candidate.state {
            State::Fresh => candidate.named_by & believed != 0,
            State::Answered => true,
            State::Asked { at } => rules.now.since_ms(at) < rules.pace.slow_ms,
            State::Failed => false,
        };
        let is_next = |c: &&Candidate| c.state == State::Fresh && !elsewhere(&c.contact);
        let mut nearest = self.candidates.iter().filter(may_answer).take(rules.k);
        let mut next = nearest.find(is_next);
        if next.is_none() && rules.followed > 0 {
            next = self.followed(believed, rules.followed).find(is_next);
        }
        next.map(|candidate| Arc::clone(&candidate.contact))
    }

    /// What keeps a liar from speaking for the whole path: the nodes of the own table, and the
    /// `count` nearest that each believed source has named.
    fn followed(&self, believed: u64, count: usize) -> impl Iterator<Item = &Candidate> {
        let mut heard = [0_u64; MAX_FOLLOWED];
        self.candidates.iter().filter(move |candidate| {
            let named_by = candidate.named_by & believed;
            let mut rest = named_by;
            for heard in heard.iter_mut().take(count) {
                let again = *heard & rest;
                *heard |= rest;
                rest = again;
            }
            named_by & (OWN_TABLE | !rest) != 0
        })
    }

    /// Calls that wait and are not slow yet.
    fn in_flight(&self, rules: &Rules) -> usize {
        self.waiting().filter(|at| rules.now.since_ms(*at) < rules.pace.slow_ms).count()
    }

    /// When the calls that still wait were sent.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Timestamp> {
        self.candidates.iter().filter_map(|candidate| match candidate.state {
            State::Asked { at } => Some(at),
            State::Fresh | State::Answered | State::Failed => None,
        })
    }

    /// Whether this path has heard of the node at that distance.
    pub(super) fn knows(&self, distance: &Distance) -> bool {
        self.candidates.binary_search_by_key(distance, |c| c.distance).is_ok()
    }

    pub(super) fn asked(&mut self, distance: &Distance, now: Timestamp) {
        self.set(distance, State::Asked { at: now });
    }

    pub(super) fn answered(&mut self, distance: &Distance) {
        self.set(distance, State::Answered);
    }

    pub(super) fn failed(&mut self, distance: &Distance) {
        self.set(distance, State::Failed);
    }

    fn set(&mut self, distance: &Distance, state: State) {
        if let Ok(place) = self.candidates.binary_search_by_key(distance, |c| c.distance) {
            self.candidates[place].state = state;
        }
    }

    #[cfg(test)]
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.candidates.iter().map(|candidate| candidate.contact.id).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }
}
