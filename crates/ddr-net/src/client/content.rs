//! HTTP/1.1 connections for content: one transfer at a time on each, used again when idle.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ddr_proto::id::NodeId;
use ddr_proto::wire::{BusyAnswer, MAX_MESSAGE_BYTES};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::fill::FillReads;
use super::{DialError, GetError, Inner, MAX_IDLE};
use crate::carrier::Alpn;
use crate::certificate::SERVER_NAME;
use crate::path;

/// Largest frame of a body. The buffer begins at 8 KiB and doubles while reads fill it.
const READ_BUFFER_BYTES: usize = 256 * 1024;

type Sender = http1::SendRequest<Empty<Bytes>>;

struct Idle {
    node: NodeId,
    sender: Sender,
    since: Instant,
}

/// The idle connections by address, the one used last at the end.
#[derive(Default)]
pub(super) struct Pool(Mutex<BTreeMap<SocketAddr, Vec<Idle>>>);

impl Pool {
    pub(super) fn len(&self) -> usize {
        self.lock().values().map(Vec::len).sum()
    }

    pub(super) fn close_idle(&self, limit: Duration) {
        let now = Instant::now();
        self.lock().retain(|_, idle| {
            idle.retain(|idle| now - idle.since < limit && !idle.sender.is_closed());
            !idle.is_empty()
        });
    }

    fn take(&self, addr: SocketAddr) -> Option<(NodeId, Sender)> {
        let mut peers = self.lock();
        let idle = peers.get_mut(&addr)?;
        let found = std::iter::from_fn(|| idle.pop()).find(|idle| !idle.sender.is_closed());
        if idle.is_empty() {
            peers.remove(&addr);
        }
        found.map(|idle| (idle.node, idle.sender))
    }

    /// Keeps a connection, or closes it when enough are kept.
    fn put(&self, addr: SocketAddr, node: NodeId, sender: Sender, max_per_peer: usize) {
        let mut peers = self.lock();
        let kept: usize = peers.values().map(Vec::len).sum();
        if sender.is_closed() || kept >= MAX_IDLE {
            return;
        }
        let idle = peers.entry(addr).or_default();
        if idle.len() < max_per_peer {
            idle.push(Idle { node, sender, since: Instant::now() });
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Vec<Idle>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a peer says about content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentHead {
    /// Bytes of the whole content. A claim.
    pub size: u64,
    /// Media type, for manifests. A claim.
    pub media_type: Option<String>,
}

/// Content on its way from a peer. Nothing about it is verified.
pub struct ContentBody {
    /// 200 or 206.
    pub status: u16,
    /// Bytes of the whole content, whatever range was asked for.
    pub size: u64,
    /// Where in the content the body begins.
    pub start: u64,
    /// Media type, for manifests.
    pub media_type: Option<String>,
    /// Who sends it.
    pub node: NodeId,
    remaining: u64,
    body: Incoming,
    read_timeout: Duration,
    /// Given back when the body was read to its end.
    lease: Option<Lease>,
}

/// A connection in use.
struct Lease {
    inner: Arc<Inner>,
    addr: SocketAddr,
    node: NodeId,
    sender: Sender,
    _transfer: OwnedSemaphorePermit,
}

impl Lease {
    fn give_back(self) {
        let max = self.inner.limits.max_idle_per_peer;
        self.inner.content.put(self.addr, self.node, self.sender, max);
    }
}

impl ContentBody {
    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// The next bytes, at most 256 KiB; `None` at the end. After an error there is nothing more.
    ///
    /// An end before [`Self::remaining`] is 0 is an error of kind `UnexpectedEof`; a wait longer than
    /// the read timeout is one of kind `TimedOut`. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        while self.remaining > 0 {
            // Without a lease the body has failed before.
            self.lease.as_ref()?;
            match timeout(self.read_timeout, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    return Some(self.received(bytes));
                }
                Ok(Some(Err(error))) => return Some(Err(self.fail(broken_kind(&error), error))),
                Ok(None) => {
                    return Some(Err(self.fail(io::ErrorKind::UnexpectedEof, "ended short")));
                }
                Err(_) => {
                    return Some(Err(self.fail(io::ErrorKind::TimedOut, "no bytes in time")));
                }
            }
        }
        None
    }

