//! Copies of pushed content on other nodes, so that a machine may burn down.
//!
//! Decides what a push waits for, and drives the rules of [`ddr_proto::replica`]: who is asked to keep what,
//! what is mended when a node is lost, what is handed over before this one leaves. See `docs/copies.md`.
//! It must never say "kept" of what is not durable here, and never lets go because of what a third node says.

mod audit;
mod hand_over;
mod image;
mod ledger;
mod mend;
mod push;
mod raise;
mod report;
mod second;
mod taking;
mod turn;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddr_net::UploadReply;
use ddr_oci::{Digest, RepositoryName, RepositoryPattern};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::kad::Reason;
use ddr_proto::replica::Pace;
use ddr_proto::wire::Contact;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub(crate) use audit::is_adopted;
pub use report::CopiesStatus;

use crate::caller::Caller;
use crate::clock::Clock;
use crate::job::{Board, JobKind};
use crate::names::COPIES as NEAR;
use crate::overlay::OverlayHandle;
use crate::pull::{Pull, Shared};
use audit::Surplus;
use ledger::Ledger;
use report::Tally;
pub(crate) use second::SecondCopy;
use second::Seconds;
use taking::Taking;
pub use taking::spare_bytes;
use turn::Turns;
use watch::Watch;

/// Copies of pushed content unless configured otherwise: the R of design.md, section 7.
pub const COPIES: usize = 3;
/// The most that may be configured.
pub const MAX_COPIES: usize = 7;
/// How long a silent holder is waited for unless configured otherwise.
pub const COPIES_GRACE: Duration = Duration::from_secs(10 * 60);
/// Images of which parts are mended at once.
const MENDED_AT_ONCE: usize = 4;

/// Nodes at once that are told who else keeps what they asked about; more hear of it when they ask again.
const MAX_TELLING: usize = 64;
/// Uploads at once that come here as a second copy; more are told busy.
const MAX_RECEIVING: usize = 64;

/// What a push waits for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// This node's disk.
    Local,
    /// Two disks, where the swarm has two nodes.
    #[default]
    Two,
    /// As many disks as there shall be copies.
    All,
}

/// What an operator may change about copies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CopySettings {
    /// Copies of pushed content, 1 to [`MAX_COPIES`].
    pub copies: usize,
    /// Other numbers for some repositories, the same way; of several patterns that match the first counts. At
    /// most [`ddr_oci::MAX_PATTERNS`].
    pub copies_for: Vec<(RepositoryPattern, usize)>,
    /// What a push waits for.
    pub durability: Durability,
    /// How long a silent holder is waited for before it is replaced.
    pub grace: Duration,
    /// Bytes a second that are begun to be mended; `None` is no limit.
    pub rate: Option<u64>,
}

impl std::str::FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::Local),
            "two" => Ok(Self::Two),
            "all" => Ok(Self::All),
            _ => Err(format!("{text:?} is none of local, two, all")),
        }
    }
}

impl Default for CopySettings {
    fn default() -> Self {
        let (copies_for, durability) = (Vec::new(), Durability::default());
        Self { copies: COPIES, copies_for, durability, grace: COPIES_GRACE, rate: None }
    }
}

impl CopySettings {
    /// Copies that content of a repository shall have.
    fn copies_of(&self, repository: &RepositoryName) -> usize {
        let first = self.copies_for.iter().find(|(pattern, _)| pattern.matches(repository));
        first.map_or(self.copies, |(_, copies)| *copies)
    }

    /// Copies that a push to a repository waits for.
    fn at_push(&self, repository: &RepositoryName) -> usize {
        let copies = self.copies_of(repository);
        match self.durability {
            Durability::Local => 1,
            Durability::Two => copies.min(2),
            Durability::All => copies,
        }
    }

    /// The most copies that some content may have.
    fn most_copies(&self) -> usize {
        let others = self.copies_for.iter().map(|(_, copies)| *copies);
        others.chain([self.copies]).max().unwrap_or(COPIES)
    }
}

