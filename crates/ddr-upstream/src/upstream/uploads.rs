//! What is put into a registry and deleted there: one that this node may write to.
//!
//! Decides the order of an upload: is it there, where to, all bytes in one request (distribution spec, "Pushing a blob
//! monolithically"). An upload goes to the registry's own origin only. One whose connection breaks is begun again once,
//! and so is each other request: so a delete may find that it has been done, and says that there is none.

use bytes::Bytes;
use ddr_oci::{Digest, Reference, RepositoryName};
use futures_util::stream::BoxStream;
use http::header::LOCATION;
use http::{Method, StatusCode};
use reqwest::{Response, Url};
use std::io;
use std::time::Duration;

use super::blobs;
use crate::api::UpstreamError;
use crate::exchange::{Ask, Exchange, Payload};
use crate::scope::Scope;
use crate::wire::{self, discard};

/// Longest target of an upload, in bytes.
const MAX_LOCATION_BYTES: usize = 8 * 1024;
/// The slowest that an upload may be, bytes a second.
const MIN_UPLOAD_RATE: u64 = 256 * 1024;
/// What else it may take.
const UPLOAD_TIME: Duration = Duration::from_secs(60);

/// Bytes of a blob from its beginning.
pub(super) type Body = BoxStream<'static, io::Result<Bytes>>;

pub(super) async fn put_blob(
    exchange: &Exchange,
    repository: &RepositoryName,
    (digest, size): (&Digest, u64),
    body: impl Fn() -> Body,
) -> Result<(), UpstreamError> {
    if blobs::size(exchange, repository, digest).await? == Some(size) {
        return Ok(());
    }
    match upload(exchange, repository, (digest, size), body()).await {
        Err(UpstreamError::Unreachable(why)) => {
            tracing::debug!(%repository, %digest, why, "an upload begins again");
            upload(exchange, repository, (digest, size), body()).await
        }
        done => done,
    }
}

async fn upload(
    exchange: &Exchange,
    repository: &RepositoryName,
    (digest, size): (&Digest, u64),
    body: Body,
) -> Result<(), UpstreamError> {
    let begin = Ask::new(
        Method::POST,
        Scope::Push(repository.clone()),
        exchange.url(repository, "blobs/uploads/"),
    );
    let answer = exchange.ask(&begin).await?;
    if answer.status() != StatusCode::ACCEPTED {
        return Err(refusal(answer).await);
    }
    let mut url = location(exchange, &answer)?;
    discard(answer).await;
    url.query_pairs_mut().append_pair("digest", &digest.to_string());
    let put = Ask::new(Method::PUT, Scope::Push(repository.clone()), url);
    let time = UPLOAD_TIME + Duration::from_secs(size / MIN_UPLOAD_RATE);
    let answer = exchange.stream(&put, body, size, time).await?;
    created(answer).await
}

/// Where the bytes go.
fn location(exchange: &Exchange, answer: &Response) -> Result<Url, UpstreamError> {
    let host = wire::host(answer);
    let location = wire::text(answer.headers(), LOCATION);
    let location = location.filter(|location| location.len() <= MAX_LOCATION_BYTES);
    let url = location.and_then(|location| answer.url().join(location).ok());
    let url = url.ok_or_else(|| UpstreamError::Failed(format!("{host} begins no upload")))?;
    if !exchange.wire.reach.is_origin(&url) {
        let text = format!("{host} wants an upload sent to {}", wire::url_host(&url));
        return Err(UpstreamError::Forbidden(text));
    }
    Ok(url)
}

pub(super) async fn put_manifest(
    exchange: &Exchange,
    repository: &RepositoryName,
    reference: &Reference,
    media_type: &str,
    bytes: Bytes,
) -> Result<(), UpstreamError> {
    let url = exchange.url(repository, &format!("manifests/{reference}"));
    let mut put = Ask::new(Method::PUT, Scope::Push(repository.clone()), url);
    put.payload = Some(Payload { media_type: media_type.to_owned(), bytes });
    let answer = exchange.ask(&put).await?;
    match answer.status() {
        // What it thinks no manifest: zot of docker's, and of an index whose manifests it does not have.
        StatusCode::BAD_REQUEST
        | StatusCode::UNSUPPORTED_MEDIA_TYPE
        | StatusCode::UNPROCESSABLE_ENTITY => Err(never(answer).await),
        _ => created(answer).await,
    }
}

pub(super) async fn delete_manifest(
    exchange: &Exchange,
    repository: &RepositoryName,
    reference: &Reference,
) -> Result<bool, UpstreamError> {
    let url = exchange.url(repository, &format!("manifests/{reference}"));
    let delete = Ask::new(Method::DELETE, Scope::Delete(repository.clone()), url);
    let answer = exchange.ask(&delete).await?;
    match answer.status() {
        StatusCode::NOT_FOUND => {
            discard(answer).await;
            Ok(false)
        }
        StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {
            discard(answer).await;
            Ok(true)
        }
        // One that deletes none may say so (distribution spec, "Deleting tags"): docker-registry of tags.
        StatusCode::BAD_REQUEST => Err(never(answer).await),
        _ => Err(refusal(answer).await),
    }
}

async fn created(answer: Response) -> Result<(), UpstreamError> {
    if answer.status() != StatusCode::CREATED {
        return Err(refusal(answer).await);
    }
    discard(answer).await;
    Ok(())
}

async fn never(answer: Response) -> UpstreamError {
    let text = format!("{} answers {}", wire::host(&answer), answer.status());
    discard(answer).await;
    UpstreamError::Unsupported(text)
}

/// Why a registry did not do what it was asked for.
async fn refusal(answer: Response) -> UpstreamError {
    let (host, status) = (wire::host(&answer), answer.status());
    discard(answer).await;
    let text = format!("{host} answers {status}");
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => UpstreamError::Denied(text),
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            UpstreamError::Unsupported(text)
        }
        _ => UpstreamError::Failed(text),
    }
}
