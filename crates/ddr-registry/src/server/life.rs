//! The life of one connection: handshake, requests, rest, end.
//!
//! Decides which HTTP settings hold and when a connection has rested long enough. HTTP/1.1 and
//! HTTP/2 with prior knowledge are told apart by the first bytes. A connection at rest has no HTTP
//! state and no buffers: they are made when its next byte comes. It must never end a request that
//! runs, except at shutdown.

use std::convert::Infallible;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Place, Shared, asked_to_stop};
use crate::connection::{Activity, ClientIo};
use crate::lane::Lane;
use crate::limits::{
    CONNECTION_WINDOW_BYTES, Limits, MAX_HEADER_BYTES, MAX_STREAMS, SEND_BUFFER_BYTES,
    STREAM_WINDOW_BYTES, WIRE_BUFFER_BYTES,
};
use crate::metrics;
use crate::respond::Reply;
use crate::router::{self, Client};
use crate::sendfile::FileSender;
use crate::tls::{Tls, Transport};
use crate::untaken::Untaken;

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Wait for a client to take the farewell of a connection that ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// The settings of both protocol versions.
pub(super) struct Http {
    one: http1::Builder,
    two: http2::Builder<TokioExecutor>,
}

impl Http {
    pub(super) fn new(limits: &Limits) -> Self {
        let mut one = http1::Builder::new();
        one.timer(TokioTimer::new())
            .header_read_timeout(limits.header_read_timeout)
            .max_buf_size(WIRE_BUFFER_BYTES)
            .half_close(false);
        let mut two = http2::Builder::new(TokioExecutor::new());
        two.timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            // Fields count 32 bytes more than they have; the exact limit is checked by the router.
            .max_header_list_size(2 * MAX_HEADER_BYTES as u32)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(limits.idle_timeout)
            .keep_alive_timeout(limits.header_read_timeout);
        Self { one, two }
    }
}

/// Leads one connection to its end: its own, at rest for too long, or at shutdown after its running
/// requests.
pub(super) async fn lead(
    http: Arc<Http>,
    shared: Arc<Shared>,
    tls: Option<Tls>,
    stream: TcpStream,
    place: Place,
    stopped: watch::Receiver<bool>,
) {
    let _open = metrics::OpenConnection::begin();
    let Some(transport) = shake_hands(tls, stream, &shared.limits, stopped.clone()).await else {
        return;
    };
    let lane = matches!(transport, Transport::Plain(_)).then(Lane::default);
    let files = lane.clone().map(|lane| FileSender::new(lane, Arc::clone(&shared.streams)));
    let activity = Activity::default();
    let write_timeout = shared.limits.write_progress_timeout;
    let io = ClientIo::new(transport, files, write_timeout, activity.clone());
    let limits = Rests {
        idle: shared.limits.idle_timeout,
        rest: shared.limits.rest,
        since: Instant::now(),
        seen: 0,
    };
    let client = Client { shared, activity, admission: place.admission, lane };
    let mut life = Life { http, client, rests: limits, stopped };
    life.run(io).await;
}

async fn shake_hands(
    tls: Option<Tls>,
    stream: TcpStream,
    limits: &Limits,
    mut stopped: watch::Receiver<bool>,
) -> Option<Transport> {
    let Some(tls) = tls else { return Some(Transport::Plain(stream)) };
    // For the handshake only: its state is large.
    let handshake = Box::pin(timeout(limits.header_read_timeout, tls.accept(stream)));
    tokio::select! {
        () = asked_to_stop(&mut stopped) => None,
        shaken = handshake => shaken.ok()?.ok(),
    }
}

/// How long a connection may do nothing.
struct Rests {
    /// Until it is closed.
    idle: Duration,
    /// Until its HTTP state is put away.
    rest: Duration,
    /// When it was last seen doing something.
    since: Instant,
    /// Requests begun by then.
    seen: usize,
}

impl Rests {
    /// True when it has done nothing for too long.
    fn too_long(&mut self, activity: &Activity) -> bool {
        if !activity.at_rest(&mut self.seen) {
            self.since = Instant::now();
        }
        self.since.elapsed() >= self.idle
    }
}

struct Life {
    http: Arc<Http>,
    client: Client,
    rests: Rests,
    stopped: watch::Receiver<bool>,
}

/// The first bytes of a connection or of a request.
enum First {
    One,
    Two,
    End,
}

