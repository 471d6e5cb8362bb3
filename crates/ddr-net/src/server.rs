//! The accepting end: one port, messages over HTTP/2 and content over HTTP/1.1.
//!
//! It decides how many connections and streams a peer may hold and how long it may take, and hands
//! decoded requests to the [`Service`]. It must never buffer more than one message of a peer, give a
//! joiner anything but the answer to `join`, or log what it carries.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::census::{Census, Seat};
use self::streams::Streams;
use crate::carrier::{Alpn, Carrier, Connection, Standing};
use crate::service::Service;
use crate::stall::StallGuard;

mod answer;
mod census;
mod streams;
mod upload;

/// Connections in all.
pub const MAX_CONNECTIONS: usize = 1024;
/// Connections of one member, so that one cannot keep out the others.
pub const MAX_CONNECTIONS_PER_NODE: usize = 64;
/// Connections for messages of one member. One is enough; the others are those that it lost and that
/// were not missed here yet.
pub const MAX_MESSAGE_CONNECTIONS_PER_NODE: usize = 16;
/// Connections of all joiners together: a leaked token takes no more than these.
pub const MAX_JOINERS: usize = 16;
/// Requests in progress on one HTTP/2 connection; more are refused (`REFUSED_STREAM`).
pub const MAX_STREAMS: u32 = 64;
/// Requests above that are refused before their connection is ended (`ENHANCE_YOUR_CALM`).
pub const MAX_REFUSED_STREAMS: usize = 1024;
/// What a peer may have in flight to us on one stream; a message is never longer.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// What a peer may have in flight to us on one connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 128 * 1024;
/// Bytes of one request's headers.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Answers that wait for the socket on one HTTP/2 stream.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// What the error of a connection says that was ended with `ENHANCE_YOUR_CALM`. For the log only.
const EXCESSIVE_LOAD: &str = "excessive load";
/// What HTTP/1.1 gathers before it writes; a frame of content goes out in one piece all the same.
const CONTENT_BUFFER_BYTES: usize = 256 * 1024;

/// Bounds of [`serve`]. The defaults suit a daemon.
#[derive(Clone, Debug)]
pub struct ServeLimits {
    /// Connections in all; a new one beyond is dropped. Default [`MAX_CONNECTIONS`].
    pub max_connections: usize,
    /// Connections of one node. Default [`MAX_CONNECTIONS_PER_NODE`].
    pub max_connections_per_node: usize,
    /// Connections for messages of one node. Default [`MAX_MESSAGE_CONNECTIONS_PER_NODE`].
    pub max_message_connections_per_node: usize,
    /// Connections of all joiners together. Default [`MAX_JOINERS`].
    pub max_joiners: usize,
    /// Time for the head of a request over HTTP/1.1, idle time before it included. Default 30 s.
    pub header_timeout: Duration,
    /// Time for the body of a message. Default 5 s.
    pub message_timeout: Duration,
    /// Time for one message, from the head of its request to the last byte of its answer. Default 60 s.
    pub stream_timeout: Duration,
    /// Time in which a peer must take something of what its connection carries. Default 30 s.
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
            max_message_connections_per_node: MAX_MESSAGE_CONNECTIONS_PER_NODE,
            max_joiners: MAX_JOINERS,
            header_timeout: Duration::from_secs(30),
            message_timeout: Duration::from_secs(5),
            stream_timeout: Duration::from_secs(60),
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
    let server = Arc::new(Server { service, census: Arc::new(Census::new(&limits)), limits });
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = carrier.accept() => accepted,
        };
        let Ok(connection) = accepted else { break };
        if let Some(seat) = Census::seat(&server.census, &connection) {
            connections.spawn(attend(server.clone(), connection, graceful.watcher(), seat));
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
    census: Arc<Census>,
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
        let (node, remote, error) = (peer.node, peer.remote, with_causes(&error));
        if error.contains(EXCESSIVE_LOAD) {
            tracing::warn!(%node, %remote, error, "a peer asked for too much at once");
        } else {
            tracing::debug!(%node, %remote, error, "connection ended");
        }
    }
    drop(seat);
}

/// The error and what is behind it, in words.
fn with_causes(error: &hyper::Error) -> String {
    let first: &dyn std::error::Error = error;
    let chain = std::iter::successors(Some(first), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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
            let mut http = http2::Builder::new(Streams { peer, limit: limits.stream_timeout });
            http.timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_concurrent_streams(MAX_STREAMS)
                .max_local_error_reset_streams(MAX_REFUSED_STREAMS)
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