    fn received(&mut self, bytes: Bytes) -> io::Result<Bytes> {
        let Some(remaining) = self.remaining.checked_sub(bytes.len() as u64) else {
            return Err(self.fail(io::ErrorKind::InvalidData, "more bytes than announced"));
        };
        self.remaining = remaining;
        self.release_if_done();
        Ok(bytes)
    }

    fn release_if_done(&mut self) {
        if self.remaining == 0
            && self.body.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }

    fn fail<E>(&mut self, kind: io::ErrorKind, error: E) -> io::Error
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.lease = None;
        io::Error::new(kind, error)
    }
}

impl fmt::Debug for ContentBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentBody")
            .field("status", &self.status)
            .field("size", &self.size)
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}

/// What the carrier said, which hyper keeps as a source.
fn broken_kind(error: &hyper::Error) -> io::ErrorKind {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.kind();
        }
        next = error.source();
    }
    io::ErrorKind::ConnectionReset
}

/// See [`super::Client::get`].
pub(super) async fn get(
    inner: &Arc<Inner>,
    addr: SocketAddr,
    expect: Option<NodeId>,
    path: &str,
    wanted: Wanted,
) -> Result<ContentBody, GetError> {
    let (response, lease) =
        exchange(inner, addr, expect, &request(Method::GET, path, wanted.range())?).await?;
    let status = response.status();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Err(busy(response, lease).await);
    }
    if !matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
        // Refusals have no body, or one so short that it is here already.
        if response.body().is_end_stream() {
            lease.give_back();
        }
        return Err(refusal(status));
    }
    let Extent { start, length, size } = extent(status, response.headers(), wanted)?;
    let mut content = ContentBody {
        status: status.as_u16(),
        size,
        start,
        media_type: media_type(response.headers()),
        node: lease.node,
        remaining: length,
        body: response.into_body(),
        read_timeout: inner.limits.read_timeout,
        lease: Some(lease),
    };
    content.release_if_done();
    Ok(content)
}

/// The whom-else-to-ask of a peer that is busy.
async fn busy(response: Response<Incoming>, lease: Lease) -> GetError {
    let body = Limited::new(response.into_body(), MAX_MESSAGE_BYTES).collect();
    match timeout(lease.inner.limits.read_timeout, body).await {
        Ok(Ok(body)) => {
            lease.give_back();
            match BusyAnswer::decode(&body.to_bytes()) {
                Ok(answer) => GetError::Busy(Box::new(answer)),
                Err(_) => GetError::Malformed("not an answer of a busy peer"),
            }
        }
        Ok(Err(error)) => GetError::Broken(error.to_string()),
        Err(_) => GetError::Timeout,
    }
}

/// See [`super::Client::head`].
pub(super) async fn head(
    inner: &Arc<Inner>,
    addr: SocketAddr,
    expect: Option<NodeId>,
    path: &str,
) -> Result<ContentHead, GetError> {
    let (response, lease) =
        exchange(inner, addr, expect, &request(Method::HEAD, path, None)?).await?;
    lease.give_back();
    if response.status() != StatusCode::OK {
        return Err(refusal(response.status()));
    }
    let size = content_length(response.headers()).ok_or(NO_LENGTH)?;
    Ok(ContentHead { size, media_type: media_type(response.headers()) })
}

const NO_LENGTH: GetError = GetError::Malformed("no length");

fn request(
    method: Method,
    path: &str,
    range: Option<(u64, Option<u64>)>,
) -> Result<Request<Empty<Bytes>>, GetError> {
    let mut builder = Request::builder().method(method).uri(path).header(header::HOST, SERVER_NAME);
    match range {
        Some((start, Some(end))) if start >= end => return Err(GetError::Unsatisfiable),
        Some((start, Some(end))) => {
            builder = builder.header(header::RANGE, format!("bytes={start}-{}", end - 1));
        }
        Some((start, None)) => builder = builder.header(header::RANGE, format!("bytes={start}-")),
        None => {}
    }
    builder.body(Empty::new()).map_err(|_| GetError::Malformed("not a path"))
}

