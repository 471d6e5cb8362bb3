//! Pulled content makes room before the disk is full.
//!
//! Decides when: above the high watermark of the file system, or of the size that an operator allows, until below
//! the low one. What may go is the store's business; here it is decided that nothing goes while nobody is there
//! who could give it back, or while content of an earlier version has no rows of copies yet. Whoever waits for room
//! that does not come is told so once an hour.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ddr_store::{EvictOptions, EvictReport, Space, Store, now_ms};
use serde::Serialize;
use tokio::time::Instant;

use super::{GC_GRACE, Upkeep};
use crate::blocking;
use crate::copies::is_adopted;

/// Percent used above which pulled content goes, unless configured otherwise.
pub const CACHE_HIGH: u8 = 80;
/// Percent down to which it goes.
pub const CACHE_LOW: u8 = 60;
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How many times as long, after a run that found nothing to remove.
const IDLE_TIMES: u32 = 6;
/// How long a blob stays after its last use. That is noted to ten minutes, so ten minutes are sure.
const MIN_AGE: Duration = Duration::from_secs(20 * 60);
/// Pause between two steps.
const STEP_PAUSE: Duration = Duration::from_millis(20);
/// How often the same trouble is told.
const WARN_EVERY: Duration = Duration::from_secs(60 * 60);

/// When pulled content makes room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CacheSettings {
    /// Percent used above which content goes, at most 100.
    pub high: u8,
    /// Percent down to which it goes, less than `high`.
    pub low: u8,
    /// Bytes that all blobs may have, beside the size of the file system.
    pub size: Option<u64>,
    /// How long a blob stays after its last use.
    pub min_age: Duration,
    /// How often is looked.
    pub look_every: Duration,
}

impl Default for CacheSettings {
    fn default() -> Self {
        let (min_age, look_every) = (MIN_AGE, LOOK_EVERY);
        Self { high: CACHE_HIGH, low: CACHE_LOW, size: None, min_age, look_every }
    }
}

impl CacheSettings {
    /// What may go now, to free so many bytes.
    pub(crate) fn options(self, bytes: u64) -> EvictOptions {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        EvictOptions {
            now_ms: now_ms(),
            bytes,
            min_age_ms: ms(self.min_age),
            loose_age_ms: ms(GC_GRACE.max(self.min_age)),
        }
    }
}

/// How full the disk is, for `ddr status`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct CacheStatus {
    /// Bytes of the file system; 0 before the first look.
    pub disk_bytes: u64,
    /// Bytes free on it.
    pub disk_free_bytes: u64,
    /// Bytes that all blobs may have, where that is limited.
    pub size: Option<u64>,
    /// Percent used above which content goes.
    pub high: u8,
    /// Percent down to which it goes.
    pub low: u8,
    /// Bytes above the high watermark although nothing is left that may go now.
    pub over_bytes: u64,
    /// What is left, where that is so.
    pub over_because: Option<String>,
    /// Blobs that have made room since the start.
    pub evicted_blobs: u64,
    /// Bytes of these.
    pub evicted_bytes: u64,
}

/// What is known of the room on the disk.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<CacheStatus>);

/// How much there is.
#[derive(Clone, Copy)]
struct Usage {
    space: Space,
    blob_bytes: u64,
}

impl Usage {
    /// Bytes used and bytes there are, of each thing that is limited.
    fn limits(self, settings: CacheSettings) -> impl Iterator<Item = (u64, u64)> {
        let Space { total, free } = self.space;
        let disk = (total.saturating_sub(free), total);
        [Some(disk), settings.size.map(|size| (self.blob_bytes, size))].into_iter().flatten()
    }

    /// Bytes that have to go.
    fn wanted(self, settings: CacheSettings) -> u64 {
        let over = self.limits(settings).filter(|(used, all)| *used > mark(*all, settings.high));
        over.map(|(used, all)| used - mark(all, settings.low)).max().unwrap_or_default()
    }

    /// Bytes above the high watermark.
    fn over(self, settings: CacheSettings) -> u64 {
        let over = self.limits(settings);
        over.map(|(used, all)| used.saturating_sub(mark(all, settings.high))).max().unwrap_or(0)
    }
}

