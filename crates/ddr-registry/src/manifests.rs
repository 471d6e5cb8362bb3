//! Manifests by tag and by digest (end-3, end-7a, end-7b, end-9).
//!
//! Bytes and media type leave exactly as they were pushed, whatever `Accept` says.

use std::sync::Arc;

use ddr_node::ManifestContent;
use ddr_oci::digest::Digest;
use ddr_oci::manifest::MAX_MANIFEST_BYTES;
use ddr_oci::range::RangeOutcome;
use ddr_oci::reference::{Reference, RepositoryName, Tag};
use http::StatusCode;
use http::header::{
    ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LOCATION,
};

use crate::conditions;
use crate::error::ApiError;
use crate::respond::{self, DOCKER_CONTENT_DIGEST, Reply};
use crate::router::Call;
use crate::warning;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// GET and HEAD. One range is served as 206; of several the whole is sent, which is never large.
pub(crate) async fn get(
    call: &Call,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Reply, ApiError> {
    let found = call.shared.node.manifest(name, reference).await?;
    let manifest = found.ok_or_else(|| ApiError::manifest_unknown(reference))?;
    if conditions::has_it(&call.headers, &manifest.digest) {
        return Ok(marked(conditions::not_modified(&manifest.digest), &manifest));
    }
    let size = manifest.bytes.len() as u64;
    let (status, range) =
        match conditions::range(&call.method, &call.headers, &manifest.digest, size) {
            RangeOutcome::Whole | RangeOutcome::Parts(_) => (StatusCode::OK, 0..size),
            RangeOutcome::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start..end),
            RangeOutcome::Unsatisfiable => return Err(ApiError::range_not_satisfiable(size)),
        };
    // Both ends are within the bytes, whose length is a usize.
    let bytes = manifest.bytes.slice(range.start as usize..range.end as usize);
    let mut reply = respond::bytes(status, respond::value(&manifest.media_type), bytes);
    let headers = reply.headers_mut();
    headers.insert(DOCKER_CONTENT_DIGEST, digest_value(&manifest.digest));
    headers.insert(ETAG, conditions::entity_tag(&manifest.digest));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status == StatusCode::PARTIAL_CONTENT {
        let covered = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        headers.insert(CONTENT_RANGE, respond::value(&covered));
    }
    Ok(marked(reply, &manifest))
}

/// The reply, with a warning where no majority was heard about the tag.
fn marked(mut reply: Reply, manifest: &ManifestContent) -> Reply {
    if manifest.is_stale {
        warning::add_stale(&mut reply);
    }
    reply
}

/// PUT. 201 means: stored durably, announced, and every tag is on a majority of the nodes that
/// keep it.
pub(crate) async fn put(
    call: &mut Call,
    name: &RepositoryName,
    reference: &Reference,
    tags: &[Tag],
) -> Result<Reply, ApiError> {
    // Never closed, so there is always a place in the end.
    let _place = Arc::clone(&call.shared.manifest_puts).acquire_owned().await;
    let bytes = call.body.collect(MAX_MANIFEST_BYTES).await?;
    let content_type = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let node = &call.shared.node;
    let stored = node.put_manifest(name, reference, tags, content_type, bytes).await?;

    let mut reply = respond::empty(StatusCode::CREATED);
    let headers = reply.headers_mut();
    let location = format!("/v2/{name}/manifests/{}", stored.digest);
    headers.insert(LOCATION, respond::value(&location));
    headers.insert(DOCKER_CONTENT_DIGEST, digest_value(&stored.digest));
    if let Some(subject) = &stored.subject {
        headers.insert(OCI_SUBJECT, digest_value(subject));
    }
    for tag in tags {
        headers.append(OCI_TAG, respond::value(tag.as_str()));
    }
    let unknown = &stored.unknown_blobs;
    if !unknown.is_empty() {
        let intro = format!("{} blobs of this manifest are not known here", unknown.len());
        warning::add(&mut reply, &warning::list(&intro, unknown));
    }
    Ok(reply)
}

/// DELETE of a tag, or of a manifest with all tags that point to it.
pub(crate) async fn delete(
    call: &Call,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Reply, ApiError> {
    if call.shared.node.delete_manifest(name, reference).await? {
        Ok(respond::empty(StatusCode::ACCEPTED))
    } else {
        Err(ApiError::manifest_unknown(reference))
    }
}

fn digest_value(digest: &Digest) -> HeaderValue {
    respond::value(&digest.to_string())
}
