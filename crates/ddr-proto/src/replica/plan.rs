//! Which nodes shall hold a part.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::id::{Key, NodeId};

/// Of the most room that any candidate has, the share under which a node is asked last.
const SCANT_SHARE: u64 = 4;
const RANK_DOMAIN: &[u8] = b"ddr/replica/rank/1\0";

/// A node that could hold a copy, or holds one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidate {
    /// Who.
    pub id: NodeId,
    /// Where it stands; empty for nowhere.
    pub zone: String,
    /// Bytes that it has left for copies, if it has said so.
    pub free: Option<u64>,
}

/// A part that needs copies.
#[derive(Clone, Copy, Debug)]
pub struct Need<'a> {
    /// The key of its digest.
    pub key: Key,
    /// Bytes.
    pub size: u64,
    /// Who holds it and is alive.
    pub holders: &'a [Candidate],
}

/// The rendezvous weight of a node for a part (highest random weight; Thaler and Ravishankar, 1998).
#[must_use]
pub fn rank(key: &Key, node: &NodeId) -> u64 {
    let mut hash = Sha256::new();
    hash.update(RANK_DOMAIN);
    hash.update(key.0);
    hash.update(node.0);
    let hash: [u8; 32] = hash.finalize().into();
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The candidates that may become holders, in the order in which they are to be asked.
///
/// A zone without a copy comes before one that has one, then room, then rank. Holders and nodes that have
/// said that there is no room for it are left out.
#[must_use]
pub fn plan(need: &Need<'_>, candidates: &[Candidate]) -> Vec<NodeId> {
    let most = candidates.iter().filter_map(|one| one.free).max().unwrap_or(0);
    let is_holder = |one: &Candidate| need.holders.iter().any(|holder| holder.id == one.id);
    let has_room = |one: &Candidate| one.free.is_none_or(|free| free > need.size);
    let is_scant = |one: &Candidate| one.free.is_some_and(|free| free < most / SCANT_SHARE);
    let mut waiting: Vec<&Candidate> =
        candidates.iter().filter(|one| !is_holder(one) && has_room(one)).collect();
    waiting.sort_by_key(|one| (is_scant(one), Reverse(rank(&need.key, &one.id)), one.id));
    waiting.dedup_by_key(|one| one.id);
    let mut zones: BTreeSet<&str> = need.holders.iter().map(|one| one.zone.as_str()).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let fresh = waiting.iter().position(|one| !zones.contains(one.zone.as_str()));
        if fresh.is_none() {
            // Every zone that is left has as many as the others now.
            zones.clear();
        }
        let chosen = waiting.remove(fresh.unwrap_or(0));
        zones.insert(&chosen.zone);
        order.push(chosen.id);
    }
    order
}

/// How many of `alive` come before `node` when the part has to be mended: 0 is the mender.
#[must_use]
pub fn place_in_line(key: &Key, node: &NodeId, alive: &[NodeId]) -> usize {
    let own = (rank(key, node), *node);
    alive.iter().filter(|other| (rank(key, other), **other) > own).count()
}

/// Whether `node` may let go of a part that `kept`, without it, have said to keep: when `copies` of them
/// have a higher rank.
#[must_use]
pub fn is_surplus(key: &Key, node: &NodeId, kept: &[NodeId], copies: usize) -> bool {
    place_in_line(key, node, kept) >= copies
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(number: u8, zone: &str, free: Option<u64>) -> Candidate {
        Candidate { id: NodeId([number; 32]), zone: zone.into(), free }
    }

    fn need(holders: &[Candidate]) -> Need<'_> {
        Need { key: Key([7; 32]), size: 100, holders }
    }

    #[test]
    fn zones_without_a_copy_come_first() {
        let holders = [candidate(1, "a", None)];
        let nodes = [2, 3, 4, 5, 6, 7].map(|n| candidate(n, ["a", "b", "c"][n as usize % 3], None));
        let order = plan(&need(&holders), &nodes);
        let zone = |id: &NodeId| nodes.iter().find(|one| one.id == *id).map(|one| one.zone.clone());
        let zones: Vec<_> = order.iter().filter_map(zone).collect();
        assert_eq!(zones.len(), 6);
        assert_eq!(BTreeSet::from([&*zones[0], &*zones[1]]), BTreeSet::from(["b", "c"]));
    }

    #[test]
    fn who_has_no_room_is_not_asked_and_who_has_little_is_asked_last() {
        let nodes = [
            candidate(1, "", Some(100)),
            candidate(2, "", Some(200)),
            candidate(3, "", Some(10_000)),
            candidate(4, "", None),
        ];
        let order = plan(&need(&[]), &nodes);
        assert_eq!(order.len(), 3);
        assert_eq!(order[2], NodeId([2; 32]));
    }

    #[test]
    fn a_holder_is_not_asked_again() {
        let holders = [candidate(1, "", None)];
        let nodes = [candidate(1, "", None), candidate(2, "", None)];
        assert_eq!(plan(&need(&holders), &nodes), [NodeId([2; 32])]);
    }

    proptest! {
        /// One node that goes changes nothing for content that it did not hold: of the nodes that
        /// stay, the order is the same.
        #[test]
        fn order_does_not_depend_on_others(key: [u8; 32], nodes in prop::collection::btree_set(any::<[u8; 32]>(), 2..30)) {
            let nodes: Vec<_> = nodes.into_iter()
                .map(|id| Candidate { id: NodeId(id), zone: String::new(), free: None }).collect();
            let need = Need { key: Key(key), size: 1, holders: &[] };
            let mut all = plan(&need, &nodes);
            all.retain(|id| *id != nodes[0].id);
            prop_assert_eq!(all, plan(&need, &nodes[1..]));
        }

        /// However often holders let go at the same moment, `copies` of them stay.
        #[test]
        fn copies_stay(key: [u8; 32], nodes in prop::collection::btree_set(any::<[u8; 32]>(), 1..12), copies in 1..5_usize) {
            let nodes: Vec<_> = nodes.into_iter().map(NodeId).collect();
            let stays = |node: &&NodeId| {
                let others: Vec<_> = nodes.iter().filter(|other| other != node).copied().collect();
                !is_surplus(&Key(key), node, &others, copies)
            };
            prop_assert_eq!(nodes.iter().filter(stays).count(), copies.min(nodes.len()));
        }
    }
}
