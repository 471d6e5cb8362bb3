//! What a fetch tells its readers, and what a reader may see of it.
//!
//! The rule: until the digest is proven the last [`HOLD_BACK`] bytes stay hidden, so nobody ever
//! holds a complete blob that is wrong. A blob no larger than that is hidden until it is proven.
//! The same holds for the end of a range, so no answer is complete before the proof.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ddr_store::FetchReader;
use tokio::sync::watch;

/// Bytes at the end of a blob, or of a range of it, that no client gets before the digest is proven.
pub(crate) const HOLD_BACK: u64 = 64 * 1024;

/// The state of one fetch, as published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Size as the first holder told it.
    pub(crate) size: Option<u64>,
    /// Bytes that may be read.
    pub(crate) visible: u64,
    /// What they are read from.
    pub(crate) reader: Option<FetchReader>,
    /// How it stands.
    pub(crate) phase: Phase,
    /// True once a client was answered: nothing can be taken back.
    pub(crate) handed_out: bool,
}

/// How a fetch stands.
#[derive(Clone, Debug, Default)]
pub(crate) enum Phase {
    /// Under way.
    #[default]
    Running,
    /// Proven, stored, linked.
    Committed,
    /// Nobody has it.
    Absent,
    /// Given up.
    Failed(Arc<str>),
}

impl Progress {
    /// Of `written` bytes, those that may be read before the digest is proven.
    pub(crate) fn visible_of(written: u64, size: u64) -> u64 {
        written.min(size.saturating_sub(HOLD_BACK))
    }

    /// The end of what a reader may have who must not see the bytes from `held` on before the
    /// digest is proven, which it is when all is visible.
    fn visible_before(&self, held: u64) -> u64 {
        if self.size == Some(self.visible) { self.visible } else { self.visible.min(held) }
    }

    /// True when a client can be answered: bytes to read, or the end, good or bad.
    pub(crate) fn is_telling(&self) -> bool {
        self.visible > 0 || !matches!(self.phase, Phase::Running)
    }
}

/// A reader's side of a running fetch. While one exists the fetch knows that somebody waits.
#[derive(Debug)]
pub(crate) struct Arriving {
    progress: watch::Receiver<Progress>,
    readers: Arc<AtomicUsize>,
}

impl Arriving {
    pub(crate) fn new(progress: watch::Receiver<Progress>, readers: Arc<AtomicUsize>) -> Self {
        readers.fetch_add(1, Ordering::SeqCst);
        Self { progress, readers }
    }

    /// Waits until the fetch has something to tell; see [`Progress::is_telling`].
    pub(crate) async fn wait_telling(&mut self) -> Progress {
        match self.progress.wait_for(Progress::is_telling).await {
            Ok(progress) => progress.clone(),
            Err(_) => gone(),
        }
    }

    /// Waits for the end, good or bad.
    pub(crate) async fn wait_ended(&mut self) -> Phase {
        let ended = |progress: &Progress| !matches!(progress.phase, Phase::Running);
        match self.progress.wait_for(ended).await {
            Ok(progress) => progress.phase.clone(),
            Err(_) => gone().phase,
        }
    }

    /// Waits until byte `at` of `range` may be read; answers the reader and the end of what may
    /// be read.
    pub(crate) async fn wait_beyond(
        &mut self,
        at: u64,
        range: &Range<u64>,
    ) -> io::Result<(FetchReader, u64)> {
        let held = range.start.max(range.end.saturating_sub(HOLD_BACK));
        let ready = |progress: &Progress| {
            progress.visible_before(held) > at || !matches!(progress.phase, Phase::Running)
        };
        let progress = match self.progress.wait_for(ready).await {
            Ok(progress) => progress.clone(),
            Err(_) => gone(),
        };
        let visible = progress.visible_before(held);
        match (progress.phase, progress.reader) {
            (Phase::Running | Phase::Committed, Some(reader)) if visible > at => {
                Ok((reader, visible))
            }
            (Phase::Failed(why), _) => Err(io::Error::other(why.to_string())),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the fetch ended early")),
        }
    }
}

impl Clone for Arriving {
    fn clone(&self) -> Self {
        Self::new(self.progress.clone(), Arc::clone(&self.readers))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

fn gone() -> Progress {
    Progress { phase: Phase::Failed("the fetch was stopped".into()), ..Progress::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_range_stays_hidden_until_the_proof() {
        let mut progress = Progress { size: Some(100), visible: 50, ..Progress::default() };
        assert_eq!(progress.visible_before(20), 20);
        assert_eq!(progress.visible_before(60), 50);
        progress.visible = 100;
        assert_eq!(progress.visible_before(20), 100);
    }

    #[test]
    fn the_end_stays_hidden() {
        assert_eq!(Progress::visible_of(10, 10), 0);
        assert_eq!(Progress::visible_of(HOLD_BACK, HOLD_BACK), 0);
        assert_eq!(Progress::visible_of(HOLD_BACK + 1, HOLD_BACK + 1), 1);
        assert_eq!(Progress::visible_of(5, 10 * HOLD_BACK), 5);
        assert_eq!(Progress::visible_of(10 * HOLD_BACK, 10 * HOLD_BACK), 9 * HOLD_BACK);
    }
}
