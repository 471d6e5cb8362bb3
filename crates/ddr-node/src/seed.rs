//! What this node answers to peers.
//!
//! Decides nothing about messages: it hands each to the overlay, to the names, to the tokens, to the
//! preheats, to the copies or to the dials back.
//! It must never give content that the named repository does not link here, and never anything
//! without a repository.

mod dial_back;
mod pieces;
mod relay;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ddr_net::{
    ContentKind, ContentReply, ContentRequest, JoinRefusal, JoinReply, JoinRequest, PeerInfo,
    Service, Standing, Swarm, UploadFrame, UploadReply,
};
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::NodeId;
use ddr_proto::kad::Reason;
use ddr_proto::swarm::Class;
use ddr_proto::wire::{
    BusyAnswer, MAX_MEMBERS_TOLD, RecordError, RefuseReason, Request, RequestEnvelope, Response,
    Signer, SwarmPost,
};
use ddr_store::Store;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::blob::Blob;
use crate::blocking;
use crate::budget::Budget;
use crate::caller::NO_PUZZLE;
use crate::clock::Clock;
use crate::copies::Copies;
use crate::names::{Keeper, Names};
use crate::overlay::OverlayHandle;
use crate::peers::Peers;
use crate::preheat::Orders;
use crate::push::Push;
use crate::status::Sums;
use crate::swarm::SwarmHandle;
use crate::throttle::Throttles;
use crate::tokens::Tokens;

pub(crate) use dial_back::{DIAL_BACK_EVERY, DialBacks, outcome as dial_outcome};
pub(crate) use relay::Relays;

/// Blobs that are sent to peers at once; more are told "busy" and ask another holder.
pub(crate) const MAX_SERVING: usize = 256;

/// See the module comment.
pub(crate) struct Seed {
    pub(crate) store: Store,
    pub(crate) swarm: Swarm,
    pub(crate) overlay: OverlayHandle,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) traffic: Arc<Sums>,
    pub(crate) pieces: SwarmHandle,
    /// Vouches for piece chains.
    pub(crate) signer: Signer,
    pub(crate) turns: Arc<Semaphore>,
    pub(crate) buffers: Budget,
    pub(crate) throttles: Arc<Throttles>,
    /// Preheats that peers ask for.
    pub(crate) orders: Arc<Orders>,
    /// What this node keeps for its swarm.
    pub(crate) copies: Arc<Copies>,
    /// Takes in second copies.
    pub(crate) push: Arc<Push>,
    pub(crate) names: Arc<Names>,
    pub(crate) relays: Relays,
    pub(crate) dial_backs: DialBacks,
    pub(crate) clock: Clock,
}

impl Service for Seed {
    fn message(&self, from: PeerInfo, envelope: RequestEnvelope) -> BoxFuture<'_, Response> {
        Box::pin(self.answer(from, envelope))
    }

    fn misbehaved(&self, from: PeerInfo, reason: Reason) {
        self.peers.misbehaved(from.node, reason);
        self.peers.struck_at(&from.node, from.remote);
    }

    fn swarm(&self, from: PeerInfo, digest: Digest, post: SwarmPost) -> BoxFuture<'_, bool> {
        Box::pin(self.hear(from, digest, post))
    }

    fn content(&self, from: PeerInfo, request: ContentRequest) -> BoxFuture<'_, ContentReply> {
        Box::pin(async move {
            let reply = self.give(from, request).await;
            if matches!(reply, ContentReply::Busy(_)) {
                metrics::counter!(crate::metrics::BUSY_ANSWERS).increment(1);
            }
            reply
        })
    }

    fn upload(
        &self,
        from: PeerInfo,
        repository: RepositoryName,
        frames: BoxStream<'static, io::Result<UploadFrame>>,
    ) -> BoxFuture<'_, UploadReply> {
        Box::pin(async move {
            if from.standing != Standing::Member || self.peers.refused(&from.node) {
                return UploadReply::Refused;
            }
            match self.push.receive(&repository, frames).await {
                Ok(()) => UploadReply::Stored,
                Err(reply) => reply,
            }
        })
    }

    fn join(
        &self,
        from: PeerInfo,
        request: JoinRequest,
    ) -> BoxFuture<'_, Result<JoinReply, JoinRefusal>> {
        Box::pin(async move { self.admit(&from, &request) })
    }
}

