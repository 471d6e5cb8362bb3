//! One HTTP/2 connection per peer for its messages, dialled once however many callers wait.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ddr_oci::digest::Digest;
use ddr_proto::id::NodeId;
use ddr_proto::wire::{MAX_MESSAGE_BYTES, RequestEnvelope, Response, SwarmPost};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout};

use super::{CallError, ClientLimits, DialError, Inner};
use crate::carrier::{Alpn, Carrier};
use crate::metrics;
use crate::path;
use crate::server::{CONNECTION_WINDOW_BYTES, MAX_HEADER_BYTES, MAX_STREAMS, STREAM_WINDOW_BYTES};

/// A connection with requests in progress is asked so often whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The URI that every message goes to; HTTP/2 wants an authority.
const MESSAGE_URI: &str = "https://node.ddr.internal";

type Sender = http2::SendRequest<Full<Bytes>>;
type Dial = Shared<BoxFuture<'static, Result<Link, DialError>>>;

/// An open connection and who is at its other end.
#[derive(Clone)]
struct Link {
    node: NodeId,
    sender: Sender,
}

struct Slot {
    dial: Dial,
    used: Instant,
}

impl Slot {
    fn is_usable(&self) -> bool {
        match self.dial.peek() {
            None => true,
            Some(Ok(link)) => !link.sender.is_closed(),
            Some(Err(_)) => false,
        }
    }
}

/// The connections by address. Dropping a slot closes its connection when its last call ends.
#[derive(Default)]
pub(super) struct Pool(Mutex<BTreeMap<SocketAddr, Slot>>);

impl Pool {
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn close_idle(&self, idle: Duration) {
        let now = Instant::now();
        self.lock().retain(|_, slot| slot.is_usable() && now - slot.used < idle);
    }

    /// The connection to `addr`, open or being dialled.
    fn acquire(&self, inner: &Inner, addr: SocketAddr) -> Dial {
        let mut slots = self.lock();
        let used = Instant::now();
        if let Some(slot) = slots.get_mut(&addr).filter(|slot| slot.is_usable()) {
            slot.used = used;
            return slot.dial.clone();
        }
        if slots.len() >= inner.limits.max_peers && !slots.contains_key(&addr) {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.used).map(|(addr, _)| *addr);
            oldest.map(|addr| slots.remove(&addr));
        }
        let dial = start_dial(inner.carrier.clone(), addr, inner.limits.clone());
        slots.insert(addr, Slot { dial: dial.clone(), used });
        dial
    }

    /// Drops a connection that turned out dead, unless another took its place already.
    fn forget(&self, addr: SocketAddr, dial: &Dial) {
        let mut slots = self.lock();
        if slots.get(&addr).is_some_and(|slot| slot.dial.ptr_eq(dial)) {
            slots.remove(&addr);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends `envelope` and decodes the answer. Has no time limit of its own beyond the dial's.
pub(super) async fn call(
    inner: &Arc<Inner>,
    addr: SocketAddr,
    expect: Option<NodeId>,
    envelope: &RequestEnvelope,
) -> Result<(NodeId, Response), CallError> {
    let body = Bytes::from(envelope.encode());
    let sent = body.len();
    let (node, response) = exchange(inner, addr, expect, path::MESSAGE, body).await?;
    Ok((node, read_answer(response, sent).await?))
}

/// Tells a peer something about a blob; whether it wanted to hear it.
pub(super) async fn post(
    inner: &Arc<Inner>,
    addr: SocketAddr,
    expect: Option<NodeId>,
    digest: &Digest,
    post: &SwarmPost,
) -> Result<bool, CallError> {
    let body = Bytes::from(post.encode());
    metrics::exchanged(body.len(), 0);
    let (_, response) = exchange(inner, addr, expect, &path::swarm_path(digest), body).await?;
    match response.status() {
        StatusCode::NO_CONTENT => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        other => Err(CallError::Status(other)),
    }
}

/// Posts `body` and waits for the head of the answer.
async fn exchange(
    inner: &Arc<Inner>,
    addr: SocketAddr,
    expect: Option<NodeId>,
    path: &str,
    body: Bytes,
) -> Result<(NodeId, http::Response<Incoming>), CallError> {
    let mut retried = false;
    loop {
        let dial = inner.messages.acquire(inner, addr);
        let Link { node, mut sender } = dial.clone().await?;
        if expect.is_some_and(|expected| expected != node) {
            return Err(CallError::WrongNode { found: node });
        }
        match sender.try_send_request(message_request(path, body.clone())).await {
            Ok(response) => return Ok((node, response)),
            Err(mut failed) => {
                inner.messages.forget(addr, &dial);
                let unseen = failed.take_message().is_some();
                if retried || !unseen {
                    return Err(CallError::Broken(failed.into_error().to_string()));
                }
                retried = true;
            }
        }
    }
}

fn message_request(path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::post(format!("{MESSAGE_URI}{path}"))
        .body(Full::new(body))
        .expect("the method is a constant, and digests need no escape")
}

/// The answer to a message of `sent` bytes.
async fn read_answer(
    response: http::Response<Incoming>,
    sent: usize,
) -> Result<Response, CallError> {
    if response.status() != StatusCode::OK {
        return Err(CallError::Status(response.status()));
    }
    match Limited::new(response.into_body(), MAX_MESSAGE_BYTES).collect().await {
        Ok(body) => {
            let bytes = body.to_bytes();
            metrics::exchanged(sent, bytes.len());
            Ok(Response::decode(&bytes)?)
        }
        Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLong),
        Err(error) => Err(CallError::Broken(error.to_string())),
    }
}

/// Dials in a task of its own, so that it goes on when the caller that began it gives up.
fn start_dial(carrier: Arc<dyn Carrier>, addr: SocketAddr, limits: ClientLimits) -> Dial {
    let task = tokio::spawn(async move {
        let connected = timeout(limits.dial_timeout, connect(carrier, addr)).await;
        connected.unwrap_or_else(|_| Err(DialError::timed_out(addr)))
    });
    let dial = task.map(move |joined| match joined {
        Ok(result) => result,
        Err(error) => Err(DialError::new(addr, &std::io::Error::other(error))),
    });
    dial.boxed().shared()
}

async fn connect(carrier: Arc<dyn Carrier>, addr: SocketAddr) -> Result<Link, DialError> {
    let failed = |error: &std::io::Error| DialError::new(addr, error);
    let dialled = carrier.dial(addr, Alpn::Messages, None).await;
    let connection = dialled.map_err(|error| failed(&error))?;
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        // Before its settings arrive, the peer would refuse what goes beyond.
        .initial_max_send_streams(MAX_STREAMS as usize)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE / 2);
    let shaken = http.handshake(TokioIo::new(connection.stream)).await;
    let (sender, driver) = shaken.map_err(|error| failed(&std::io::Error::other(error)))?;
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%addr, %error, "message connection ended");
        }
    });
    Ok(Link { node: connection.peer.node, sender })
}
