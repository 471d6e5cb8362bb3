//! Reading content: from this disk, else from whoever has it.
//!
//! The rules: local content is given only when the repository links it here; otherwise a holder
//! is asked under that repository, so a digest is never a licence to read. One fetch per digest
//! runs, however many clients wait. Nobody has it: `None`, within the lookup's budget.

mod around;
mod cold;
mod fetch;
mod filling;
mod locate;
mod manifests;
mod pieces;
mod places;
mod probe;
mod progress;
mod report;
mod slot;
mod source;
mod tally;
mod wanted;
mod whole;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddr_net::Client;
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::NodeId;
use ddr_proto::wire::{Contact, ContentKind};
use ddr_store::Store;
use tokio::sync::watch;

pub(crate) use cold::from as bytes_from;
pub(crate) use locate::{Holder, Locator};
pub(crate) use manifests::{by_reference, keep_or_log};
pub(crate) use places::Purpose;
pub(crate) use progress::Arriving;
pub(crate) use tally::Tally;

use crate::announce::Announcer;
use crate::blob::Blob;
use crate::budget::Budget;
use crate::deleted::Deleted;
use crate::flight::Flights;
use crate::forget::Forget;
use crate::mirror::{Mirror, Source};
use crate::peers::Peers;
use crate::status::Sums;
use crate::swarm::SwarmHandle;
use crate::throttle::Throttles;
use crate::{Limits, ManifestContent, ReadError, blocking};
use progress::Phase;
use slot::Slot;

/// Questions about one size, or for one manifest, at once.
const MAX_QUESTIONS: usize = 1024;
/// Rounds of "is it here now" before a read gives up: each ends with another reader's outcome.
const MAX_ROUNDS: usize = 4;

/// How long content that was fetched stays for whoever comes with its manifest, milliseconds: ten
/// minutes. The grace window begins when it is linked; this holds without one, too.
const FETCHED_STAYS_MS: u64 = 10 * 60 * 1000;

/// What clients are told of a fetch that failed.
pub(crate) const FETCH_FAILED: &str =
    "the blob could not be fetched from the nodes that hold it; try again";

type SizeKey = (RepositoryName, Digest);
type SizeAnswer = Result<Option<u64>, ReadError>;
type ManifestAnswer = Result<Option<ManifestContent>, ReadError>;

/// What all reading shares.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) locator: Locator,
    pub(crate) peers: Arc<Peers>,
    pub(crate) announcer: Announcer,
    pub(crate) swarm: SwarmHandle,
    pub(crate) deleted: Arc<Deleted>,
    pub(crate) forget: Arc<Forget>,
    pub(crate) traffic: Arc<Sums>,
    pub(crate) own: Contact,
    pub(crate) limits: Limits,
    /// How fast they go.
    pub(crate) throttles: Arc<Throttles>,
    /// Memory for bytes on their way.
    pub(crate) buffers: Budget,
    /// The registries that are mirrored.
    pub(crate) mirror: Mirror,
    /// True when the node stops: fetches end.
    pub(crate) stopped: watch::Receiver<bool>,
}

impl Shared {
    fn sources(&self, digest: &Digest) -> source::Sources {
        source::Sources::new(
            *digest,
            self.locator.clone(),
            Arc::clone(&self.peers),
            self.own.clone(),
        )
    }

    fn gave(&self, node: NodeId, repository: &RepositoryName, bytes: u64, first: bool) {
        self.peers.gave(node, repository, bytes, first);
        self.traffic.fetched(bytes);
    }
}

/// How far one looks for what is not here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// In the swarm, then at the registry that the repository belongs to.
    Swarm,
    /// At that registry only: for a node that has looked in the swarm.
    Upstream,
}

/// See the module comment.
pub(crate) struct Pull {
    shared: Arc<Shared>,
    running: Arc<Mutex<BTreeMap<Digest, Arc<Slot>>>>,
    sizes: Flights<SizeKey, SizeAnswer>,
    manifests: Flights<SizeKey, ManifestAnswer>,
}

