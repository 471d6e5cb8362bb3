//! One fetch of a small blob, or of one that others hold in no usable pieces: the bytes of one blob from whichever peers have it, into the store.
//!
//! Decides what happens when a peer dies (another goes on at the same byte), lies (it is struck,
//! and the fetch starts over if no client has seen a byte), or when nobody is left (the fetch
//! fails and its readers end short). It must never commit content whose digest is not proven; the
//! store checks that, and this module never goes around it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ddr_net::{ContentBody, GetError};
use ddr_oci::RepositoryName;
use ddr_proto::id::NodeId;
use ddr_proto::swarm::Class;
use ddr_proto::wire::{Contact, ContentKind};
use ddr_store::{Fetch, Hashing, IndexError, UploadError};
use tokio::time::Instant;

use super::probe::{self, First};
use super::progress::Phase;
use super::slot::Slot;
use super::source::Sources;
use super::{Shared, pieces};
use crate::blocking;
use crate::writer::{Sink, Writer};

/// Times a fetch starts over after wrong content, or a size that nobody could fill.
const MAX_RESTARTS: u32 = 1;
/// How long to wait when a peer is busy.
const BUSY_WAIT: Duration = Duration::from_millis(100);
/// Such waits in one fetch.
const MAX_BUSY_WAITS: u32 = 30;
/// How long a fetch goes on when nobody reads it any more. What it stores is of use to others.
pub(super) const ABANDON_AFTER: Duration = Duration::from_secs(10 * 60);

impl Sink for Fetch {
    fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        Self::write(self, bytes)
    }

    fn hashing(&self) -> Option<Hashing> {
        Some(Self::hashing(self))
    }

    fn offset(&self) -> u64 {
        Self::offset(self)
    }
}

/// How a fetch ended when it did not succeed.
enum End {
    Absent,
    Mismatch,
    /// Nobody could go on, and some tell another size.
    OtherSize,
    Failed(String),
}

/// How reading from one peer ended.
enum Leg {
    /// The last byte is here.
    Complete,
    /// The peer does not have it in this repository.
    Absent,
    /// The peer failed; another may go on.
    Broken(String),
    /// The peer, or this node, has too many transfers; it may be asked again.
    Busy,
    /// The peer tells another size than the one before it.
    OtherSize,
    /// This node failed; nobody can go on.
    Stop(String),
}

/// Runs the fetch of `slot` to its end and publishes that.
pub(crate) async fn run(shared: Arc<Shared>, slot: Arc<Slot>, repository: RepositoryName) {
    let first = probe::first_size(&shared, &repository, &slot.digest, None).await;
    let phase = bring(&shared, &slot, &repository, &first).await;
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
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    repository: RepositoryName,
    sources: Sources,
    size: Option<u64>,
    /// Whose bytes are in the file; of an empty one, whose word that is.
    contributors: Vec<(NodeId, SocketAddr)>,
    /// Who told another size.
    dissenters: Vec<(NodeId, SocketAddr)>,
    unread_since: Option<Instant>,
    busy_waits: u32,
    counted: bool,
    last_failure: String,
}

impl Job {
    fn new(shared: Arc<Shared>, slot: Arc<Slot>, repository: RepositoryName) -> Self {
        let sources = shared.sources(&slot.digest);
        Self {
            shared,
            slot,
            repository,
            sources,
            size: None,
            contributors: Vec::new(),
            dissenters: Vec::new(),
            unread_since: None,
            busy_waits: 0,
            counted: false,
            last_failure: String::new(),
        }
    }

    /// One try from byte 0 to a proven digest.
    async fn attempt(&mut self) -> Result<(), End> {
        self.size = None;
        self.contributors.clear();
        // What was wrong with the first try may be its size: the others get their turn.
        for (node, _) in std::mem::take(&mut self.dissenters) {
            self.sources.give_back(&node);
        }
        let mut writer = None;
        let gathered = self.gather(&mut writer).await;
        let Some(writer) = writer else {
            return gathered.and(Err(End::Failed("nothing was written".into())));
        };
        // Also after a failure: the file must be let go before the next fetch of this digest.
        let fetch = writer.finish().await.map_err(|error| End::Failed(error.to_string()));
        gathered?;
        self.commit(fetch?).await
    }

