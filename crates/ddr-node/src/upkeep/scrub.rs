//! The store is verified, and what was lost comes back from peers.
//!
//! Decides how fast: as fast as it goes for an operator without a limit, so slow that nobody
//! notices in the background, where a pass goes on after a restart where it was. Content comes
//! back by an ordinary fetch under a repository that links it, so nothing is trusted that a client
//! would not be given.

use std::time::Duration;

use ddr_oci::{Digest, Reference, RepositoryName};
use ddr_store::{Verify, VerifyOptions, VerifyReport, now_ms};
use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{MIN_SCRUB_RATE, SCRUB_PASS, Upkeep, UpkeepSettings, VerifyRequest};
use crate::blocking;
use crate::job::{Ended, Job};

/// Where the place of the background pass lies in the store's settings.
const SETTING: &str = "scrub";
/// How often that is written.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// How long after its start a node begins to verify in the background.
const FIRST_AFTER: Duration = Duration::from_secs(10 * 60);
/// Pause after each step in the background, besides that for its bytes.
const STEP_PAUSE: Duration = Duration::from_millis(20);
/// Wait before the background tries again after somebody else's run or a failure.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Lost blobs and manifests that one run tries to bring back.
const MAX_REPAIRS: usize = 1000;
/// How long bringing one back may take.
const REPAIR_LIMIT: Duration = Duration::from_secs(30 * 60);
/// Repositories under which one blob is looked for.
const MAX_REPOSITORIES: usize = 16;
/// Questions about links without content at once.
const MAX_AT_ONCE: usize = 8;

/// Where a pass in the background is.
#[derive(Default, Serialize, Deserialize)]
struct Place {
    started_ms: u64,
    after: Option<Digest>,
    done: bool,
}

/// The report of a run: what the store says, and what peers could do about it.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    store: &'a VerifyReport,
    /// Lost blobs and manifests that came back from peers.
    repaired: u64,
    /// Those that did not.
    not_repaired: Vec<Digest>,
    /// Links whose content is neither here nor with any peer that could be asked.
    dangling_everywhere: u64,
}

/// How fast a run goes.
#[derive(Clone, Copy)]
struct Pace {
    started: Instant,
    bytes: u64,
    rate: Option<u64>,
    pause: Duration,
}

impl Pace {
    fn new(rate: Option<u64>, pause: Duration) -> Self {
        Self { started: Instant::now(), bytes: 0, rate, pause }
    }

    /// How long to wait after so many more bytes.
    fn after(&mut self, bytes: u64) -> Duration {
        self.bytes += bytes;
        let due = match self.rate {
            Some(rate) => Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64),
            None => Duration::ZERO,
        };
        due.saturating_sub(self.started.elapsed()).max(self.pause)
    }
}

