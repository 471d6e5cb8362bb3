//! The second copy of a blob is written while the first is: what a client sends goes to another node too.
//!
//! Decides which node, and when to give it up: one that is slow or fails costs the push nothing but its
//! second copy, which is then made after the upload. It must never hold up a client for long.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ddr_net::UploadFrame;
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::replica::{Need, plan};
use ddr_proto::swarm::Class;
use ddr_proto::wire::Contact;
use futures_util::stream::{StreamExt, unfold};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::Copies;

/// Smaller blobs are copied after their upload: that is one question.
const MIN_BYTES: u64 = 1024 * 1024;
/// As much of a session is kept between two requests; more goes out at the end of the first.
const KEPT_BYTES: u64 = 64 * 1024;
/// What waits for the other node, in parts as they came from the client.
const MAX_WAITING: usize = 32;
/// How long a client is held up by the other node before that is given up.
const STALL: Duration = Duration::from_secs(5);
/// Sessions between two requests whose other node is remembered; of more the oldest is given up.
const MAX_BETWEEN: usize = 256;
/// Blobs whose other node is remembered until their manifest comes.
const MAX_UPLOADED: usize = 4096;
/// How long a manifest waits for the end of a blob's second copy.
const END_WAIT: Duration = Duration::from_secs(30);

/// The second copy of the session that one request writes. Dropped before its end, it is kept for the next
/// request of the session.
pub(crate) struct SecondCopy {
    copies: Arc<Copies>,
    repository: RepositoryName,
    second: Option<Second>,
}

/// What goes to the other node of one upload session.
struct Second {
    session: String,
    /// Bytes that were given so far.
    given: u64,
    course: Course,
}

enum Course {
    /// There is no other node, or it was given up.
    Off,
    /// There are too few bytes yet.
    Gathering(Vec<Bytes>),
    Sending {
        node: NodeId,
        frames: mpsc::Sender<UploadFrame>,
        end: watch::Receiver<Option<bool>>,
    },
}

/// Where a second copy went, and whether it is there.
#[derive(Clone)]
struct Sent {
    node: NodeId,
    end: watch::Receiver<Option<bool>>,
}

/// What is remembered of second copies.
#[derive(Default)]
pub(super) struct Seconds(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    /// Sessions between two requests, the oldest first.
    between: VecDeque<Second>,
    /// Blobs that were uploaded here: to which node they were sent too.
    uploaded: BTreeMap<Digest, Option<Sent>>,
    /// The keys of `uploaded`, the oldest first.
    order: VecDeque<Digest>,
}

impl Seconds {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Copies {
    /// The second copy of a session that has `offset` bytes.
    pub(crate) fn second(
        self: &Arc<Self>,
        repository: &RepositoryName,
        session: &str,
        offset: u64,
    ) -> SecondCopy {
        let second = self.second_of(repository, session, offset);
        let (copies, repository) = (Arc::clone(self), repository.clone());
        SecondCopy { copies, repository, second: Some(second) }
    }

    /// The one that was begun, if it has as many bytes.
    fn second_of(&self, repository: &RepositoryName, session: &str, offset: u64) -> Second {
        let mut memory = self.seconds.memory();
        let begun = memory.between.iter().position(|second| second.session == session);
        let begun = begun.and_then(|at| memory.between.remove(at));
        if let Some(second) = begun.filter(|second| second.given == offset) {
            return second;
        }
        let wanted = offset == 0 && self.parts.settings.at_push(repository) > 1;
        let course = if wanted { Course::Gathering(Vec::new()) } else { Course::Off };
        Second { session: session.to_owned(), given: offset, course }
    }

    /// The session goes on with another request.
    fn keep_second(&self, mut second: Second) {
        match &mut second.course {
            Course::Sending { .. } => {}
            // What is gathered is memory of the client's connection, which must go with that.
            Course::Gathering(parts) if second.given < KEPT_BYTES => {
                parts.iter_mut().for_each(|part| *part = Bytes::copy_from_slice(part));
            }
            Course::Gathering(_) | Course::Off => return,
        }
        let mut memory = self.seconds.memory();
        memory.between.push_back(second);
        if memory.between.len() > MAX_BETWEEN {
            memory.between.pop_front();
        }
    }

    /// The node that was sent a blob while it came in here, if it has it.
    pub(super) async fn second_holder(&self, digest: &Digest) -> Option<NodeId> {
        let Sent { node, mut end } = self.seconds.memory().uploaded.get(digest).cloned()??;
        let has_ended = timeout(END_WAIT, end.wait_for(Option::is_some)).await;
        matches!(has_ended, Ok(Ok(ended)) if *ended == Some(true)).then_some(node)
    }

    /// Whether a blob was uploaded here lately: then nobody else need be looked for who has it.
    pub(super) fn was_uploaded(&self, digest: &Digest) -> bool {
        self.seconds.memory().uploaded.contains_key(digest)
    }