impl Seed {
    async fn answer(&self, from: PeerInfo, envelope: RequestEnvelope) -> Response {
        if from.standing != Standing::Member {
            return Response::Refused { reason: RefuseReason::Unsupported };
        }
        if self.peers.refused(&from.node) {
            return Response::Refused { reason: RefuseReason::Struck };
        }
        let (sender, goodbye) = (envelope.sender.clone(), says_goodbye(&envelope, from.node));
        let answer = self.answer_member(from, envelope).await;
        if self.peers.refused(&from.node) {
            self.peers.struck_at(&from.node, from.remote);
        } else if goodbye {
            self.peers.left(&from.node);
        } else {
            self.peers.alive(&sender);
        }
        answer
    }

    async fn answer_member(&self, peer: PeerInfo, envelope: RequestEnvelope) -> Response {
        let from = peer.node;
        match envelope.body {
            request @ (Request::GetName { .. }
            | Request::PutName { .. }
            | Request::PrepareName { .. }
            | Request::AcceptName { .. }
            | Request::GetHistory { .. }
            | Request::GetSet { .. }
            | Request::PutEntry { .. }) => {
                self.overlay.heard(envelope.sender);
                let answer = self.keeper.answer(request).await;
                if answer == (Response::Refused { reason: RefuseReason::BadSignature }) {
                    let forged = Reason::BadRecord(RecordError::BadSignature);
                    self.peers.misbehaved(from, forged);
                }
                answer
            }
            Request::Revoked { serials } => {
                self.tokens.learn(&serials).await;
                let revoked = u32::try_from(self.tokens.revoked().len()).unwrap_or(u32::MAX);
                Response::Pong { revoked, puzzle: NO_PUZZLE }
            }
            Request::Preheat(order) => {
                self.overlay.heard(envelope.sender);
                self.orders.answer(from, order)
            }
            Request::Gone { node } => {
                self.overlay.gone(node).await;
                self.peers.left(&node);
                self.copies.gone(&node);
                Response::Pong { revoked: 0, puzzle: NO_PUZZLE }
            }
            Request::Resolve { repository, tag } => {
                self.overlay.heard(envelope.sender);
                Response::Resolved(self.resolve(&repository, &tag).await)
            }
            Request::Members => {
                let mut members = self.peers.members_near(&from);
                members.truncate(MAX_MEMBERS_TOLD);
                Response::Members { members }
            }
            Request::Time => Response::Time { clock_ms: self.clock.now_ms() },
            Request::DialMe => self.dial_backs.answer(peer, self.peers.contact(&from)).await,
            Request::Paused { host, for_s } => {
                self.push.pull.mirror().told_pause(&host, for_s);
                Response::Pong { revoked: 0, puzzle: NO_PUZZLE }
            }
            Request::Keep { take, placement } => {
                self.overlay.heard(envelope.sender.clone());
                self.copies.answer(envelope.sender, take, placement).await
            }
            _ => self
                .overlay
                .request(from, envelope)
                .await
                .unwrap_or(Response::Refused { reason: RefuseReason::Busy }),
        }
    }

    async fn give(&self, from: PeerInfo, request: ContentRequest) -> ContentReply {
        if from.standing != Standing::Member {
            return ContentReply::NotFound;
        }
        if self.peers.refused(&from.node) {
            return ContentReply::Refused;
        }
        let Some(repository) = request.repository.clone() else { return ContentReply::NotFound };
        match request.kind {
            ContentKind::Manifest => {
                if request.from_upstream && !self.bring_manifest(&repository, &request.digest).await
                {
                    return ContentReply::Failed;
                }
                return self.give_manifest(request, repository).await;
            }
            ContentKind::Chain => return self.give_chain(request, repository).await,
            ContentKind::Blob if request.from_upstream => {
                return self.give_arriving(&from, request, repository).await;
            }
            ContentKind::Blob => {}
        }
        if let Some(reply) = self.give_piece(&from, &request, &repository).await {
            return reply;
        }
        // Only bodies take a turn: manifests and questions for a size are short.
        let turn = if request.head_only {
            None
        } else {
            let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned() else {
                return ContentReply::Busy(BusyAnswer::default());
            };
            Some(turn)
        };
        self.give_blob(request, repository, turn).await
    }

