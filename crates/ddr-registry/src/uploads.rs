//! Upload sessions (end-4a to end-6, end-11, end-13, end-14).
//!
//! Decides the order: the place of a chunk is checked before a byte of it is taken, and a chunk is
//! acknowledged only after the store has it. A session belongs to one request at a time; it stays
//! when its client goes away, and the client reads with GET where to go on.

use ddr_node::{Node, Upload};
use ddr_oci::digest::Digest;
use ddr_oci::range::content_range;
use ddr_oci::reference::RepositoryName;
use http::StatusCode;
use http::header::CONTENT_RANGE;

use crate::body::RequestBody;
use crate::error::ApiError;
use crate::respond::{self, Reply};
use crate::router::Call;

/// A blob to mount, and the repository it is said to be in, if any is.
pub(crate) type Mount = (Digest, Option<RepositoryName>);

/// POST: mounts a blob, takes a whole blob, or opens a session.
pub(crate) async fn start(
    call: &mut Call,
    name: &RepositoryName,
    digest: Option<&Digest>,
    mount: Option<&Mount>,
) -> Result<Reply, ApiError> {
    let node = &call.shared.node;
    if let Some((digest, from)) = mount {
        if mounted(node, name, digest, from.as_ref()).await {
            return Ok(respond::blob_created(name, digest));
        }
    } else if let Some(digest) = digest {
        return whole(node, name, digest, &mut call.body).await;
    }
    let id = node.begin_upload(name).await?;
    Ok(respond::upload(StatusCode::ACCEPTED, name, &id, 0))
}

/// A mount that fails for whatever reason becomes an upload: clients depend on 202 here.
async fn mounted(
    node: &Node,
    name: &RepositoryName,
    digest: &Digest,
    from: Option<&RepositoryName>,
) -> bool {
    match node.mount(name, digest, from).await {
        Ok(mounted) => mounted,
        Err(error) => {
            tracing::warn!(%error, "a mount failed, the client uploads instead");
            false
        }
    }
}

/// POST with `digest`: the body is the blob. Nobody knows the session, so it ends here either way.
async fn whole(
    node: &Node,
    name: &RepositoryName,
    digest: &Digest,
    body: &mut RequestBody,
) -> Result<Reply, ApiError> {
    let id = node.begin_upload(name).await?;
    let mut upload = node.upload(name, &id).await?;
    upload.keep_unnamed();
    upload.expect_digest(digest);
    append(&mut upload, body, None).await?;
    upload.commit(digest).await?;
    Ok(respond::blob_created(name, digest))
}

/// PATCH: the next chunk, with its place in `Content-Range` or streamed without.
pub(crate) async fn patch(
    call: &mut Call,
    name: &RepositoryName,
    id: &str,
) -> Result<Reply, ApiError> {
    let mut upload = call.shared.node.upload(name, id).await?;
    let expected = chunk_len(call, name, id, upload.offset())?;
    append(&mut upload, &mut call.body, expected).await?;
    let offset = upload.flush().await?;
    Ok(respond::upload(StatusCode::ACCEPTED, name, id, offset))
}

/// PUT: the last chunk, when there is one, and the digest of the whole.
pub(crate) async fn put(
    call: &mut Call,
    name: &RepositoryName,
    id: &str,
    digest: &Digest,
) -> Result<Reply, ApiError> {
    let mut upload = call.shared.node.upload(name, id).await?;
    let expected = chunk_len(call, name, id, upload.offset())?;
    upload.expect_digest(digest);
    append(&mut upload, &mut call.body, expected).await?;
    upload.commit(digest).await?;
    Ok(respond::blob_created(name, digest))
}

/// GET: how far the session is.
pub(crate) async fn status(
    call: &Call,
    name: &RepositoryName,
    id: &str,
) -> Result<Reply, ApiError> {
    let upload = call.shared.node.upload(name, id).await?;
    Ok(respond::upload(StatusCode::NO_CONTENT, name, id, upload.offset()))
}

/// DELETE: the session and its bytes are gone.
pub(crate) async fn cancel(
    call: &Call,
    name: &RepositoryName,
    id: &str,
) -> Result<Reply, ApiError> {
    let upload = call.shared.node.upload(name, id).await?;
    upload.cancel().await?;
    Ok(respond::empty(StatusCode::NO_CONTENT))
}

/// Checks the place and the length that the request gives its chunk. `Some`: so many bytes must
/// come.
fn chunk_len(
    call: &Call,
    name: &RepositoryName,
    id: &str,
    offset: u64,
) -> Result<Option<u64>, ApiError> {
    let Some(field) = call.headers.get(CONTENT_RANGE) else { return Ok(None) };
    let range = field.to_str().ok().and_then(content_range);
    let (first, last) = range.ok_or_else(ApiError::content_range_malformed)?;
    if first != offset {
        return Err(ApiError::chunk_out_of_order(name, id, offset));
    }
    // Both ends come from the client: neither their order nor their size is certain.
    let len = last.checked_sub(first).and_then(|span| span.checked_add(1));
    let len = len.ok_or_else(ApiError::content_range_malformed)?;
    if call.body.remaining_len().is_some_and(|given| given != len) {
        return Err(ApiError::chunk_length(len));
    }
    Ok(Some(len))
}

/// Takes the body piece by piece. No byte after `expected` is taken; what came in order before an
/// error stays in the session.
async fn append(
    upload: &mut Upload,
    body: &mut RequestBody,
    expected: Option<u64>,
) -> Result<(), ApiError> {
    let begin = upload.offset();
    loop {
        let piece = match body.chunk().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(error) => {
                upload.flush().await?;
                return Err(error.into());
            }
        };
        let after = upload.offset() - begin + piece.len() as u64;
        if let Some(expected) = expected.filter(|expected| after > *expected) {
            upload.flush().await?;
            return Err(ApiError::chunk_length(expected));
        }
        upload.append(piece).await?;
    }
    match expected {
        Some(expected) if upload.offset() - begin != expected => {
            upload.flush().await?;
            Err(ApiError::chunk_length(expected))
        }
        _ => Ok(()),
    }
}
