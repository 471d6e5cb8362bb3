//! One request, one answer: the only place that turns requests of peers into calls of the
//! [`Service`](crate::service::Service) and its answers into HTTP.

use std::convert::Infallible;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use ddr_oci::digest::Digest;
use ddr_proto::id::{Key, NodeId};
use ddr_proto::kad::Reason;
use ddr_proto::wire::{MAX_MESSAGE_BYTES, RequestEnvelope, SwarmPost, WireError};
use futures_util::stream::{BoxStream, TryStreamExt};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use tokio::time::timeout;

use super::{Server, upload};
use crate::carrier::{PeerInfo, Standing};
use crate::metrics;
use crate::path::{self, Target};
use crate::service::{ContentReply, ContentRequest, JoinRequest};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Media type of messages and of the answers to `join`.
const POSTCARD: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Answers one request of `peer`.
pub(super) async fn answer(
    server: &Server,
    peer: PeerInfo,
    request: Request<Incoming>,
) -> Response<Body> {
    let target = path::parse(request.uri().path(), request.uri().query());
    let is_post = request.method() == Method::POST;
    match (peer.standing, target) {
        (Standing::Joiner { .. }, Some(Target::Join)) if is_post => {
            join(server, peer, request).await
        }
        (Standing::Joiner { .. }, _) => plain(StatusCode::FORBIDDEN, "a joiner may only join"),
        (Standing::Member, Some(Target::Join)) => {
            plain(StatusCode::FORBIDDEN, "a member does not join")
        }
        (Standing::Member, Some(Target::Message)) if is_post => {
            message(server, peer, request).await
        }
        (Standing::Member, Some(Target::Swarm(digest))) if is_post => {
            swarm(server, peer, digest, request).await
        }
        (Standing::Member, Some(Target::Upload(repository))) => {
            if request.method() != Method::PUT {
                return plain(StatusCode::METHOD_NOT_ALLOWED, "content is sent with PUT");
            }
            upload::upload(server, peer, repository, request).await
        }
        (Standing::Member, Some(Target::Content(asked))) => {
            let head_only = request.method() == Method::HEAD;
            if !head_only && request.method() != Method::GET {
                return plain(StatusCode::METHOD_NOT_ALLOWED, "content is read with GET or HEAD");
            }
            let range = wanted_range(request.headers()).filter(|_| !asked.any_piece);
            let wanted = ContentRequest { range, head_only, ..asked };
            content(server.service.content(peer, wanted.clone()).await, &wanted)
        }
        (Standing::Member, Some(Target::Message | Target::Swarm(_))) => {
            plain(StatusCode::METHOD_NOT_ALLOWED, "messages are sent with POST")
        }
        (Standing::Member, None) => plain(StatusCode::NOT_FOUND, "no such path on the peer port"),
    }
}

async fn message(server: &Server, peer: PeerInfo, request: Request<Incoming>) -> Response<Body> {
    let blame = |reason| server.service.misbehaved(peer, reason);
    let bytes = match read_body(server, request.into_body()).await {
        Ok(bytes) => bytes,
        Err(refusal) => {
            if refusal.status() == StatusCode::PAYLOAD_TOO_LARGE {
                blame(Reason::OverLimit("MAX_MESSAGE_BYTES"));
            }
            return refusal;
        }
    };
    let envelope = match RequestEnvelope::decode(&bytes) {
        Ok(envelope) => envelope,
        Err(error) => {
            if let WireError::OverLimit(limit) = error {
                blame(Reason::OverLimit(limit));
            }
            return plain(StatusCode::BAD_REQUEST, "not a message");
        }
    };
    // The message holds its own copy; the body may go before the answer is there.
    let received = bytes.len();
    drop(bytes);
    if envelope.sender.id != peer.node {
        blame(Reason::WrongSender);
        return plain(StatusCode::FORBIDDEN, "the sender is not the node of this connection");
    }
    let response = server.service.message(peer, envelope).await.encode();
    metrics::exchanged(response.len(), received);
    postcard_body(StatusCode::OK, response)
}

