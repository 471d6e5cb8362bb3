//! Blobs by digest (end-2, end-10).
//!
//! Decides what part of a blob is sent. The status line leaves only when the node has first bytes
//! in hand: a client does not go to another registry after a 200.

use ddr_node::ReadError;
use ddr_oci::digest::Digest;
use ddr_oci::range::RangeOutcome;
use ddr_oci::reference::RepositoryName;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, RANGE};
use http::{Method, StatusCode};

use crate::conditions;
use crate::error::ApiError;
use crate::multipart;
use crate::respond::{self, DOCKER_CONTENT_DIGEST, Reply, ReplyBody};
use crate::router::Call;

/// What a blob is: nobody knows more.
const BLOB_TYPE: &str = "application/octet-stream";

/// GET and HEAD. One range is served as 206, several as 206 in parts; a HEAD has none (RFC 9110,
/// section 14.2).
pub(crate) async fn get(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
) -> Result<Reply, ApiError> {
    let node = &call.shared.node;
    let has_it = conditions::has_it(&call.headers, digest);
    if call.method == Method::HEAD || has_it {
        let size = match node.stat_blob(name, digest).await {
            Ok(Some(size)) => size,
            Ok(None) => return Err(ApiError::blob_unknown(digest)),
            // A client asks this before a push, and gives the push up on any other answer: what
            // cannot be had now is better pushed again.
            Err(ReadError::Unavailable(_)) if call.method == Method::HEAD => {
                return Err(ApiError::blob_unknown(digest));
            }
            Err(error) => return Err(error.into()),
        };
        if has_it {
            return Ok(conditions::not_modified(digest));
        }
        let reply = respond::with_body(StatusCode::OK, ReplyBody::empty(), size);
        return Ok(described(reply, digest));
    }
    let blob = match call.headers.contains_key(RANGE) {
        true => node.open_blob_part(name, digest).await?,
        false => node.open_blob(name, digest).await?,
    };
    let blob = blob.ok_or_else(|| ApiError::blob_unknown(digest))?;
    let size = blob.size();
    let part = match conditions::range(&call.method, &call.headers, digest, size) {
        RangeOutcome::Whole => None,
        RangeOutcome::Part { start, end } => {
            blob.wait_for(start..end).await?;
            Some(start..end)
        }
        RangeOutcome::Parts(parts) => {
            let mut reply = multipart::reply(blob, digest, BLOB_TYPE, parts);
            about(&mut reply, digest);
            return Ok(reply);
        }
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

fn described(mut reply: Reply, digest: &Digest) -> Reply {
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(BLOB_TYPE));
    about(&mut reply, digest);
    reply
}

/// The fields that do not depend on how much of the blob is sent.
fn about(reply: &mut Reply, digest: &Digest) {
    let headers = reply.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(DOCKER_CONTENT_DIGEST, respond::value(&digest.to_string()));
    headers.insert(ETAG, conditions::entity_tag(digest));
}
