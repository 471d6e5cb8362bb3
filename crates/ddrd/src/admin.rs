//! The admin API: health, metrics and JSON for `ddr`, on loopback only.
//!
//! Decides who may ask (see [`guard`]) and how answers look. It must never change content or
//! speak to peers itself: it asks the node.

mod answer;
mod beside;
mod doctor;
mod guard;
mod images;
mod jobs;
mod pins;
mod routes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ddr_node::Node;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::telemetry::Metrics;

/// Connections served at one time; more wait in the listen queue.
pub const MAX_CONNECTIONS: usize = 64;
/// Wait for the head of a request.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of request line and headers together.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the admin API speaks about.
#[derive(Debug)]
pub struct Admin {
    /// The node.
    pub node: Node,
    /// Its metrics.
    pub metrics: Metrics,
    /// Where the registry listens.
    pub registry: SocketAddr,
    /// Whether the registry speaks TLS.
    pub registry_tls: bool,
    /// Where peers connect.
    pub peers: SocketAddr,
    /// Where this API listens.
    pub admin: SocketAddr,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The grace window of a collection that names none.
    pub gc_grace: Duration,
    /// True once the process drains.
    pub draining: AtomicBool,
}

impl Admin {
    fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.node.ready()
    }
}

/// Answers requests on `listener` until the task is dropped.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let admin = Arc::clone(&admin);
                async move { Ok::<_, std::convert::Infallible>(routes::answer(&admin, request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(MAX_HEADER_BYTES)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "admin connection ended");
            }
            drop(slot);
        });
    }
}
