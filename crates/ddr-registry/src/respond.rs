//! How a response looks: status, headers and body of everything that went well.
//!
//! Decides header names and their grammar. Every response has a `Content-Length`; a body that
//! cannot keep it ends in an error, so that the connection breaks instead of a client taking a
//! short body for the whole. `Location` is always relative (clients behind proxies depend on it).

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use ddr_node::{Blob, BlobReader};
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use futures_util::Stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};

use crate::lane::{FilePart, Lane, Piece};
use crate::metrics;
use crate::streams::Place;
use crate::untaken::Untaken;

/// Media type of lists and errors.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The digest of the content that the response is about.
pub(crate) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");
/// The upload session's id.
pub(crate) const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
const DOCKER_API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// Bytes of a response that come piece by piece.
pub(crate) type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A response before it is sent.
pub(crate) type Reply = Response<ReplyBody>;

/// The body of a response, and the request's place among those in flight until it has ended.
pub(crate) struct ReplyBody {
    source: Source,
    held: Held,
    /// Where pieces are noted until the client has taken them, on a connection that needs that.
    untaken: Option<Untaken>,
}

/// What is given back when the last byte of a response is sent or given up.
#[derive(Debug, Default)]
struct Held {
    in_flight: Option<metrics::InFlight>,
    place: Option<Place>,
}

enum Source {
    Empty,
    Bytes(Bytes),
    Stream {
        stream: ByteStream,
        left: u64,
    },
    /// On its way past this process.
    File {
        part: FilePart,
        lane: Lane,
    },
}

impl ReplyBody {
    /// A body of no bytes.
    pub(crate) const fn empty() -> Self {
        let held = Held { in_flight: None, place: None };
        Self { source: Source::Empty, held, untaken: None }
    }

    fn bytes(bytes: Bytes) -> Self {
        let source = if bytes.is_empty() { Source::Empty } else { Source::Bytes(bytes) };
        Self { source, held: Held::default(), untaken: None }
    }

    /// Exactly `len` bytes of `stream`; anything else is an error of the body.
    pub(crate) fn stream(stream: ByteStream, len: u64) -> Self {
        let source = if len == 0 { Source::Empty } else { Source::Stream { stream, left: len } };
        Self { source, held: Held::default(), untaken: None }
    }

    /// The bytes of `range` of a blob: by the connection's lane when it has one and the blob is a
    /// file, else piece by piece through the budget.
    pub(crate) fn blob(blob: &Blob, range: Range<u64>, lane: Option<&Lane>) -> Self {
        let len = range.end.saturating_sub(range.start);
        match (lane, blob.stored_file()) {
            (Some(lane), Some(reader)) if len > 0 && range.end <= blob.size() => {
                Self::of_file(reader.clone(), range, lane)
            }
            _ => Self::stream(Box::pin(blob.stream(range)), len),
        }
    }

    /// The bytes of `range` of a file, by the lane of the connection. The range is not empty.
    pub(crate) fn of_file(reader: BlobReader, range: Range<u64>, lane: &Lane) -> Self {
        let source = Source::File { part: FilePart { reader, left: range }, lane: lane.clone() };
        Self { source, held: Held::default(), untaken: None }
    }

    /// Counts the request as in flight until the body is sent or dropped.
    pub(crate) fn attach(&mut self, in_flight: metrics::InFlight) {
        self.held.in_flight = Some(in_flight);
    }

    /// Keeps the place of a blob stream until the body is sent or dropped.
    pub(crate) fn hold(&mut self, place: Place) {
        self.held.place = Some(place);
    }

    /// Notes every piece in `untaken` until the client has taken it.
    pub(crate) fn note_in(&mut self, untaken: Untaken) {
        self.untaken = Some(untaken);
    }

    /// All of a file at once: its bytes take no memory, and the connection sends them in turns.
    fn file(&mut self) -> Option<Piece> {
        let Source::File { part, lane } = &self.source else { return None };
        let piece = lane.piece(part.clone(), Box::new(std::mem::take(&mut self.held)));
        self.source = Source::Empty;
        Some(piece)
    }

    /// Takes the bytes away and leaves the headers: the answer to HEAD.
    pub(crate) fn clear(&mut self) {
        self.source = Source::Empty;
    }
}

impl http_body::Body for ReplyBody {
    type Data = Piece;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, io::Error>>> {
        if let Some(piece) = self.file() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let next = match &mut self.source {
            Source::File { .. } | Source::Empty => return Poll::Ready(None),
            Source::Bytes(bytes) => Some(Ok(std::mem::take(bytes))),
            Source::Stream { stream, left } => match stream.as_mut().poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(item) => count_down(item, left),
            },
        };
        let done = match &self.source {
            Source::Stream { left, .. } => *left == 0 || !matches!(next, Some(Ok(_))),
            _ => true,
        };
        if done {
            self.source = Source::Empty;
        }
        if let Some(Ok(bytes)) = &next {
            metrics::sent(bytes.len());
        }
        let piece = |bytes| match &self.untaken {
            Some(untaken) => untaken.note(bytes),
            None => bytes,
        };
        let frame = |bytes| Frame::data(Piece::Bytes(piece(bytes)));
        Poll::Ready(next.map(|item| item.map(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.source {
            Source::Empty => 0,
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::Stream { left, .. } => *left,
            Source::File { part, .. } => part.left.end - part.left.start,
        })
    }
}

/// Holds a stream to its declared length.
fn count_down(item: Option<io::Result<Bytes>>, left: &mut u64) -> Option<io::Result<Bytes>> {
    match item {
        Some(Ok(bytes)) => match left.checked_sub(bytes.len() as u64) {
            Some(rest) => {
                *left = rest;
                Some(Ok(bytes))
            }
            None => Some(Err(io::Error::other("the content is longer than it should be"))),
        },
        Some(Err(error)) => {
            metrics::broken_off();
            tracing::warn!(%error, missing = *left, "a response ends short");
            Some(Err(error))
        }
        None => {
            metrics::broken_off();
            tracing::warn!(missing = *left, "a response ends short: the content ended");
            Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof)))
        }
    }
}

