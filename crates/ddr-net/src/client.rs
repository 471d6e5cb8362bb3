//! The dialling end: asks peers, and keeps connections for the next question.
//!
//! It decides which connection carries a request, how many are kept, and how long anything may
//! take. It must never hold two message connections to one address, retry a request that a peer may
//! have seen, or trust a length that a peer states.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use ddr_proto::id::NodeId;
use ddr_proto::wire::{BusyAnswer, RequestEnvelope, Response, SwarmPost, WireError};
use futures_util::stream::BoxStream;
use http::StatusCode;
use tokio::sync::Semaphore;

use crate::carrier::{Alpn, Carrier};
use crate::service::UploadFrame;

mod content;
mod fill;
mod messages;
mod upload;

use content::Wanted;
pub use content::{ContentBody, ContentHead};

/// Peers to which a message connection is kept; the one that was idle longest goes first.
pub const MAX_PEERS: usize = 256;
/// Idle content connections kept per peer.
pub const MAX_IDLE_PER_PEER: usize = 4;
/// Idle content connections kept in all.
pub const MAX_IDLE: usize = 64;
/// Content connections in use at one time; further requests wait for the dial timeout.
pub const MAX_CONTENT: usize = 256;

/// Bounds of a [`Client`]. The defaults suit peers that may be far away.
#[derive(Clone, Debug)]
pub struct ClientLimits {
    /// Peers with a message connection. Default [`MAX_PEERS`].
    pub max_peers: usize,
    /// Idle content connections per peer. Default [`MAX_IDLE_PER_PEER`].
    pub max_idle_per_peer: usize,
    /// Time to connect and shake hands. Default 1 s; 200 ms is right on a LAN.
    pub dial_timeout: Duration,
    /// A connection without a request for so long is closed. Default 20 s, which must be less
    /// than the server's `header_timeout`.
    pub idle_timeout: Duration,
    /// Longest wait for the head of an answer or for its next bytes. Default 5 s.
    pub read_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            max_peers: MAX_PEERS,
            max_idle_per_peer: MAX_IDLE_PER_PEER,
            dial_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(5),
        }
    }
}

/// Why no connection came about. Try another address or peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot reach {addr}: {text}")]
pub struct DialError {
    /// Where to.
    pub addr: SocketAddr,
    /// What kind: `TimedOut`, `ConnectionRefused`, `InvalidData` (not of this swarm), ...
    pub kind: io::ErrorKind,
    /// What the carrier said.
    pub text: Arc<str>,
}

impl DialError {
    fn new(addr: SocketAddr, error: &io::Error) -> Self {
        Self { addr, kind: error.kind(), text: error.to_string().into() }
    }

    fn timed_out(addr: SocketAddr) -> Self {
        Self::new(addr, &io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))
    }
}

/// Why a message has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The peer was not reached and has seen nothing.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Another node lives at that address now; it has seen nothing.
    #[error("the node there is {}, not the one expected", .found.short())]
    WrongNode {
        /// Who is there.
        found: NodeId,
    },
    /// No answer within the caller's time. The peer may have acted.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke. The peer may have acted.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The peer answered with this HTTP status instead of a message.
    #[error("the peer answered {0}")]
    Status(StatusCode),
    /// The peer's answer is not a message: it breaks the protocol.
    #[error("the peer broke the protocol: {0}")]
    Malformed(#[from] WireError),
    /// The peer's answer is longer than any message: it breaks the protocol.
    #[error("the peer broke the protocol: its answer is too long")]
    TooLong,
}

/// Why content was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// The peer was not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Another node lives at that address now.
    #[error("the node there is {}, not the one expected", .found.short())]
    WrongNode {
        /// Who is there.
        found: NodeId,
    },
    /// [`MAX_CONTENT`] transfers run here already.
    #[error("too many transfers at one time")]
    TooMany,
    /// The peer does not have it, or not in that repository.
    #[error("the peer does not have it")]
    NotFound,
    /// The range begins past the end.
    #[error("the range begins past the end of the content")]
    Unsatisfiable,
    /// The peer has too much to do, and names others to ask.
    #[error("the peer is busy")]
    Busy(Box<BusyAnswer>),
    /// No answer within the read timeout.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The peer answered with this HTTP status.
    #[error("the peer answered {0}")]
    Status(StatusCode),
    /// The head of the answer does not fit the request: the peer breaks the protocol.
    #[error("the peer broke the protocol: {0}")]
    Malformed(&'static str),
}

/// Asks other nodes over one carrier. Cheap to clone; the connections are shared.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    carrier: Arc<dyn Carrier>,
    limits: ClientLimits,
    messages: messages::Pool,
    content: content::Pool,
    transfers: Arc<Semaphore>,
}