    async fn give_blob(
        &self,
        request: ContentRequest,
        repository: RepositoryName,
        turn: Option<OwnedSemaphorePermit>,
    ) -> ContentReply {
        let (store, digest) = (self.store.clone(), request.digest);
        // A question keeps the content here for a while, an answer for as long as it takes.
        let pin = store.pin(&digest, 0);
        let work = move || {
            if !store.is_linked(&repository, &digest)? {
                return Ok(None);
            }
            store.touch(&repository, &digest);
            store.blob(&digest)
        };
        let blob = match blocking(work).await {
            Ok(Ok(Some(reader))) => Blob::stored(reader, self.buffers.clone()),
            Ok(Ok(None)) => return ContentReply::NotFound,
            Ok(Err(error)) | Err(error) => return failed(&error),
        };
        let size = blob.size();
        let Some(range) = request.resolve(size) else {
            return ContentReply::Unsatisfiable { size };
        };
        if request.head_only {
            let body = futures_util::stream::empty().boxed();
            return ContentReply::Found { size, range, media_type: None, body };
        }
        self.send(&blob, range, (turn, pin))
    }

    /// Gives bytes of a blob as fast as they may go. What is `held` is let go when the last has gone.
    fn send(&self, blob: &Blob, range: Range<u64>, held: impl Send + 'static) -> ContentReply {
        self.traffic.served_request();
        let (traffic, throttles) = (Arc::clone(&self.traffic), Arc::clone(&self.throttles));
        let body = blob
            .stream(range.clone())
            .then(move |chunk| paced(Arc::clone(&throttles), chunk))
            .inspect(move |chunk| {
                let _held = &held;
                if let Ok(bytes) = chunk {
                    traffic.served(bytes.len() as u64);
                }
            })
            .boxed();
        ContentReply::Found { size: blob.size(), range, media_type: None, body }
    }

    async fn give_manifest(
        &self,
        request: ContentRequest,
        repository: RepositoryName,
    ) -> ContentReply {
        let (store, digest) = (self.store.clone(), request.digest);
        let work = move || {
            let stored = store.manifest(&repository, &digest)?;
            if stored.is_some() {
                store.touch(&repository, &digest);
            }
            Ok::<_, ddr_store::IndexError>(stored)
        };
        let stored = match blocking(work).await {
            Ok(Ok(Some(stored))) => stored,
            Ok(Ok(None)) => return ContentReply::NotFound,
            Ok(Err(error)) => return failed(&io::Error::other(error)),
            Err(error) => return failed(&error),
        };
        self.give_bytes(&request, Bytes::from(stored.bytes), Some(stored.media_type))
    }

    fn give_bytes(
        &self,
        request: &ContentRequest,
        bytes: Bytes,
        media_type: Option<String>,
    ) -> ContentReply {
        let size = bytes.len() as u64;
        let Some(range) = request.resolve(size) else {
            return ContentReply::Unsatisfiable { size };
        };
        self.traffic.served_request();
        self.traffic.served(range.end - range.start);
        let part = bytes.slice(range.start as usize..range.end as usize);
        let body = futures_util::stream::iter([Ok(part)]).boxed();
        ContentReply::Found { size, range, media_type, body }
    }

    fn admit(&self, from: &PeerInfo, request: &JoinRequest) -> Result<JoinReply, JoinRefusal> {
        if let Standing::Joiner { serial } = from.standing
            && self.tokens.is_revoked(&serial)
        {
            return Err(JoinRefusal::Revoked);
        }
        if NodeId::of_public_key(&request.public_key) != from.node {
            return Err(JoinRefusal::Failed);
        }
        tracing::info!(node = %from.node, "a node joins the swarm");
        self.swarm.admit(&request.public_key).map_err(|error| {
            tracing::error!(%error, "a node could not be admitted");
            JoinRefusal::Failed
        })
    }
}

/// A part of a body, once it may go.
async fn paced(throttles: Arc<Throttles>, chunk: io::Result<Bytes>) -> io::Result<Bytes> {
    if let Ok(bytes) = &chunk {
        throttles.upload.take(bytes.len() as u64, Class::Pull).await.spend();
    }
    chunk
}

/// A node that leaves withdraws the record of itself; see [`crate::node`].
fn says_goodbye(envelope: &RequestEnvelope, from: NodeId) -> bool {
    let Request::PutProviders { records } = &envelope.body else { return false };
    records
        .iter()
        .any(|record| record.withdrawn && record.key == from.to_key() && record.provider.id == from)
}

fn failed(error: &io::Error) -> ContentReply {
    tracing::error!(%error, "content could not be read for a peer");
    ContentReply::Failed
}
