//! Who of the nodes that share parts with this one is alive, silent or lost.
//!
//! Decides by silence alone, and that many silent nodes at once are rather a broken network than so many
//! broken machines.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::NodeId;
use crate::time::Timestamp;

/// Nodes that are watched; more are taken for alive until others are watched no more.
pub const MAX_WATCHED: usize = 16_384;
/// A node is asked for a sign of life after this share of the grace period.
const ASK_SHARE: u64 = 8;
/// Bounds of the same, milliseconds.
const MIN_ASK_MS: u64 = 250;
const MAX_ASK_MS: u64 = 60_000;
/// When more than one in so many is silent, it is a storm.
const STORM_SHARE: usize = 3;
/// Grace periods that a node has in a storm.
const STORM_GRACE: u64 = 4;

/// See the module comment.
#[derive(Clone, Debug)]
pub struct Vigil {
    grace_ms: u64,
    watched: BTreeMap<NodeId, Watch>,
    /// Who does not come back, as somebody said; at most [`MAX_WATCHED`].
    gone: BTreeSet<NodeId>,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    heard: Timestamp,
    asked: Timestamp,
    /// It was heard itself since it is watched.
    proven: bool,
}

impl Vigil {
    /// Nobody is watched yet.
    #[must_use]
    pub const fn new(grace_ms: u64) -> Self {
        Self { grace_ms, watched: BTreeMap::new(), gone: BTreeSet::new() }
    }

    /// The nodes to watch from now on. Who is new has the whole grace period before it.
    pub fn watch(&mut self, now: Timestamp, nodes: &BTreeSet<NodeId>) {
        self.watched.retain(|node, _| nodes.contains(node));
        for node in nodes {
            self.add(now, *node);
        }
    }

    /// One more.
    pub fn add(&mut self, now: Timestamp, node: NodeId) {
        if self.watched.len() < MAX_WATCHED {
            self.watched.entry(node).or_insert(Watch { heard: now, asked: now, proven: false });
        }
    }

    /// The node gave a sign of life.
    pub fn heard(&mut self, now: Timestamp, node: &NodeId) {
        self.gone.remove(node);
        if let Some(watch) = self.watched.get_mut(node) {
            watch.heard = watch.heard.max(now);
            watch.proven = true;
        }
    }

    /// The node does not come back: it is lost at once, whoever names it, until it is heard itself.
    pub fn gone(&mut self, node: &NodeId) {
        if self.gone.len() < MAX_WATCHED {
            self.gone.insert(*node);
        }
        // It is asked at once: the word may be wrong.
        if let Some(watch) = self.watched.get_mut(node) {
            (watch.heard, watch.asked) = (Timestamp(0), Timestamp(0));
        }
    }

    /// Whether the node itself was heard within the grace period.
    #[must_use]
    pub fn is_proven(&self, now: Timestamp, node: &NodeId) -> bool {
        let is_proven = |watch: &Watch| watch.proven && now.since_ms(watch.heard) < self.grace_ms;
        self.watched.get(node).is_some_and(is_proven) && !self.gone.contains(node)
    }

    /// Who is to be asked for a sign of life now. They count as asked.
    pub fn due(&mut self, now: Timestamp) -> Vec<NodeId> {
        let every = self.ask_every_ms();
        let mut due = Vec::new();
        for (node, watch) in &mut self.watched {
            if now.since_ms(watch.heard.max(watch.asked)) >= every {
                watch.asked = now;
                due.push(*node);
            }
        }
        due
    }

    /// Milliseconds after which a node is asked for a sign of life.
    #[must_use]
    pub fn ask_every_ms(&self) -> u64 {
        (self.grace_ms / ASK_SHARE).clamp(MIN_ASK_MS, MAX_ASK_MS)
    }

    /// Whether the node was not heard within the grace period.
    #[must_use]
    pub fn is_silent(&self, now: Timestamp, node: &NodeId) -> bool {
        let is_silent = |watch: &Watch| now.since_ms(watch.heard) >= self.grace_ms;
        self.gone.contains(node) || self.watched.get(node).is_some_and(is_silent)
    }

