//! Manifests by tag and by digest (end-3, end-7a, end-7b, end-9).
//!
//! Bytes and media type leave exactly as they were pushed, whatever `Accept` says.

use std::sync::Arc;

use bytes::Bytes;
use ddr_node::PutManifest;
use ddr_oci::digest::Digest;
use ddr_oci::manifest::MAX_MANIFEST_BYTES;
use ddr_oci::reference::{Reference, RepositoryName, Tag};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use tokio::runtime::Handle;

use crate::error::ApiError;
use crate::respond::{self, DOCKER_CONTENT_DIGEST, Reply};
use crate::router::Call;
use crate::server::Shared;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// GET and HEAD. A `Range` is not looked at: a manifest is sent whole.
pub(crate) async fn get(
    call: &Call,
    name: &RepositoryName,
    reference: &Reference,
) -> Result<Reply, ApiError> {
    let found = call.shared.node.manifest(name, reference).await?;
    let manifest = found.ok_or_else(|| ApiError::manifest_unknown(reference))?;
    let media_type = respond::value(&manifest.media_type);
    let mut reply = respond::bytes(StatusCode::OK, media_type, manifest.bytes);
    reply.headers_mut().insert(DOCKER_CONTENT_DIGEST, digest_value(&manifest.digest));
    Ok(reply)
}

/// PUT. 201 means: stored durably, announced, and every tag is on a majority of the nodes that
/// keep it.
pub(crate) async fn put(
    call: &mut Call,
    name: &RepositoryName,
    reference: &Reference,
    tags: &[Tag],
) -> Result<Reply, ApiError> {
    let bytes = call.body.collect(MAX_MANIFEST_BYTES).await?;
    let content_type = call.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let incoming = Incoming {
        name: name.clone(),
        reference: reference.clone(),
        tags: tags.to_vec(),
        content_type: content_type.map(str::to_owned),
        bytes,
    };
    let stored = store(&call.shared, incoming).await?;

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
    Ok(reply)
}

/// What a PUT brings.
struct Incoming {
    name: RepositoryName,
    reference: Reference,
    tags: Vec<Tag>,
    content_type: Option<String>,
    bytes: Bytes,
}

/// Lets the node store it, on a thread of its own: the future of `put_manifest` does not let the
/// compiler prove that it may move between threads (rust-lang/rust#102211). At most
/// [`MAX_MANIFEST_PUTS`](crate::limits::MAX_MANIFEST_PUTS) at once, because the node needs threads
/// of the same pool to get on.
async fn store(shared: &Shared, incoming: Incoming) -> Result<PutManifest, ApiError> {
    let place = Arc::clone(&shared.manifest_puts).acquire_owned().await;
    let node = shared.node.clone();
    let runtime = Handle::current();
    let work = move || {
        let _place = place;
        let Incoming { name, reference, tags, content_type, bytes } = incoming;
        let content_type = content_type.as_deref();
        runtime.block_on(node.put_manifest(&name, &reference, &tags, content_type, bytes))
    };
    let stored = tokio::task::spawn_blocking(work).await;
    Ok(stored.map_err(|failed| ApiError::task_failed(&failed))??)
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

fn digest_value(digest: &Digest) -> http::HeaderValue {
    respond::value(&digest.to_string())
}
