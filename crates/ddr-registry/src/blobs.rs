//! Blobs by digest (end-2, end-10).
//!
//! Decides what part of a blob is sent. The status line leaves only when the node has first bytes
//! in hand: a client does not go to another registry after a 200.

use ddr_node::ReadError;
use ddr_oci::digest::Digest;
use ddr_oci::range::{RangeOutcome, byte_range};
use ddr_oci::reference::RepositoryName;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use http::{Method, StatusCode};

use crate::error::ApiError;
use crate::respond::{self, DOCKER_CONTENT_DIGEST, Reply, ReplyBody};
use crate::router::Call;

/// GET and HEAD. One range is served as 206; a HEAD has none (RFC 9110, section 14.2).
pub(crate) async fn get(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Reply, ApiError> {
    let node = &call.shared.node;
    if call.method == Method::HEAD {
        let size = match node.stat_blob(name, digest).await {
            // A client asks this before a push, and gives the push up on any other answer: what
            // cannot be had now is better pushed again.
            Ok(None) | Err(ReadError::Unavailable(_)) => {
                return Err(ApiError::blob_unknown(digest));
            }
            Ok(Some(size)) => size,
            Err(error) => return Err(error.into()),
        };
        let reply = respond::with_body(StatusCode::OK, ReplyBody::empty(), size);
        return Ok(described(reply, digest));
    }
    let blob = node.open_blob(name, digest).await?;
    let blob = blob.ok_or_else(|| ApiError::blob_unknown(digest))?;
    let size = blob.size();
    let part = match byte_range(range_header(&call.headers), size) {
        RangeOutcome::Whole => None,
        RangeOutcome::Part { start, end } => Some(start..end),
        RangeOutcome::Unsatisfiable => return Err(ApiError::range_not_satisfiable(size)),
    };
    let (status, range) = match &part {
        None => (StatusCode::OK, 0..size),
        Some(range) => (StatusCode::PARTIAL_CONTENT, range.clone()),
    };
    let len = range.end - range.start;
    let body = ReplyBody::blob(&blob, range, call.lane.as_ref());
    let mut reply = described(respond::with_body(status, body, len), digest);
    if let Some(range) = part {
        let covered = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        reply.headers_mut().insert(CONTENT_RANGE, respond::value(&covered));
    }
    Ok(reply)
}

/// DELETE: takes the blob out of this repository.
pub(crate) async fn delete(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Reply, ApiError> {
    if call.shared.node.delete_blob(name, digest).await? {
        Ok(respond::empty(StatusCode::ACCEPTED))
    } else {
        Err(ApiError::blob_unknown(digest))
    }
}

/// Several `Range` fields, or one that is no text, ask for nothing that can be served in part.
fn range_header(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(RANGE).iter();
    let field = fields.next()?;
    if fields.next().is_some() { None } else { field.to_str().ok() }
}

fn described(mut reply: Reply, digest: &Digest) -> Reply {
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(DOCKER_CONTENT_DIGEST, respond::value(&digest.to_string()));
    reply
}
