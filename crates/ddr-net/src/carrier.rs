//! How two nodes get a stream of bytes between them, with the other end's identity proven.
//!
//! A carrier decides only that. It must never hand out a stream whose peer has not proven its node
//! key and its standing, and never let one slow peer hold up the others. Two carriers exist: [`tls`]
//! for machines and [`memory`] for tests with many nodes in one process. One contract suite
//! (`tests/carriers.rs`) holds for both.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use ddr_proto::id::NodeId;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub mod memory;
pub mod tls;

/// What a connection is for. It is agreed in the TLS handshake (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alpn {
    /// HTTP/2, for messages: many small requests at once over one connection.
    Messages,
    /// HTTP/1.1, for content: one body at a time, as fast as it goes.
    Content,
}

impl Alpn {
    /// The protocol name as registered with IANA.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Messages => b"h2",
            Self::Content => b"http/1.1",
        }
    }

    /// The protocol with this name.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Messages, Self::Content].into_iter().find(|alpn| alpn.name() == name)
    }
}

/// What the peer's credential lets it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A node of the swarm.
    Member,
    /// The holder of a join token: may ask to become a member and nothing else.
    Joiner {
        /// ID of the token.
        serial: [u8; 16],
    },
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Proven by the handshake.
    pub node: NodeId,
    /// Where the bytes come from; not where the node listens.
    pub remote: SocketAddr,
    /// Proven by the handshake.
    pub standing: Standing,
}

/// A stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An authenticated connection, dialled or accepted.
pub struct Connection {
    /// The other end.
    pub peer: PeerInfo,
    /// What it is for.
    pub alpn: Alpn,
    /// The bytes.
    pub stream: Box<dyn Stream>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.peer)
            .field("alpn", &self.alpn)
            .finish_non_exhaustive()
    }
}

/// Reaches and is reached by other nodes.
pub trait Carrier: Send + Sync + 'static {
    /// Connects to the member at `addr`.
    ///
    /// With `expect`, a member with another node ID is an error of kind `PermissionDenied` and no
    /// byte of the application has been sent to it. There is no time limit here: callers have one.
    fn dial(
        &self,
        addr: SocketAddr,
        alpn: Alpn,
        expect: Option<NodeId>,
    ) -> BoxFuture<'_, io::Result<Connection>>;

    /// The next connection whose handshake is done. An error means that the carrier is closed.
    ///
    /// One task at a time may wait here.
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>>;

    /// Where this carrier listens, with the real port.
    fn local_addr(&self) -> SocketAddr;

    /// Stops listening; connections that exist live on. A pending `accept` ends with an error.
    fn close(&self);
}

/// The error of a dial that reached another node than the expected one.
pub(crate) fn wrong_node(addr: SocketAddr, found: NodeId) -> io::Error {
    let text = format!("the node at {addr} is {}, not the one expected", found.short());
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// The error of a carrier that does not listen any more.
pub(crate) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the carrier is closed")
}
