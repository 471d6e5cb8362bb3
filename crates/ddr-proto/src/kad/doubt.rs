//! Lookups that may have been led astray, and what is done about them.
//!
//! S/Kademlia, section 4.4: a lookup succeeds as long as one of its d disjoint paths meets no
//! adversary, and more paths make that likelier. Honest swarms do well with few paths, so a lookup
//! takes `paths` of them, and goes on with `paths_under_suspicion` when its result looks wrong:
//!
//! - its closest set is too dense to be true for the size of the swarm: somebody has put many IDs
//!   around the key. Then nodes farther away are asked as well, to get past them;
//! - it is too sparse: the true closest nodes were kept from it;
//! - most of its paths have never heard of most of the closest nodes that the others found;
//! - as many nodes failed as answered.
//!
//! The second round starts from the nearest and from random nodes of the routing table; what the
//! first has found is kept. There is no third.

use std::sync::Arc;

use super::Kad;
use super::lookup::{Lookup, LookupId};
use super::path::Rules;
use crate::id::Key;
use crate::wire::Contact;

/// A k-th nearest node this many times nearer than expected is too near, and one so many times farther
/// too far. With k = 20 an honest one is once in 300 and once in 10^4 lookups; while the size of the
/// swarm is known roughly, once in 30: the price is a second round.
const TOO_DENSE: u64 = 2;
const TOO_SPARSE: u64 = 2;
/// In a swarm of at most this many times k nodes a node knows nearly everybody anyway.
const LEAST_NODES_PER_K: u64 = 2;
/// Behind a crowd of IDs the lookup goes on to so many times k nodes: as many as a path remembers.
const BREADTH_PER_K: usize = 3;

/// What is wrong with a lookup.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Doubt {
    Dense,
    Other,
}

impl Kad {
    /// Lookups that looked wrong and went on with more paths, since the start.
    #[must_use]
    pub const fn doubted_lookups(&self) -> u64 {
        self.searches.doubted
    }

    /// Starts the second round of a lookup that ended, if its result looks wrong. Returns the lookup
    /// when it is to end.
    pub(super) fn look_again_in_doubt(
        &mut self,
        id: LookupId,
        mut lookup: Box<Lookup>,
        rules: &Rules,
    ) -> Option<Box<Lookup>> {
        let (paths, k) = (self.cfg.paths_under_suspicion, self.cfg.k);
        let may_go_on = paths > 0 && !lookup.is_second_round && self.now < lookup.deadline;
        let Some(doubt) = self.doubt(&lookup, rules).filter(|_| may_go_on) else {
            return Some(lookup);
        };
        let breadth = if doubt == Doubt::Dense { BREADTH_PER_K * k } else { k };
        let seeds = self.scattered_seeds(&lookup.target);
        lookup.widen(seeds, paths, breadth);
        self.searches.doubted += 1;
        self.searches.put_changed(id, lookup);
        None
    }

    fn doubt(&self, lookup: &Lookup, rules: &Rules) -> Option<Doubt> {
        let k = self.cfg.k;
        let big = |nodes: u64| nodes > LEAST_NODES_PER_K * k as u64;
        let expected = self.spacing()?.saturating_mul(k as u64);
        if !self.size_estimate().is_some_and(big) || self.table.live().nth(k).is_none() {
            return None;
        }
        let farthest = lookup.kth_distance(k).map(|distance| distance.leading_u64());
        if farthest.is_some_and(|farthest| farthest < expected / TOO_DENSE) {
            return Some(Doubt::Dense);
        }
        // With slow nodes left behind, a lookup has not come near yet; what it found is no sign of
        // anything.
        let is_whole = lookup.has_heard_all();
        let astray = farthest.is_none_or(|farthest| farthest > expected.saturating_mul(TOO_SPARSE))
            || !lookup.most_paths_agree(rules.k);
        let wrong = !lookup.most_answered() || is_whole && astray;
        wrong.then_some(Doubt::Other)
    }

    /// The nearest nodes known and as many others, in random order.
    pub(super) fn scattered_seeds(&mut self, target: &Key) -> Vec<Arc<Contact>> {
        let k = self.cfg.k;
        let mut seeds = self.table.closest(target, k, None);
        let near = |contact: &Contact| seeds.iter().any(|seed| seed.id == contact.id);
        let others = self.table.live().map(|peer| &peer.contact);
        let mut others: Vec<Arc<Contact>> =
            others.filter(|contact| !near(contact)).map(Arc::clone).collect();
        self.chance.choose(&mut others, k);
        seeds.extend(others.into_iter().take(k));
        let count = seeds.len();
        self.chance.choose(&mut seeds, count);
        seeds
    }
}