/// So many percent of `all`.
fn mark(all: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(all) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

impl Upkeep {
    /// How full the disk is, as of the last look.
    pub(crate) fn cache(&self) -> CacheStatus {
        self.status().clone()
    }

    fn status(&self) -> std::sync::MutexGuard<'_, CacheStatus> {
        self.room.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks now and then, and makes room.
    pub(super) async fn evict_regularly(&self, settings: CacheSettings) {
        let mut warned: Option<Instant> = None;
        loop {
            let pause = match self.make_room(settings).await {
                Ok(None) => settings.look_every,
                Ok(Some(because)) => {
                    if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                        let over_bytes = self.status().over_bytes;
                        tracing::warn!(
                            over_bytes,
                            because,
                            "the disk is above its mark: give it room"
                        );
                        warned = Some(Instant::now());
                    }
                    settings.look_every * IDLE_TIMES
                }
                Err(error) => {
                    tracing::warn!(error, "no room could be made");
                    settings.look_every * IDLE_TIMES
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Makes room if it is wanted; why that was not enough, if it was not.
    async fn make_room(&self, settings: CacheSettings) -> Result<Option<String>, String> {
        let mut usage = self.usage().await?;
        let wanted = usage.wanted(settings);
        let mut because = None;
        if wanted > 0 {
            because = match self.why_not().await? {
                Some(why) => Some(why.to_owned()),
                None => {
                    let report = self.evict(wanted, settings).await?;
                    usage = self.usage().await?;
                    if report.spared_bytes == 0
                        && usage.over(CacheSettings { size: None, ..settings }) > 0
                    {
                        // Downloads that were broken off can begin anew.
                        let store = self.shared.store.clone();
                        blocking(move || store.drop_idle_partials(0)).await.map_err(text)?;
                        usage = self.usage().await?;
                    }
                    (report.spared_bytes == 0).then(|| what_is_left(&report))
                }
            };
        }
        let over_bytes = usage.over(settings);
        because = because.filter(|_| over_bytes > 0);
        let mut status = self.status();
        (status.high, status.low, status.size) = (settings.high, settings.low, settings.size);
        (status.disk_bytes, status.disk_free_bytes) = (usage.space.total, usage.space.free);
        status.over_bytes = if because.is_some() { over_bytes } else { 0 };
        status.over_because.clone_from(&because);
        metrics::gauge!(crate::metrics::CACHE_OVER_BYTES).set(status.over_bytes as f64);
        Ok(because)
    }

    /// Why nothing may go at all.
    async fn why_not(&self) -> Result<Option<&'static str>, String> {
        let store = self.shared.store.clone();
        if !blocking(move || is_adopted(&store)).await.map_err(text)?.map_err(text)? {
            return Ok(Some("content of an earlier version is not noted as kept yet"));
        }
        let is_alone = !self.has_peers().await;
        Ok(is_alone.then_some("no other node answers that could give pulled content again"))
    }

    async fn usage(&self) -> Result<Usage, String> {
        fn read(store: &Store) -> std::io::Result<Usage> {
            Ok(Usage { space: store.space()?, blob_bytes: store.blob_bytes()? })
        }
        let store = self.shared.store.clone();
        blocking(move || read(&store)).await.map_err(text)?.map_err(text)
    }

    async fn evict(&self, bytes: u64, settings: CacheSettings) -> Result<EvictReport, String> {
        let mut run = self.shared.store.evict(settings.options(bytes));
        loop {
            let step = blocking(move || {
                let step = run.step();
                (run, step)
            });
            let (back, step) = step.await.map_err(text)?;
            run = back;
            let step = step.map_err(text)?;
            self.withdraw(step.removed).await;
            if step.done {
                break;
            }
            tokio::time::sleep(STEP_PAUSE).await;
        }
        let report = run.report();
        tracing::info!(wanted = bytes, ?report, "pulled content has made room");
        let mut status = self.status();
        status.evicted_blobs += report.blobs_removed;
        status.evicted_bytes += report.bytes_freed;
        metrics::counter!(crate::metrics::EVICTED_BLOBS).increment(report.blobs_removed);
        metrics::counter!(crate::metrics::EVICTED_BYTES).increment(report.bytes_freed);
        Ok(report)
    }
}

fn what_is_left(report: &EvictReport) -> String {
    let EvictReport { duty_bytes, held_bytes, young_bytes, .. } = report;
    format!(
        "what is left may not go: {duty_bytes} bytes kept for the swarm, {held_bytes} pinned or in use, \
         {young_bytes} used lately"
    )
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(used: u64, blob_bytes: u64) -> Usage {
        Usage { space: Space { total: 1000, free: 1000 - used }, blob_bytes }
    }

    #[test]
    fn room_is_made_between_the_watermarks() {
        let settings = CacheSettings::default();
        assert_eq!(usage(800, 0).wanted(settings), 0, "at the mark is not above");
        assert_eq!(usage(801, 0).wanted(settings), 201);
        assert_eq!((usage(801, 0).over(settings), usage(700, 0).over(settings)), (1, 0));
        let sized = CacheSettings { size: Some(100), ..settings };
        assert_eq!(usage(0, 80).wanted(sized), 0);
        assert_eq!(usage(0, 90).wanted(sized), 30);
        assert_eq!(usage(900, 90).wanted(sized), 300, "the fuller of the two decides");
        let huge = Usage { space: Space { total: u64::MAX, free: 0 }, blob_bytes: 0 };
        assert!(huge.wanted(settings) > u64::MAX / 3);
    }
}
