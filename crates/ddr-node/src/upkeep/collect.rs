//! Garbage is collected.
//!
//! Decides what the store cannot know: which manifests other nodes' tags reach, how long what other
//! nodes may need stays, and that what went is no longer announced.

use std::collections::BTreeSet;
use std::time::Duration;

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::Key;
use ddr_proto::wire::{NameRecord, Placement};
use ddr_store::{Gc, GcOptions, Store, now_ms};
use futures_util::stream::{self, StreamExt};

use super::{GcRequest, SWARM_GRACE, Upkeep, UpkeepSettings};
use crate::blocking;
use crate::job::{Ended, Job};

/// Pause between two steps in the background.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// Withdrawals under way at once.
const MAX_AT_ONCE: usize = 8;
/// Name records read at once.
const NAME_PAGE: usize = 1024;

impl Upkeep {
    /// Collects every `gc_interval`, give or take a tenth.
    pub(super) async fn collect_regularly(&self, settings: UpkeepSettings) {
        let UpkeepSettings { gc_interval, gc_grace: grace, .. } = settings;
        if gc_interval.is_zero() {
            return;
        }
        loop {
            tokio::time::sleep(jittered(gc_interval)).await;
            let Some(job) = self.collections.begin(true) else { continue };
            let grace = match self.has_members().await {
                true => grace.max(SWARM_GRACE),
                false => grace,
            };
            let request = GcRequest { grace, untagged: false, dry_run: false };
            let ended = self.collect(&job, request, true).await;
            if let Err(error) = &ended {
                tracing::warn!(error, "garbage was not collected");
            }
            job.end(ended);
        }
    }

    pub(super) async fn collect(
        &self,
        job: &Job,
        request: GcRequest,
        background: bool,
    ) -> Result<Ended, String> {
        let store = self.shared.store.clone();
        let in_swarm = self.has_members().await;
        let tagged = match request.untagged {
            true => blocking(move || tagged_elsewhere(&store, in_swarm))
                .await
                .map_err(text)?
                .map_err(text)?,
            false => BTreeSet::new(),
        };
        let mut gc = self.shared.store.gc(GcOptions {
            now_ms: now_ms(),
            grace_ms: u64::try_from(request.grace.as_millis()).unwrap_or(u64::MAX),
            untagged: request.untagged,
            dry_run: request.dry_run,
            tagged,
        });
        loop {
            let step = blocking(move || {
                let step = gc.step();
                let progress = gc.progress().unwrap_or_default();
                (gc, step, progress)
            });
            let (back, step, progress) = step.await.map_err(text)?;
            gc = back;
            job.tell(&gc.phase(), progress, &gc.report());
            let step = step.map_err(text)?;
            self.withdraw(step.removed).await;
            let stopped = job.is_stopped() || self.is_stopping();
            if step.done || stopped {
                note(&gc, request);
                return Ok(Ended { stopped: stopped && !step.done, damage: false });
            }
            if background {
                job.pause(STEP_PAUSE).await;
            }
        }
    }

    /// Takes announcements back, unless the content is here after all.
    pub(super) async fn withdraw(&self, digests: Vec<Digest>) {
        let withdrawals = digests.into_iter().map(|digest| async move {
            if !self.is_held(digest).await {
                self.overlay.withdraw(Key::of_content(&digest)).await;
                if self.is_held(digest).await {
                    self.shared.announcer.announce_again(digest);
                }
            }
        });
        stream::iter(withdrawals).for_each_concurrent(MAX_AT_ONCE, |withdrawal| withdrawal).await;
    }

    async fn is_held(&self, digest: Digest) -> bool {
        let store = self.shared.store.clone();
        let held = blocking(move || {
            Ok::<_, std::io::Error>(
                store.blob_size(&digest)?.is_some() || store.any_manifest(&digest)?.is_some(),
            )
        });
        // What cannot be read now stays announced: a peer that asks gets a no.
        held.await.is_ok_and(|held| held.unwrap_or(true))
    }
}

/// The manifests that the name records kept here point to: tags that the local list may lack. In a swarm
/// also those that are kept for it: a tag that this node does not know of may reach them.
fn tagged_elsewhere(
    store: &Store,
    in_swarm: bool,
) -> std::io::Result<BTreeSet<(RepositoryName, Digest)>> {
    let mut tagged = if in_swarm { kept_for_the_swarm(store)? } else { BTreeSet::new() };
    let mut after = None;
    loop {
        let page = store.names(NAME_PAGE, after)?;
        let Some((last, _)) = page.last() else { return Ok(tagged) };
        after = Some(*last);
        let records = page.iter().filter_map(|(_, bytes)| NameRecord::from_bytes(bytes).ok());
        tagged.extend(records.filter_map(|record| Some((record.repository, record.digest?))));
    }
}

fn kept_for_the_swarm(store: &Store) -> std::io::Result<BTreeSet<(RepositoryName, Digest)>> {
    let (mut kept, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.replicas(after.as_ref(), NAME_PAGE)?;
        let Some(last) = page.last() else { return Ok(kept) };
        after = Some((last.repository.clone(), last.manifest));
        // Of a row that cannot be read nobody knows who else has the content.
        let shared = page.into_iter().filter(|row| {
            Placement::decode(&row.record)
                .map_or(true, |placement| placement.parts().any(|part| part.holders.len() > 1))
        });
        kept.extend(shared.map(|row| (row.repository, row.manifest)));
    }
}

fn note(gc: &Gc, request: GcRequest) {
    let report = gc.report();
    tracing::info!(?request, ?report, "garbage was collected");
    if !request.dry_run {
        metrics::counter!(crate::metrics::GC_RUNS).increment(1);
        metrics::counter!(crate::metrics::GC_BLOBS).increment(report.blobs_removed);
        metrics::counter!(crate::metrics::GC_BYTES).increment(report.bytes_freed);
    }
}

/// A time between nine and eleven tenths of `time`.
fn jittered(time: Duration) -> Duration {
    let chance = getrandom::u32().unwrap_or(u32::MAX / 2);
    time.mul_f64(0.9 + 0.2 * f64::from(chance) / f64::from(u32::MAX))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