    /// All bytes, from as many peers as it takes.
    async fn gather(&mut self, writer: &mut Option<Writer<Fetch>>) -> Result<(), End> {
        loop {
            let Some(peer) = self.sources.next().await else {
                return Err(self.nobody_left(writer.is_some()));
            };
            match self.leg(&peer, writer).await {
                Leg::Complete => return Ok(()),
                Leg::Absent => self.sources.dismiss(&peer.id),
                Leg::OtherSize => self.sources.give_up(&peer.id),
                Leg::Busy if self.busy_waits < MAX_BUSY_WAITS => {
                    self.busy_waits += 1;
                    self.sources.give_back(&peer.id);
                    tokio::time::sleep(BUSY_WAIT).await;
                }
                Leg::Busy => {}
                Leg::Broken(why) => {
                    tracing::debug!(digest = %self.slot.digest, peer = %peer.id, why, "a peer failed");
                    self.last_failure = why;
                }
                Leg::Stop(why) => return Err(End::Failed(why)),
            }
        }
    }

    fn nobody_left(&self, begun: bool) -> End {
        if !begun && !self.sources.any_failed() {
            return End::Absent;
        }
        if !self.dissenters.is_empty() {
            // Nothing is proven, so nobody is struck.
            tracing::debug!(digest = %self.slot.digest, why = self.last_failure, "two sizes");
            return End::OtherSize;
        }
        let why = if self.last_failure.is_empty() { "avoided" } else { &self.last_failure };
        End::Failed(format!("no holder is left; the last failure: {why}"))
    }

    /// Reads from one peer, address by address, from where the file ends.
    async fn leg(&mut self, peer: &Contact, writer: &mut Option<Writer<Fetch>>) -> Leg {
        let mut last = Leg::Broken("it has no address".into());
        for addr in peer.addrs.iter().copied() {
            let start = writer.as_ref().map_or(0, Writer::accepted);
            let range = (start > 0).then_some((start, None));
            let path = ddr_net::blob_path(&self.slot.digest, Some(&self.repository));
            match self.shared.client.get(addr, Some(peer.id), &path, range).await {
                Ok(body) => return self.read(addr, body, writer).await,
                Err(GetError::NotFound) => return Leg::Absent,
                Err(GetError::Unsatisfiable) => {
                    self.dissenters.push((peer.id, addr));
                    return Leg::OtherSize;
                }
                Err(GetError::Busy(_) | GetError::TooMany) => return Leg::Busy,
                Err(error) => last = Leg::Broken(error.to_string()),
            }
        }
        last
    }

    async fn read(
        &mut self,
        addr: SocketAddr,
        mut body: ContentBody,
        writer: &mut Option<Writer<Fetch>>,
    ) -> Leg {
        let (node, size) = (body.node, body.size);
        if let Some(leg) = self.refuse(node, addr, size) {
            return leg;
        }
        let writer = match self.open(writer, size).await {
            Ok(writer) => writer,
            Err(error) => return Leg::Stop(error.to_string()),
        };
        let _running = self.shared.peers.transfer(node, addr);
        if size == 0 {
            self.contributors.push((node, addr));
        }
        let mut first = true;
        while writer.accepted() < size {
            let bytes = tokio::select! {
                bytes = body.next() => bytes,
                settled = writer.settle(), if writer.is_writing() => {
                    match settled {
                        Ok(()) => self.slot.written(writer.written(), size),
                        Err(error) => return Leg::Stop(error.to_string()),
                    }
                    continue;
                }
            };
            let bytes = match bytes {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => {
                    if error.kind() == io::ErrorKind::InvalidData {
                        self.shared.peers.strike(node, addr, "it sent other bytes than it said");
                    }
                    return Leg::Broken(error.to_string());
                }
                None => return Leg::Broken("it ended early".into()),
            };
            self.shared.gave(node, &self.repository, bytes.len() as u64, first);
            self.slot.tally.gave(node, addr, bytes.len() as u64);
            let leave = self.shared.throttles.download.take(bytes.len() as u64, Class::Pull);
            leave.await.spend();
            if std::mem::take(&mut first) {
                self.contributes(node, addr, writer.accepted());
            }
            if let Err(error) = writer.push(bytes).await {
                return Leg::Stop(error.to_string());
            }
            self.slot.written(writer.written(), size);
            if self.is_abandoned() {
                return Leg::Stop("nobody reads it any more".into());
            }
        }
        Leg::Complete
    }