impl Upkeep {
    /// Verifies everything once in [`SCRUB_PASS`], again and again.
    pub(super) async fn scrub_for_ever(&self, settings: UpkeepSettings) {
        if settings.scrub_rate == Some(0) {
            return;
        }
        tokio::time::sleep(FIRST_AFTER).await;
        loop {
            let mut place = self.place().await;
            if place.done {
                let next_ms = place.started_ms.saturating_add(SCRUB_PASS.as_millis() as u64);
                tokio::time::sleep(Duration::from_millis(next_ms.saturating_sub(now_ms()))).await;
            }
            if place.done || place.started_ms == 0 {
                place = Place { started_ms: now_ms(), after: None, done: false };
            }
            if let Some(job) = self.verifications.begin(true) {
                let ended = self.scrub(&job, &settings, place).await;
                if let Err(error) = &ended {
                    tracing::warn!(error, "the store could not be verified");
                }
                job.end(ended);
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn scrub(
        &self,
        job: &Job,
        settings: &UpkeepSettings,
        mut place: Place,
    ) -> Result<Ended, String> {
        let store = self.shared.store.clone();
        let blobs = blocking(move || store.blobs()).await.map_err(text)?.map_err(text)?;
        let bytes: u64 = blobs.iter().map(|(_, size)| size).sum();
        let rate = settings
            .scrub_rate
            .unwrap_or(bytes / SCRUB_PASS.as_secs())
            .max(if settings.scrub_rate.is_some() { 1 } else { MIN_SCRUB_RATE });
        let options = VerifyOptions { fast: false, after: place.after };
        let mut pace = Pace::new(Some(rate), STEP_PAUSE);
        let mut saved = Instant::now();
        let mut verify = self.shared.store.verify(options);
        let stopped = loop {
            let (back, done) = self.step(job, verify, &mut pace).await?;
            verify = back;
            let stopped = job.is_stopped() || self.is_stopping();
            if done || stopped || saved.elapsed() >= SAVE_EVERY {
                place.after = verify.reached().or(place.after).filter(|_| !done);
                place.done = done;
                self.save(&place).await;
                saved = Instant::now();
            }
            if done || stopped {
                break stopped && !done;
            }
        };
        self.finish(job, &verify, stopped).await
    }

    /// Verifies the store for an operator.
    pub(super) async fn verify(&self, job: &Job, request: VerifyRequest) -> Result<Ended, String> {
        let mut pace = Pace::new(request.limit, Duration::ZERO);
        let options = VerifyOptions { fast: request.fast, after: None };
        let mut verify = self.shared.store.verify(options);
        loop {
            let (back, done) = self.step(job, verify, &mut pace).await?;
            verify = back;
            let stopped = job.is_stopped() || self.is_stopping();
            if done || stopped {
                return self.finish(job, &verify, stopped && !done).await;
            }
        }
    }

    /// One step, and the wait that the pace asks for.
    async fn step(
        &self,
        job: &Job,
        mut verify: Verify,
        pace: &mut Pace,
    ) -> Result<(Verify, bool), String> {
        let corrupt = verify.report().corrupt;
        let step = blocking(move || {
            let step = verify.step();
            let progress = verify.progress().unwrap_or_default();
            (verify, step, progress)
        });
        let (verify, step, progress) = step.await.map_err(text)?;
        let step = step.map_err(text)?;
        job.tell(&verify.phase(), progress, verify.report());
        metrics::counter!(crate::metrics::VERIFIED_BYTES).increment(step.bytes);
        let found = verify.report().corrupt - corrupt;
        if found > 0 {
            metrics::counter!(crate::metrics::CORRUPT).increment(found);
        }
        let wait = pace.after(step.bytes);
        if !wait.is_zero() && !step.done {
            job.pause(wait).await;
        }
        Ok((verify, step.done))
    }

    /// Brings back what was lost, asks for what dangles, and says what is left.
    async fn finish(&self, job: &Job, verify: &Verify, stopped: bool) -> Result<Ended, String> {
        let store = self.shared.store.clone();
        let lost = blocking(move || store.lost(MAX_REPAIRS)).await.map_err(text)?.map_err(text)?;
        let mut report = Report::new(verify.report());
        let has_peers = self.has_peers().await;
        for digest in lost {
            let is_back = !self.is_stopping()
                && has_peers
                && job.unless_stopped(self.bring_back(digest)).await.unwrap_or(false);
            match is_back {
                true => report.repaired += 1,
                false => report.not_repaired.push(digest),
            }
            job.tell(&"repairing", verify.progress().unwrap_or_default(), &report);
        }
        for (name, digest) in report.store.manifests_missing.iter().take(MAX_REPAIRS) {
            let reference = Reference::Digest(*digest);
            let fetch = self.bring_manifest_back(name, &reference, has_peers);
            match job.unless_stopped(fetch).await.unwrap_or(false) {
                true => report.repaired += 1,
                false => report.not_repaired.push(*digest),
            }
        }
        let stopped = stopped || job.is_stopped();
        if !stopped {
            let asked = job.unless_stopped(self.dangling_everywhere(&report, has_peers)).await;
            report.dangling_everywhere = asked.unwrap_or_default();
        }
        let stopped = stopped || job.is_stopped();
        metrics::counter!(crate::metrics::REPAIRED).increment(report.repaired);
        metrics::gauge!(crate::metrics::LOST).set(report.not_repaired.len() as f64);
        job.tell(&verify.phase(), verify.progress().unwrap_or_default(), &report);
        let damage = !report.not_repaired.is_empty() || report.store.unreadable > 0;
        if !report.not_repaired.is_empty() {
            let digests = &report.not_repaired;
            tracing::error!(?digests, "content was lost here, and no peer that was found has it");
        }
        Ok(Ended { stopped, damage })
    }

    async fn bring_back(&self, digest: Digest) -> bool {
        let store = self.shared.store.clone();
        let names = blocking(move || store.linking(&digest, MAX_REPOSITORIES)).await;
        let Ok(Ok(names)) = names else { return false };
        for name in names {
            let fetch = tokio::time::timeout(REPAIR_LIMIT, self.pull.bring(&name, &digest));
            match fetch.await {
                Ok(Ok(true)) => {
                    tracing::info!(%digest, repository = %name, "a lost blob came back");
                    return true;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%digest, %error, "a lost blob did not come back"),
                Err(_) => tracing::warn!(%digest, "a lost blob did not come back in time"),
            }
        }
        false
    }

    async fn bring_manifest_back(
        &self,
        name: &RepositoryName,
        reference: &Reference,
        has_peers: bool,
    ) -> bool {
        let Reference::Digest(digest) = reference else { return false };
        has_peers && self.pull.manifest(name, digest).await.is_ok_and(|found| found.is_some())
    }

    async fn dangling_everywhere(&self, report: &Report<'_>, has_peers: bool) -> u64 {
        if !has_peers {
            return report.store.links_without_content;
        }
        let pull = &self.pull;
        let questions =
            report.store.dangling.clone().into_iter().map(|(name, digest)| async move {
                matches!(pull.stat_blob(&name, &digest).await, Ok(None))
            });
        let mut answers = std::pin::pin!(stream::iter(questions).buffer_unordered(MAX_AT_ONCE));
        let mut nowhere = 0;
        while let Some(is_nowhere) = answers.next().await {
            nowhere += u64::from(is_nowhere);
        }
        nowhere
    }

    async fn place(&self) -> Place {
        let store = self.shared.store.clone();
        let saved = blocking(move || store.get_setting(SETTING)).await;
        let saved = saved.ok().and_then(Result::ok).flatten().unwrap_or_default();
        serde_json::from_slice(&saved).unwrap_or_default()
    }

    async fn save(&self, place: &Place) {
        let Ok(bytes) = serde_json::to_vec(place) else { return };
        let store = self.shared.store.clone();
        match blocking(move || store.set_setting(SETTING, &bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the place of the scrub was not saved"),
            Err(error) => tracing::warn!(%error, "the place of the scrub was not saved"),
        }
    }
}

impl<'a> Report<'a> {
    fn new(store: &'a VerifyReport) -> Self {
        Self { store, repaired: 0, not_repaired: Vec::new(), dangling_everywhere: 0 }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