/// A header value of text that was parsed and is printable by its grammar.
///
/// Text that is not allowed in a header becomes the empty value; the grammars of names, tags,
/// digests, numbers and session ids exclude that.
pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A response without body.
pub(crate) fn empty(status: StatusCode) -> Reply {
    with_body(status, ReplyBody::empty(), 0)
}

/// A response with a body that is at hand.
pub(crate) fn bytes(status: StatusCode, content_type: HeaderValue, bytes: Bytes) -> Reply {
    let len = bytes.len() as u64;
    let mut reply = with_body(status, ReplyBody::bytes(bytes), len);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// A JSON response.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
    bytes(status, JSON, Bytes::from(value.to_string()))
}

/// A response whose `Content-Length` is `len`, whatever the body holds (HEAD holds nothing).
pub(crate) fn with_body(status: StatusCode, body: ReplyBody, len: u64) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(DOCKER_API_VERSION, HeaderValue::from_static("registry/2.0"));
    // RFC 9110, section 8.6: a 204 has no Content-Length, a 304 not that of its own body.
    if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    reply
}

/// `GET /v2/` (end-1): old Docker clients look for an empty JSON object.
pub(crate) fn ping() -> Reply {
    bytes(StatusCode::OK, JSON, Bytes::from_static(b"{}"))
}

/// The path under which a blob can be pulled.
pub(crate) fn blob_location(name: &RepositoryName, digest: &Digest) -> HeaderValue {
    value(&format!("/v2/{name}/blobs/{digest}"))
}

/// The path of an upload session.
pub(crate) fn upload_location(name: &RepositoryName, id: &str) -> HeaderValue {
    value(&format!("/v2/{name}/blobs/uploads/{id}"))
}

/// `Range` of a session that holds `offset` bytes: `0-<last>`, and `0-0` for none (the grammar
/// has no empty range, and old Docker clients fail when the end is less than the start).
pub(crate) fn upload_range(offset: u64) -> HeaderValue {
    value(&format!("0-{}", offset.saturating_sub(1)))
}

/// The state of an upload session: after POST, PATCH (202) and GET (204).
pub(crate) fn upload(status: StatusCode, name: &RepositoryName, id: &str, offset: u64) -> Reply {
    let mut reply = empty(status);
    let headers = reply.headers_mut();
    headers.insert(LOCATION, upload_location(name, id));
    headers.insert(RANGE, upload_range(offset));
    headers.insert(DOCKER_UPLOAD_UUID, value(id));
    reply
}

/// A blob is in the repository (201): after PUT, POST with digest, and mount.
pub(crate) fn blob_created(name: &RepositoryName, digest: &Digest) -> Reply {
    let mut reply = empty(StatusCode::CREATED);
    let headers = reply.headers_mut();
    headers.insert(LOCATION, blob_location(name, digest));
    headers.insert(DOCKER_CONTENT_DIGEST, value(&digest.to_string()));
    reply
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A body whose pieces do not all come at once.
    fn pieces(pieces: Vec<io::Result<&'static [u8]>>, len: u64) -> ReplyBody {
        let later = |piece: io::Result<_>| async {
            tokio::task::yield_now().await;
            piece.map(Bytes::from_static)
        };
        ReplyBody::stream(Box::pin(stream::iter(pieces).then(later)), len)
    }

    #[tokio::test]
    async fn a_stream_of_the_right_length_is_a_body() {
        let body = pieces(vec![Ok(b"123"), Ok(b""), Ok(b"45")], 5);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "12345");
    }

    #[tokio::test]
    async fn a_stream_of_another_length_is_an_error() {
        assert!(pieces(vec![Ok(b"123")], 5).collect().await.is_err());
        assert!(pieces(vec![Ok(b"123"), Ok(b"456")], 5).collect().await.is_err());
        assert!(pieces(vec![], 5).collect().await.is_err());
        let broken = Err(io::Error::other("the last holder is gone"));
        assert!(pieces(vec![Ok(b"123"), broken], 5).collect().await.is_err());
    }

    /// What a client sees of a response whose body is `body`.
    async fn on_the_wire(body: fn() -> ReplyBody) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let service = service_fn(move |_| ready_reply(with_body(StatusCode::OK, body(), 5)));
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server), service);
        let served = tokio::spawn(connection);
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.unwrap();
        assert!(served.await.unwrap().is_err(), "the connection is broken off");
        seen
    }

    async fn ready_reply(reply: Reply) -> Result<Reply, std::convert::Infallible> {
        Ok(reply)
    }

    #[tokio::test]
    async fn a_response_that_cannot_be_completed_ends_short_on_the_wire() {
        let error = || pieces(vec![Ok(b"123"), Err(io::Error::other("wrong digest"))], 5);
        let early = || pieces(vec![Ok(b"123")], 5);
        let long = || pieces(vec![Ok(b"123"), Ok(b"456")], 5);
        for body in [error, early, long] {
            let seen = String::from_utf8(on_the_wire(body).await).unwrap();
            assert!(seen.contains("content-length: 5\r\n"), "{seen}");
            let (_, body) = seen.split_once("\r\n\r\n").unwrap();
            assert!("123".starts_with(body), "{seen}");
        }
    }

    #[test]
    fn the_range_of_a_session_is_never_empty() {
        assert_eq!(upload_range(0), "0-0");
        assert_eq!(upload_range(1), "0-0");
        assert_eq!(upload_range(100), "0-99");
    }
}
