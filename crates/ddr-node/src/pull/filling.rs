//! The file of one fetch that comes in order, and who has given bytes of it.
//!
//! Decides what an answer is worth: its size must be that of the answers before it, its bytes are written behind
//! those that are there, and readers are told. When the digest is proven not to fit, all who gave bytes are struck. It must never
//! commit content whose digest is not proven; the store checks that, and this module never goes around it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ddr_net::ContentBody;
use ddr_oci::RepositoryName;
use ddr_proto::id::NodeId;
use ddr_proto::swarm::Class;
use ddr_proto::wire::Contact;
use ddr_store::{Fetch, Hashing, UploadError};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::time::Instant;

use super::fetch::{ABANDON_AFTER, link_all};
use super::slot::Slot;
use super::{Shared, probe};
use crate::blocking;
use crate::writer::{Sink, Writer};

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

/// Who gives bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Giver {
    Peer(NodeId, SocketAddr),
    /// The registry that the repository belongs to.
    Upstream,
}

/// The answer of one who gives: bytes from where the file ends.
pub(super) struct Answer {
    pub(super) giver: Giver,
    /// Of the whole blob.
    pub(super) size: u64,
    /// An error of kind `InvalidData` says that the giver broke its word.
    pub(super) bytes: BoxStream<'static, io::Result<Bytes>>,
}

impl Answer {
    pub(super) fn of_peer(addr: SocketAddr, body: ContentBody) -> Self {
        let (node, size) = (body.node, body.size);
        let bytes = stream::unfold(body, async |mut body| Some((body.next().await?, body)));
        Self { giver: Giver::Peer(node, addr), size, bytes: bytes.boxed() }
    }
}

/// How reading one answer ended.
pub(super) enum Leg {
    /// The last byte is here.
    Complete,
    /// The giver does not have it in this repository.
    Absent,
    /// The giver failed; another may go on.
    Broken(String),
    /// The giver, or this node, has too many transfers; it may be asked again, or one of these.
    Busy(Vec<Contact>),
    /// The giver tells another size than the one before it.
    OtherSize,
    /// The blob is larger than this node accepts, as this giver says.
    TooLarge(String),
    /// This node failed; nobody can go on.
    Stop(String),
}

/// Why the file did not become a blob.
pub(super) enum Unfit {
    /// Its digest is another one.
    Mismatch,
    Failed(String),
}

/// See the module comment.
pub(super) struct Filling {
    pub(super) shared: Arc<Shared>,
    pub(super) slot: Arc<Slot>,
    pub(super) repository: RepositoryName,
    writer: Option<Writer<Fetch>>,
    size: Option<u64>,
    /// Whose bytes are in the file; of an empty one, whose word that is.
    contributors: Vec<Giver>,
    /// Who told another size.
    dissenters: Vec<(NodeId, SocketAddr)>,
    unread_since: Option<Instant>,
    counted: bool,
}

impl Filling {
    pub(super) fn new(shared: Arc<Shared>, slot: Arc<Slot>, repository: RepositoryName) -> Self {
        Self {
            shared,
            slot,
            repository,
            writer: None,
            size: None,
            contributors: Vec::new(),
            dissenters: Vec::new(),
            unread_since: None,
            counted: false,
        }
    }

    /// Forgets what an earlier try brought; who told another size then.
    pub(super) fn start_over(&mut self) -> Vec<(NodeId, SocketAddr)> {
        self.size = None;
        self.contributors.clear();
        std::mem::take(&mut self.dissenters)
    }

    /// Bytes that are here: where the next answer begins.
    pub(super) fn offset(&self) -> u64 {
        self.writer.as_ref().map_or(0, Writer::accepted)
    }

    /// Whether there is a file.
    pub(super) fn has_begun(&self) -> bool {
        self.writer.is_some()
    }

    /// Whether some tell one size and some another.
    pub(super) fn is_disputed(&self) -> bool {
        !self.dissenters.is_empty()
    }

    /// This peer tells another size: what is here goes beyond its end.
    pub(super) fn dissents(&mut self, node: NodeId, addr: SocketAddr) {
        self.dissenters.push((node, addr));
    }

    /// Reads an answer to its end.
    pub(super) async fn read(&mut self, answer: Answer) -> Leg {
        let Answer { giver, size, mut bytes } = answer;
        if let Some(leg) = self.refuse(giver, size) {
            return leg;
        }
        let shared = Arc::clone(&self.shared);
        let mut writer = match self.open(size).await {
            Ok(writer) => writer,
            Err(error) => return Leg::Stop(error.to_string()),
        };
        let _running = match giver {
            Giver::Peer(node, addr) => Some(shared.peers.transfer(node, addr)),
            Giver::Upstream => None,
        };
        if size == 0 {
            self.contributors.push(giver);
        }
        let leg = self.copy(&mut writer, giver, size, &mut bytes).await;
        self.writer = Some(writer);
        leg
    }

