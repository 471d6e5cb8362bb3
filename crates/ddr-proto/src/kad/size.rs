//! How many nodes the swarm has, judged by how densely they lie.
//!
//! Node IDs are hashes, so N nodes lie about 2^256 / N apart, and the k-th nearest node to any point
//! is k times as far away. Each lookup of a point that nobody else chooses (the own ID, or a random
//! one of a bucket refresh) gives one such distance; it follows a gamma distribution of shape k, so
//! at k = 20 one of them is off by 22 % on average. The estimate is the median of the last few: a
//! liar has to spoil more than half of them to move it far. The own neighbourhood is looked up every
//! minute, random points are seldom: as it gets denser, the older samples are scaled with it.

use std::sync::Arc;

use super::Kad;
use crate::id::Key;
use crate::wire::Contact;

/// Refresh lookups whose density is remembered.
const SAMPLES: usize = 8;
/// The ID space in units of [`crate::id::Distance::leading_u64`].
const SPACE: u128 = 1 << 64;

/// Mean distances between neighbours, in 2^-64 of the ID space.
#[derive(Debug, Default)]
pub(super) struct Density {
    /// Around the own ID.
    own: Option<u64>,
    /// Around random points, in a ring.
    random: [u64; SAMPLES],
    seen: usize,
    /// All nodes but the own one, while they are fewer than k.
    few: Option<usize>,
}

impl Density {
    /// The own ID was looked up; `closest` are the nodes around it, `live` all that the table knows.
    pub(super) fn own_neighbours(
        &mut self,
        own: &Key,
        closest: &[Arc<Contact>],
        live: usize,
        k: usize,
    ) {
        self.few = (closest.len().max(live) < k).then_some(live);
        let Some(now) = spacing(own, closest, k) else {
            return;
        };
        // The swarm grew or shrank since the random points were looked up: they follow.
        if let Some(before) = self.own.replace(now) {
            for sample in &mut self.random {
                let scaled = u128::from(*sample) * u128::from(now) / u128::from(before.max(1));
                *sample = u64::try_from(scaled).unwrap_or(u64::MAX);
            }
        }
    }

    /// A random point was looked up.
    pub(super) fn random_point(&mut self, point: &Key, closest: &[Arc<Contact>], k: usize) {
        // Before the own neighbourhood is known there is nothing to scale a sample with.
        if self.own.is_some()
            && let Some(spacing) = spacing(point, closest, k)
        {
            self.random[self.seen % SAMPLES] = spacing;
            self.seen += 1;
        }
    }

    /// The mean distance between neighbours, while there are at least k nodes to judge by.
    pub(super) fn spacing(&self) -> Option<u64> {
        if self.few.is_some() {
            return None;
        }
        let mut known = [0; SAMPLES + 1];
        let count = self.seen.min(SAMPLES);
        known[..count].copy_from_slice(&self.random[..count]);
        let count = self.own.map_or(count, |own| {
            known[count] = own;
            count + 1
        });
        let known = &mut known[..count];
        known.sort_unstable();
        known.get(count / 2).copied()
    }

    /// Whether the estimate rests on so few points that it may be off by half.
    pub(super) const fn is_rough(&self) -> bool {
        self.seen < SAMPLES / 2
    }

    /// Nodes in the swarm, the own one included.
    fn nodes(&self) -> Option<u64> {
        if let Some(few) = self.few {
            return Some(few as u64 + 1);
        }
        let nodes = SPACE / u128::from(self.spacing()?.max(1));
        Some(u64::try_from(nodes).unwrap_or(u64::MAX))
    }
}

/// The distance of the k-th nearest node, by k.
fn spacing(point: &Key, closest: &[Arc<Contact>], k: usize) -> Option<u64> {
    let farthest = closest.get(k - 1)?.id.distance(point).leading_u64();
    Some(farthest / k as u64)
}

impl Kad {
    /// About how many nodes the swarm has, this one included; exact while they are fewer than k, and
    /// within a quarter or so beyond. `None` before the first self-lookup has ended.
    #[must_use]
    pub fn size_estimate(&self) -> Option<u64> {
        self.density.nodes()
    }
}