/// Answers 204 when it was heard, 404 when the blob is not in that repository here.
async fn swarm(
    server: &Server,
    peer: PeerInfo,
    digest: Digest,
    request: Request<Incoming>,
) -> Response<Body> {
    let bytes = match read_body(server, request.into_body()).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let Ok(post) = SwarmPost::decode(&bytes) else {
        return plain(StatusCode::BAD_REQUEST, "not a post of the swarm");
    };
    metrics::exchanged(0, bytes.len());
    drop(bytes);
    if post.sender.id != peer.node {
        return plain(StatusCode::FORBIDDEN, "the sender is not the node of this connection");
    }
    let key = Key::of_content(&digest);
    if post.messages.iter().any(|message| message.blob != key) {
        return plain(StatusCode::BAD_REQUEST, "a message is about another blob than its path");
    }
    match server.service.swarm(peer, digest, post).await {
        true => plain(StatusCode::NO_CONTENT, ""),
        false => plain(StatusCode::NOT_FOUND, ""),
    }
}

async fn join(server: &Server, peer: PeerInfo, request: Request<Incoming>) -> Response<Body> {
    let bytes = match read_body(server, request.into_body()).await {
        Ok(bytes) => bytes,
        Err(refusal) => return refusal,
    };
    let Ok((request, [])) = postcard::take_from_bytes::<JoinRequest>(&bytes) else {
        return plain(StatusCode::BAD_REQUEST, "not a request to join");
    };
    if NodeId::of_public_key(&request.public_key) != peer.node {
        return plain(StatusCode::FORBIDDEN, "the key is not the key of this connection");
    }
    let (status, encoded) = match server.service.join(peer, request).await {
        Ok(reply) => (StatusCode::OK, postcard::to_stdvec(&reply)),
        Err(refusal) => (StatusCode::FORBIDDEN, postcard::to_stdvec(&refusal)),
    };
    match encoded {
        Ok(bytes) => postcard_body(status, bytes),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be encoded"),
    }
}

/// Reads one bounded body. A body that announces more than the bound is not read at all.
async fn read_body(server: &Server, body: Incoming) -> Result<Bytes, Response<Body>> {
    let too_large = || plain(StatusCode::PAYLOAD_TOO_LARGE, "a message has at most 64 KiB");
    if body.size_hint().lower() > MAX_MESSAGE_BYTES as u64 {
        return Err(too_large());
    }
    let whole = Limited::new(body, MAX_MESSAGE_BYTES).collect();
    match timeout(server.limits.message_timeout, whole).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(plain(StatusCode::BAD_REQUEST, "the body broke off")),
        Err(_) => Err(plain(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    }
}

fn wanted_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    path::parse_range(headers.get(header::RANGE)?.to_str().ok()?)
}

fn content(reply: ContentReply, wanted: &ContentRequest) -> Response<Body> {
    match reply {
        ContentReply::Found { size, range, media_type, body } => {
            found(size, range, media_type, body, wanted)
        }
        ContentReply::NotFound => plain(StatusCode::NOT_FOUND, ""),
        ContentReply::Busy(answer) => {
            postcard_body(StatusCode::SERVICE_UNAVAILABLE, answer.encode())
        }
        ContentReply::Refused => {
            plain(StatusCode::FORBIDDEN, "you broke the rules; come back later")
        }
        ContentReply::Failed => plain(StatusCode::INTERNAL_SERVER_ERROR, ""),
        ContentReply::Unsatisfiable { size } => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "");
            if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
                response.headers_mut().insert(header::CONTENT_RANGE, value);
            }
            response
        }
    }
}

fn found(
    size: u64,
    range: Range<u64>,
    media_type: Option<String>,
    body: BoxStream<'static, io::Result<Bytes>>,
    wanted: &ContentRequest,
) -> Response<Body> {
    let body = match wanted.head_only {
        true => empty(),
        false => StreamBody::new(body.map_ok(Frame::data)).boxed_unsync(),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, (range.end.saturating_sub(range.start)).into());
    let media_type = media_type.and_then(|text| HeaderValue::try_from(text).ok());
    headers.insert(header::CONTENT_TYPE, media_type.unwrap_or(POSTCARD));
    if wanted.range.is_some() || (wanted.any_piece && !wanted.head_only) {
        let last = range.end.saturating_sub(1);
        if let Ok(value) = HeaderValue::try_from(format!("bytes {}-{last}/{size}", range.start)) {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

fn postcard_body(status: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, POSTCARD);
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn empty() -> Body {
    full(Bytes::new())
}