    async fn copy(
        &mut self,
        writer: &mut Writer<Fetch>,
        giver: Giver,
        size: u64,
        bytes: &mut BoxStream<'static, io::Result<Bytes>>,
    ) -> Leg {
        let mut first = true;
        while writer.accepted() < size {
            let next = tokio::select! {
                next = bytes.next() => next,
                settled = writer.settle(), if writer.is_writing() => {
                    match settled {
                        Ok(()) => self.slot.written(writer.written(), size),
                        Err(error) => return Leg::Stop(error.to_string()),
                    }
                    continue;
                }
            };
            let bytes = match next {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => return self.broke(giver, &error),
                None => return Leg::Broken("it ended early".into()),
            };
            self.count(giver, bytes.len() as u64, first).await;
            if std::mem::take(&mut first) {
                self.contributes(giver, writer.accepted());
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

    fn broke(&self, giver: Giver, error: &io::Error) -> Leg {
        if let Giver::Peer(node, addr) = giver
            && error.kind() == io::ErrorKind::InvalidData
        {
            self.shared.peers.strike(node, addr, "it sent other bytes than it said");
        }
        Leg::Broken(error.to_string())
    }

    /// Notes where bytes came from, and waits until they may.
    async fn count(&self, giver: Giver, bytes: u64, first: bool) {
        match giver {
            Giver::Peer(node, addr) => {
                self.shared.gave(node, &self.repository, bytes, first);
                self.slot.tally.gave(node, addr, bytes);
                self.shared.throttles.download.take(bytes, Class::Pull).await.spend();
            }
            Giver::Upstream => {
                metrics::counter!(crate::metrics::UPSTREAM_BYTES).increment(bytes);
            }
        }
    }

    /// The first bytes of a giver are here, to be written at `start`.
    fn contributes(&mut self, giver: Giver, start: u64) {
        if let Giver::Peer(node, _) = giver
            && start > 0
            && !matches!(self.contributors.last(), Some(Giver::Peer(last, _)) if *last == node)
        {
            self.shared.traffic.took_over();
            metrics::counter!(crate::metrics::TAKEOVERS).increment(1);
            tracing::info!(digest = %self.slot.digest, peer = %node, "another peer goes on");
        }
        self.contributors.push(giver);
    }

    /// Why an answer of this size cannot be used, if so.
    fn refuse(&mut self, giver: Giver, size: u64) -> Option<Leg> {
        if size > self.shared.limits.max_blob_bytes {
            let why = format!("{size} bytes are more than this node accepts");
            return Some(Leg::TooLarge(why));
        }
        if self.size.is_some_and(|known| known != size) {
            if let Giver::Peer(node, addr) = giver {
                self.dissenters.push((node, addr));
            }
            return Some(Leg::OtherSize);
        }
        self.size = Some(size);
        None
    }

    /// The file to write to; made when the first giver has answered.
    async fn open(&mut self, size: u64) -> Result<Writer<Fetch>, UploadError> {
        if let Some(writer) = self.writer.take() {
            return Ok(writer);
        }
        let (store, digest) = (self.shared.store.clone(), self.slot.digest);
        let fetch = blocking(move || store.begin_fetch(&digest)).await??;
        self.slot.opened(size, fetch.reader());
        if !std::mem::replace(&mut self.counted, true) {
            metrics::counter!(crate::metrics::FETCHES).increment(1);
            self.shared.traffic.fetch_started();
        }
        Ok(Writer::new(fetch))
    }

    /// Lets the file go: it must be, before the next fetch of this digest. `None`: there is none.
    pub(super) async fn finish(&mut self) -> Option<Result<Fetch, Unfit>> {
        let finished = self.writer.take()?.finish().await;
        Some(finished.map_err(|error| Unfit::Failed(error.to_string())))
    }

    /// All bytes are here: proves them and makes them a blob that is linked where it was asked for.
    pub(super) async fn commit(&mut self, fetch: Fetch) -> Result<(), Unfit> {
        let looked = blocking(move || fetch.is_whole().map(|whole| (fetch, whole))).await;
        let (fetch, whole) =
            looked.and_then(|looked| looked).map_err(|error| Unfit::Failed(error.to_string()))?;
        if !whole {
            return Err(Unfit::Mismatch);
        }
        // The digest is proven: clients get the end now, not after the disk has caught up.
        self.slot.proven();
        let (shared, slot) = (Arc::clone(&self.shared), Arc::clone(&self.slot));
        let work = move || {
            fetch.commit()?;
            link_all(&shared, &slot)?;
            Ok::<_, UploadError>(())
        };
        let committed = blocking(work).await.map_err(|error| Unfit::Failed(error.to_string()))?;
        match committed {
            Ok(()) => {
                self.blame_sizes();
                self.shared.announcer.announce_later(self.slot.digest);
                Ok(())
            }
            Err(UploadError::DigestMismatch) => Err(Unfit::Mismatch),
            Err(error) => Err(Unfit::Failed(error.to_string())),
        }
    }

    /// The bytes were wrong: whoever gave some of them is struck, since none can be cleared; unless the registry
    /// gave some. Who was struck.
    pub(super) fn convict(&mut self) -> Vec<NodeId> {
        let mut peers = Vec::new();
        for giver in &self.contributors {
            match giver {
                Giver::Peer(node, addr) => peers.push((*node, *addr)),
                Giver::Upstream => {
                    let (digest, repository) = (&self.slot.digest, &self.repository);
                    tracing::warn!(%digest, %repository, "the registry gave wrong content");
                    return Vec::new();
                }
            }
        }
        for (node, addr) in &peers {
            self.shared.peers.strike(*node, *addr, "the content it gave was wrong");
        }
        peers.into_iter().map(|(node, _)| node).collect()
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
