//! Tags and manifests.
//!
//! Decides that a manifest is believed only by its digest, and a digest of a tag where the registry states
//! one, or from the bytes. Never converts: types and bytes are passed on as they came.

use bytes::Bytes;
use ddr_oci::media_type::essence;
use ddr_oci::{Digest, MAX_MANIFEST_BYTES, RepositoryName, Tag};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, Method, StatusCode};
use reqwest::Response;
use serde::Deserialize;

use crate::api::{Found, Manifest, UpstreamError};
use crate::exchange::{Ask, Exchange, judge};
use crate::scope::Scope;
use crate::wire;

/// The types that mean something here: OCI index and manifest, docker's list and manifest. As in
/// [`ddr_oci::media_type`].
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";
/// Longest media type, in bytes.
const MAX_TYPE_BYTES: usize = 255;
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

pub(super) async fn resolve(
    exchange: &Exchange,
    repository: &RepositoryName,
    tag: &Tag,
) -> Result<Option<Found>, UpstreamError> {
    let answer = exchange.ask(&ask(exchange, repository, tag.as_str(), Method::HEAD)).await?;
    let status = answer.status();
    // Some do not know HEAD.
    if !matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
        let Some(answer) = judge(answer).await? else { return Ok(None) };
        if let Some(digest) = stated(&answer) {
            return Ok(Some(Found { digest, manifest: None }));
        }
    }
    let answer = exchange.ask(&ask(exchange, repository, tag.as_str(), Method::GET)).await?;
    let Some(answer) = judge(answer).await? else { return Ok(None) };
    let stated = stated(&answer);
    let manifest = read(answer, stated).await?;
    Ok(Some(Found { digest: manifest.digest, manifest: Some(manifest) }))
}

pub(super) async fn manifest(
    exchange: &Exchange,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<Manifest>, UpstreamError> {
    let reference = digest.to_string();
    let answer = exchange.ask(&ask(exchange, repository, &reference, Method::GET)).await?;
    let Some(answer) = judge(answer).await? else { return Ok(None) };
    read(answer, Some(*digest)).await.map(Some)
}

fn ask(exchange: &Exchange, repository: &RepositoryName, reference: &str, method: Method) -> Ask {
    let url = exchange.url(repository, &format!("manifests/{reference}"));
    Ask { accept: ACCEPT, ..Ask::new(method, Scope::Pull(repository.clone()), url) }
}

/// The digest that the registry states.
fn stated(answer: &Response) -> Option<Digest> {
    wire::text(answer.headers(), CONTENT_DIGEST)?.parse().ok()
}

/// The manifest in a body; it must have the `expected` digest, if there is one.
async fn read(answer: Response, expected: Option<Digest>) -> Result<Manifest, UpstreamError> {
    let host = wire::host(&answer);
    if answer.status() != StatusCode::OK {
        return Err(UpstreamError::Failed(format!("{host} sends a part of a manifest")));
    }
    let headers = answer.headers().clone();
    let bytes = Bytes::from(wire::read(answer, MAX_MANIFEST_BYTES).await?);
    let digest = expected.map_or_else(
        || Digest::sha256(&bytes),
        |expected| Digest::of(expected.algorithm(), &bytes),
    );
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        let text = format!("{host} sends bytes of {digest} as manifest {expected}");
        return Err(UpstreamError::Lied(text));
    }
    let media_type = media_type(&headers, &bytes)
        .ok_or_else(|| UpstreamError::Failed(format!("{host} sends a manifest of no type")))?;
    Ok(Manifest { digest, media_type, bytes })
}

/// From the header, else as the manifest says itself.
fn media_type(headers: &HeaderMap, bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "mediaType")]
        media_type: String,
    }
    let header = wire::text(headers, CONTENT_TYPE).map(|text| essence(text).to_owned());
    let header = header.filter(|text| !text.is_empty());
    let typed = || serde_json::from_slice(bytes).ok().map(|typed: Typed| typed.media_type);
    let fits = |text: &String| text.len() <= MAX_TYPE_BYTES && text.contains('/');
    header.or_else(typed).filter(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddr_oci::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};

    #[test]
    fn all_kinds_are_accepted() {
        let types: Vec<&str> = ACCEPT.split(", ").collect();
        assert_eq!(types, [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]);
    }

    #[test]
    fn the_type_comes_from_the_header_or_from_the_manifest() {
        let mut headers = HeaderMap::new();
        let body = format!(r#"{{"mediaType":"{OCI_INDEX}"}}"#);
        assert_eq!(media_type(&headers, body.as_bytes()).as_deref(), Some(OCI_INDEX));
        assert_eq!(media_type(&headers, b"{}"), None);
        let value = format!("{OCI_MANIFEST}; charset=utf-8");
        headers.insert(CONTENT_TYPE, value.parse().expect("a value"));
        assert_eq!(media_type(&headers, body.as_bytes()).as_deref(), Some(OCI_MANIFEST));
    }
}
