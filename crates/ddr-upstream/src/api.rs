//! The words in which an upstream answers.

use std::time::Duration;

use bytes::Bytes;
use ddr_oci::{Digest, RepositoryName};
use futures_util::stream::BoxStream;

/// What a tag points to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The manifest's digest: as the registry says in `Docker-Content-Digest`, or of the bytes that it gave
    /// where it says nothing.
    pub digest: Digest,
    /// The manifest, where it had to be read for that.
    pub manifest: Option<Manifest>,
}

/// A manifest whose bytes have the digest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// Of the bytes.
    pub digest: Digest,
    /// As the registry sent it, without parameters.
    pub media_type: String,
    /// At most [`ddr_oci::MAX_MANIFEST_BYTES`].
    pub bytes: Bytes,
}

/// A blob that begins to arrive. Nothing of it is proven.
pub struct BlobBody {
    /// Bytes of the whole blob.
    pub size: u64,
    /// Offset of the first byte of `bytes`.
    pub start: u64,
    /// The bytes from there; an error where the connection broke, stalled, or sent more than `size` says.
    pub bytes: BoxStream<'static, Result<Bytes, UpstreamError>>,
}

impl std::fmt::Debug for BlobBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size, start, bytes: _ } = self;
        f.debug_struct("BlobBody").field("size", size).field("start", start).finish_non_exhaustive()
    }
}

/// Some of a registry's repositories.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// In its order, without texts that are no names.
    pub repositories: Vec<RepositoryName>,
    /// After which text the next page begins; `None`: this is the last.
    pub last: Option<String>,
}

/// Why an upstream did not give what it was asked for. "It has none" is no error. The texts name no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Nobody answers there, or not in time, or not with its certificate.
    #[error("{0}")]
    Unreachable(String),
    /// 429: not before so long.
    #[error("the registry is asked too often; again in {} s", .0.as_secs())]
    RateLimited(Duration),
    /// 401 or 403, with what credentials there are.
    #[error("the registry refuses: {0}")]
    Denied(String),
    /// It leads to where this node must not go: a host that is not its own, a private address.
    #[error("{0}")]
    Forbidden(String),
    /// It failed: 5xx, or an answer that is none.
    #[error("{0}")]
    Failed(String),
    /// It never does that.
    #[error("{0}")]
    Unsupported(String),
    /// What it sent is not what it should be: another digest, another length.
    #[error("{0}")]
    Lied(String),
}
