//! Round trips of late, and the patience that follows from them.
//!
//! Two estimators over all calls of one node. The smoothed round trip and its variation (RFC 6298,
//! section 2) say when to stop waiting. The 90th percentile of the last [`SAMPLES`] says when to ask
//! somebody else meanwhile: by its definition one call in ten is asked twice, whatever the shape of
//! the distribution, while a mean with a few variations grows with the slow calls it should cut off
//! (Dean and Barroso, "The Tail at Scale", CACM 2013, hedge at a percentile for this reason).

use super::config::KadConfig;

/// Assumed before the first answer.
const FIRST_GUESS_MS: u64 = 50;
/// A call is never called slow before this.
const SLOW_FLOOR_MS: u64 = 10;
/// Round trips that are remembered.
const SAMPLES: usize = 64;
/// With fewer the percentile says nothing.
const LEAST_SAMPLES: usize = 10;

/// Estimators over all calls of one node; the smoothed ones in eighths of a millisecond.
#[derive(Debug)]
pub(super) struct Rtt {
    smoothed: Option<u64>,
    variation: u64,
    /// The last round trips in milliseconds, in a ring.
    last: [u16; SAMPLES],
    /// How many round trips were seen; the next one goes to this place, modulo [`SAMPLES`].
    seen: usize,
    p90_ms: u64,
}

impl Default for Rtt {
    fn default() -> Self {
        Self { smoothed: None, variation: 0, last: [0; SAMPLES], seen: 0, p90_ms: 0 }
    }
}

/// How long a lookup waits for one call, from the time it was sent.
#[derive(Copy, Clone, Debug)]
pub(super) struct Pace {
    /// Then the call no longer counts as in flight, and another node is asked.
    pub(super) slow_ms: u64,
    /// Then the lookup may end without its answer.
    pub(super) patience_ms: u64,
}

impl Rtt {
    pub(super) fn sample(&mut self, ms: u64) {
        self.last[self.seen % SAMPLES] = u16::try_from(ms).unwrap_or(u16::MAX);
        self.seen += 1;
        self.p90_ms = self.percentile_90();
        let sample = ms.saturating_mul(8);
        let Some(smoothed) = self.smoothed else {
            self.smoothed = Some(sample);
            self.variation = sample / 2;
            return;
        };
        self.variation = (3 * self.variation + smoothed.abs_diff(sample)) / 4;
        self.smoothed = Some((7 * smoothed + sample) / 8);
    }

    pub(super) fn pace(&self, cfg: &KadConfig) -> Pace {
        let (smoothed, variation) = self.current();
        let slow = if self.seen < LEAST_SAMPLES {
            (3 * smoothed + 4 * variation) / 8
        } else {
            self.p90_ms
        };
        let patience = (6 * smoothed + 6 * variation) / 8;
        Pace {
            slow_ms: slow.clamp(SLOW_FLOOR_MS, cfg.max_call_timeout_ms),
            patience_ms: patience.clamp(cfg.lookup_floor_ms, cfg.lookup_ceiling_ms),
        }
    }

    /// When a call is given up: never early, because a lookup does not wait for it anyway.
    pub(super) fn timeout_ms(&self, cfg: &KadConfig) -> u64 {
        let (smoothed, variation) = self.current();
        let wanted = (4 * smoothed + 8 * variation) / 8;
        wanted.clamp(cfg.call_timeout_ms, cfg.max_call_timeout_ms.max(cfg.call_timeout_ms))
    }

    /// The smoothed round trip of all calls.
    pub(super) fn smoothed_ms(&self) -> u32 {
        u32::try_from(self.current().0 / 8).unwrap_or(u32::MAX)
    }

    fn percentile_90(&self) -> u64 {
        let mut sorted = self.last;
        let sorted = &mut sorted[..self.seen.min(SAMPLES)];
        let place = (sorted.len() * 9 / 10).min(sorted.len() - 1);
        let (_, p90, _) = sorted.select_nth_unstable(place);
        u64::from(*p90)
    }

    fn current(&self) -> (u64, u64) {
        self.smoothed.map_or((8 * FIRST_GUESS_MS, 4 * FIRST_GUESS_MS), |s| (s, self.variation))
    }
}
