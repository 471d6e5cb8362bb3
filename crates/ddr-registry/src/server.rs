//! The listener: accepts connections within the limit, serves them, drains them at shutdown.
//!
//! Decides which HTTP settings hold for a connection. HTTP/1.1 and HTTP/2 with prior knowledge are
//! told apart by the first bytes. It must never accept without a bound.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ddr_node::Node;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::connection::{Activity, GuardedIo};
use crate::limits::{
    CONNECTION_WINDOW_BYTES, Limits, MAX_HEADER_BYTES, MAX_MANIFEST_PUTS, MAX_REFUSALS,
    MAX_STREAMS, READ_BUFFER_BYTES, STREAM_WINDOW_BYTES,
};
use crate::metrics;
use crate::router::{self, Admission, Client};

/// Pause after the system refused to accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) limits: Limits,
    pub(crate) manifest_puts: Arc<Semaphore>,
}

/// Serves the OCI distribution API on `listener` until `shutdown` completes.
///
/// Then it accepts nobody, lets running requests end for at most [`Limits::drain_timeout`], breaks
/// off the rest and returns. Requests that change something and were not answered by then may
/// still take effect, as with any lost answer. The caller shuts the node down afterwards.
///
/// The client port has no authentication: bind it to a loopback address.
pub async fn serve<F>(listener: TcpListener, node: Node, limits: Limits, shutdown: F)
where
    F: Future,
{
    let server = Server::new(node, limits);
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            _ = shutdown.as_mut() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.admit(stream, &mut connections, &stopped),
                Err(error) => {
                    tracing::warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    stop.send_replace(true);
    drain(connections, server.shared.limits.drain_timeout).await;
}

/// Waits for the connections to end, at most `patience`, then breaks them off.
async fn drain(mut connections: JoinSet<()>, patience: Duration) {
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests were broken off at shutdown");
    }
    connections.shutdown().await;
}

struct Server {
    shared: Arc<Shared>,
    http: Arc<auto::Builder<TokioExecutor>>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Server {
    fn new(node: Node, limits: Limits) -> Self {
        Self {
            http: Arc::new(http_settings(&limits)),
            places: Arc::new(Semaphore::new(limits.connections)),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            shared: Arc::new(Shared {
                node,
                limits,
                manifest_puts: Arc::new(Semaphore::new(MAX_MANIFEST_PUTS)),
            }),
        }
    }

    /// Serves a new connection, or tells it that there are too many, or closes it.
    fn admit(
        &self,
        stream: TcpStream,
        connections: &mut JoinSet<()>,
        stopped: &watch::Receiver<bool>,
    ) {
        let (admission, permit) = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => (Admission::Serve, permit),
            Err(_) => {
                metrics::refused();
                let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
                (Admission::Refuse, permit)
            }
        };
        // Small responses follow requests at once; a failure costs only time.
        let _ = stream.set_nodelay(true);
        connections.spawn(serve_connection(
            Arc::clone(&self.http),
            Arc::clone(&self.shared),
            stream,
            Place { admission, _permit: permit },
            stopped.clone(),
        ));
    }
}

/// A connection's right to be here.
struct Place {
    admission: Admission,
    _permit: OwnedSemaphorePermit,
}

/// Drives one connection to its end: its own, at rest for too long, or at shutdown after its
/// running requests.
async fn serve_connection(
    http: Arc<auto::Builder<TokioExecutor>>,
    shared: Arc<Shared>,
    stream: TcpStream,
    place: Place,
    mut stopped: watch::Receiver<bool>,
) {
    let _open = metrics::OpenConnection::begin();
    let limits = shared.limits.clone();
    let activity = Activity::default();
    let client = Client { shared, activity: activity.clone(), admission: place.admission };
    let service = service_fn(move |request| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(router::answer(client, request).await) }
    });
    let io = GuardedIo::new(stream, limits.write_progress_timeout);
    let mut connection = std::pin::pin!(http.serve_connection(io, service));
    let mut check_at = Instant::now() + limits.idle_timeout;
    let mut seen = 0;
    let mut draining = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            // A dropped sender means shutdown as well.
            _ = stopped.wait_for(|stop| *stop), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(check_at) => {
                if activity.at_rest(&mut seen) {
                    return;
                }
                check_at = Instant::now() + limits.idle_timeout;
            }
        }
    }
}

fn http_settings(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_buf_size(READ_BUFFER_BYTES)
        .half_close(false);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        // Fields count 32 bytes more than they have; the exact limit is checked by the router.
        .max_header_list_size(2 * MAX_HEADER_BYTES as u32)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(limits.idle_timeout)
        .keep_alive_timeout(limits.header_read_timeout);
    http
}
