//! Before this node leaves, others keep what it kept.
//!
//! Decides what has to be handed over: at a stop what only this node holds, at a drain everything.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ddr_proto::id::Key;
use ddr_proto::wire::{PlacedPart, Placement};
use serde::Serialize;

use super::Copies;
use super::mend::PAGE;
use crate::ReadError;
use crate::job::{Ended, Job, JobBusy, JobStatus};

/// How long a stop waits for what only this node holds to lie elsewhere.
const LEAVE_LIMIT: Duration = Duration::from_secs(30);

/// How long a drain waits for the one before it: none is in the background.
const PATIENCE: Duration = Duration::ZERO;

/// How far the handing over is.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct HandedOver {
    /// Parts that others keep now.
    pub(crate) parts: u64,
    /// Bytes of these.
    pub(crate) bytes: u64,
    /// Bytes of all parts that were looked at.
    pub(crate) looked_at: u64,
    /// Parts that nobody could take.
    pub(crate) left: u64,
}

impl Copies {
    /// Begins to hand over everything; no new duties are taken until [`Self::end_drain`] or a restart.
    pub(crate) async fn start_drain(self: &Arc<Self>) -> Result<JobStatus, JobBusy> {
        let job = self.drains.take_over(PATIENCE).await?;
        self.leaving.store(true, Ordering::Release);
        let (copies, status) = (Arc::clone(self), job.status());
        tokio::spawn(async move {
            let mut stopped = copies.parts.shared.stopped.clone();
            let ended = tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => Err("the node stops".into()),
                ended = job.unless_stopped(copies.drain(&job)) => {
                    ended.unwrap_or(Ok(Ended { stopped: true, damage: false }))
                }
            };
            job.end(ended);
        });
        Ok(status)
    }

    /// Ends a drain, under way or done: duties are taken again. Whether there was one.
    pub(crate) fn end_drain(&self) -> bool {
        let was_running = self.drains.stop();
        self.leaving.swap(false, Ordering::AcqRel) || was_running
    }

    async fn drain(&self, job: &Job) -> Result<Ended, String> {
        let total = self.tally().survey.bytes;
        let tell = |done: HandedOver| job.tell(&"handing over", (done.looked_at, total), &done);
        let done = self.hand_over(None, tell).await;
        let done = done.map_err(|error| error.to_string())?;
        Ok(Ended { stopped: false, damage: done.left > 0 })
    }

    /// Hands over what only this node holds, as far as that can be done in a while.
    pub(crate) async fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        let mut done = HandedOver::default();
        let work = self.hand_over(Some(1), |progress| done = progress);
        match tokio::time::timeout(LEAVE_LIMIT, work).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "content was not handed over"),
            Err(_) => tracing::warn!(
                ?done,
                "there was no time to hand over all that only this node holds"
            ),
        }
    }

    /// Hands over every part that fewer than `want` other nodes keep, or fewer than it shall have. Takes no new
    /// duties from then on.
    pub(crate) async fn hand_over(
        &self,
        want: Option<usize>,
        mut tell: impl FnMut(HandedOver),
    ) -> Result<HandedOver, ReadError> {
        self.leaving.store(true, Ordering::Release);
        let (mut progress, mut after) = (HandedOver::default(), None);
        if self.candidates(self.own().to_key()).await.is_empty() {
            return Ok(progress);
        }
        loop {
            let page = self.ledger.page(after.take(), PAGE).await?;
            for row in &page {
                let shall = || self.parts.settings.copies_of(&row.repository);
                let want = want.unwrap_or_else(shall);
                for part in row.parts().filter(|part| part.is_held_by(&self.own())) {
                    self.hand_over_part(row, part, want, &mut progress).await?;
                    progress.looked_at = progress.looked_at.saturating_add(part.size);
                    tell(progress);
                }
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else {
                return Ok(progress);
            };
            after = Some((last.repository.clone(), last.manifest.digest));
        }
    }

    async fn hand_over_part(
        &self,
        row: &Placement,
        part: &PlacedPart,
        want: usize,
        progress: &mut HandedOver,
    ) -> Result<(), ReadError> {
        let lost = self.watch.lost();
        let mut alive = self.watch.alive(&part.holders, &lost);
        alive.retain(|node| *node != self.own());
        if alive.len() >= want {
            return Ok(());
        }
        let digest = part.digest;
        let others = self.candidates(Key::of_content(&digest)).await.len();
        let mut order = self.order_of(row, &[PlacedPart { holders: alive, ..part.clone() }]);
        // This node does not count.
        order.here.clear();
        let mut raised = self.raise(&order, want.min(others)).await;
        if raised.fewest() < want.min(others) {
            progress.left += 1;
            tracing::warn!(%digest, why = ?raised.why, "nobody took over what only this node holds");
            return Ok(());
        }
        raised.held.iter_mut().for_each(|held| {
            held.insert(self.own());
        });
        self.note_raised(row, &order, &raised).await?;
        progress.parts += 1;
        progress.bytes += part.size;
        Ok(())
    }
}
