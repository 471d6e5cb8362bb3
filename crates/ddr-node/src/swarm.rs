//! The one task that drives the swarm core, and the way to it.
//!
//! Decides nothing about peers: it carries inputs in and outputs out, moves the bytes, and holds
//! pieces against chains. It must never wait for the network or the disk itself, nor serve a blob
//! in the name of a repository that does not have it here.

mod driver;
mod entry;
mod errands;
mod gathering;
mod known;
mod outbox;
mod paths;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddr_oci::Digest;
use ddr_proto::id::{Key, NodeId};
use ddr_proto::swarm::{Class, Input, Refusal, UploadId, Wanted};
use ddr_proto::wire::SwarmPost;
use tokio::sync::{mpsc, oneshot};

pub(crate) use driver::{Parts, spawn};
pub(crate) use gathering::{End, Gathering, State, piece_at, piece_range};

/// Commands that wait for the task.
const MAX_COMMANDS: usize = 1024;
/// Largest piece that goes through the swarm, in bytes: two requests for such fit into the memory
/// for content. A blob with larger ones (more than 64 GiB) comes from one peer at a time.
pub(crate) const MAX_PIECE_BYTES: u64 = 32 << 20;

/// A message to the task.
enum Command {
    Fetch { gathering: Arc<Gathering>, have: Vec<u32>, interest: Interest },
    Interest { key: Key, interest: Interest },
    Request { request: PieceRequest, verdict: oneshot::Sender<Verdict> },
    Heard { digest: Digest, whole: Option<u64>, post: SwarmPost },
}

/// What the task is told without a wait. There are no more of these than pieces on their way, holders
/// found and fetches.
enum Notice {
    Input(Input),
    /// A fetch has ended, or was given up.
    Closed {
        gathering: Arc<Gathering>,
        is_stored: bool,
    },
}

/// A peer asks for a piece.
pub(crate) struct PieceRequest {
    /// The node that the connection proved.
    pub(crate) from: NodeId,
    pub(crate) digest: Digest,
    /// Bytes of the blob when all of it is here.
    pub(crate) whole: Option<u64>,
    /// `None`: any.
    pub(crate) piece: Option<u32>,
    pub(crate) class: Class,
}

/// What clients want of a blob on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    /// Where they read, as pieces.
    pub(crate) readers: Vec<u32>,
    pub(crate) wanted: Wanted,
    pub(crate) class: Class,
}

/// The core's answer to a [`PieceRequest`].
pub(crate) enum Verdict {
    /// Give this piece, and keep the guard as long as that takes.
    Serve(u32, Upload),
    /// Give nothing.
    Refuse(Refusal),
}

/// A piece on its way to a peer. Dropped, its slot is free for another.
pub(crate) struct Upload {
    id: UploadId,
    is_whole: bool,
    notices: mpsc::UnboundedSender<Notice>,
}

impl Upload {
    /// The last byte went out.
    pub(crate) fn finished(&mut self) {
        if !std::mem::replace(&mut self.is_whole, true) {
            metrics::counter!(crate::metrics::PIECES_SERVED).increment(1);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let ended = Input::Uploaded { upload: self.id, whole: self.is_whole };
        let _ = self.notices.send(Notice::Input(ended));
    }
}

/// The way to the task. Cheap to clone. When the task is gone nothing is served or fetched.
#[derive(Clone)]
pub(crate) struct SwarmHandle {
    commands: mpsc::Sender<Command>,
    notices: mpsc::UnboundedSender<Notice>,
    running: Running,
}

/// The blobs on their way here, by digest.
type Running = Arc<Mutex<BTreeMap<Digest, Arc<Gathering>>>>;

fn lock(running: &Running) -> MutexGuard<'_, BTreeMap<Digest, Arc<Gathering>>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SwarmHandle {
    /// Gathers a blob of which these pieces are here, until the answer is closed or dropped.
    pub(crate) async fn fetch(
        &self,
        gathering: Arc<Gathering>,
        have: Vec<u32>,
        interest: Interest,
    ) -> Ticket {
        let (copy, handle) = (Arc::clone(&gathering), self.clone());
        let ticket = Ticket { gathering: copy, handle, is_stored: false };
        if self.commands.send(Command::Fetch { gathering, have, interest }).await.is_err() {
            ticket.gathering.end(End::Failed("the node stops".into()));
        }
        ticket
    }

    /// Clients want this of a blob that is being gathered from now on.
    pub(crate) async fn interest(&self, key: Key, interest: Interest) {
        let _ = self.commands.send(Command::Interest { key, interest }).await;
    }

    /// The blob, if it is on its way here.
    pub(crate) fn gathering(&self, digest: &Digest) -> Option<Arc<Gathering>> {
        lock(&self.running).get(digest).cloned()
    }

    /// Whether, and which piece, to give. `None` when the node stops.
    pub(crate) async fn request(&self, request: PieceRequest) -> Option<Verdict> {
        let (verdict, answer) = oneshot::channel();
        self.commands.send(Command::Request { request, verdict }).await.ok()?;
        answer.await.ok()
    }

    /// A peer says something about a blob that it may hear of; `whole` is the size if all is here.
    pub(crate) async fn heard(&self, digest: Digest, whole: Option<u64>, post: SwarmPost) {
        let _ = self.commands.send(Command::Heard { digest, whole, post }).await;
    }
}

/// A blob that is being gathered. Dropped, that ends.
pub(crate) struct Ticket {
    gathering: Arc<Gathering>,
    handle: SwarmHandle,
    is_stored: bool,
}

impl Ticket {
    /// Ends it and lets go of the files. Without `is_stored` it did not become a blob, and what is
    /// here stays on the disk.
    pub(crate) async fn close(mut self, is_stored: bool) {
        let gathering = Arc::clone(&self.gathering);
        self.is_stored = is_stored;
        drop(self);
        let _ = crate::blocking(move || gathering.close()).await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut running = lock(&self.handle.running);
        let digest = self.gathering.digest;
        if running.get(&digest).is_some_and(|found| Arc::ptr_eq(found, &self.gathering)) {
            running.remove(&digest);
        }
        drop(running);
        self.gathering.end(End::Failed("the fetch was stopped".into()));
        let (gathering, is_stored) = (Arc::clone(&self.gathering), self.is_stored);
        let _ = self.handle.notices.send(Notice::Closed { gathering, is_stored });
    }
}
