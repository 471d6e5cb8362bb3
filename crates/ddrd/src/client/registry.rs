//! The registry API (distribution-spec) as a client that pushes and pulls uses it.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use ddr_oci::digest::Digest;
use ddr_oci::media_type;
use ddr_oci::{Descriptor, RepositoryName};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::body::{Body, Incoming};
use serde_json::Value;

use super::ClientError;

/// Bytes of an error answer that are shown.
const SHOWN_BYTES: usize = 300;
/// Every kind of manifest.
const MANIFESTS: [&str; 4] = [
    media_type::OCI_INDEX,
    media_type::OCI_MANIFEST,
    media_type::DOCKER_LIST,
    media_type::DOCKER_MANIFEST,
];

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The request got no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The answer is an error.
    #[error("{step}: the registry answered {status}: {message}")]
    Refused {
        /// What was asked.
        step: String,
        /// The HTTP status.
        status: StatusCode,
        /// The registry's words.
        message: String,
        /// When to ask again, in seconds, if it said so.
        retry_after_s: Option<u64>,
    },
    /// The answer is none of a registry.
    #[error("{0}")]
    Wrong(String),
}

impl RegistryError {
    /// True when nothing of that name is there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }
}

/// A registry on this machine.
#[derive(Clone, Copy, Debug)]
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Registry {
    /// Whether a blob is there.
    ///
    /// # Errors
    ///
    /// See [`RegistryError`].
    pub async fn has_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        self.has(format!("/v2/{name}/blobs/{digest}")).await
    }

    /// Whether a manifest of that digest is there.
    ///
    /// # Errors
    ///
    /// See [`RegistryError`].
    pub async fn has_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        self.has(format!("/v2/{name}/manifests/{digest}")).await
    }

    /// Pushes a blob as a whole. `body` gives its bytes and counts them in `sent`.
    ///
    /// # Errors
    ///
    /// See [`RegistryError`].
    pub async fn put_blob<B>(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        size: u64,
        body: B,
        sent: &AtomicU64,
    ) -> Result<(), RegistryError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = format!("/v2/{name}/blobs/uploads/");
        let start = built(Request::post(path).body(Empty::<Bytes>::new()))?;
        let answer = super::send(self.address, start).await?;
        let answer = self.expect(answer, StatusCode::ACCEPTED, "start of an upload").await?;
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| {
            RegistryError::Wrong("an upload was started without a Location".into())
        })?;
        let mark = if location.contains('?') { '&' } else { '?' };
        let put = Request::put(format!("{location}{mark}digest={digest}"))
            .header(CONTENT_LENGTH, size)
            .header(CONTENT_TYPE, media_type::OCTET_STREAM)
            .body(body);
        let answer = super::upload(self.address, built(put)?, sent).await?;
        self.expect(answer, StatusCode::CREATED, &format!("push of {digest}")).await?;
        Ok(())
    }

    /// Pushes a manifest under a tag or its digest.
    ///
    /// # Errors
    ///
    /// See [`RegistryError`].
    pub async fn put_manifest(
        &self,
        name: &RepositoryName,
        reference: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), RegistryError> {
        let request = Request::put(format!("/v2/{name}/manifests/{reference}"))
            .header(CONTENT_TYPE, media_type)
            .body(Full::new(bytes));
        let answer = super::send(self.address, built(request)?).await?;
        let step = format!("push of {name} {reference}");
        self.expect(answer, StatusCode::CREATED, &step).await?;
        Ok(())
    }

    /// Pulls a manifest by tag or digest, with the descriptor of what came. A digest that was asked
    /// for is not checked here.
    ///
    /// # Errors
    ///
    /// See [`RegistryError`].
    pub async fn manifest(
        &self,
        name: &RepositoryName,
        reference: &str,
    ) -> Result<(Descriptor, Bytes), RegistryError> {
        let request = Request::get(format!("/v2/{name}/manifests/{reference}"))
            .header(ACCEPT, MANIFESTS.join(", "))
            .body(Empty::<Bytes>::new());
        let answer = super::send(self.address, built(request)?).await?;
        let step = format!("pull of {name} {reference}");
        let answer = self.expect(answer, StatusCode::OK, &step).await?;
        let headers = answer.headers().clone();
        let bytes = super::read(self.address, answer).await?;
        let digest = text(&headers, "docker-content-digest").map(str::parse::<Digest>);
        let Some(Ok(digest)) = digest else {
            return Err(RegistryError::Wrong(format!("{step}: no digest came with it")));
        };
        let kind = text(&headers, CONTENT_TYPE.as_str()).unwrap_or_default();
        Ok((Descriptor::new(media_type::essence(kind), digest, bytes.len() as u64), bytes))
    }

    /// Begins the pull of a blob; [`super::next`] gives its bytes.
    ///
    /// # Errors
    ///
    /// See [`RegistryError`].
    pub async fn blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Incoming, RegistryError> {
        let request = Request::get(format!("/v2/{name}/blobs/{digest}"));
        let answer = super::send(self.address, built(request.body(Empty::<Bytes>::new()))?).await?;
        let step = format!("pull of {digest}");
        Ok(self.expect(answer, StatusCode::OK, &step).await?.into_body())
    }

    /// Deletes a manifest, with the tags that point to it, in the whole swarm. False: there was none.
    ///
    /// # Errors
    ///
    /// See [`RegistryError`].
    pub async fn delete_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        self.delete(format!("/v2/{name}/manifests/{digest}")).await
    }

    /// Deletes a blob from a repository, in the whole swarm. False: there was none.
    ///
    /// # Errors
    ///
    /// See [`RegistryError`].
    pub async fn delete_blob(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        self.delete(format!("/v2/{name}/blobs/{digest}")).await
    }

    async fn delete(&self, path: String) -> Result<bool, RegistryError> {
        let step = format!("DELETE {path}");
        let request = built(Request::delete(path).body(Empty::<Bytes>::new()))?;
        let answer = super::send(self.address, request).await?;
        match self.expect(answer, StatusCode::ACCEPTED, &step).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn has(&self, path: String) -> Result<bool, RegistryError> {
        let step = format!("HEAD {path}");
        let request = Request::builder().method(Method::HEAD).uri(path);
        let request = request.header(ACCEPT, MANIFESTS.join(", ")).body(Empty::<Bytes>::new());
        let answer = super::send(self.address, built(request)?).await?;
        match self.expect(answer, StatusCode::OK, &step).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The answer if it has the `wanted` status, else an error in the registry's words.
    async fn expect(
        &self,
        answer: Response<Incoming>,
        wanted: StatusCode,
        step: &str,
    ) -> Result<Response<Incoming>, RegistryError> {
        let status = answer.status();
        if status == wanted {
            return Ok(answer);
        }
        let retry_after_s =
            text(answer.headers(), RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
        let body = super::read(self.address, answer).await?;
        Err(RegistryError::Refused {
            step: step.to_owned(),
            status,
            message: message(&body),
            retry_after_s,
        })
    }
}

/// The first message of an error answer (distribution-spec, "Error Codes"), else its start.
fn message(body: &[u8]) -> String {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let message = value.as_ref().and_then(|value| value.pointer("/errors/0/message")?.as_str());
    let shown = message.map_or(body, str::as_bytes);
    String::from_utf8_lossy(&shown[..shown.len().min(SHOWN_BYTES)]).into_owned()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn built<B>(request: http::Result<Request<B>>) -> Result<Request<B>, RegistryError> {
    request.map_err(|error| RegistryError::Wrong(format!("a request could not be made: {error}")))
}
