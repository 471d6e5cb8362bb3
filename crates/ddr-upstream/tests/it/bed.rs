//! What most tests begin with.

use bytes::Bytes;
use ddr_oci::{Digest, RepositoryName, Tag};
use ddr_upstream::{BlobBody, Credentials, Settings, Upstream, UpstreamError};
use futures_util::StreamExt as _;

use crate::server::Server;

/// Settings of a registry at `endpoint` on loopback.
pub(crate) fn settings(endpoint: &str) -> Settings {
    Settings {
        host: "registry.example".parse().expect("a host"),
        endpoint: endpoint.to_owned(),
        credentials: Credentials::Anonymous,
        hosts: Vec::new(),
        follow_public: false,
        private: true,
        ca_files: Vec::new(),
        proxy: None,
    }
}

pub(crate) fn upstream(server: &Server) -> Upstream {
    Upstream::new(settings(&server.base())).expect("settings")
}

/// With name `user` and password `secret`.
pub(crate) fn with_password(server: &Server) -> Settings {
    let (user, password) = ("user".to_owned(), "secret".to_owned());
    Settings { credentials: Credentials::Basic { user, password }, ..settings(&server.base()) }
}

/// What `with_password` sends.
pub(crate) const BASIC: &str = "Basic dXNlcjpzZWNyZXQ=";

pub(crate) fn repository() -> RepositoryName {
    "team/app".parse().expect("a name")
}

pub(crate) fn tag() -> Tag {
    Tag::latest()
}

pub(crate) fn digest() -> Digest {
    Digest::sha256(b"blob")
}

/// Asks for the smallest thing.
pub(crate) async fn resolve(
    upstream: &Upstream,
) -> Result<Option<ddr_upstream::Found>, UpstreamError> {
    upstream.resolve(&repository(), &tag()).await
}

/// An answer to HEAD of a tag.
pub(crate) fn found() -> crate::server::Reply {
    crate::server::Reply::ok("{}").header("Docker-Content-Digest", &digest().to_string())
}

/// All bytes of a body, or the error that ends it with the bytes before.
pub(crate) async fn collect(mut body: BlobBody) -> Result<Vec<u8>, (Vec<u8>, UpstreamError)> {
    let mut all = Vec::new();
    while let Some(next) = body.bytes.next().await {
        let bytes: Bytes = match next {
            Ok(bytes) => bytes,
            Err(error) => return Err((all, error)),
        };
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}