    /// The first bytes of a peer are here, to be written at `start`.
    fn contributes(&mut self, node: NodeId, addr: SocketAddr, start: u64) {
        if start > 0 && self.contributors.last().is_none_or(|last| last.0 != node) {
            self.shared.traffic.took_over();
            metrics::counter!(crate::metrics::TAKEOVERS).increment(1);
            tracing::info!(digest = %self.slot.digest, peer = %node, "another peer goes on");
        }
        self.contributors.push((node, addr));
    }

    /// Why an answer of this size cannot be used, if so.
    fn refuse(&mut self, node: NodeId, addr: SocketAddr, size: u64) -> Option<Leg> {
        if size > self.shared.limits.max_blob_bytes {
            self.sources.give_up(&node);
            return Some(Leg::Broken(format!("{size} bytes are more than this node accepts")));
        }
        if self.size.is_some_and(|known| known != size) {
            self.dissenters.push((node, addr));
            return Some(Leg::OtherSize);
        }
        self.size = Some(size);
        None
    }

    /// The file to write to; made when the first peer has answered.
    async fn open<'w>(
        &mut self,
        writer: &'w mut Option<Writer<Fetch>>,
        size: u64,
    ) -> Result<&'w mut Writer<Fetch>, UploadError> {
        match writer {
            Some(writer) => Ok(writer),
            None => {
                let (store, digest) = (self.shared.store.clone(), self.slot.digest);
                let fetch = blocking(move || store.begin_fetch(&digest)).await??;
                self.slot.opened(size, fetch.reader());
                if !std::mem::replace(&mut self.counted, true) {
                    metrics::counter!(crate::metrics::FETCHES).increment(1);
                    self.shared.traffic.fetch_started();
                }
                Ok(writer.insert(Writer::new(fetch)))
            }
        }
    }

    async fn commit(&mut self, fetch: Fetch) -> Result<(), End> {
        let looked = blocking(move || fetch.is_whole().map(|whole| (fetch, whole))).await;
        let (fetch, whole) =
            looked.and_then(|looked| looked).map_err(|error| End::Failed(error.to_string()))?;
        if !whole {
            self.convict();
            return Err(End::Mismatch);
        }
        // The digest is proven: clients get the end now, not after the disk has caught up.
        self.slot.proven();
        let (shared, slot) = (Arc::clone(&self.shared), Arc::clone(&self.slot));
        let work = move || {
            fetch.commit()?;
            link_all(&shared, &slot)?;
            Ok::<_, UploadError>(())
        };
        let committed = blocking(work).await.map_err(|error| End::Failed(error.to_string()))?;
        match committed {
            Ok(()) => {
                self.blame_sizes();
                self.shared.announcer.announce_later(self.slot.digest);
                Ok(())
            }
            Err(UploadError::DigestMismatch) => {
                self.convict();
                Err(End::Mismatch)
            }
            Err(error) => Err(End::Failed(error.to_string())),
        }
    }

    /// The bytes were wrong: whoever gave some of them is struck, since none can be cleared.
    fn convict(&mut self) {
        for (node, addr) in &self.contributors {
            self.shared.peers.strike(*node, *addr, "the content it gave was wrong");
            self.sources.give_up(node);
        }
    }

    /// The digest is proven, so whoever told another size was wrong.
    fn blame_sizes(&self) {
        for (node, addr) in &self.dissenters {
            self.shared.peers.strike(*node, *addr, probe::WRONG_SIZE);
        }
    }

    fn is_abandoned(&mut self) -> bool {
        if self.slot.is_read() {
            self.unread_since = None;
            return false;
        }
        self.unread_since.get_or_insert_with(Instant::now).elapsed() >= ABANDON_AFTER
    }
}