    /// Who is silent and stays so in a storm: these have to be replaced.
    #[must_use]
    pub fn lost(&self, now: Timestamp) -> BTreeSet<NodeId> {
        let silent = |grace: u64| {
            let is_silent = move |(node, watch): &(&NodeId, &Watch)| {
                now.since_ms(watch.heard) >= grace || self.gone.contains(*node)
            };
            self.watched.iter().filter(is_silent).map(|(node, _)| *node)
        };
        let in_storm =
            silent(self.grace_ms).count() * STORM_SHARE > self.watched.len().max(STORM_SHARE);
        let grace =
            if in_storm { self.grace_ms.saturating_mul(STORM_GRACE) } else { self.grace_ms };
        silent(grace).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn vigil(nodes: u8) -> Vigil {
        let mut vigil = Vigil::new(8_000);
        vigil.watch(Timestamp(0), &(0..nodes).map(node).collect());
        vigil
    }

    #[test]
    fn who_is_silent_for_the_grace_period_is_lost_and_comes_back() {
        let mut vigil = vigil(4);
        (1..4).for_each(|n| vigil.heard(Timestamp(5_000), &node(n)));
        assert!(vigil.lost(Timestamp(7_999)).is_empty());
        assert_eq!(vigil.lost(Timestamp(8_000)), BTreeSet::from([node(0)]));
        vigil.heard(Timestamp(9_000), &node(0));
        assert!(vigil.lost(Timestamp(9_000)).is_empty());
    }

    #[test]
    fn a_rack_that_leaves_has_longer() {
        let mut vigil = vigil(9);
        (4..9).for_each(|n| vigil.heard(Timestamp(31_000), &node(n)));
        assert!(vigil.lost(Timestamp(31_000)).is_empty(), "four of nine are silent");
        assert!(vigil.is_silent(Timestamp(31_000), &node(0)), "what has one copy left knows it");
        assert_eq!(vigil.lost(Timestamp(32_000)).len(), 4);
    }

    #[test]
    fn who_is_gone_for_good_is_lost_at_once() {
        let mut vigil = vigil(9);
        (0..4).for_each(|n| vigil.gone(&node(n)));
        assert_eq!(vigil.lost(Timestamp(1)).len(), 4, "be it many");
        vigil.heard(Timestamp(2), &node(0));
        assert_eq!(vigil.lost(Timestamp(2)).len(), 3);
        // Somebody who has not heard of it names it again.
        vigil.watch(Timestamp(3), &BTreeSet::from([node(0)]));
        vigil.add(Timestamp(4), node(1));
        assert_eq!(vigil.lost(Timestamp(4)), BTreeSet::from([node(1)]));
    }

    #[test]
    fn who_is_said_to_be_gone_is_asked_at_once() {
        let mut vigil = vigil(3);
        vigil.heard(Timestamp(5_000), &node(0));
        vigil.gone(&node(0));
        assert_eq!(vigil.due(Timestamp(5_001)).first(), Some(&node(0)));
        vigil.heard(Timestamp(5_002), &node(0));
        assert!(vigil.lost(Timestamp(5_002)).is_empty());
    }

    #[test]
    fn who_was_only_named_is_not_proven() {
        let mut vigil = vigil(2);
        vigil.heard(Timestamp(5), &node(0));
        assert!(
            vigil.is_proven(Timestamp(6), &node(0)) && !vigil.is_proven(Timestamp(6), &node(1))
        );
        assert!(!vigil.is_proven(Timestamp(8_005), &node(0)), "not for ever");
    }

    #[test]
    fn one_of_a_few_is_no_storm() {
        let mut vigil = vigil(2);
        vigil.heard(Timestamp(5_000), &node(1));
        assert_eq!(vigil.lost(Timestamp(8_000)), BTreeSet::from([node(0)]));
    }

    #[test]
    fn who_was_asked_or_heard_is_not_asked_soon() {
        let mut vigil = vigil(2);
        assert!(vigil.due(Timestamp(999)).is_empty());
        vigil.heard(Timestamp(500), &node(1));
        assert_eq!(vigil.due(Timestamp(1_000)), [node(0)]);
        assert!(vigil.due(Timestamp(1_499)).is_empty());
        assert_eq!(vigil.due(Timestamp(2_000)), [node(0), node(1)]);
    }
}
