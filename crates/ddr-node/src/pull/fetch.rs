//! One fetch of a small blob, or of one that others hold in no usable pieces: the bytes of one blob from whichever peers have it, into the store.
//!
//! Decides what happens when a peer dies (another goes on at the same byte), lies (it is struck,
//! and the fetch starts over if no client has seen a byte), or when nobody is left (the fetch
//! fails and its readers end short). It must never commit content whose digest is not proven; the
//! store checks that, and this module never goes around it.

use std::sync::Arc;
use std::time::Duration;

use ddr_net::GetError;
use ddr_oci::RepositoryName;
use ddr_proto::wire::{Contact, ContentKind};
use ddr_store::IndexError;

use super::filling::{Answer, Filling, Leg, Unfit};
use super::probe::{self, First};
use super::progress::Phase;
use super::slot::Slot;
use super::source::Sources;
use super::{Reach, Shared, cold, pieces};

/// Times a fetch starts over after wrong content, or a size that nobody could fill.
const MAX_RESTARTS: u32 = 1;
/// How long to wait when a peer is busy.
const BUSY_WAIT: Duration = Duration::from_millis(100);
/// Such waits in one fetch.
const MAX_BUSY_WAITS: u32 = 30;
/// How long a fetch goes on when nobody reads it any more. What it stores is of use to others.
pub(super) const ABANDON_AFTER: Duration = Duration::from_secs(10 * 60);

/// How a fetch ended when it did not succeed.
enum End {
    Absent,
    Mismatch,
    /// Nobody could go on, and some tell another size.
    OtherSize,
    Failed(String),
}

impl From<Unfit> for End {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Mismatch => Self::Mismatch,
            Unfit::Failed(why) => Self::Failed(why),
        }
    }
}

/// Runs the fetch of `slot` to its end and publishes that.
pub(crate) async fn run(
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    repository: RepositoryName,
    reach: Reach,
) {
    let first = match reach {
        Reach::Swarm => probe::first_size(&shared, &repository, &slot.digest, None).await,
        Reach::Upstream => First::Absent,
    };
    let mut phase = bring(&shared, &slot, &repository, &first).await;
    if matches!(phase, Phase::Absent | Phase::Failed(_)) && slot.take_back() {
        phase = cold::bring(&shared, &slot, &repository, reach).await.unwrap_or(phase);
    }
    if matches!(phase, Phase::Left) {
        tracing::info!(digest = %slot.digest, "nobody reads a part of it any more");
    }
    if let Phase::Failed(why) = &phase {
        shared.traffic.fetch_failed();
        metrics::counter!(crate::metrics::FETCHES_FAILED).increment(1);
        tracing::warn!(digest = %slot.digest, %why, "a fetch failed");
    }
    let proven = slot.progress().size.filter(|_| matches!(phase, Phase::Committed));
    slot.end(phase);
    if let (First::Size(told, teller), Some(size)) = (first, proven)
        && told != size
    {
        probe::blame(&shared, (&repository, &slot.digest), size, &teller).await;
    }
}

/// Brings the blob here, in the way that fits the size that a holder told first.
async fn bring(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    repository: &RepositoryName,
    first: &First,
) -> Phase {
    match first {
        First::Absent => return Phase::Absent,
        First::Size(size, _) if pieces::fits(*size) && *size <= shared.limits.max_blob_bytes => {
            if let Ok(phase) = pieces::run(shared, slot, repository, *size).await {
                return phase;
            }
        }
        First::Size(..) | First::Unknown => {}
    }
    in_order(shared, slot, repository.clone()).await
}

/// The whole blob from one peer at a time.
async fn in_order(shared: &Arc<Shared>, slot: &Arc<Slot>, repository: RepositoryName) -> Phase {
    let mut job = Job::new(Arc::clone(shared), Arc::clone(slot), repository);
    let mut restarts = 0;
    loop {
        match job.attempt().await {
            Ok(()) => break Phase::Committed,
            Err(End::Mismatch | End::OtherSize) if restarts < MAX_RESTARTS && slot.take_back() => {
                restarts += 1;
            }
            Err(End::OtherSize) => break Phase::Failed("holders tell different sizes".into()),
            Err(End::Mismatch) => break Phase::Failed("the content was wrong".into()),
            Err(End::Absent) => break Phase::Absent,
            Err(End::Failed(why)) => break Phase::Failed(why.into()),
        }
    }
}

