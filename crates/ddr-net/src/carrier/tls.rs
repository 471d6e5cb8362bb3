//! TCP with TLS 1.3, both ends proving their node key and their swarm credential.
//!
//! No resumption, no tickets, no early data: every connection shows its certificate anew, so a
//! revoked token is refused at the next dial. The accept loop only accepts; each handshake runs in
//! a task of its own. When [`MAX_HANDSHAKES`] are open the oldest is dropped for the newest, so
//! strangers who connect and stay silent cannot keep members out for longer than a handshake takes.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddr_proto::id::NodeId;
use futures_util::future::BoxFuture;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Alpn, Carrier, Connection, PeerInfo, Standing, closed, wrong_node};
use crate::certificate;
use crate::identity::Identity;
use crate::swarm::Swarm;

pub(crate) mod config;
mod verify;

/// Handshakes that run at one time; about 10 MiB if strangers hold them all.
pub const MAX_HANDSHAKES: usize = 256;
/// A handshake that takes longer is dropped.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that are ready and not yet taken by `accept`.
pub const MAX_READY: usize = 64;
/// Pause after the operating system had no file descriptor or memory for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What TLS may hold back for the socket on a content connection: sixteen records, so that one
/// system call carries them. The library's default of 64 KiB is kept for messages.
const CONTENT_BUFFER_BYTES: usize = 256 * 1024;

/// Says whether the token with this serial has been revoked. Called in handshakes: must not block.
pub type RevocationCheck = Arc<dyn Fn(&[u8; 16]) -> bool + Send + Sync>;

/// The carrier for machines.
pub struct TlsCarrier {
    local_addr: SocketAddr,
    messages: Arc<ClientConfig>,
    content: Arc<ClientConfig>,
    ready: Mutex<mpsc::Receiver<Connection>>,
    listener: AbortHandle,
}

impl TlsCarrier {
    /// Listens on `listen` (port 0 takes a free one) as a member of `swarm`.
    ///
    /// Must be called inside a tokio runtime. `AddrInUse` and the like come from the operating
    /// system as they are.
    pub async fn bind(
        listen: SocketAddr,
        identity: &Identity,
        swarm: &Swarm,
        is_revoked: RevocationCheck,
    ) -> io::Result<Self> {
        let key = identity.tls_key()?;
        let server = config::server(swarm.root(), swarm.member(), key, is_revoked)?;
        let client = |alpn| -> io::Result<_> {
            let chain = vec![swarm.member().clone()];
            config::client(swarm.root(), chain, identity.tls_key()?, alpn)
        };
        let (messages, content) = (client(Alpn::Messages)?, client(Alpn::Content)?);
        let listener = TcpListener::bind(listen).await?;
        let local_addr = listener.local_addr()?;
        let (sender, receiver) = mpsc::channel(MAX_READY);
        let task = tokio::spawn(listen_loop(listener, server, sender));
        Ok(Self {
            local_addr,
            messages,
            content,
            ready: Mutex::new(receiver),
            listener: task.abort_handle(),
        })
    }
}

impl Carrier for TlsCarrier {
    fn dial(
        &self,
        addr: SocketAddr,
        alpn: Alpn,
        expect: Option<NodeId>,
    ) -> BoxFuture<'_, io::Result<Connection>> {
        let config = match alpn {
            Alpn::Messages => self.messages.clone(),
            Alpn::Content => self.content.clone(),
        };
        Box::pin(async move {
            let connection = connect(addr, alpn, config).await?;
            match expect {
                Some(node) if node != connection.peer.node => {
                    Err(wrong_node(addr, connection.peer.node))
                }
                _ => Ok(connection),
            }
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let next = poll_fn(|cx| {
                self.ready.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(cx)
            });
            next.await.ok_or_else(closed)
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    fn close(&self) {
        self.listener.abort();
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).close();
    }
}

impl Drop for TlsCarrier {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl fmt::Debug for TlsCarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCarrier").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// Dials `addr` with a ready configuration; the peer is a member when this succeeds.
pub(crate) async fn connect(
    addr: SocketAddr,
    alpn: Alpn,
    config: Arc<ClientConfig>,
) -> io::Result<Connection> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(certificate::SERVER_NAME).map_err(io::Error::other)?;
    let mut tls = TlsConnector::from(config).connect(name, tcp).await?;
    let session = tls.get_mut().1;
    if alpn == Alpn::Content {
        session.set_buffer_limit(Some(CONTENT_BUFFER_BYTES));
    }
    let (peer, agreed) = proven(session, addr)?;
    if agreed != alpn || peer.standing != Standing::Member {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer is no member"));
    }
    Ok(Connection { peer, alpn, stream: Box::new(tls) })
}

async fn listen_loop(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    ready: mpsc::Sender<Connection>,
) {
    let acceptor = TlsAcceptor::from(config);
    let mut handshakes = Handshakes::default();
    loop {
        match listener.accept().await {
            Ok((tcp, remote)) => {
                let (acceptor, ready) = (acceptor.clone(), ready.clone());
                handshakes
                    .admit(tokio::spawn(handshake(acceptor, tcp, remote, ready)).abort_handle());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The handshakes that run, oldest first. Dropping it ends them all.
#[derive(Default)]
struct Handshakes(VecDeque<AbortHandle>);

impl Handshakes {
    fn admit(&mut self, task: AbortHandle) {
        while self.0.front().is_some_and(AbortHandle::is_finished) {
            self.0.pop_front();
        }
        if self.0.len() >= MAX_HANDSHAKES {
            self.0.retain(|task| !task.is_finished());
        }
        if self.0.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(task);
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    remote: SocketAddr,
    ready: mpsc::Sender<Connection>,
) {
    match timeout(HANDSHAKE_TIMEOUT, authenticate(acceptor, tcp, remote)).await {
        // The channel is closed when the carrier is: the connection is dropped then.
        Ok(Ok(connection)) => drop(ready.send(connection).await),
        Ok(Err(error)) => tracing::debug!(%remote, %error, "peer refused in the handshake"),
        Err(_) => tracing::debug!(%remote, "peer refused: its handshake took too long"),
    }
}

async fn authenticate(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    remote: SocketAddr,
) -> io::Result<Connection> {
    tcp.set_nodelay(true)?;
    let mut tls = acceptor.accept(tcp).await?;
    let session = tls.get_mut().1;
    let (peer, alpn) = proven(session, remote)?;
    if alpn == Alpn::Content {
        session.set_buffer_limit(Some(CONTENT_BUFFER_BYTES));
    }
    Ok(Connection { peer, alpn, stream: Box::new(tls) })
}

/// Reads who the peer is out of a finished handshake.
fn proven(session: &CommonState, remote: SocketAddr) -> io::Result<(PeerInfo, Alpn)> {
    let invalid = |text: &'static str| io::Error::new(io::ErrorKind::InvalidData, text);
    let chain: &[CertificateDer<'_>] = session.peer_certificates().unwrap_or_default();
    let [leaf, intermediates @ ..] = chain else { return Err(invalid("no certificate")) };
    let key = certificate::public_key(leaf).ok_or_else(|| invalid("not an Ed25519 key"))?;
    let standing = certificate::standing(intermediates).ok_or_else(|| invalid("odd chain"))?;
    let alpn = session.alpn_protocol().and_then(Alpn::from_name);
    let alpn = alpn.ok_or_else(|| invalid("no protocol agreed"))?;
    Ok((PeerInfo { node: NodeId::of_public_key(&key), remote, standing }, alpn))
}
