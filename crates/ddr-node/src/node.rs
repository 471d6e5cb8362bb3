//! The node as one value: what it is made of, and its public calls.
//!
//! Decides the order of start and shutdown. Each call is a line or two into the module that rules
//! it.

mod config;
mod run;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use ddr_net::Swarm;
use ddr_oci::{Digest, ImageReference, Reference, RepositoryName, Tag};
use ddr_proto::id::NodeId;
use ddr_store::{Store, UploadError};
use tokio::sync::watch;

pub use config::{Bandwidth, Limits, MAX_BLOB_BYTES, MAX_FETCHES, NodeConfig};

use crate::bootstrap::{Bootstrap, Sources};
use crate::clock::Clock;
use crate::copies::Copies;
use crate::driver::Watch;
use crate::job::{Board, JobBusy, JobKind, JobStatus};
use crate::names::Names;
use crate::overlay::OverlayHandle;
use crate::peers::Peers;
use crate::preheat::{Preheat, PullRequest};
use crate::pull::{Pull, Purpose, Shared, by_reference};
use crate::push::{Incoming, Origin, Push};
use crate::reach::{self, Scout};
use crate::status::{self, MAX_SOURCES};
use crate::tokens::Tokens;
use crate::upkeep::{GcRequest, Upkeep, VerifyRequest};
use crate::{
    Blob, Budget, DeleteError, DialReport, FindError, FindReport, ImageStatus, ManifestContent,
    PeerStatus, PinError, PinStatus, PutManifest, PutManifestError, Reach, ReadError, Referrers,
    RemovedImage, StartError, Status, SwarmStatus, TagList, TagVersion, TokenError, TokenInfo,
    Upload, blocking, images, lists, pins,
};

/// A node that runs. Cheap to clone; all clones are the same node.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.inner.shared.own.id).finish_non_exhaustive()
    }
}

/// The parts. They hold each other only downwards, so dropping the last clone ends them.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pull: Arc<Pull>,
    pub(crate) names: Arc<Names>,
    pub(crate) push: Arc<Push>,
    upkeep: Upkeep,
    preheat: Preheat,
    copies: Arc<Copies>,
    beside: Option<Arc<Watch>>,
    overlay: OverlayHandle,
    bootstrap: Arc<Bootstrap>,
    peers: Arc<Peers>,
    tokens: Arc<Tokens>,
    swarm: Swarm,
    clock: Clock,
    closing: AtomicBool,
    stop: watch::Sender<bool>,
    joined: Arc<watch::Sender<bool>>,
    /// Held while peers are asked for [`Node::reach`].
    looking: tokio::sync::Mutex<()>,
    tasks: run::Tasks,
}

