//! How long a message travels.
//!
//! *LAN*: one way 80 to 250 microseconds, as between machines of one data centre with TLS in
//! between. *World*: every node lives in one of ten regions; the table holds typical round trips
//! between data centres of large clouds, rounded to 5 ms, as public latency pages list them. They
//! are orders of magnitude, not measurements of this project. Half a round trip, up to 15 % more by
//! chance, and 1 to 8 ms at the ends make one way.

use crate::dice::Dice;

/// Microseconds of simulated time.
pub type Micros = u64;

/// Which network is simulated.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum Latency {
    /// One data centre.
    #[default]
    Lan,
    /// Ten regions of the world.
    World,
}

/// Number of regions of the world.
pub const REGIONS: usize = 10;

/// Names of the regions, which are the zones of their nodes.
pub const REGION_NAMES: [&str; REGIONS] =
    ["us-e", "us-w", "br", "uk", "de", "za", "in", "sg", "jp", "au"];

/// Nodes of a hundred that live in each region.
const SHARES: [u64; REGIONS] = [20, 14, 5, 12, 16, 2, 9, 8, 9, 5];

/// Round trips in milliseconds, above the diagonal as below it.
const ROUND_TRIP_MS: [[u64; REGIONS]; REGIONS] = [
    [5, 65, 115, 75, 90, 225, 190, 215, 145, 200],
    [65, 5, 175, 140, 150, 285, 220, 170, 105, 140],
    [115, 175, 5, 180, 200, 335, 300, 320, 255, 310],
    [75, 140, 180, 5, 15, 155, 115, 165, 210, 265],
    [90, 150, 200, 15, 5, 155, 115, 160, 225, 270],
    [225, 285, 335, 155, 155, 5, 270, 320, 355, 410],
    [190, 220, 300, 115, 115, 270, 5, 60, 125, 150],
    [215, 170, 320, 165, 160, 320, 60, 5, 70, 95],
    [145, 105, 255, 210, 225, 355, 125, 70, 5, 110],
    [200, 140, 310, 265, 270, 410, 150, 95, 110, 5],
];

impl Latency {
    /// The region of a new node; 0 on a LAN.
    pub fn region(self, dice: &mut Dice) -> u8 {
        if self == Self::Lan {
            return 0;
        }
        let mut left = dice.below(SHARES.iter().sum());
        let region = SHARES.iter().position(|share| {
            let here = left < *share;
            left = left.saturating_sub(*share);
            here
        });
        region.unwrap_or(0) as u8
    }

    /// The zone that a node of a region tells others; empty on a LAN.
    #[must_use]
    pub fn zone(self, region: u8) -> &'static str {
        match self {
            Self::Lan => "",
            Self::World => REGION_NAMES.get(usize::from(region)).copied().unwrap_or_default(),
        }
    }

    /// One way between two regions.
    pub fn one_way(self, from: u8, to: u8, dice: &mut Dice) -> Micros {
        match self {
            Self::Lan => 80 + dice.below(171),
            Self::World => {
                let round_trip_ms = ROUND_TRIP_MS[usize::from(from)][usize::from(to)];
                let half = round_trip_ms * 500;
                half + dice.below(half * 15 / 100 + 1) + 1_000 + dice.below(7_001)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_symmetric_and_whole() {
        for (from, row) in ROUND_TRIP_MS.iter().enumerate() {
            for (to, round_trip) in row.iter().enumerate() {
                assert_eq!(*round_trip, ROUND_TRIP_MS[to][from], "{from} {to}");
            }
        }
        assert_eq!(SHARES.iter().sum::<u64>(), 100);
    }

    #[test]
    fn regions_come_by_their_shares() {
        let mut dice = Dice::new(1, 0);
        let mut count = [0_u64; REGIONS];
        for _ in 0..10_000 {
            count[usize::from(Latency::World.region(&mut dice))] += 1;
        }
        for (share, count) in SHARES.iter().zip(count) {
            assert!(count.abs_diff(share * 100) < 300, "{share} {count}");
        }
    }
}
