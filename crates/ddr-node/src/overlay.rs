//! The one task that drives the overlay core.
//!
//! Decides nothing about routing: it carries inputs in, outputs out, and wakes the core at its
//! deadline. It must never wait for the network itself: calls run in tasks of their own, at most
//! [`MAX_CALLS`] at once and [`MAX_WAITING_CALLS`] in line.

mod driver;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ddr_proto::id::{Key, NodeId};
use ddr_proto::kad::{Effort, LookupKind, PeerView};
use ddr_proto::wire::{Contact, ProviderRecord, RequestEnvelope, Response};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use driver::{CALL_TIMEOUT, spawn};

/// Commands that wait for the task.
const MAX_COMMANDS: usize = 1024;
/// Calls to peers at once.
const MAX_CALLS: usize = 128;
/// Calls that wait for their turn; what comes after fails at once.
const MAX_WAITING_CALLS: usize = 4096;
/// Events of one lookup that wait for its asker; older ones are repeated by `Done`.
const MAX_LOOKUP_EVENTS: usize = 32;

/// What a lookup tells its asker.
#[derive(Debug)]
pub(crate) enum LookupEvent {
    /// Usable records, as soon as they arrive.
    Providers(Vec<ProviderRecord>),
    /// The end: who is closest (without this node), and every record found.
    Done { closest: Vec<Contact>, providers: Vec<ProviderRecord> },
}

/// What the core looks like from outside.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) contacts: Vec<PeerView>,
    /// Nodes of the swarm, as the core estimates it, but not fewer than it knows alive.
    pub(crate) swarm_size: u64,
    pub(crate) stored_records: usize,
    pub(crate) provided: usize,
}

/// A message to the task.
pub(crate) enum Command {
    Request { from: NodeId, envelope: Box<RequestEnvelope>, reply: oneshot::Sender<Response> },
    Heard(Contact),
    Restore(Vec<Contact>),
    Met(Contact),
    Gone(NodeId),
    Lookup { target: Key, kind: LookupKind, effort: Effort, events: mpsc::Sender<LookupEvent> },
    Provide { key: Key, complete: bool, done: oneshot::Sender<usize> },
    Withdraw(Key),
    View(oneshot::Sender<View>),
    Shutdown(oneshot::Sender<()>),
}

/// The way to the task. Cheap to clone. When the task is gone every call answers empty.
#[derive(Clone, Debug)]
pub(crate) struct OverlayHandle {
    commands: mpsc::Sender<Command>,
    /// Kept by the task: whether its routing table is empty.
    alone: Arc<AtomicBool>,
    /// Kept by the task: whether a node of its routing table is alive.
    company: watch::Receiver<bool>,
}

impl OverlayHandle {
    /// A way to no task.
    #[cfg(test)]
    pub(crate) fn to_nobody() -> Self {
        Self {
            commands: mpsc::channel(1).0,
            alone: Arc::new(AtomicBool::new(true)),
            company: watch::channel(false).1,
        }
    }

    /// Answers a peer's request.
    pub(crate) async fn request(
        &self,
        from: NodeId,
        envelope: RequestEnvelope,
    ) -> Option<Response> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Request { from, envelope: Box::new(envelope), reply })
            .await
            .ok()?;
        answer.await.ok()
    }

    /// True while this node knows no other. No message to the task.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    /// Tells the core that `contact` sent something.
    pub(crate) fn heard(&self, contact: Contact) {
        // Losing one of these under load costs nothing: the peer will be heard again.
        let _ = self.commands.try_send(Command::Heard(contact));
    }

    /// True while a node that this one knows is alive. No message to the task.
    pub(crate) fn has_company(&self) -> bool {
        *self.company.borrow()
    }

    /// Returns once [`Self::has_company`] is `wanted`; never when the task has ended before.
    pub(crate) async fn company(&self, wanted: bool) {
        if self.company.clone().wait_for(|company| *company == wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Tells the core that a node answered at the address of `contact`.
    pub(crate) async fn met(&self, contact: Contact) {
        let _ = self.commands.send(Command::Met(contact)).await;
    }

    /// Tells the core that somebody says that a node is gone: it asks the node at once.
    pub(crate) async fn gone(&self, node: NodeId) {
        let _ = self.commands.send(Command::Gone(node)).await;
    }

    /// Peers that an earlier run knew: the core sees which of them still live.
    pub(crate) async fn restore(&self, peers: Vec<Contact>) {
        let _ = self.commands.send(Command::Restore(peers)).await;
    }

    /// Records of who holds the content of `key`, each as soon as it is known.
    pub(crate) async fn find_providers(
        &self,
        key: Key,
        effort: Effort,
    ) -> mpsc::Receiver<LookupEvent> {
        self.lookup(key, LookupKind::Providers, effort).await
    }

    /// The nodes closest to `key` that answered, nearest first, without this node.
    pub(crate) async fn closest(&self, key: Key) -> Option<Vec<Contact>> {
        let mut events = self.lookup(key, LookupKind::Nodes, Effort::Thorough).await;
        while let Some(event) = events.recv().await {
            if let LookupEvent::Done { closest, .. } = event {
                return Some(closest);
            }
        }
        None
    }

    /// Announces `key`, as held wholly or in part; answers how many nodes stored the record.
    pub(crate) async fn provide(&self, key: Key, complete: bool) -> usize {
        let (done, stored) = oneshot::channel();
        if self.commands.send(Command::Provide { key, complete, done }).await.is_err() {
            return 0;
        }
        stored.await.unwrap_or(0)
    }

    /// Takes the announcement of `key` back.
    pub(crate) async fn withdraw(&self, key: Key) {
        let _ = self.commands.send(Command::Withdraw(key)).await;
    }

    /// The core from outside.
    pub(crate) async fn view(&self) -> View {
        let (tell, view) = oneshot::channel();
        if self.commands.send(Command::View(tell)).await.is_err() {
            return View::default();
        }
        view.await.unwrap_or_default()
    }

    /// Withdraws everything and ends the task; waits until that is done.
    pub(crate) async fn shutdown(&self) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::Shutdown(done)).await.is_ok() {
            let _ = ended.await;
        }
    }

    async fn lookup(
        &self,
        target: Key,
        kind: LookupKind,
        effort: Effort,
    ) -> mpsc::Receiver<LookupEvent> {
        let (events, receiver) = mpsc::channel(MAX_LOOKUP_EVENTS);
        let _ = self.commands.send(Command::Lookup { target, kind, effort, events }).await;
        receiver
    }
}
