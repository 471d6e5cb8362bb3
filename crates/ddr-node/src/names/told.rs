//! Which nodes are known to keep which record.
//!
//! Kept small, so that a node with many names is quiet too: some 60 bytes for a record that few keep,
//! 100 for one that twenty keep.

use std::collections::HashMap;

use ddr_proto::id::{Key, NodeId};

/// Records that are remembered; the rest is told again each round. About 25 MB.
const MAX_TOLD: usize = 262_144;

/// See the module comment.
#[derive(Default)]
pub(super) struct Told {
    /// By the first half of a slot: the stamp, and who keeps that.
    rows: HashMap<[u8; 16], (u64, Vec<u16>)>,
    /// Short names of nodes.
    nodes: HashMap<NodeId, u16>,
}

impl Told {
    /// Whether `node` is known to keep the record with this stamp, or something newer.
    pub(super) fn knows(&self, slot: &Key, stamp: u64, node: &NodeId) -> bool {
        let row = self.rows.get(&half(slot)).filter(|(known, _)| *known == stamp);
        let short = self.nodes.get(node);
        row.zip(short).is_some_and(|((_, keepers), short)| keepers.contains(short))
    }

    /// Notes who keeps it.
    pub(super) fn remember(&mut self, slot: &Key, stamp: u64, keepers: Vec<NodeId>) {
        let half = half(slot);
        if self.rows.len() >= MAX_TOLD && !self.rows.contains_key(&half) {
            return;
        }
        let keepers: Vec<u16> = keepers.into_iter().map(|node| self.short(node)).collect();
        let row = self.rows.entry(half).or_insert((stamp, Vec::new()));
        if row.0 != stamp {
            *row = (stamp, Vec::new());
        }
        row.1.extend(keepers);
        row.1.sort_unstable();
        row.1.dedup();
    }

    /// When there are no short names left all is forgotten, and told once more.
    fn short(&mut self, node: NodeId) -> u16 {
        if let Some(short) = self.nodes.get(&node) {
            return *short;
        }
        let short = u16::try_from(self.nodes.len()).unwrap_or_else(|_| {
            *self = Self::default();
            0
        });
        self.nodes.insert(node, short);
        short
    }
}

fn half(slot: &Key) -> [u8; 16] {
    *slot.as_bytes().first_chunk().expect("a key has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> NodeId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    #[test]
    fn who_was_told_is_known_until_the_record_changes() {
        let (mut told, slot) = (Told::default(), Key([1; 32]));
        assert!(!told.knows(&slot, 5, &node(1)));
        told.remember(&slot, 5, vec![node(1), node(2)]);
        told.remember(&slot, 5, vec![node(2), node(3)]);
        assert!([1, 2, 3].iter().all(|number| told.knows(&slot, 5, &node(*number))));
        assert!(!told.knows(&slot, 5, &node(4)) && !told.knows(&slot, 6, &node(1)));
        told.remember(&slot, 6, vec![node(1)]);
        assert!(told.knows(&slot, 6, &node(1)) && !told.knows(&slot, 6, &node(2)));
    }

    #[test]
    fn it_is_bounded_in_records_and_nodes() {
        let mut told = Told::default();
        for number in 0..MAX_TOLD as u32 + 10 {
            told.remember(&Key(node(number).0), 1, vec![node(1)]);
        }
        assert_eq!(told.rows.len(), MAX_TOLD);
        let mut told = Told::default();
        for number in 0..70_000 {
            let slot = Key(node(number).0);
            told.remember(&slot, 1, vec![node(number)]);
            assert!(told.knows(&slot, 1, &node(number)));
        }
        assert!(told.nodes.len() <= 1 << 16);
    }
}
