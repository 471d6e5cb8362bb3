//! The accepting end: one port, messages over HTTP/2 and content over HTTP/1.1.
//!
//! It decides how many connections and streams a peer may hold and how long it may take, and hands
//! decoded requests to the [`Service`]. It must never buffer more than one message of a peer, give a
//! joiner anything but the answer to `join`, or log what it carries.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddr_proto::id::NodeId;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::carrier::{Alpn, Carrier, Connection, PeerInfo, Standing};
use crate::service::Service;
use crate::stall::StallGuard;

mod answer;

/// Connections in all.
pub const MAX_CONNECTIONS: usize = 1024;
/// Connections of one member, so that one cannot keep out the others.
pub const MAX_CONNECTIONS_PER_NODE: usize = 64;
/// Connections of all joiners together: a leaked token takes no more than these.
pub const MAX_JOINERS: usize = 16;
/// Requests in progress on one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 64;
/// What a peer may have in flight to us on one stream; a message is never longer.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// What a peer may have in flight to us on one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 128 * 1024;
/// Bytes of one request's headers.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Answers that wait for the socket on one HTTP/2 stream.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// What HTTP/1.1 gathers before it writes; a frame of content goes out in one piece all the same.
const CONTENT_BUFFER_BYTES: usize = 256 * 1024;

/// Bounds of [`serve`]. The defaults suit a daemon.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Connections in all; a new one beyond is dropped. Default [`MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// Connections of one node. Default [`MAX_CONNECTIONS_PER_NODE`].
    pub max_connections_per_node: usize,
    /// Connections of all joiners together. Default [`MAX_JOINERS`].
    pub max_joiners: usize,
    /// Time for the head of a request over HTTP/1.1, idle time before it included. Default 30 s.
    pub header_timeout: Duration,
    /// Time for the body of a message. Default 5 s.
    pub message_timeout: Duration,
    /// Time in which a peer must take something of an answer. Default 30 s.
    pub stall_timeout: Duration,
    /// Idle time after which an HTTP/2 peer is asked whether it lives. Default 60 s.
    pub keep_alive: Duration,
    /// Time that a joiner's connection may last. Default 10 s.
    pub join_timeout: Duration,
    /// Time for requests in progress after the signal to stop. Default 5 s.
    pub drain_timeout: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_connections_per_node: MAX_CONNECTIONS_PER_NODE,
            max_joiners: MAX_JOINERS,
            header_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
            join_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Answers peers until `shutdown` turns true (or its sender is dropped), then drains.
///
/// Closes the carrier's listening side when it returns; the carrier can still dial.
pub async fn serve(
    carrier: Arc<dyn Carrier>,
    service: Arc<dyn Service>,
    limits: ServeLimits,
    mut shutdown: watch::Receiver<bool>,
) {
    let server = Arc::new(Server { service, census: Census::default(), limits });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = carrier.accept() => accepted,
        };
        let Ok(connection) = accepted else { break };
        if let Some(seat) = Census::seat(&server, &connection.peer) {
            connections.spawn(attend(server.clone(), connection, graceful.watcher(), seat));
        } else {
            tracing::debug!(peer = %connection.peer.node.short(), "too many connections");
        }
    }
    carrier.close();
    if timeout(server.limits.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::debug!("peers were cut off while stopping");
    }
}

/// What all connections share.
struct Server {
    service: Arc<dyn Service>,
    census: Census,
    limits: ServeLimits,
}

async fn attend(server: Arc<Server>, connection: Connection, watcher: Watcher, seat: Seat) {
    let peer = connection.peer;
    let ended = match peer.standing {
        Standing::Member => converse(&server, connection, watcher).await,
        Standing::Joiner { .. } => {
            let limit = server.limits.join_timeout;
            match timeout(limit, converse(&server, connection, watcher)).await {
                Ok(ended) => ended,
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %peer.node.short(), remote = %peer.remote, %error, "connection ended");
    }
    drop(seat);
}

async fn converse(
    server: &Arc<Server>,
    connection: Connection,
    watcher: Watcher,
) -> Result<(), hyper::Error> {
    let Connection { peer, alpn, stream } = connection;
    let limits = &server.limits;
    let io = TokioIo::new(StallGuard::new(stream, limits.stall_timeout));
    let shared = server.clone();
    let service = service_fn(move |request| {
        let server = shared.clone();
        async move { Ok::<_, io::Error>(answer::answer(&server, peer, request).await) }
    });
    match alpn {
        Alpn::Messages => {
            let mut http = http2::Builder::new(TokioExecutor::new());
            http.timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEADER_BYTES as u32)
                .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
                .keep_alive_interval(limits.keep_alive)
                .keep_alive_timeout(limits.stall_timeout);
            watcher.watch(http.serve_connection(io, service)).await
        }
        Alpn::Content => {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(limits.header_timeout)
                .max_header_size(MAX_HEADER_BYTES)
                .max_buf_size(CONTENT_BUFFER_BYTES);
            watcher.watch(http.serve_connection(io, service)).await
        }
    }
}

/// Who is connected, and how often.
#[derive(Default)]
struct Census(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: usize,
    joiners: usize,
    members: BTreeMap<NodeId, usize>,
}

impl Census {
    /// A place for one more connection of `peer`, given up when dropped; `None` if it has too many.
    fn seat(server: &Arc<Server>, peer: &PeerInfo) -> Option<Seat> {
        let limits = &server.limits;
        let mut guard = server.census.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *guard;
        if counts.all >= limits.max_connections {
            return None;
        }
        match peer.standing {
            Standing::Joiner { .. } if counts.joiners >= limits.max_joiners => return None,
            Standing::Joiner { .. } => counts.joiners += 1,
            Standing::Member => {
                let own = counts.members.entry(peer.node).or_default();
                if *own >= limits.max_connections_per_node {
                    return None;
                }
                *own += 1;
            }
        }
        counts.all += 1;
        Some(Seat { server: server.clone(), peer: *peer })
    }
}

struct Seat {
    server: Arc<Server>,
    peer: PeerInfo,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut guard = self.server.census.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *guard;
        counts.all -= 1;
        if let Standing::Joiner { .. } = self.peer.standing {
            counts.joiners -= 1;
        } else if let Some(own) = counts.members.get_mut(&self.peer.node) {
            *own -= 1;
            if *own == 0 {
                counts.members.remove(&self.peer.node);
            }
        }
    }
}