/// What copies are made of.
struct Parts {
    shared: Arc<Shared>,
    pull: Arc<Pull>,
    overlay: OverlayHandle,
    caller: Caller,
    clock: Clock,
    settings: CopySettings,
}

/// A part of a manifest of a repository: (repository, manifest, part).
type PartKey = (RepositoryName, Digest, Digest);
/// A manifest of a repository, with its parts: (repository, manifest).
type ImageKey = (RepositoryName, Digest);

/// See the module comment.
pub(crate) struct Copies {
    parts: Parts,
    ledger: Ledger,
    watch: Watch,
    /// What waits to be mended.
    line: Mutex<Pace<ImageKey>>,
    turns: Turns,
    taking: Taking,
    surplus: Surplus,
    seconds: Seconds,
    /// Content that others send while it comes in there.
    receiving: Arc<Semaphore>,
    telling: Arc<Semaphore>,
    tally: Mutex<Tally>,
    /// Something is to be mended, or may be.
    wake: Notify,
    /// No new duties are taken.
    leaving: AtomicBool,
    /// Where handing over is noted.
    pub(crate) drains: Board,
}

impl Copies {
    pub(crate) fn new(shared: &Arc<Shared>, pull: &Arc<Pull>, names: &crate::names::Parts) -> Self {
        let parts = Parts {
            shared: Arc::clone(shared),
            pull: Arc::clone(pull),
            overlay: names.overlay.clone(),
            caller: names.caller.clone(),
            clock: names.clock,
            settings: shared.limits.copies.clone(),
        };
        let grace_ms = u64::try_from(parts.settings.grace.as_millis()).unwrap_or(u64::MAX);
        Self {
            ledger: Ledger::new(parts.shared.store.clone(), parts.shared.own.id),
            watch: Watch::new(parts.clock, grace_ms),
            line: Mutex::new(Pace::new(parts.settings.rate, MENDED_AT_ONCE)),
            turns: Turns::default(),
            taking: Taking::default(),
            surplus: Surplus::default(),
            seconds: Seconds::default(),
            receiving: Arc::new(Semaphore::new(MAX_RECEIVING)),
            telling: Arc::new(Semaphore::new(MAX_TELLING)),
            tally: Mutex::default(),
            wake: Notify::new(),
            leaving: AtomicBool::new(false),
            drains: Board::new(JobKind::Drain),
            parts,
        }
    }

    fn own(&self) -> NodeId {
        self.parts.shared.own.id
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }

    fn line(&self) -> MutexGuard<'_, Pace<ImageKey>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other nodes that are alive and could keep what has this key: all, in a swarm that is small.
    async fn candidates(&self, key: Key) -> Vec<Contact> {
        let view = self.parts.overlay.view().await;
        let mut near = if view.swarm_size <= NEAR as u64 {
            let alive = view.contacts.into_iter().filter(|peer| peer.alive);
            alive.map(|peer| peer.contact).collect()
        } else {
            self.parts.overlay.closest(key).await.unwrap_or_default()
        };
        let (peers, own) = (&self.parts.shared.peers, self.own());
        near.retain(|one: &Contact| one.id != own && !peers.refused(&one.id));
        near.iter().for_each(|one| self.watch.knows(one));
        near
    }

    /// An operator says that a node is gone for good: its copies are made again at once.
    pub(crate) fn gone(&self, node: &NodeId) {
        self.watch.gone(node);
        self.tally().hears_news();
        self.wake.notify_one();
    }

    /// Whether content of unknown size may come here as a second copy; the turn is held while it comes.
    pub(crate) async fn receive(&self) -> Result<OwnedSemaphorePermit, UploadReply> {
        if self.is_leaving() {
            return Err(UploadReply::Refused);
        }
        match self.room().await {
            Ok(0) => return Err(UploadReply::Full),
            Ok(_) => {}
            Err(_) => return Err(UploadReply::Failed),
        }
        Arc::clone(&self.receiving).try_acquire_owned().map_err(|_| UploadReply::Busy)
    }

    /// A node claimed what cannot be.
    fn misbehaved(&self, node: NodeId, what: &'static str) {
        self.parts.shared.peers.misbehaved(node, Reason::OverLimit(what));
    }
}