    fn remember(&self, digest: Digest, sent: Option<Sent>) {
        let mut memory = self.seconds.memory();
        if memory.uploaded.insert(digest, sent).is_none() {
            memory.order.push_back(digest);
        }
        if memory.order.len() > MAX_UPLOADED
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.uploaded.remove(&oldest);
        }
    }

    /// Begins to send what a client sends to another node.
    async fn begin_second(&self, session: &str, repository: &RepositoryName) -> Course {
        let key = Key::of_content(&Digest::sha256(session.as_bytes()));
        let near = self.candidates(key).await;
        let ids: Vec<NodeId> = near.iter().map(|contact| contact.id).collect();
        let own = self.watch.candidates([&self.own()]);
        let need = Need { key, size: MIN_BYTES, holders: &own };
        let node = plan(&need, &self.watch.candidates(&ids)).into_iter().next();
        let contact = near.into_iter().find(|contact| Some(contact.id) == node);
        let Some(contact) = contact else { return Course::Off };
        let (frames, waiting) = mpsc::channel(MAX_WAITING);
        let (tell, end) = watch::channel(None);
        let node = contact.id;
        let sending = self.send(contact, repository.clone(), waiting);
        tokio::spawn(async move {
            tell.send_replace(Some(sending.await));
        });
        Course::Sending { node, frames, end }
    }

    /// Sends frames as they come; whether the other node has them all, durably.
    fn send(
        &self,
        contact: Contact,
        repository: RepositoryName,
        waiting: mpsc::Receiver<UploadFrame>,
    ) -> impl Future<Output = bool> + Send + use<> {
        let shared = Arc::clone(&self.parts.shared);
        async move {
            let throttles = Arc::clone(&shared.throttles);
            let frames = unfold((waiting, throttles), |(mut waiting, throttles)| async move {
                let frame = waiting.recv().await?;
                if let UploadFrame::Bytes(bytes) = &frame {
                    throttles.upload.take(bytes.len() as u64, Class::Pull).await.spend();
                }
                Some((Ok::<_, io::Error>(frame), (waiting, throttles)))
            });
            let Some(addr) = contact.addrs.first().copied() else { return false };
            let sent = shared.client.upload(addr, contact.id, &repository, frames.boxed()).await;
            if let Err(error) = &sent {
                tracing::debug!(%addr, %error, "a second copy is made after the upload");
            }
            sent.is_ok()
        }
    }
}

impl SecondCopy {
    /// The next bytes of the client.
    pub(crate) async fn push(&mut self, bytes: &Bytes) {
        if let Some(second) = &mut self.second {
            second.push(&self.copies, &self.repository, bytes).await;
        }
    }

    /// The request ends, the session goes on: what is gathered goes out.
    pub(crate) async fn flush(&mut self) {
        if let Some(second) = &mut self.second
            && second.given >= KEPT_BYTES
        {
            second.begin(&self.copies, &self.repository).await;
        }
    }

    /// There are no more, and this is their digest.
    pub(crate) async fn end(mut self, digest: &Digest) {
        if let Some(second) = self.second.take() {
            second.end(&self.copies, digest).await;
        }
    }

    /// Nobody wants them any more, or they are a second copy themselves.
    pub(crate) fn give_up(&mut self) {
        self.second = None;
    }
}

impl Drop for SecondCopy {
    fn drop(&mut self) {
        if let Some(second) = self.second.take() {
            self.copies.keep_second(second);
        }
    }
}

impl Second {
    async fn push(&mut self, copies: &Copies, repository: &RepositoryName, bytes: &Bytes) {
        self.given += bytes.len() as u64;
        match &mut self.course {
            Course::Off => {}
            Course::Gathering(parts) => {
                parts.push(bytes.clone());
                if self.given >= MIN_BYTES {
                    self.begin(copies, repository).await;
                }
            }
            Course::Sending { .. } => self.send(UploadFrame::Bytes(bytes.clone())).await,
        }
    }

    /// What was gathered goes to another node.
    async fn begin(&mut self, copies: &Copies, repository: &RepositoryName) {
        let Course::Gathering(parts) = &mut self.course else { return };
        let parts = std::mem::take(parts);
        if parts.is_empty() {
            return;
        }
        self.course = copies.begin_second(&self.session, repository).await;
        for part in parts {
            self.send(UploadFrame::Bytes(part)).await;
        }
    }

    async fn end(mut self, copies: &Copies, digest: &Digest) {
        self.send(UploadFrame::End(*digest)).await;
        let sent = match self.course {
            Course::Sending { node, end, .. } => Some(Sent { node, end }),
            Course::Off | Course::Gathering(_) => None,
        };
        copies.remember(*digest, sent);
    }

    async fn send(&mut self, frame: UploadFrame) {
        let Course::Sending { frames, node, .. } = &self.course else { return };
        if !matches!(timeout(STALL, frames.send(frame)).await, Ok(Ok(()))) {
            tracing::debug!(%node, "the node of a second copy is given up: it is slow or gone");
            self.course = Course::Off;
        }
    }
}