/// Links what was stored to every repository that waited for it. Blocks.
pub(super) fn link_all(shared: &Shared, slot: &Slot) -> Result<(), IndexError> {
    for name in slot.repositories() {
        // A delete may have come while the blob did, or may come just now.
        let content = (&name, &slot.digest, ContentKind::Blob);
        if shared.deleted.is_marked(content)? {
            continue;
        }
        shared.store.link(&name, &slot.digest)?;
        if shared.deleted.is_marked(content)? {
            shared.forget.content(content)?;
        }
    }
    Ok(())
}

struct Job {
    filling: Filling,
    sources: Sources,
    busy_waits: u32,
    last_failure: String,
}

impl Job {
    fn new(shared: Arc<Shared>, slot: Arc<Slot>, repository: RepositoryName) -> Self {
        let sources = shared.sources(&slot.digest);
        let filling = Filling::new(shared, slot, repository);
        Self { filling, sources, busy_waits: 0, last_failure: String::new() }
    }

    /// One try from byte 0 to a proven digest.
    async fn attempt(&mut self) -> Result<(), End> {
        // What was wrong with the first try may be its size: the others get their turn.
        for (node, _) in self.filling.start_over() {
            self.sources.give_back(&node);
        }
        let gathered = self.gather().await;
        // Also after a failure: the file must be let go before the next fetch of this digest.
        let Some(fetch) = self.filling.finish().await else {
            return gathered.and(Err(End::Failed("nothing was written".into())));
        };
        gathered?;
        match self.filling.commit(fetch?).await {
            Err(Unfit::Mismatch) => {
                for node in self.filling.convict() {
                    self.sources.give_up(&node);
                }
                Err(End::Mismatch)
            }
            committed => Ok(committed?),
        }
    }

    /// All bytes, from as many peers as it takes.
    async fn gather(&mut self) -> Result<(), End> {
        loop {
            let Some(peer) = self.sources.next().await else {
                return Err(self.nobody_left());
            };
            match self.leg(&peer).await {
                Leg::Complete => return Ok(()),
                Leg::Absent => self.sources.dismiss(&peer.id),
                Leg::OtherSize => self.sources.give_up(&peer.id),
                Leg::Busy(_) if self.busy_waits < MAX_BUSY_WAITS => {
                    self.busy_waits += 1;
                    self.sources.give_back(&peer.id);
                    tokio::time::sleep(BUSY_WAIT).await;
                }
                Leg::Busy(_) => {}
                Leg::TooLarge(why) => {
                    self.sources.give_up(&peer.id);
                    self.failed(&peer, why);
                }
                Leg::Broken(why) => self.failed(&peer, why),
                Leg::Stop(why) => return Err(End::Failed(why)),
            }
        }
    }

    fn failed(&mut self, peer: &Contact, why: String) {
        tracing::debug!(digest = %self.filling.slot.digest, peer = %peer.id, why, "a peer failed");
        self.last_failure = why;
    }

    fn nobody_left(&self) -> End {
        if !self.filling.has_begun() && !self.sources.any_failed() {
            return End::Absent;
        }
        if self.filling.is_disputed() {
            // Nothing is proven, so nobody is struck.
            tracing::debug!(digest = %self.filling.slot.digest, why = self.last_failure, "two sizes");
            return End::OtherSize;
        }
        let why = if self.last_failure.is_empty() { "avoided" } else { &self.last_failure };
        End::Failed(format!("no holder is left; the last failure: {why}"))
    }

    async fn leg(&mut self, peer: &Contact) -> Leg {
        let Filling { slot, repository, .. } = &self.filling;
        let path = ddr_net::blob_path(&slot.digest, Some(repository));
        leg(&mut self.filling, peer, &path).await
    }
}

/// Reads from one peer, address by address, from where the file ends.
pub(super) async fn leg(filling: &mut Filling, peer: &Contact, path: &str) -> Leg {
    let mut last = Leg::Broken("it has no address".into());
    for addr in peer.addrs.iter().copied() {
        let start = filling.offset();
        let range = (start > 0).then_some((start, None));
        match filling.shared.client.get(addr, Some(peer.id), path, range).await {
            Ok(body) => return filling.read(Answer::of_peer(addr, body)).await,
            Err(GetError::NotFound) => return Leg::Absent,
            Err(GetError::Unsatisfiable) => {
                filling.dissents(peer.id, addr);
                return Leg::OtherSize;
            }
            Err(GetError::Busy(answer)) => {
                return Leg::Busy(answer.others.into_iter().map(|other| other.contact).collect());
            }
            Err(GetError::TooMany) => return Leg::Busy(Vec::new()),
            Err(error) => last = Leg::Broken(error.to_string()),
        }
    }
    last
}