/// Sends the request over an idle connection or a new one; again over a new one when the idle one
/// had died without the peer seeing the request.
async fn exchange(
    inner: &Arc<Inner>,
    addr: SocketAddr,
    expect: Option<NodeId>,
    request: &Request<Empty<Bytes>>,
) -> Result<(Response<Incoming>, Lease), GetError> {
    let wait = inner.limits.dial_timeout;
    let permit = timeout(wait, inner.transfers.clone().acquire_owned()).await;
    let Ok(Ok(transfer)) = permit else { return Err(GetError::TooMany) };
    let mut idle = inner.content.take(addr);
    loop {
        let is_new = idle.is_none();
        let (node, mut sender) = match idle.take() {
            Some(connection) => connection,
            None => connect(inner, addr).await?,
        };
        if expect.is_some_and(|expected| expected != node) {
            let max = inner.limits.max_idle_per_peer;
            inner.content.put(addr, node, sender, max);
            return Err(GetError::WrongNode { found: node });
        }
        let sent = timeout(inner.limits.read_timeout, send(&mut sender, request)).await;
        match sent.map_err(|_| GetError::Timeout)? {
            Ok(response) => {
                let inner = inner.clone();
                return Ok((response, Lease { inner, addr, node, sender, _transfer: transfer }));
            }
            Err(Unsent::Unseen) if !is_new => {}
            Err(Unsent::Unseen) => return Err(GetError::Broken("closed by the peer".into())),
            Err(Unsent::Broken(text)) => return Err(GetError::Broken(text)),
        }
    }
}

/// Why a request has no answer.
enum Unsent {
    /// The connection was closed before the request went out: it may be sent again.
    Unseen,
    Broken(String),
}

async fn send(
    sender: &mut Sender,
    request: &Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, Unsent> {
    sender.ready().await.map_err(|_| Unsent::Unseen)?;
    sender.try_send_request(request.clone()).await.map_err(|mut failed| {
        match failed.take_message() {
            Some(_) => Unsent::Unseen,
            None => Unsent::Broken(failed.into_error().to_string()),
        }
    })
}

async fn connect(inner: &Arc<Inner>, addr: SocketAddr) -> Result<(NodeId, Sender), DialError> {
    let dialled = timeout(inner.limits.dial_timeout, inner.carrier.dial(addr, Alpn::Content, None));
    let connection = dialled
        .await
        .map_err(|_| DialError::timed_out(addr))?
        .map_err(|error| DialError::new(addr, &error))?;
    let io = TokioIo::new(FillReads::new(connection.stream));
    let shaken = http1::Builder::new().max_buf_size(READ_BUFFER_BYTES).handshake(io).await;
    let (sender, driver) =
        shaken.map_err(|error| DialError::new(addr, &io::Error::other(error)))?;
    tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%addr, %error, "content connection ended");
        }
    });
    Ok((connection.peer.node, sender))
}

fn refusal(status: StatusCode) -> GetError {
    match status {
        StatusCode::NOT_FOUND => GetError::NotFound,
        StatusCode::RANGE_NOT_SATISFIABLE => GetError::Unsatisfiable,
        StatusCode::SERVICE_UNAVAILABLE => GetError::Busy(Box::default()),
        other => GetError::Status(other),
    }
}

/// Which part of the content is asked for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// First byte and exclusive end, or the whole.
    Range(Option<(u64, Option<u64>)>),
    /// Whichever the peer chooses.
    AnyPart,
}

impl Wanted {
    const fn range(self) -> Option<(u64, Option<u64>)> {
        match self {
            Self::Range(range) => range,
            Self::AnyPart => None,
        }
    }
}

/// Where a body lies in the content.
struct Extent {
    start: u64,
    length: u64,
    size: u64,
}

/// Place of the body and size of the whole, when they answer what was asked.
fn extent(status: StatusCode, headers: &HeaderMap, wanted: Wanted) -> Result<Extent, GetError> {
    let length = content_length(headers).ok_or(NO_LENGTH)?;
    if let (StatusCode::OK, Wanted::Range(None)) = (status, wanted) {
        return Ok(Extent { start: 0, length, size: length });
    }
    if status != StatusCode::PARTIAL_CONTENT || matches!(wanted, Wanted::Range(None)) {
        return Err(GetError::Malformed("the whole for a part, or a part for the whole"));
    }
    let text = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let (start, end, size) =
        text.and_then(path::parse_content_range).ok_or(GetError::Malformed("bad range"))?;
    let asked_for = wanted.range().is_none_or(|(first, until)| {
        start == first && end == until.map_or(size, |until| until.min(size))
    });
    if !asked_for || end - start != length {
        return Err(GetError::Malformed("another range than asked for"));
    }
    Ok(Extent { start, length, size })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    path::digits(headers.get(header::CONTENT_LENGTH)?.to_str().ok()?)
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    Some(headers.get(header::CONTENT_TYPE)?.to_str().ok()?.to_owned())
}
