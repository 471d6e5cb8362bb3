//! From method, path and query to one request of the distribution API.
//!
//! Decides which endpoint is meant and that every name, tag and digest in it is well formed.
//! Paths are read from the right, because repository names contain slashes and may contain any
//! word of the API. Must never touch headers or bodies, and never guess: what is malformed is an
//! error with a status and a code.

use crate::digest::{Algorithm, Digest};
use crate::error::ErrorCode;
use crate::reference::{Reference, RepositoryName, Tag};

mod encoding;
mod endpoint;
mod query;

use endpoint::Endpoint;
use query::Query;

/// Longest path in bytes, before decoding. A percent-encoded name of 255 bytes and sha512 fit.
pub const MAX_PATH_BYTES: usize = 2048;

/// Longest query in bytes, before decoding.
pub const MAX_QUERY_BYTES: usize = 8192;

/// Most parameters in a query.
pub const MAX_QUERY_PARAMETERS: usize = 128;

/// Most `tag` parameters of one manifest PUT (the specification asks for at least 10).
pub const MAX_TAG_PARAMETERS: usize = 50;

/// Longest `last` parameter in bytes; no name or tag is longer.
pub const MAX_LAST_BYTES: usize = 255;

/// Longest `artifactType` parameter in bytes (RFC 6838: 127 for each half of a media type).
pub const MAX_ARTIFACT_TYPE_BYTES: usize = 255;

/// Longest upload session ID in bytes.
pub const MAX_UPLOAD_ID_BYTES: usize = 128;

/// A well-formed request. `end-…` are the rows of distribution-spec, "Endpoints".
///
/// Requests that GET and HEAD share are one variant; the caller knows the method.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// `GET /v2/` (end-1).
    Ping,
    /// `GET /v2/_catalog`.
    Catalog {
        /// Most names wanted.
        n: Option<u64>,
        /// Names after this one.
        last: Option<String>,
    },
    /// `GET /v2/<name>/tags/list` (end-8).
    TagList {
        /// The repository.
        name: RepositoryName,
        /// Most tags wanted.
        n: Option<u64>,
        /// Tags after this one.
        last: Option<String>,
    },
    /// `GET` or `HEAD /v2/<name>/blobs/<digest>` (end-2).
    Blob {
        /// The repository.
        name: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// `DELETE /v2/<name>/blobs/<digest>` (end-10).
    BlobDelete {
        /// The repository.
        name: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// `POST /v2/<name>/blobs/uploads/` (end-4a, end-4b, end-4c, end-11).
    UploadStart {
        /// The repository.
        name: RepositoryName,
        /// The body is the whole blob with this digest.
        digest: Option<Digest>,
        /// The algorithm that the closing digest will have.
        algorithm: Option<Algorithm>,
        /// Take this blob over, from that repository if one is given.
        mount: Option<(Digest, Option<RepositoryName>)>,
    },
    /// `GET <location>` (end-13).
    UploadStatus {
        /// The repository.
        name: RepositoryName,
        /// The session.
        id: String,
    },
    /// `PATCH <location>` (end-5).
    UploadPatch {
        /// The repository.
        name: RepositoryName,
        /// The session.
        id: String,
    },
    /// `PUT <location>?digest=<digest>` (end-6).
    UploadPut {
        /// The repository.
        name: RepositoryName,
        /// The session.
        id: String,
        /// Digest of the whole blob.
        digest: Digest,
    },
    /// `DELETE <location>` (end-14).
    UploadCancel {
        /// The repository.
        name: RepositoryName,
        /// The session.
        id: String,
    },
    /// `GET` or `HEAD /v2/<name>/manifests/<reference>` (end-3).
    Manifest {
        /// The repository.
        name: RepositoryName,
        /// Tag or digest.
        reference: Reference,
    },
    /// `PUT /v2/<name>/manifests/<reference>` (end-7a, end-7b).
    ManifestPut {
        /// The repository.
        name: RepositoryName,
        /// Tag or digest.
        reference: Reference,
        /// Tags to set as well, without duplicates, in the order given.
        tags: Vec<Tag>,
    },
    /// `DELETE /v2/<name>/manifests/<reference>` (end-9).
    ManifestDelete {
        /// The repository.
        name: RepositoryName,
        /// Tag or digest.
        reference: Reference,
    },
    /// `GET /v2/<name>/referrers/<digest>` (end-12).
    Referrers {
        /// The repository.
        name: RepositoryName,
        /// The subject.
        digest: Digest,
        /// Only referrers of this type; never empty.
        artifact_type: Option<String>,
        /// Most descriptors wanted.
        n: Option<u64>,
        /// Referrers after this one, in byte order of the digests.
        last: Option<Digest>,
    },
}

/// Why a request is none of the API.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RouteError {
    /// No such endpoint.
    #[error("no such endpoint")]
    NotFound,
    /// The endpoint exists but not with this method.
    #[error("method not allowed; allowed: {allow}")]
    MethodNotAllowed {
        /// Value of the `Allow` header.
        allow: &'static str,
    },
    /// Path or query over a limit, or too many parameters.
    #[error("request target too long")]
    TooLong,
    /// Broken percent-encoding, or text that is not UTF-8.
    #[error("broken percent-encoding in the request target")]
    Encoding,
    /// Malformed repository name, in the path or in `from`.
    #[error("invalid repository name")]
    NameInvalid,
    /// Malformed digest or unsupported algorithm.
    #[error("invalid digest: want sha256:<64 lower-case hex> or sha512:<128 lower-case hex>")]
    DigestInvalid,
    /// The closing PUT of an upload has no `digest`.
    #[error("the closing PUT needs the parameter digest")]
    DigestMissing,
    /// Malformed tag in a PUT.
    #[error("invalid tag: want [a-zA-Z0-9_][a-zA-Z0-9._-]*, at most 128 bytes")]
    TagInvalid,
    /// A manifest is asked for by a tag that no manifest can have.
    #[error("manifest unknown: the tag is malformed")]
    ManifestUnknown,
    /// An upload session is named by an ID that no session can have.
    #[error("upload session unknown: the id is malformed")]
    UploadUnknown,
    /// Malformed `n` or `last`.
    #[error("invalid page: n must be a number, last an entry of the list, at most 255 bytes")]
    PageInvalid,
    /// A parameter is too long or is given twice with different values.
    #[error("invalid query parameter")]
    QueryInvalid,
}