impl Node {
    /// Starts the node: serves peers, joins the overlay, announces what the store holds.
    /// Returns once peers are served; joining goes on behind, see [`Self::ready`].
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::start_with(config, Sources::default()).await
    }

    /// The same, with more places where it looks for others.
    pub async fn start_with(config: NodeConfig, sources: Sources) -> Result<Self, StartError> {
        Ok(Self { inner: Arc::new(run::start(config, sources).await?) })
    }

    /// Leaves: hands over what only it keeps, withdraws its records, says goodbye, saves its peers, stops
    /// all tasks. Takes a few seconds, and half a minute more where much is handed over; a second call
    /// returns at once.
    pub async fn shutdown(&self) {
        run::shutdown(&self.inner).await;
    }

    /// True once the node serves and has joined, or has nobody to join.
    pub fn ready(&self) -> bool {
        *self.inner.joined.borrow()
    }

    /// Waits until [`Self::ready`].
    pub async fn wait_ready(&self) {
        let mut joined = self.inner.joined.subscribe();
        let _ = joined.wait_for(|joined| *joined).await;
    }

    /// The memory for bytes on their way, of which the receiving of content takes its part too.
    pub fn buffers(&self) -> &Budget {
        &self.inner.shared.buffers
    }

    /// How fast content goes from and to other nodes.
    pub fn bandwidth(&self) -> Bandwidth {
        let throttles = &self.inner.shared.throttles;
        Bandwidth { upload: throttles.upload.rate(), download: throttles.download.rate() }
    }

    /// Other limits from now on, until the node stops.
    pub fn set_bandwidth(&self, bandwidth: Bandwidth) {
        let throttles = &self.inner.shared.throttles;
        throttles.upload.set(bandwidth.upload);
        throttles.download.set(bandwidth.download);
        tracing::info!(?bandwidth, "new limits for what goes between nodes");
    }

    /// Size of a blob: local and linked under `repository`, else as a holder tells it. `None`:
    /// nobody has it there.
    pub async fn stat_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, ReadError> {
        self.inner.pull.stat_blob(repository, digest).await
    }

    /// A blob to read from. When it comes from peers its first bytes are here already, or all of
    /// it when it is small. `None`: nobody has it there.
    pub async fn open_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Blob>, ReadError> {
        self.inner.pull.open_blob(repository, digest, Purpose::Read).await
    }

    /// The same for a client that reads a part of it: of a blob on its way only what is read is asked
    /// for, and a little ahead of that.
    pub async fn open_blob_part(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Blob>, ReadError> {
        self.inner.pull.open_blob(repository, digest, Purpose::ReadPart).await
    }

    /// A manifest. By tag: what a quorum says; by digest: local, else proven from a peer.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<ManifestContent>, ReadError> {
        let Inner { names, pull, .. } = &*self.inner;
        let found = by_reference(names, pull, repository, reference).await?;
        let Some(beside) = self.inner.beside.as_ref().filter(|_| found.is_none()) else {
            return Ok(found);
        };
        if !beside.look_for(repository, reference).await {
            return Ok(None);
        }
        by_reference(names, pull, repository, reference).await
    }

    /// Opens an upload session and answers its id.
    pub async fn begin_upload(&self, repository: &RepositoryName) -> Result<String, UploadError> {
        self.inner.push.begin(repository).await
    }

    /// Takes a session for writing. One request holds it at a time; another gets
    /// [`UploadError::Busy`] after a short wait.
    pub async fn upload(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Upload, UploadError> {
        self.inner.push.upload(repository, id).await
    }

    /// Links a blob that is on this disk to `repository`, if `from` links it, or without `from`
    /// any repository that the caller may read. False: the client has to upload it.
    pub async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<bool, UploadError> {
        self.inner.push.mount(repository, digest, from).await
    }

    /// Stores a manifest and points `reference` (when it is a tag) and `tags` to it.
    ///
    /// When it answers, the manifest is durable here, announced (within a bounded wait), and each
    /// tag is durable on a majority of the nodes that keep it.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        tags: &[Tag],
        content_type: Option<&str>,
        bytes: Bytes,
    ) -> Result<PutManifest, PutManifestError> {
        let origin = Origin::Client;
        let incoming = Incoming { repository, reference, tags, content_type, bytes, origin };
        self.inner.push.put_manifest(incoming).await
    }

    /// Deletes a tag, or a manifest with the tags that point to it, in the whole swarm. False:
    /// there was none.
    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<bool, DeleteError> {
        self.inner.push.delete_manifest(repository, reference).await
    }

    /// Deletes a blob from `repository` in the whole swarm. False: nobody had it there.
    pub async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, DeleteError> {
        self.inner.push.delete_blob(repository, digest).await
    }

    /// Tags in byte order after `last`, at most `limit`; `None` when the repository is unknown.
    /// Those of the whole swarm: a tag whose push has been answered is there, unless the list is
    /// stale. Of a mirrored repository those that its registry lists.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Option<TagList>, ReadError> {
        lists::tags(&self.inner, repository, last, limit).await
    }

    /// What a tag points to and pointed to, newest first: at most
    /// [`MAX_HISTORY`](ddr_proto::wire::MAX_HISTORY), as far as the nodes that keep it remember.
    pub async fn tag_history(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Vec<TagVersion>, ReadError> {
        self.inner.names.history(repository, tag).await
    }

    /// Repositories of the whole swarm in byte order after `last`, at most `limit`.
    pub async fn repositories(
        &self,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, ReadError> {
        lists::repositories(&self.inner, last, limit).await
    }

    /// Descriptors of the manifests whose subject is `digest`, in the order of their digests:
    /// those of the whole swarm, at most [`MAX_REFERRERS`](crate::MAX_REFERRERS). Of a mirrored repository those that
    /// its registry lists.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Referrers, ReadError> {
        lists::referrers(&self.inner, repository, digest).await
    }

    /// Deletes a tag, or with `by_digest` the manifest that it points to and all tags that do, in the
    /// whole swarm; an image by digest always so. `None`: there is none.
    pub async fn remove_image(
        &self,
        image: &ImageReference,
        by_digest: bool,
    ) -> Result<Option<RemovedImage>, DeleteError> {
        images::remove(&self.inner, &self.place(image), by_digest).await
    }

    /// Who holds a digest (`sha256:...`) or an image (`team/app:1.0`).
    pub async fn find(&self, what: &str) -> Result<FindReport, FindError> {
        images::find(&self.inner, what).await
    }

    /// The node's state and sums.
    pub async fn status(&self) -> Status {
        let inner = &self.inner;
        let view = inner.overlay.view().await;
        let (store, names) = (self.store(), Arc::clone(&inner.names));
        let counts = blocking(move || run::counts(&store, &names)).await;
        let counts = counts.ok().and_then(Result::ok).unwrap_or_default();
        let peers = view.contacts.iter().filter(|peer| peer.alive).count();
        metrics::gauge!(crate::metrics::PEERS).set(peers as f64);
        Status {
            node_id: inner.shared.own.id.to_string(),
            swarm_id: inner.swarm.swarm_id().to_string(),
            zone: inner.shared.own.zone.clone(),
            advertise: inner.shared.own.addrs.clone(),
            uptime_ms: inner.clock.uptime_ms(),
            ready: self.ready(),
            peers,
            struck: inner.peers.struck_now().len(),
            swarm_size: view.swarm_size,
            bootstrap: inner.bootstrap.status(),
            blobs: counts.blobs,
            blob_bytes: counts.blob_bytes,
            manifests: counts.manifests,
            names: counts.names,
            provided: view.provided,
            provider_records: view.stored_records,
            fetches_running: inner.pull.running(),
            swarms: inner.pull.swarms(),
            copies: inner.copies.status(),
            cache: inner.upkeep.cache(),
            driver: inner.beside.as_ref().map(|beside| beside.status(counts.outside)),
            traffic: inner.shared.traffic.read(),
            sources: inner.peers.sources(MAX_SOURCES),
            images: inner.peers.images(MAX_SOURCES),
        }
    }

    /// The registry beside this node says that a manifest was pushed to it. False: nothing lies beside, or too much is to
    /// be looked at; it is found with the next look at everything.
    pub fn look_beside(&self, repository: RepositoryName, reference: Reference) -> bool {
        self.inner.beside.as_ref().is_some_and(|beside| beside.told(repository, reference))
    }

    /// The blobs on their way here now, as their fetches began.
    pub fn swarms(&self) -> Vec<SwarmStatus> {
        self.inner.pull.swarms()
    }

    /// The nodes it knows, in the order of the routing table, then those that are struck and not in it.
    pub async fn peers(&self) -> Vec<PeerStatus> {
        let view = self.inner.overlay.view().await;
        status::peers(view.contacts, &self.inner.peers, self.inner.clock.now())
    }

    /// Asks known peers whether they are reached, what their clocks say, and whether they reach this node. One
    /// caller at a time; others wait. Takes some seconds where some do not answer.
    pub async fn reach(&self) -> Reach {
        let _turn = self.inner.looking.lock().await;
        self.scout().look().await
    }

    /// Dials this node at the addresses that others are told, by new connections, until one reaches it.
    pub async fn reach_itself(&self) -> Vec<DialReport> {
        self.scout().dial(&self.inner.shared.own).await
    }

    /// How far the machine's clock is ahead of the one that this node goes by since its start, in milliseconds.
    pub fn machine_clock_ahead_ms(&self) -> i64 {
        reach::machine_ahead_ms(&self.inner.clock)
    }

    /// The repositories of the local index.
    pub async fn images(&self) -> Result<Vec<ImageStatus>, ReadError> {
        images::images(self.store()).await
    }

    /// Begins to collect garbage. One run at a time; one in the background makes room.
    pub async fn start_gc(&self, request: GcRequest) -> Result<JobStatus, JobBusy> {
        self.inner.upkeep.start_gc(request).await
    }

    /// Begins to bring an image here, and to other nodes where that is asked for: all its manifests and
    /// blobs, without a client that reads them. One run at a time.
    pub async fn start_pull(&self, request: PullRequest) -> Result<JobStatus, JobBusy> {
        let image = self.place(&request.image);
        self.inner.preheat.start(PullRequest { image, ..request }).await
    }

    /// Pins an image that is on this disk: its manifests and blobs stay until it is unpinned or deleted,
    /// whatever is collected or makes room.
    pub async fn pin(&self, image: &ImageReference) -> Result<PinStatus, PinError> {
        pins::pin(&self.inner, &self.place(image)).await
    }

    /// Ends the pins of an image, named by its digest or as when it was pinned; which they were.
    pub async fn unpin(&self, image: ImageReference) -> Result<Vec<PinStatus>, ReadError> {
        pins::unpin(self.store(), self.place(&image)).await
    }

    /// The images that are pinned.
    pub async fn pins(&self) -> Result<Vec<PinStatus>, ReadError> {
        pins::pins(self.store()).await
    }

    /// Begins to verify the store, and to bring back from peers what was lost. One run at a time;
    /// one in the background makes room.
    pub async fn start_verify(&self, request: VerifyRequest) -> Result<JobStatus, JobBusy> {
        self.inner.upkeep.start_verify(request).await
    }

    /// Begins to hand over everything that it keeps for its swarm, for its retirement. It takes no new
    /// duties from then on, and serves what it has.
    pub async fn start_drain(&self) -> Result<JobStatus, JobBusy> {
        self.inner.copies.start_drain().await
    }

    /// The run of a kind that goes on, or the last one since the start.
    pub fn job(&self, kind: JobKind) -> JobStatus {
        self.board(kind).status()
    }

    /// Asks the run of a kind to end soon; whether one was under way. A drain that is done ends too: the node
    /// takes duties again.
    pub fn stop_job(&self, kind: JobKind) -> bool {
        match kind {
            JobKind::Drain => self.inner.copies.end_drain(),
            _ => self.board(kind).stop(),
        }
    }

    /// Makes a join token that works for `ttl`, at most [`crate::tokens::MAX_TTL`]. The text is a
    /// secret and is shown only now.
    pub async fn create_token(&self, ttl: Duration) -> Result<String, TokenError> {
        let addrs = self.inner.shared.own.addrs.clone();
        self.inner.tokens.create(addrs, ttl).await
    }

    /// Tokens that this node knows and that have not ended.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, TokenError> {
        Ok(self.inner.tokens.list())
    }

    /// Nobody joins with this token any more, at any node. False: it was revoked already.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, TokenError> {
        let fresh = self.inner.tokens.revoke(id).await?;
        if fresh {
            run::spread_revocations(&self.inner).await;
        }
        Ok(fresh)
    }

    /// Says that a node is gone for good, here and to every known node: names are decided without it, and
    /// its copies are made again at once. One that is heard again counts again. False: it is this node.
    pub async fn declare_gone(&self, node: NodeId) -> bool {
        if node == self.inner.shared.own.id {
            return false;
        }
        tracing::warn!(%node, "an operator says that a node is gone for good");
        run::spread_loss(&self.inner, node).await;
        true
    }

    fn board(&self, kind: JobKind) -> &Board {
        match kind {
            JobKind::Gc => &self.inner.upkeep.collections,
            JobKind::Verify => &self.inner.upkeep.verifications,
            JobKind::Pull => self.inner.preheat.board(),
            JobKind::Drain => &self.inner.copies.drains,
        }
    }

    fn place(&self, image: &ImageReference) -> ImageReference {
        self.inner.pull.mirror().place(image)
    }

    fn scout(&self) -> Scout<'_> {
        Scout {
            overlay: &self.inner.overlay,
            peers: &self.inner.peers,
            client: &self.inner.shared.client,
            caller: self.inner.names.caller(),
            clock: self.inner.clock,
        }
    }

    fn store(&self) -> Store {
        self.inner.shared.store.clone()
    }
}
