//! Upkeep: garbage is collected and the store verified, in the background and when asked.
//!
//! Decides when a run begins, how fast it goes, and what happens to what it finds: removed content
//! is no longer announced, lost content is fetched again from whoever has it. Pulled content makes room where
//! the disk gets full. One run of a kind at
//! a time; one that an operator asks for takes the place of one in the background. It must never
//! hold up clients: every step is short and runs where it may block.

mod ask;
mod collect;
mod evict;
mod scrub;

use std::sync::Arc;
use std::time::Duration;

use ddr_store::Store;
use tokio::sync::watch;

pub use evict::{CACHE_HIGH, CACHE_LOW, CacheSettings, CacheStatus};

use crate::blocking;
use crate::job::{Board, JobBusy, JobKind, JobStatus};
use crate::overlay::OverlayHandle;
use crate::pull::{Pull, Shared};

/// How often garbage is collected unless configured otherwise.
pub const GC_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long content without a reference stays after its last use unless configured otherwise.
pub const GC_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest that it stays in the background where the swarm has other members: a manifest of
/// theirs may need what no manifest here does, and they may be away for some days.
pub const SWARM_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// In what time the background reads every blob once unless configured otherwise.
pub const SCRUB_PASS: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The slowest the background reads, bytes a second.
pub const MIN_SCRUB_RATE: u64 = 256 * 1024;
/// How often uses that are only in memory are written.
const TOUCHES_EVERY: Duration = Duration::from_secs(60);
/// How long a run that was asked for waits for the one in the background to end.
const PREEMPT_WAIT: Duration = Duration::from_secs(5);

/// What an operator may change about upkeep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UpkeepSettings {
    /// Time between two collections in the background; zero: none.
    pub gc_interval: Duration,
    /// The grace window of these; [`SWARM_GRACE`] in a swarm if that is longer.
    pub gc_grace: Duration,
    /// Bytes that the background verifies in a second; 0: nothing; `None`: as many as it takes to
    /// read everything in [`SCRUB_PASS`].
    pub scrub_rate: Option<u64>,
    /// When pulled content makes room.
    pub cache: CacheSettings,
}

impl Default for UpkeepSettings {
    fn default() -> Self {
        Self {
            gc_interval: GC_INTERVAL,
            gc_grace: GC_GRACE,
            scrub_rate: None,
            cache: CacheSettings::default(),
        }
    }
}

/// A collection of garbage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GcRequest {
    /// How long content without a reference stays after its last use.
    pub grace: Duration,
    /// Also manifests that no tag reaches.
    pub untagged: bool,
    /// Only count.
    pub dry_run: bool,
}

/// A verification.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct VerifyRequest {
    /// Without reading the bytes of blobs.
    pub fast: bool,
    /// Bytes a second, as many as possible without.
    pub limit: Option<u64>,
}

/// See the module comment. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Upkeep {
    shared: Arc<Shared>,
    pull: Arc<Pull>,
    overlay: OverlayHandle,
    room: Arc<evict::Room>,
    /// Where collections are noted.
    pub(crate) collections: Arc<Board>,
    /// Where verifications are noted.
    pub(crate) verifications: Arc<Board>,
}

impl Upkeep {
    pub(crate) fn new(shared: Arc<Shared>, pull: Arc<Pull>, overlay: OverlayHandle) -> Self {
        let collections = Arc::new(Board::new(JobKind::Gc));
        let verifications = Arc::new(Board::new(JobKind::Verify));
        let room = Arc::new(evict::Room::default());
        Self { shared, pull, overlay, room, collections, verifications }
    }

    /// Begins to collect garbage.
    pub(crate) async fn start_gc(&self, request: GcRequest) -> Result<JobStatus, JobBusy> {
        let job = self.collections.take_over(PREEMPT_WAIT).await?;
        let (upkeep, status) = (self.clone(), job.status());
        tokio::spawn(async move { job.end(upkeep.collect(&job, request, false).await) });
        Ok(status)
    }

    /// Begins to verify the store.
    pub(crate) async fn start_verify(&self, request: VerifyRequest) -> Result<JobStatus, JobBusy> {
        let job = self.verifications.take_over(PREEMPT_WAIT).await?;
        let (upkeep, status) = (self.clone(), job.status());
        tokio::spawn(async move { job.end(upkeep.verify(&job, request).await) });
        Ok(status)
    }

    /// Everything that goes on in the background, until the node stops.
    pub(crate) async fn run(self, settings: UpkeepSettings, stop: watch::Receiver<bool>) {
        tokio::join!(
            keep_touches(self.shared.store.clone(), stop.clone()),
            until(stop.clone(), self.collect_regularly(settings)),
            until(stop.clone(), self.ask_regularly()),
            until(stop.clone(), self.evict_regularly(settings.cache)),
            until(stop, self.scrub_for_ever(settings)),
        );
    }

    fn is_stopping(&self) -> bool {
        *self.shared.stopped.borrow()
    }

    /// Whether other members are known, be they away.
    async fn has_members(&self) -> bool {
        let view = self.overlay.view().await;
        let own = self.shared.own.id;
        view.contacts.iter().any(|peer| peer.contact.id != own)
            || !self.shared.peers.members_alive_lately().is_empty()
    }

    /// Whether there is anybody who could be asked for content.
    async fn has_peers(&self) -> bool {
        self.overlay.view().await.contacts.iter().any(|peer| peer.alive)
    }
}

async fn until(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

/// Writes uses now and then, and at the end.
async fn keep_touches(store: Store, mut stop: watch::Receiver<bool>) {
    loop {
        let stopped = stop.wait_for(|stop| *stop);
        let ended = tokio::time::timeout(TOUCHES_EVERY, stopped).await.is_ok();
        let store = store.clone();
        match blocking(move || store.write_touches()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "uses of content were not written"),
            Err(error) => tracing::warn!(%error, "uses of content were not written"),
        }
        if ended {
            return;
        }
    }
}