impl Pull {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            running: Arc::default(),
            sizes: Flights::new(MAX_QUESTIONS),
            manifests: Flights::new(MAX_QUESTIONS),
        }
    }

    /// Fetches that run now.
    pub(crate) fn running(&self) -> usize {
        self.slots().len()
    }

    /// Everyone who is known to hold `digest`, after a full lookup.
    pub(crate) async fn holders(&self, digest: &Digest) -> Vec<Holder> {
        self.shared.locator.holders_anew(digest).all().await
    }

    /// See [`crate::Node::stat_blob`].
    pub(crate) async fn stat_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> SizeAnswer {
        if let Some(blob) = self.local(repository, digest).await? {
            return Ok(Some(blob.size()));
        }
        self.size_elsewhere(repository, digest).await
    }

    /// See [`crate::Node::open_blob`].
    pub(crate) async fn open_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        purpose: Purpose,
    ) -> Result<Option<Blob>, ReadError> {
        self.open_blob_within(Reach::Swarm, repository, digest, purpose).await
    }

    /// The same, looked for so far.
    pub(crate) async fn open_blob_within(
        &self,
        reach: Reach,
        repository: &RepositoryName,
        digest: &Digest,
        purpose: Purpose,
    ) -> Result<Option<Blob>, ReadError> {
        for _ in 0..MAX_ROUNDS {
            if let Some(blob) = self.local(repository, digest).await? {
                return Ok(Some(blob));
            }
            if self.shared.deleted.contains((repository, digest, ContentKind::Blob)).await? {
                return Ok(None);
            }
            let slot = match self.place(repository, digest, reach).await? {
                Place::Arriving(slot) => slot,
                Place::LookAgain => continue,
                Place::Nowhere => return Ok(None),
            };
            match self.wait(&slot, purpose).await? {
                Waited::Blob(blob) => return Ok(Some(blob)),
                Waited::Absent => return Ok(None),
                Waited::Ended => {}
            }
        }
        Err(ReadError::Unavailable("the content comes and goes; try again".into()))
    }

    /// See [`crate::Node::manifest`], by digest.
    pub(crate) async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> ManifestAnswer {
        self.manifest_within(Reach::Swarm, repository, digest).await
    }

    /// The same, looked for so far.
    pub(crate) async fn manifest_within(
        &self,
        reach: Reach,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> ManifestAnswer {
        if let Some((cached, is_due)) = self.shared.store.cached_manifest(repository, digest) {
            if is_due {
                self.note_use(repository, digest);
            }
            return Ok(Some(ManifestContent::shared(*digest, cached)));
        }
        if let Some(stored) = manifests::stored(&self.shared, repository, digest).await? {
            self.shared.store.touch(repository, digest);
            return Ok(Some(stored));
        }
        let key = (repository.clone(), *digest);
        if self.shared.deleted.contains((repository, digest, ContentKind::Manifest)).await? {
            return Ok(None);
        }
        let shared = Arc::clone(&self.shared);
        let work = || manifests::fetch(shared, key.0.clone(), key.1, reach);
        self.manifests.run(key.clone(), work).await.unwrap_or(Err(ReadError::Busy("manifests")))
    }

    /// The registries that are mirrored.
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.shared.mirror
    }

    /// Keeps a manifest that a registry gave; that it is not kept costs another question.
    pub(crate) async fn keep_given(
        &self,
        repository: &RepositoryName,
        source: &Source,
        given: ddr_upstream::Manifest,
    ) {
        match cold::parse(source, given) {
            Ok((content, manifest)) => {
                keep_or_log(&self.shared, repository, &content, &manifest).await;
            }
            Err(error) => {
                tracing::warn!(%repository, %error, "what a registry gave is no manifest");
            }
        }
    }

    /// Notes a use without a wait for it.
    fn note_use(&self, repository: &RepositoryName, digest: &Digest) {
        let (store, repository, digest) = (self.shared.store.clone(), repository.clone(), *digest);
        tokio::task::spawn_blocking(move || store.touch(&repository, &digest));
    }

    /// The blob when it is on this disk and `repository` links it.
    async fn local(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Blob>, ReadError> {
        let (store, repository, digest) = (self.shared.store.clone(), repository.clone(), *digest);
        let deleted = Arc::clone(&self.shared.deleted);
        let work = move || {
            // A fetch that ends while a delete is heard may link what it is about to forget.
            let content = (&repository, &digest, ContentKind::Blob);
            if !store.is_linked(&repository, &digest)? || deleted.is_marked(content)? {
                return Ok(None);
            }
            store.touch(&repository, &digest);
            store.blob(&digest)
        };
        let reader = blocking(work).await.map_err(ReadError::store)?;
        let buffers = self.shared.buffers.clone();
        let reader = reader.map_err(ReadError::store)?;
        Ok(reader.map(|reader| Blob::stored(reader, buffers)))
    }

    pub(crate) async fn size_elsewhere(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> SizeAnswer {
        if self.shared.deleted.contains((repository, digest, ContentKind::Blob)).await? {
            return Ok(None);
        }
        let key = (repository.clone(), *digest);
        let shared = Arc::clone(&self.shared);
        let work = || probe::size(shared, key.0.clone(), key.1);
        self.sizes.run(key.clone(), work).await.unwrap_or(Err(ReadError::Busy("questions")))
    }

    /// Where `repository` may read `digest`: from the fetch that runs, or from a new one.
    async fn place(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        reach: Reach,
    ) -> Result<Place, ReadError> {
        let running = self.slots().get(digest).cloned();
        match running {
            Some(slot) if slot.admits(repository) => Ok(Place::Arriving(slot)),
            Some(slot) => {
                // It arrives for another repository: this one must be known to have it too.
                if !self.may_read(repository, digest).await? {
                    return Ok(Place::Nowhere);
                }
                if !slot.admit(repository.clone()) {
                    return Err(ReadError::Busy("repositories that wait for one blob"));
                }
                Ok(if slot.is_running() { Place::Arriving(slot) } else { Place::LookAgain })
            }
            None if self.is_here(digest).await? => {
                // It is here for another repository: the same question, then only a link.
                if !self.may_read(repository, digest).await? {
                    return Ok(Place::Nowhere);
                }
                let (store, repository, digest) =
                    (self.shared.store.clone(), repository.clone(), *digest);
                let linked = blocking(move || store.link(&repository, &digest)).await;
                linked.map_err(ReadError::store)?.map_err(ReadError::store)?;
                Ok(Place::LookAgain)
            }
            None => self.start(repository, digest, reach),
        }
    }

    /// True when `repository` links `digest` here, as through a manifest that was pulled before
    /// its layers, or at a holder, who is asked.
    async fn may_read(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, ReadError> {
        let (store, key) = (self.shared.store.clone(), (repository.clone(), *digest));
        let linked = blocking(move || store.is_linked(&key.0, &key.1)).await;
        if linked.map_err(ReadError::store)?.map_err(ReadError::store)? {
            return Ok(true);
        }
        Ok(self.size_elsewhere(repository, digest).await?.is_some())
    }

    async fn is_here(&self, digest: &Digest) -> Result<bool, ReadError> {
        let (store, digest) = (self.shared.store.clone(), *digest);
        // What lies outside and cannot be read now is not here.
        let blob = blocking(move || store.blob(&digest)).await.map_err(ReadError::store)?;
        Ok(blob.map_err(ReadError::store)?.is_some())
    }

    /// A new fetch, unless another reader was first.
    fn start(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        reach: Reach,
    ) -> Result<Place, ReadError> {
        let mut slots = self.slots();
        if slots.contains_key(digest) {
            return Ok(Place::LookAgain);
        }
        if slots.len() >= self.shared.limits.max_fetches {
            return Err(ReadError::Busy("downloads"));
        }
        let slot = Arc::new(Slot::new(*digest, repository.clone()));
        slots.insert(*digest, Arc::clone(&slot));
        let leave = Leave { running: Arc::clone(&self.running), slot: Arc::clone(&slot) };
        let pin = self.shared.store.pin(digest, FETCHED_STAYS_MS);
        let (shared, repository) = (Arc::clone(&self.shared), repository.clone());
        let fetched = Arc::clone(&slot);
        // A runtime that ends drops the task inside `spawn`, and `leave` takes this lock.
        drop(slots);
        tokio::spawn(async move {
            let (_leave, _pin) = (leave, pin);
            let mut stopped = shared.stopped.clone();
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => {}
                () = fetch::run(shared, fetched, repository, reach) => {}
            }
        });
        Ok(Place::Arriving(slot))
    }

    async fn wait(&self, slot: &Arc<Slot>, purpose: Purpose) -> Result<Waited, ReadError> {
        let mut arriving = slot.arriving(purpose);
        loop {
            let progress = arriving.wait_telling().await;
            match progress.phase {
                Phase::Committed | Phase::Left => return Ok(Waited::Ended),
                Phase::Absent => return Ok(Waited::Absent),
                // Why is in the log, not for clients: it names addresses.
                Phase::Failed(_) => return Err(ReadError::Unavailable(FETCH_FAILED.into())),
                Phase::Running => {
                    if let Some(size) = slot.hand_out(purpose) {
                        return Ok(Waited::Blob(Blob::arriving(
                            size,
                            arriving,
                            self.shared.buffers.clone(),
                        )));
                    }
                }
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<Digest, Arc<Slot>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Place {
    Arriving(Arc<Slot>),
    LookAgain,
    Nowhere,
}

enum Waited {
    Blob(Blob),
    /// It was stored, or given up by the last reader: look again.
    Ended,
    Absent,
}

/// Takes a fetch off the list when its task ends, however that happens.
struct Leave {
    running: Arc<Mutex<BTreeMap<Digest, Arc<Slot>>>>,
    slot: Arc<Slot>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.slot.digest);
        if self.slot.is_running() {
            self.slot.end(Phase::Failed("the fetch was stopped".into()));
        }
    }
}
