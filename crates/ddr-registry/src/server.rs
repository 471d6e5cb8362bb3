//! The listeners: accept connections within the limit, drain them at shutdown.
//!
//! Decides who is let in. It must never accept without a bound, and never let one listener's
//! clients keep out another's.

mod life;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ddr_node::Node;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::limits::{Limits, MAX_MANIFEST_PUTS, MAX_REFUSALS, UNSENT_BYTES};
use crate::metrics;
use crate::router::Admission;
use crate::streams::Streams;
use crate::tls::Tls;
use life::Http;

/// Pause after the system refused to accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) limits: Limits,
    pub(crate) manifest_puts: Arc<Semaphore>,
    pub(crate) streams: Arc<Streams>,
}

/// Serves the OCI distribution API on `listener` until `shutdown` completes; see [`serve_all`].
pub async fn serve<F: Future>(listener: TcpListener, node: Node, limits: Limits, shutdown: F) {
    serve_all(vec![listener], None, node, limits, shutdown).await;
}

/// Serves the OCI distribution API on all `listeners` until `shutdown` completes; with `tls`, over
/// TLS only.
///
/// Then it accepts nobody, lets running requests end for at most [`Limits::drain_timeout`], breaks
/// off the rest and returns. Requests that change something and were not answered by then may
/// still take effect, as with any lost answer. The caller shuts the node down afterwards.
///
/// The client port has no authentication: bind it to a loopback address.
pub async fn serve_all<F: Future>(
    listeners: Vec<TcpListener>,
    tls: Option<Tls>,
    node: Node,
    limits: Limits,
    shutdown: F,
) {
    let server = Arc::new(Server::new(node, limits, tls));
    let (stop, stopped) = watch::channel(false);
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(Arc::clone(&server), listener, stopped.clone()));
    }
    let _ = shutdown.await;
    stop.send_replace(true);
    while loops.join_next().await.is_some() {}
}

/// One listener, until it is stopped and its connections have ended.
async fn accept(server: Arc<Server>, listener: TcpListener, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let told = stopped.clone();
    loop {
        tokio::select! {
            () = asked_to_stop(&mut stopped) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => server.admit(stream, &mut connections, &told),
                Err(error) => {
                    tracing::warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drain(connections, server.shared.limits.drain_timeout).await;
}

/// Waits for shutdown; a dropped sender means it as well.
async fn asked_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
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
    http: Arc<Http>,
    tls: Option<Tls>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
}

impl Server {
    fn new(node: Node, limits: Limits, tls: Option<Tls>) -> Self {
        Self {
            http: Arc::new(Http::new(&limits)),
            tls,
            places: Arc::new(Semaphore::new(limits.connections)),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            shared: Arc::new(Shared {
                node,
                streams: Arc::new(Streams::new(&limits)),
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
        // A failure costs only memory of the system.
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        connections.spawn(life::lead(
            Arc::clone(&self.http),
            Arc::clone(&self.shared),
            self.tls.clone(),
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
