//! Which pieces this node asks of other zones, and when.
//!
//! The nodes of a zone that are known to fetch a blob come in an order of their own for each piece, by a
//! hash of both: the first asks for it as soon as another zone has it, the next a step later, and so on.
//! So a piece crosses once as long as the nodes of a zone know each other, and crosses nevertheless when
//! those before have left. Must never let a node wait for more than [`MAX_CROSS_STEPS`] steps.

use std::collections::BTreeSet;

use super::bits::Bits;
use super::limits::{MAX_CROSS_STEPS, MAX_RIVALS};
use super::picker::mix;
use crate::time::Timestamp;

const NEVER: Timestamp = Timestamp(u64::MAX);

/// What is known of one blob.
#[derive(Debug)]
pub(super) struct Crossing {
    own: u64,
    /// Other nodes of the own zone that fetch the blob, by their salts.
    rivals: BTreeSet<u64>,
    /// How many of them come before this node, for each piece.
    before: Vec<u16>,
    /// When each piece was first seen in another zone.
    seen: Vec<Timestamp>,
    /// Pieces that may be asked of other zones now.
    due: Bits,
    /// When the next one may.
    next_at: Timestamp,
}

impl Crossing {
    /// Of a blob of so many pieces, at the node with this salt.
    pub(super) fn new(pieces: usize, own: u64) -> Self {
        Self {
            own,
            rivals: BTreeSet::new(),
            before: vec![0; pieces],
            seen: vec![NEVER; pieces],
            due: Bits::new(pieces),
            next_at: NEVER,
        }
    }

    /// A node of the own zone fetches the blob. Past [`MAX_RIVALS`] it is ignored.
    pub(super) fn add_rival(&mut self, salt: u64) {
        if salt != self.own && self.rivals.len() < MAX_RIVALS && self.rivals.insert(salt) {
            self.for_each_before(salt, |count| *count += 1);
        }
    }

    /// A node cannot be reached any more, or is not asked any more.
    pub(super) fn remove_rival(&mut self, salt: u64) {
        if self.rivals.remove(&salt) {
            self.for_each_before(salt, |count| *count -= 1);
        }
    }

    fn for_each_before(&mut self, salt: u64, change: impl Fn(&mut u16)) {
        for (piece, count) in self.before.iter_mut().enumerate() {
            let rank = |salt: u64| (mix(salt, piece as u64), salt);
            if rank(salt) < rank(self.own) {
                change(count);
            }
        }
    }

    /// A node of another zone has this piece.
    pub(super) fn see(&mut self, piece: usize, now: Timestamp) {
        self.seen[piece] = self.seen[piece].min(now);
    }

    /// Sees which of these pieces, that the own zone has not got, may be asked for.
    pub(super) fn refresh(
        &mut self,
        missing: impl Iterator<Item = usize>,
        now: Timestamp,
        step_ms: u64,
    ) {
        self.due = Bits::new(self.due.len());
        self.next_at = NEVER;
        for piece in missing {
            let steps = u64::from(self.before[piece]).min(MAX_CROSS_STEPS);
            let at = self.seen[piece].after_ms(steps * step_ms);
            if at <= now {
                self.due.insert(piece);
            } else {
                self.next_at = self.next_at.min(at);
            }
        }
    }

    /// The pieces that might be asked for when it was last seen to.
    pub(super) const fn due(&self) -> &Bits {
        &self.due
    }

    /// When another piece may be asked for, if one waits.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        (self.next_at != NEVER).then_some(self.next_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECES: usize = 500;
    const STEP_MS: u64 = 100;
    const START: Timestamp = Timestamp(1_000);

    /// Nodes that know all the others.
    fn zone(salts: &[u64]) -> Vec<Crossing> {
        let node = |own: &u64| {
            let mut node = Crossing::new(PIECES, *own);
            salts.iter().for_each(|salt| node.add_rival(*salt));
            (0..PIECES).for_each(|piece| node.see(piece, START));
            node
        };
        salts.iter().map(node).collect()
    }

    fn due(node: &mut Crossing, ms: u64) -> usize {
        node.refresh(0..PIECES, START.after_ms(ms), STEP_MS);
        node.due().count()
    }

    #[test]
    fn each_piece_falls_to_one_node_after_the_other() {
        let mut nodes = zone(&[3, 14, 159, 2_653]);
        for steps in 0..4 {
            let mut times = [0; PIECES];
            for node in &mut nodes {
                due(node, steps * STEP_MS);
                node.due().iter().for_each(|piece| times[piece] += 1);
            }
            assert!(times.iter().all(|count| *count == steps + 1), "{steps}: {times:?}");
        }
        assert_eq!(nodes[0].next_at(), None);
    }

    #[test]
    fn nobody_waits_for_ever_and_not_for_those_that_have_left() {
        let many: Vec<u64> = (1..100).collect();
        let mut node = zone(&many).swap_remove(0);
        assert!(due(&mut node, 0) < PIECES / 10);
        assert!(node.next_at() <= Some(START.after_ms(MAX_CROSS_STEPS * STEP_MS)));
        assert_eq!(due(&mut node, MAX_CROSS_STEPS * STEP_MS), PIECES);
        many.iter().for_each(|salt| node.remove_rival(*salt));
        assert_eq!(due(&mut node, 0), PIECES);
    }

    #[test]
    fn what_no_other_zone_has_is_not_asked_for() {
        let mut node = Crossing::new(PIECES, 1);
        node.see(7, START);
        assert_eq!((due(&mut node, 0), node.next_at()), (1, None));
    }

    #[test]
    fn the_list_of_rivals_has_an_end() {
        let mut node = Crossing::new(1, 0);
        (1..=2 * MAX_RIVALS as u64).for_each(|salt| node.add_rival(salt));
        assert_eq!(node.rivals.len(), MAX_RIVALS);
    }
}
