//! All nodes of a kind in the order of their IDs: who is truly closest, as only an onlooker knows.

use std::ops::Range;

use ddr_proto::{Key, NodeId};

/// Node IDs in order, each with the number of its node.
#[derive(Clone, Debug, Default)]
pub struct Ring {
    entries: Vec<(NodeId, u32)>,
}

impl FromIterator<(NodeId, u32)> for Ring {
    fn from_iter<T: IntoIterator<Item = (NodeId, u32)>>(entries: T) -> Self {
        let mut entries: Vec<(NodeId, u32)> = entries.into_iter().collect();
        entries.sort_unstable();
        Self { entries }
    }
}

impl Ring {
    /// Number of nodes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<(NodeId, u32)> {
        self.entries.get(place).copied()
    }

    /// Adds a node.
    pub fn insert(&mut self, id: NodeId, node: u32) {
        if let Err(place) = self.entries.binary_search(&(id, node)) {
            self.entries.insert(place, (id, node));
        }
    }

    /// Takes a node out.
    pub fn remove(&mut self, id: NodeId, node: u32) {
        if let Ok(place) = self.entries.binary_search(&(id, node)) {
            self.entries.remove(place);
        }
    }

    /// The up to `count` nodes closest to a key for which `usable` holds, closest first.
    #[must_use]
    pub fn closest(&self, key: &Key, count: usize, usable: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut found = Vec::with_capacity(count);
        self.collect(0..self.entries.len(), 0, key, count, &usable, &mut found);
        found
    }

    /// The places of the nodes that share exactly `bits` leading bits with a key.
    #[must_use]
    pub fn bucket(&self, key: &Key, bits: u32) -> Range<usize> {
        let mut range = 0..self.entries.len();
        for bit in 0..=bits {
            let same = bit < bits;
            let ones = self.first_one(&range, bit);
            let wants_ones = bit_of(&key.0, bit) == same;
            range = if wants_ones { ones..range.end } else { range.start..ones };
        }
        range
    }

    #[allow(clippy::too_many_arguments, reason = "a recursion that carries its whole state")]
    fn collect(
        &self,
        range: Range<usize>,
        bit: u32,
        key: &Key,
        count: usize,
        usable: &impl Fn(u32) -> bool,
        found: &mut Vec<u32>,
    ) {
        if found.len() >= count || range.is_empty() {
            return;
        }
        if range.len() == 1 || bit >= 256 {
            let nodes = self.entries[range].iter().map(|(_, node)| *node);
            found.extend(nodes.filter(|node| usable(*node)).take(count - found.len()));
            return;
        }
        let ones = self.first_one(&range, bit);
        let (zeros, ones) = (range.start..ones, ones..range.end);
        let (near, far) = if bit_of(&key.0, bit) { (ones, zeros) } else { (zeros, ones) };
        self.collect(near, bit + 1, key, count, usable, found);
        self.collect(far, bit + 1, key, count, usable, found);
    }

    /// The first place in a range whose bit is set; all of the range share the bits before.
    fn first_one(&self, range: &Range<usize>, bit: u32) -> usize {
        let entries = &self.entries[range.clone()];
        range.start + entries.partition_point(|(id, _)| !bit_of(&id.0, bit))
    }
}

const fn bit_of(bytes: &[u8; 32], bit: u32) -> bool {
    bytes[bit as usize / 8] & (0x80 >> (bit % 8)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    fn ring(count: u32) -> (Ring, Vec<(NodeId, u32)>) {
        let mut dice = Dice::new(7, 0);
        let ids: Vec<(NodeId, u32)> = (0..count).map(|n| (NodeId(dice.bytes()), n)).collect();
        (ids.iter().copied().collect(), ids)
    }

    #[test]
    fn closest_is_what_sorting_by_distance_gives() {
        let (ring, mut ids) = ring(300);
        let mut dice = Dice::new(8, 0);
        for _ in 0..50 {
            let key = Key(dice.bytes());
            ids.sort_by_key(|(id, _)| id.distance(&key));
            let odd: Vec<u32> = ids.iter().map(|(_, n)| *n).filter(|n| n % 2 == 1).collect();
            assert_eq!(ring.closest(&key, 20, |n| n % 2 == 1), odd[..20]);
        }
    }

    #[test]
    fn a_bucket_shares_exactly_so_many_bits() {
        let (ring, ids) = ring(300);
        let key = Key(Dice::new(9, 0).bytes());
        for bits in 0..8 {
            let wanted = ids.iter().filter(|(id, _)| id.distance(&key).shared_bits() == bits);
            assert_eq!(ring.bucket(&key, bits).len(), wanted.count());
        }
    }
}
