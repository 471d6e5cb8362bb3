//! One of the disjoint paths of a lookup (S/Kademlia, section 4.4).
//!
//! A path is a Kademlia lookup of its own (Kademlia, section 2.3): it knows only the nodes that it
//! started with and those that its own answers named, so a lying node can spoil the path that met
//! it and no other. The path never decides what was found; the lookup merges.

use std::sync::Arc;

use super::rtt::Pace;
use crate::id::Distance;
use crate::time::Timestamp;
use crate::wire::Contact;

/// A path keeps at most this many times k candidates, the nearest ones.
const CANDIDATES_PER_K: usize = 3;

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
}

/// Candidates of one path, nearest first.
#[derive(Debug, Default)]
pub(super) struct Path {
    candidates: Vec<Candidate>,
}

/// What rules the steps of all paths of one lookup.
#[derive(Copy, Clone, Debug)]
pub(super) struct Rules {
    pub(super) k: usize,
    pub(super) alpha: usize,
    pub(super) now: Timestamp,
    pub(super) pace: Pace,
}

impl Path {
    /// Adds a node that an answer named; known ones and those beyond the limit are dropped.
    pub(super) fn offer(&mut self, distance: Distance, contact: Arc<Contact>, k: usize) {
        let Err(place) = self.candidates.binary_search_by_key(&distance, |c| c.distance) else {
            return;
        };
        let limit = CANDIDATES_PER_K * k;
        if place >= limit {
            return;
        }
        self.candidates.insert(place, Candidate { distance, contact, state: State::Fresh });
        if self.candidates.len() > limit {
            let far = self.candidates.iter().rposition(|c| !matches!(c.state, State::Asked { .. }));
            self.candidates.remove(far.unwrap_or(limit));
        }
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
        let may_answer = |candidate: &&Candidate| match candidate.state {
            State::Fresh | State::Answered => true,
            State::Asked { at } => rules.now.since_ms(at) < rules.pace.slow_ms,
            State::Failed => false,
        };
        let mut nearest = self.candidates.iter().filter(may_answer).take(rules.k);
        let fresh = nearest.find(|c| c.state == State::Fresh && !elsewhere(&c.contact));
        fresh.map(|candidate| Arc::clone(&candidate.contact))
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
    pub(super) fn nodes(&self) -> Vec<crate::id::NodeId> {
        self.candidates.iter().map(|candidate| candidate.contact.id).collect()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.candidates.len()
    }
}