impl Client {
    /// A client without connections. Must be called inside a tokio runtime, which gets one task
    /// that closes what is idle and ends with the last clone.
    pub fn new(carrier: Arc<dyn Carrier>, limits: ClientLimits) -> Self {
        let inner = Arc::new(Inner {
            carrier,
            limits,
            messages: messages::Pool::default(),
            content: content::Pool::default(),
            transfers: Arc::new(Semaphore::new(MAX_CONTENT)),
        });
        tokio::spawn(sweep(Arc::downgrade(&inner), inner.limits.idle_timeout));
        Self(inner)
    }

    /// Sends a message to the member at `addr` and waits up to `timeout` for its answer.
    ///
    /// All messages to one address share one HTTP/2 connection, and callers that need it at the
    /// same time share one dial. With `expect`, nothing is sent to another node. Gives the node
    /// that answered. Sent again only when the connection is known to have died before the peer
    /// could see the request.
    pub async fn call(
        &self,
        addr: SocketAddr,
        expect: Option<NodeId>,
        envelope: &RequestEnvelope,
        timeout: Duration,
    ) -> Result<(NodeId, Response), CallError> {
        let exchange = messages::call(&self.0, addr, expect, envelope);
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Tells the member at `addr` something about the blob with this digest, over the connection of
    /// [`Self::call`]. False: it does not have that blob in the post's repository.
    pub async fn post(
        &self,
        addr: SocketAddr,
        expect: Option<NodeId>,
        digest: &Digest,
        post: &SwarmPost,
        timeout: Duration,
    ) -> Result<bool, CallError> {
        let exchange = messages::post(&self.0, addr, expect, digest, post);
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Whether the member `node` can be reached at `addr` by a new connection: both ends prove who they are, then
    /// it is closed. No connection that is kept takes part, and none is kept.
    ///
    /// # Errors
    ///
    /// [`DialError`]; of kind `PermissionDenied` when another node lives there.
    pub async fn knock(&self, addr: SocketAddr, node: NodeId) -> Result<(), DialError> {
        let dial = self.0.carrier.dial(addr, Alpn::Messages, Some(node));
        match tokio::time::timeout(self.0.limits.dial_timeout, dial).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(DialError::new(addr, &error)),
            Err(_) => Err(DialError::timed_out(addr)),
        }
    }

    /// Reads content from the member at `addr`: `path` as [`crate::blob_path`] gives it, `range` as
    /// first byte and exclusive end.
    ///
    /// The answer is checked against the request: its first byte is the one asked for, and its
    /// length is known. One HTTP/1.1 connection carries it; it is used again if the body is read
    /// to its end.
    pub async fn get(
        &self,
        addr: SocketAddr,
        expect: Option<NodeId>,
        path: &str,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<ContentBody, GetError> {
        Box::pin(content::get(&self.0, addr, expect, path, Wanted::Range(range))).await
    }

    /// Reads a piece that the member at `addr` chooses; `path` as [`crate::any_piece_path`] gives it.
    /// [`ContentBody::start`] tells which.
    pub async fn get_any_piece(
        &self,
        addr: SocketAddr,
        expect: Option<NodeId>,
        path: &str,
    ) -> Result<ContentBody, GetError> {
        Box::pin(content::get(&self.0, addr, expect, path, Wanted::AnyPart)).await
    }

    /// Sends content to the member at `addr` while it comes in: bytes, then the digest that they have. `Ok`:
    /// it has them durably, in that repository. Ends when the frames do, so whoever gives them has to
    /// see to it that they do.
    pub async fn upload(
        &self,
        addr: SocketAddr,
        expect: NodeId,
        repository: &RepositoryName,
        frames: BoxStream<'static, io::Result<UploadFrame>>,
    ) -> Result<(), GetError> {
        Box::pin(upload::upload(&self.0, addr, expect, repository, frames)).await
    }

    /// As [`Self::get`] of the whole, for size and media type only.
    pub async fn head(
        &self,
        addr: SocketAddr,
        expect: Option<NodeId>,
        path: &str,
    ) -> Result<ContentHead, GetError> {
        Box::pin(content::head(&self.0, addr, expect, path)).await
    }

    /// Message connections and idle content connections that are kept now.
    pub fn connections(&self) -> (usize, usize) {
        (self.0.messages.len(), self.0.content.len())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

async fn sweep(inner: Weak<Inner>, idle_timeout: Duration) {
    let period = (idle_timeout / 2).max(Duration::from_millis(10));
    loop {
        tokio::time::sleep(period).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.messages.close_idle(idle_timeout);
        inner.content.close_idle(idle_timeout);
    }
}
