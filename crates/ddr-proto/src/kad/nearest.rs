//! The order in which holders are best asked: near ones first.
//!
//! Near is, first, the own failure zone, then a short round trip. Round trips are compared by
//! [`class`]: those within a factor of two count as equal, and equals come in random order, so that
//! not all of a zone fall upon the one holder that is nearest by a hair.

use super::Kad;
use crate::id::NodeId;
use crate::wire::ProviderRecord;

/// Round trips up to this count as equally short.
const SHORTEST_CLASS_MS: u32 = 4;

/// Sorts holders nearest first, and leaves those equally near in the order they come in.
///
/// `own_zone` is this node's zone, empty when unknown; `round_trip_ms` gives the round trip to a
/// node, measured or guessed.
pub(super) fn sort_nearest_first(
    holders: &mut [ProviderRecord],
    own_zone: &str,
    round_trip_ms: impl Fn(&NodeId) -> u32,
) {
    holders.sort_by_cached_key(|record| {
        let elsewhere = own_zone.is_empty() || record.provider.zone != own_zone;
        (elsewhere, class(round_trip_ms(&record.provider.id)))
    });
}

/// The number of the power of two up to which a round trip reaches.
const fn class(round_trip_ms: u32) -> u32 {
    let ms = if round_trip_ms > SHORTEST_CLASS_MS { round_trip_ms } else { SHORTEST_CLASS_MS };
    ms.next_power_of_two().ilog2()
}

impl Kad {
    /// Holders in the order in which they are best asked; whom this node never asked counts as far
    /// away as its calls are on average.
    pub(super) fn nearest_first(
        &mut self,
        mut holders: Vec<ProviderRecord>,
    ) -> Vec<ProviderRecord> {
        let count = holders.len();
        self.chance.choose(&mut holders, count);
        let typical = self.rtt.smoothed_ms();
        let measured = |id: &NodeId| self.table.get(id).and_then(|peer| peer.round_trip_ms());
        let round_trip = |id: &NodeId| measured(id).unwrap_or(typical);
        sort_nearest_first(&mut holders, &self.own.zone, round_trip);
        holders
    }
}
