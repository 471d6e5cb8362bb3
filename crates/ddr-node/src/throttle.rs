//! How fast content goes from and to other nodes: one limit for each direction, changed at run time.
//!
//! Decides who may move bytes now. A limit is an average: a piece is granted whole once nothing is
//! owed, and what it takes beyond the burst is owed before the next one. So a piece that was begun
//! is never slow because of a limit, and nobody takes this node for one that stalls. Background work
//! waits until nothing is owed *and* the burst is whole, so it goes on only where pulls leave room.
//! Messages, manifests and clients of this node are not limited.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddr_proto::swarm::Class;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Bandwidth;

/// The least limit, in bytes a second: below it even the smallest piece takes longer than peers wait.
pub const MIN_RATE: u64 = 64 * 1024;
/// Bytes that may go at once, as time at the limit.
const BURST: Duration = Duration::from_millis(100);

/// Bytes that were granted. Dropped before [`Self::spend`], they are given back: whoever was refused,
/// or broke off before the first byte, has moved nothing.
#[derive(Debug)]
#[must_use]
pub(crate) struct Leave<'a> {
    throttle: &'a Throttle,
    bytes: u64,
}

impl Leave<'_> {
    /// The bytes go.
    pub(crate) fn spend(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.throttle.state().balance += self.bytes as f64;
    }
}

/// The limit of one direction.
#[derive(Debug)]
pub(crate) struct Throttle {
    state: Mutex<State>,
    changed: watch::Sender<Option<u64>>,
}

#[derive(Debug)]
struct State {
    /// Bytes a second; `None` is no limit.
    rate: Option<u64>,
    /// Bytes that may go now; less than nothing is owed.
    balance: f64,
    at: Instant,
}

impl Throttle {
    /// `rate` in bytes a second; see [`Self::set`].
    pub(crate) fn new(rate: Option<u64>) -> Self {
        let state = State { rate: None, balance: 0.0, at: Instant::now() };
        let throttle = Self { state: Mutex::new(state), changed: watch::Sender::new(None) };
        throttle.set(rate);
        throttle
    }

    /// A new limit in bytes a second, at least [`MIN_RATE`]; `None` is no limit. Nothing is owed after
    /// it.
    pub(crate) fn set(&self, rate: Option<u64>) {
        let rate = rate.map(|rate| rate.max(MIN_RATE));
        let mut state = self.state();
        (state.rate, state.at) = (rate, Instant::now());
        state.balance = state.burst();
        drop(state);
        self.changed.send_replace(rate);
    }

    /// The limit in bytes a second.
    pub(crate) fn rate(&self) -> Option<u64> {
        *self.changed.borrow()
    }

    /// Leave for `bytes`, if they may go now.
    pub(crate) fn try_take(&self, bytes: u64, class: Class) -> Option<Leave<'_>> {
        self.take_or_wait(bytes, class).is_none().then_some(Leave { throttle: self, bytes })
    }

    /// Waits until `bytes` may go. May be dropped while it waits.
    pub(crate) async fn take(&self, bytes: u64, class: Class) -> Leave<'_> {
        let mut changed = self.changed.subscribe();
        while let Some(wait) = self.take_or_wait(bytes, class) {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = changed.changed() => {}
            }
        }
        Leave { throttle: self, bytes }
    }

    /// `None`: counted. Else how long it takes until it may work.
    fn take_or_wait(&self, bytes: u64, class: Class) -> Option<Duration> {
        let mut state = self.state();
        let rate = state.rate? as f64;
        let (now, burst) = (Instant::now(), state.burst());
        let earned = now.duration_since(state.at).as_secs_f64() * rate;
        (state.balance, state.at) = ((state.balance + earned).min(burst), now);
        let needed = match class {
            Class::Pull => 0.0,
            Class::Background => burst,
        };
        if state.balance >= needed {
            state.balance -= bytes as f64;
            return None;
        }
        // Not less than a millisecond: timers know no less.
        let wait = (needed - state.balance) / rate;
        Some(Duration::from_secs_f64(wait.clamp(0.001, 60.0)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn burst(&self) -> f64 {
        self.rate.map_or(0.0, |rate| rate as f64 * BURST.as_secs_f64())
    }
}

/// The limits of both directions.
#[derive(Debug)]
pub(crate) struct Throttles {
    /// From this node to others.
    pub(crate) upload: Throttle,
    /// From others to this node.
    pub(crate) download: Throttle,
}

impl Throttles {
    pub(crate) fn new(bandwidth: Bandwidth) -> Self {
        Self {
            upload: Throttle::new(bandwidth.upload),
            download: Throttle::new(bandwidth.download),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn over_time_the_limit_holds_whatever_the_pieces() {
        for piece in [1_000, 100_000, 5_000_000] {
            let throttle = Throttle::new(Some(1_000_000));
            let (start, mut moved) = (Instant::now(), 0);
            while start.elapsed() < Duration::from_secs(60) {
                throttle.take(piece, Class::Pull).await.spend();
                moved += piece;
            }
            // A burst before; one piece that is owed, and one that waited for longer than that.
            let most = 60_000_000 + 100_000 + 2 * piece;
            assert!((59_000_000..=most).contains(&moved), "{piece}: {moved}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn background_takes_what_pulls_leave() {
        let throttle = Throttle::new(Some(1_000_000));
        throttle.try_take(1, Class::Background).expect("nothing is owed").spend();
        assert!(throttle.try_take(1, Class::Background).is_none(), "the burst is not whole");
        throttle.try_take(500_000, Class::Pull).expect("a pull may go").spend();
        assert!(throttle.try_take(1, Class::Pull).is_none(), "400 kB are owed");
        let start = Instant::now();
        throttle.take(1, Class::Background).await.spend();
        assert!(start.elapsed() >= Duration::from_millis(490), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_limit_counts_at_once() {
        let throttle = std::sync::Arc::new(Throttle::new(Some(0)));
        assert_eq!(throttle.rate(), Some(MIN_RATE));
        throttle.take(u64::from(u32::MAX), Class::Pull).await.spend();
        let waiting = tokio::spawn({
            let throttle = std::sync::Arc::clone(&throttle);
            async move { throttle.take(1, Class::Pull).await.spend() }
        });
        tokio::task::yield_now().await;
        throttle.set(None);
        waiting.await.expect("it ends although 18 hours were owed");
        assert!(throttle.try_take(u64::MAX, Class::Background).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_granted_and_did_not_go_is_not_owed() {
        let throttle = Throttle::new(Some(1_000_000));
        for _ in 0..100 {
            drop(throttle.try_take(5_000_000, Class::Pull).expect("nothing went"));
        }
    }
}