impl Life {
    async fn run(&mut self, mut io: ClientIo) {
        let mut unknown = true;
        loop {
            let first =
                if io.has_unread() { First::One } else { self.first_bytes(&mut io, unknown).await };
            match first {
                First::End => break,
                First::Two => return Box::pin(self.version_two(io)).await,
                First::One => {}
            }
            unknown = false;
            // The state of HTTP is on the heap, and gone while the connection rests.
            match Box::pin(self.version_one(io)).await {
                ControlFlow::Continue(resting) => io = resting,
                ControlFlow::Break(()) => return,
            }
        }
        // Nobody may be there to take it.
        let _ = timeout(FAREWELL, io.transport().shutdown()).await;
    }

    /// Waits for the first byte, and for as many as tell the version when that is not known.
    async fn first_bytes(&mut self, io: &mut ClientIo, unknown: bool) -> First {
        let mut first = [0; HTTP2_PREFACE.len()];
        let mut len = 0;
        let until = self.rests.since + self.rests.idle;
        let wanted = if unknown { first.len() } else { 1 };
        while len < wanted && HTTP2_PREFACE.starts_with(&first[..len]) {
            let read = tokio::select! {
                () = asked_to_stop(&mut self.stopped) => return First::End,
                () = sleep_until(until) => return First::End,
                read = io.transport().read(&mut first[len..]) => read,
            };
            match read {
                Ok(count) if count > 0 => len += count,
                _ => return First::End,
            }
        }
        io.unread(&first[..len]);
        if unknown && len == first.len() && first == *HTTP2_PREFACE {
            First::Two
        } else {
            First::One
        }
    }

    /// Serves HTTP/1.1 until the connection ends or rests.
    async fn version_one(&mut self, io: ClientIo) -> ControlFlow<(), ClientIo> {
        let before = self.client.activity.begun();
        let service = Requests { client: self.client.clone(), untaken: None };
        let mut connection = self.http.one.serve_connection(io, service);
        let mut draining = false;
        let mut look_at = Instant::now() + self.rests.rest;
        loop {
            tokio::select! {
                // It ends when all it had to say is written, and the peer was told.
                ended = &mut connection => {
                    if ended.is_err() {
                        let mut io = connection.into_parts().io;
                        let _ = timeout(FAREWELL, io.transport().shutdown()).await;
                    }
                    return ControlFlow::Break(());
                }
                () = asked_to_stop(&mut self.stopped), if !draining => {
                    draining = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + self.rests.rest;
                    let (activity, rests) = (&self.client.activity, &mut self.rests);
                    let was = rests.seen;
                    if rests.too_long(activity) {
                        return ControlFlow::Break(());
                    }
                    // Not before it has answered: a header that is on its way has its own limit.
                    let answered = rests.seen > before && rests.seen == was;
                    if !answered || draining || rests.since.elapsed() < rests.rest {
                        continue;
                    }
                    // At rest it ends at once; else it goes on to the end of its last request.
                    draining = true;
                    Pin::new(&mut connection).graceful_shutdown();
                    let ended = poll_fn(|cx| Poll::Ready(connection.poll_without_shutdown(cx)));
                    if let Poll::Ready(Ok(())) = ended.await {
                        let mut parts = connection.into_parts();
                        parts.io.unread(&parts.read_buf);
                        return ControlFlow::Continue(parts.io);
                    }
                }
            }
        }
    }

    /// Serves HTTP/2 until the connection ends. One whose client leaves a response untaken for too
    /// long gets no new requests; the others have the idle timeout to end.
    async fn version_two(&mut self, io: ClientIo) {
        let mut client = self.client.clone();
        client.lane = None;
        let (patience, idle) = (client.shared.limits.write_progress_timeout, self.rests.idle);
        let untaken = Untaken::default();
        let service = Requests { client, untaken: Some(untaken.clone()) };
        let connection = self.http.two.serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        let mut draining = false;
        let mut given_up: Option<Instant> = None;
        let mut look_at = Instant::now() + idle.min(patience);
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = asked_to_stop(&mut self.stopped), if !draining => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = sleep_until(look_at) => {
                    look_at = Instant::now() + idle.min(patience);
                    let over = given_up.is_some_and(|since| since.elapsed() >= idle);
                    if over || self.rests.too_long(&self.client.activity) {
                        return;
                    }
                    let stalls = untaken.oldest().is_some_and(|made| made.elapsed() >= patience);
                    if stalls && given_up.is_none() {
                        given_up = Some(Instant::now());
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}

/// The requests of one connection, to the router.
struct Requests {
    client: Client,
    untaken: Option<Untaken>,
}

impl Service<http::Request<Incoming>> for Requests {
    type Response = Reply;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Reply, Infallible>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        let (client, untaken) = (self.client.clone(), self.untaken.clone());
        Box::pin(async move {
            let mut reply = router::answer(client, request).await;
            if let Some(untaken) = untaken {
                reply.body_mut().note_in(untaken);
            }
            Ok(reply)
        })
    }
}
