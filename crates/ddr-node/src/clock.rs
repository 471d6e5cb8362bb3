//! The one clock of a node: Unix milliseconds that never go back.
//!
//! The wall clock is told once, at start; from then on time passes as the runtime's clock says,
//! so a test that pauses the runtime pauses the node.

use std::time::{SystemTime, UNIX_EPOCH};

use ddr_proto::time::Timestamp;
use tokio::time::Instant;

/// See the module comment. Copies agree with each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base_unix_ms: u64,
    start: Instant,
}

impl Clock {
    /// Reads the wall clock.
    #[cfg(test)]
    pub(crate) fn start() -> Self {
        Self::start_at(SystemTime::now())
    }

    /// A clock that shows `now`; before 1970, 0.
    pub(crate) fn start_at(now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let base_unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX / 2);
        Self { base_unix_ms, start: Instant::now() }
    }

    /// Milliseconds since this node started.
    pub(crate) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Unix milliseconds now.
    pub(crate) fn now_ms(&self) -> u64 {
        self.base_unix_ms.saturating_add(self.uptime_ms())
    }

    /// The same for the pure cores.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.now_ms())
    }

    /// When the runtime's clock will show `at`.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        let since_start = at.0.saturating_sub(self.base_unix_ms);
        self.start
            + std::time::Duration::from_millis(since_start.min(MAX_WAIT_MS + self.uptime_ms()))
    }
}

/// No core waits longer than this before it is ticked again: one hour.
const MAX_WAIT_MS: u64 = 60 * 60 * 1000;
