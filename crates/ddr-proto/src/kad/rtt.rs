//! Smoothed round-trip time and the patience that follows from it (RFC 6298, section 2).

use super::config::KadConfig;

/// Assumed before the first answer.
const FIRST_GUESS_MS: u64 = 50;
/// A call is never called slow before this.
const SLOW_FLOOR_MS: u64 = 10;

/// Estimator over all calls of one node, in eighths of a millisecond.
#[derive(Debug, Default)]
pub(super) struct Rtt {
    smoothed: Option<u64>,
    variation: u64,
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
        let slow = (3 * smoothed + 4 * variation) / 8;
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

    fn current(&self) -> (u64, u64) {
        self.smoothed.map_or((8 * FIRST_GUESS_MS, 4 * FIRST_GUESS_MS), |s| (s, self.variation))
    }
}
