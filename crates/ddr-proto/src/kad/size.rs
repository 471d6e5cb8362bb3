//! How many nodes the swarm has, judged by how densely they lie.
//!
//! Node IDs are hashes, so N nodes lie about 2^256 / N apart, and the k-th nearest node to any point
//! is k times as far away. The own ID is such a point, whose nearest nodes are known at any time, and
//! each bucket refresh looks up another. Such a distance follows a gamma distribution of shape k, so
//! at k = 20 one of them is off by 22 % on average. The estimate is the median of the last few: a
//! liar has to spoil more than half of them to move it far. Random points are seldom looked up: as the
//! own neighbourhood gets denser, what was seen at them is scaled with it.

use std::sync::Arc;

use super::Kad;
use crate::id::Key;
use crate::wire::Contact;

/// Refresh lookups whose density is remembered.
const SAMPLES: usize = 8;
/// The ID space in units of [`crate::id::Distance::leading_u64`].
const SPACE: u128 = 1 << 64;

/// Mean distances between neighbours at random points, in 2^-64 of the ID space.
#[derive(Debug, Default)]
pub(super) struct Density {
    /// In a ring.
    points: [Point; SAMPLES],
    seen: usize,
    /// Whether the own ID has been looked up.
    is_joined: bool,
}

#[derive(Copy, Clone, Debug, Default)]
struct Point {
    spacing: u64,
    /// The spacing around the own ID at that time.
    own: u64,
}

impl Point {
    /// What it would be now that the spacing around the own ID is `own`.
    fn scaled(&self, own: u64) -> u64 {
        let scaled = u128::from(self.spacing) * u128::from(own) / u128::from(self.own.max(1));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    }
}

impl Density {
    /// The own ID was looked up.
    pub(super) const fn joined(&mut self) {
        self.is_joined = true;
    }

    pub(super) const fn is_joined(&self) -> bool {
        self.is_joined
    }

    fn median(&self, own: u64) -> u64 {
        let points = &self.points[..self.seen.min(SAMPLES)];
        let mut known: Vec<u64> = points.iter().map(|point| point.scaled(own)).collect();
        known.push(own);
        known.sort_unstable();
        known[known.len() / 2]
    }
}

impl Kad {
    /// About how many nodes the swarm has, this one included; exact while they are fewer than k, and
    /// within a quarter or so beyond. `None` before the first self-lookup has ended.
    #[must_use]
    pub fn size_estimate(&self) -> Option<u64> {
        if !self.density.is_joined {
            return None;
        }
        let Some(spacing) = self.spacing() else {
            return Some(self.table.live().count() as u64 + 1);
        };
        Some(u64::try_from(SPACE / u128::from(spacing.max(1))).unwrap_or(u64::MAX))
    }

    /// The mean distance between neighbours, while there are at least k nodes to judge by.
    pub(super) fn spacing(&self) -> Option<u64> {
        Some(self.density.median(self.own_spacing()?))
    }

    /// A random point was looked up.
    pub(super) fn note_density(&mut self, point: &Key, closest: &[Arc<Contact>]) {
        let kth = closest.get(self.cfg.k - 1);
        if let (Some(kth), Some(own)) = (kth, self.own_spacing()) {
            let spacing = kth.id.distance(point).leading_u64() / self.cfg.k as u64;
            self.density.points[self.density.seen % SAMPLES] = Point { spacing, own };
            self.density.seen += 1;
        }
    }

    /// The same around the own ID.
    fn own_spacing(&self) -> Option<u64> {
        let kth = self.table.live().nth(self.cfg.k - 1)?;
        Some(self.table.distance(&kth.contact.id).leading_u64() / self.cfg.k as u64)
    }
}