impl RouteError {
    /// The OCI error code.
    #[must_use]
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::TooLong
            | Self::Encoding
            | Self::PageInvalid
            | Self::QueryInvalid => ErrorCode::Unsupported,
            Self::NameInvalid => ErrorCode::NameInvalid,
            Self::DigestInvalid | Self::DigestMissing => ErrorCode::DigestInvalid,
            Self::TagInvalid => ErrorCode::ManifestInvalid,
            Self::ManifestUnknown => ErrorCode::ManifestUnknown,
            Self::UploadUnknown => ErrorCode::BlobUploadUnknown,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NotFound | Self::ManifestUnknown | Self::UploadUnknown => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::TooLong => 414,
            _ => 400,
        }
    }
}

/// Reads a request.
///
/// `method` is the HTTP method in capitals, `path` the path as sent (percent-encoded, starting
/// with `/`), `query` what follows `?`. Each path segment is decoded once; an encoded slash is
/// never a separator. Parameters that the API does not know (`origin`) are ignored; for `ns` see
/// [`namespace`].
///
/// # Errors
/// [`RouteError`], in this order: length, endpoint, method, name, the rest.
pub fn parse(method: &str, path: &str, query: Option<&str>) -> Result<Request, RouteError> {
    let query = query.unwrap_or_default();
    if path.len() > MAX_PATH_BYTES || query.len() > MAX_QUERY_BYTES {
        return Err(RouteError::TooLong);
    }
    let endpoint = Endpoint::find(path)?;
    let query = Query::new(query)?;
    endpoint.request(method, &query)
}

/// The parameter `ns`: the registry that a client means (distribution-spec, "Registry Proxying"), as it is
/// written. An empty one is absent.
///
/// # Errors
/// [`RouteError`]: the query is none, or says two different things.
pub fn namespace(query: &str) -> Result<Option<String>, RouteError> {
    Query::new(query)?.namespace()
}

impl Request {
    /// The repository that is meant; `None` for what is of none.
    pub const fn name_mut(&mut self) -> Option<&mut RepositoryName> {
        match self {
            Self::Ping | Self::Catalog { .. } => None,
            Self::TagList { name, .. }
            | Self::Blob { name, .. }
            | Self::BlobDelete { name, .. }
            | Self::UploadStart { name, .. }
            | Self::UploadStatus { name, .. }
            | Self::UploadPatch { name, .. }
            | Self::UploadPut { name, .. }
            | Self::UploadCancel { name, .. }
            | Self::Manifest { name, .. }
            | Self::ManifestPut { name, .. }
            | Self::ManifestDelete { name, .. }
            | Self::Referrers { name, .. } => Some(name),
        }
    }

    /// Whether it changes something.
    #[must_use]
    pub const fn changes(&self) -> bool {
        matches!(
            self,
            Self::BlobDelete { .. }
                | Self::UploadStart { .. }
                | Self::UploadPatch { .. }
                | Self::UploadPut { .. }
                | Self::UploadCancel { .. }
                | Self::ManifestPut { .. }
                | Self::ManifestDelete { .. }
        )
    }
}

#[cfg(test)]
mod tests;
