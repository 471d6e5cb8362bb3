//! How long pieces take and how fast they come, of one group: it says how many asks may be under way
//! and which of them are slow.

use super::config::SwarmConfig;
use super::limits::{LEAST_WINDOW, MAX_WINDOW, MAX_WINDOW_BYTES};
use crate::time::Timestamp;

/// Pieces that are remembered.
const SAMPLES: usize = 64;
/// With fewer the percentiles say nothing.
const LEAST_SAMPLES: usize = 16;
/// The rate is taken over at least this time.
const RATE_MS: u64 = 250;

/// Estimators over the pieces of one group.
#[derive(Debug)]
pub(super) struct Pace {
    /// The last times from ask to piece in milliseconds, in a ring.
    last: [u16; SAMPLES],
    seen: usize,
    /// Median and 90th percentile of them; refreshed now and then.
    median_ms: u64,
    p90_ms: u64,
    /// Smoothed round trip to the nodes that gave pieces, in microseconds.
    rtt_us: u64,
    /// Bytes in a millisecond, over the last whole period.
    rate: u64,
    since: Timestamp,
    bytes: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            last: [0; SAMPLES],
            seen: 0,
            median_ms: 0,
            p90_ms: 0,
            rtt_us: 0,
            rate: 0,
            since: Timestamp::default(),
            bytes: 0,
        }
    }
}

impl Pace {
    /// A piece of `bytes` came `ms` after it was asked for, from a node `rtt_us` away.
    pub(super) fn arrived(&mut self, now: Timestamp, ms: u64, bytes: u64, rtt_us: u32) {
        self.last[self.seen % SAMPLES] = u16::try_from(ms).unwrap_or(u16::MAX);
        self.seen += 1;
        if self.seen <= LEAST_SAMPLES || self.seen.is_multiple_of(LEAST_SAMPLES) {
            self.refresh();
        }
        self.rtt_us = (7 * self.rtt_us + u64::from(rtt_us)) / 8;
        self.bytes += bytes;
        let passed = now.since_ms(self.since);
        if passed >= RATE_MS {
            self.rate = self.bytes / passed;
            (self.since, self.bytes) = (now, 0);
        }
    }

    fn refresh(&mut self) {
        let mut sorted = self.last;
        let sorted = &mut sorted[..self.seen.min(SAMPLES)];
        sorted.sort_unstable();
        self.median_ms = u64::from(sorted[sorted.len() / 2]);
        self.p90_ms = u64::from(sorted[(sorted.len() * 9 / 10).min(sorted.len() - 1)]);
    }

    /// Half of the pieces took longer; 0 before the first.
    pub(super) const fn median_ms(&self) -> u64 {
        self.median_ms
    }

    /// One piece in ten took longer; `None` while too few are known.
    pub(super) fn p90_ms(&self) -> Option<u64> {
        (self.seen >= LEAST_SAMPLES).then_some(self.p90_ms)
    }

    /// How many asks for pieces of `piece_bytes` may be under way.
    pub(super) fn window(&self, cfg: &SwarmConfig, piece_bytes: u64) -> usize {
        let in_pipe = 3 * self.rate * self.rtt_us / 2 / 1_000 / piece_bytes.max(1);
        let wanted = usize::try_from(in_pipe).unwrap_or(MAX_WINDOW).clamp(cfg.window, MAX_WINDOW);
        let affordable =
            usize::try_from(MAX_WINDOW_BYTES / piece_bytes.max(1)).unwrap_or(MAX_WINDOW);
        wanted.min(affordable.max(LEAST_WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_path() {
        let cfg = SwarmConfig::default();
        let mut pace = Pace::default();
        assert_eq!(pace.window(&cfg, 1 << 20), 16);
        // 1 MiB each 8 ms over 100 ms: 12.5 pieces are in the pipe, 18.75 in one and a half.
        for n in 1..400 {
            pace.arrived(Timestamp(8 * n), 150, 1 << 20, 100_000);
        }
        assert_eq!(pace.window(&cfg, 1 << 20), 18);
        assert_eq!(pace.window(&cfg, 16 << 20), 4);
        assert_eq!(pace.window(&cfg, 64 << 10), 64);
        assert_eq!((pace.median_ms(), pace.p90_ms()), (150, Some(150)));
    }

    #[test]
    fn one_piece_in_ten_is_slow() {
        let mut pace = Pace::default();
        for n in 0..64 {
            pace.arrived(Timestamp(n), if n % 10 == 9 { 900 } else { 100 + n }, 1, 0);
        }
        let p90 = pace.p90_ms().expect("enough samples");
        assert!((100..900).contains(&p90), "{p90}");
        assert_eq!(pace.median_ms() / 10, 13);
    }
}
