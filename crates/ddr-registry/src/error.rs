//! The only place where an error becomes a status code and an OCI error body.
//!
//! Decides status, code and headers by what the client should do next: repeat (503, 429, with
//! `Retry-After`), correct the request (4xx), ask the operator (5xx). It must never tell a client
//! a path, an address or another internal of this machine: those go to the log.

use bytes::Bytes;
use ddr_node::{DeleteError, PutManifestError, ReadError, UploadError};
use ddr_oci::digest::Digest;
use ddr_oci::error::ErrorCode;
use ddr_oci::reference::{RepositoryName, Tag};
use ddr_oci::route::RouteError;
use http::StatusCode;
use http::header::{ALLOW, CONNECTION, HeaderName, HeaderValue, LOCATION, RANGE, RETRY_AFTER};
use serde_json::{Value, json};

use crate::body::BodyError;
use crate::limits::{MAX_HEADER_BYTES, RETRY_AFTER_S};
use crate::respond::{self, Reply};

/// Code for "not now". The specification's list has none for 5xx; clients go by the status.
const UNAVAILABLE: &str = "UNAVAILABLE";
/// Code for a fault of this node, as other registries use it.
const UNKNOWN: &str = "UNKNOWN";
/// What a client is told when the disk is full.
const FULL: &str = "the disk of this node is full: push to another node, or give this one room (ddr status says what fills it) and push again";

/// An error answer before it is sent.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    detail: Option<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, headers: Vec::new() }
    }

    fn oci(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(status, code.as_str(), message)
    }

    fn detail(mut self, detail: Value) -> Self {
        self.detail = Some(detail);
        self
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The swarm or this node cannot answer for the moment.
    fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, message)
            .header(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S))
    }

    fn too_many(message: impl Into<String>) -> Self {
        Self::oci(StatusCode::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, message)
            .header(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S))
    }

    /// The disk of this node is full. An upload session stays: the push may be said again.
    fn no_space() -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, UNAVAILABLE, FULL)
    }

    /// A fault of this node. `cause` is for the log only.
    fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            UNKNOWN,
            "this node failed to handle the request; its log says why",
        )
    }

    /// The task of the request ended without an answer.
    pub(crate) fn task_failed(cause: &tokio::task::JoinError) -> Self {
        Self::internal(cause)
    }

    /// More connections than the limit.
    pub(crate) fn too_many_connections() -> Self {
        Self::unavailable("too many connections")
            .header(CONNECTION, HeaderValue::from_static("close"))
    }

    /// More blobs are asked for than are sent at once, and the queue is full or slow.
    pub(crate) fn too_many_streams() -> Self {
        Self::unavailable("too many blobs are being sent; try again")
    }

    pub(crate) fn header_too_large() -> Self {
        let message = format!("the header fields have more than {MAX_HEADER_BYTES} bytes");
        Self::oci(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, ErrorCode::SizeInvalid, message)
    }

    pub(crate) fn from_web_page() -> Self {
        let message = "requests of web pages are not answered: a registry client sends no Origin";
        Self::oci(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
    }

    /// No `Host`, two of them, or one that is none (RFC 9112, section 3.2).
    pub(crate) fn host_malformed() -> Self {
        let message = "a request has one Host field, which is a name or an address";
        Self::oci(StatusCode::BAD_REQUEST, ErrorCode::Unsupported, message)
    }

    /// The request was meant for another machine (RFC 9110, section 15.5.20).
    pub(crate) fn host_of_others(name: &str) -> Self {
        let message = format!(
            "{name} is not a name of this registry: use localhost or an address, \
             or add it to hosts under [registry] in the configuration"
        );
        Self::oci(StatusCode::MISDIRECTED_REQUEST, ErrorCode::Denied, message)
    }

    /// `ns` names no registry that could be mirrored.
    pub(crate) fn namespace_invalid() -> Self {
        let message = "ns names no registry: want a host in lower case with a dot in it, and :PORT \
                       if it has one";
        Self::oci(StatusCode::BAD_REQUEST, ErrorCode::NameInvalid, message)
    }

    /// Nobody pushes here in the name of another registry.
    pub(crate) fn not_ours(name: &RepositoryName) -> Self {
        let message = "a name whose first part has a dot belongs to the registry of that name: push there, \
                       or under another name";
        Self::oci(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
            .detail(json!({ "name": name.as_str() }))
    }

    /// Whether it says that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    pub(crate) fn name_unknown(name: &RepositoryName) -> Self {
        Self::oci(StatusCode::NOT_FOUND, ErrorCode::NameUnknown, "repository not known")
            .detail(json!({ "name": name.as_str() }))
    }

    pub(crate) fn blob_unknown(digest: &Digest) -> Self {
        Self::oci(StatusCode::NOT_FOUND, ErrorCode::BlobUnknown, "blob not known")
            .detail(json!({ "digest": digest.to_string() }))
    }

    pub(crate) fn manifest_unknown(reference: &ddr_oci::reference::Reference) -> Self {
        Self::oci(StatusCode::NOT_FOUND, ErrorCode::ManifestUnknown, "manifest not known")
            .detail(json!({ "reference": reference.to_string() }))
    }

    /// A byte range outside of content of `size` bytes (RFC 9110, section 15.5.17).
    pub(crate) fn range_not_satisfiable(size: u64) -> Self {
        let message = format!("no byte of the range is within the {size} bytes");
        Self::oci(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid, message)
            .header(http::header::CONTENT_RANGE, respond::value(&format!("bytes */{size}")))
    }

    /// A chunk that does not begin where the session ends; the client reads where it does.
    pub(crate) fn chunk_out_of_order(name: &RepositoryName, id: &str, offset: u64) -> Self {
        let message = format!("the next byte of this upload is byte {offset}");
        Self::oci(StatusCode::RANGE_NOT_SATISFIABLE, ErrorCode::BlobUploadInvalid, message)
            .header(LOCATION, respond::upload_location(name, id))
            .header(RANGE, respond::upload_range(offset))
            .header(respond::DOCKER_UPLOAD_UUID, respond::value(id))
    }

    /// A `Content-Range` that is not `<first>-<last>`.
    pub(crate) fn content_range_malformed() -> Self {
        let message = "Content-Range of a chunk has the form <first>-<last>, in bytes";
        Self::oci(StatusCode::BAD_REQUEST, ErrorCode::BlobUploadInvalid, message)
    }

    /// The bytes of a chunk are not as many as its `Content-Range` says.
    pub(crate) fn chunk_length(expected: u64) -> Self {
        let message = format!("Content-Range promises {expected} bytes, the body differs");
        Self::oci(StatusCode::BAD_REQUEST, ErrorCode::SizeInvalid, message)
    }

    /// An immutable tag would be moved or deleted. `DENIED`, because clients take `TAG_INVALID` for a
    /// manifest in a form that is not understood, and push it again in another.
    fn tag_immutable(tag: &Tag, digest: &Digest, message: String) -> Self {
        Self::oci(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
            .detail(json!({ "tag": tag.as_str(), "digest": digest.to_string() }))
    }

    /// The response, with the body `{"errors":[{code,message,detail}]}`.
    pub(crate) fn into_reply(self) -> Reply {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let Some(detail) = self.detail {
            error["detail"] = detail;
        }
        let body = json!({ "errors": [error] }).to_string();
        let mut reply = respond::bytes(self.status, respond::JSON, Bytes::from(body));
        reply.headers_mut().extend(self.headers);
        reply
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_REQUEST)
}

impl From<RouteError> for ApiError {
    fn from(error: RouteError) -> Self {
        let answer = Self::oci(status(error.status()), error.code(), error.to_string());
        match error {
            RouteError::MethodNotAllowed { allow } => {
                answer.header(ALLOW, HeaderValue::from_static(allow))
            }
            _ => answer,
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        if matches!(error, BodyError::NoMemory(_)) {
            return Self::unavailable(error.to_string());
        }
        let status = match &error {
            BodyError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            BodyError::Stalled(_) => StatusCode::REQUEST_TIMEOUT,
            BodyError::NoMemory(_) | BodyError::Broken(_) => StatusCode::BAD_REQUEST,
        };
        Self::oci(status, ErrorCode::SizeInvalid, error.to_string())
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(message) => Self::unavailable(message),
            ReadError::Busy(_) => Self::too_many(error.to_string()),
            ReadError::Denied(message) => {
                Self::oci(StatusCode::FORBIDDEN, ErrorCode::Denied, message)
            }
            ReadError::Store(_) => Self::internal(&error),
        }
    }
}

impl From<DeleteError> for ApiError {
    fn from(error: DeleteError) -> Self {
        let message = error.to_string();
        match error {
            DeleteError::TagImmutable { tag, digest } => {
                Self::tag_immutable(&tag, &digest, message)
            }
            DeleteError::Unavailable(message) => Self::unavailable(message),
            DeleteError::Store(_) => Self::internal(&message),
        }
    }
}

impl From<PutManifestError> for ApiError {
    fn from(error: PutManifestError) -> Self {
        let message = error.to_string();
        match error {
            PutManifestError::Invalid(invalid) => {
                Self::oci(status(invalid.status()), invalid.code(), message)
            }
            PutManifestError::DigestMismatch { .. } => {
                Self::oci(StatusCode::BAD_REQUEST, ErrorCode::DigestInvalid, message)
            }
            PutManifestError::BlobsUnknown(digests) => {
                let digests: Vec<_> = digests.iter().map(ToString::to_string).collect();
                Self::oci(StatusCode::NOT_FOUND, ErrorCode::ManifestBlobUnknown, message)
                    .detail(json!({ "digests": digests }))
            }
            PutManifestError::TagImmutable { tag, digest } => {
                Self::tag_immutable(&tag, &digest, message)
            }
            PutManifestError::Refused(message) => {
                Self::oci(StatusCode::BAD_REQUEST, ErrorCode::ManifestInvalid, message)
            }
            PutManifestError::Unavailable(message) => Self::unavailable(message),
            PutManifestError::NoSpace => Self::no_space(),
            PutManifestError::Store(_) => Self::internal(&message),
        }
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Unknown => Self::oci(
                StatusCode::NOT_FOUND,
                ErrorCode::BlobUploadUnknown,
                "upload session not known; begin a new one",
            ),
            UploadError::Busy => Self::oci(
                StatusCode::CONFLICT,
                ErrorCode::BlobUploadInvalid,
                "another request is writing to this upload session",
            ),
            UploadError::NoSpace => Self::no_space(),
            UploadError::Unavailable(why) => Self::unavailable(why),
            UploadError::TooManyUploads => Self::too_many("too many open upload sessions"),
            UploadError::DigestMismatch => Self::oci(
                StatusCode::BAD_REQUEST,
                ErrorCode::DigestInvalid,
                "the uploaded bytes do not have the given digest",
            ),
            UploadError::OutOfOrder { .. } => Self::oci(
                StatusCode::RANGE_NOT_SATISFIABLE,
                ErrorCode::BlobUploadInvalid,
                error.to_string(),
            ),
            other => Self::internal(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expect(error: impl Into<ApiError>, status: u16, code: &str) {
        let error = error.into();
        assert_eq!((error.status.as_u16(), error.code), (status, code), "{error:?}");
        let retry = error.headers.iter().any(|(name, _)| *name == RETRY_AFTER);
        assert_eq!(retry, [429, 503].contains(&status), "only what passes is repeated");
        assert!(!error.message.contains("/secret"), "{error:?}");
    }

    #[test]
    fn every_error_of_the_node_says_what_to_do_next() {
        let path = || "/secret/path".to_owned();
        expect(ReadError::Unavailable("2 of 5 answered".into()), 503, "UNAVAILABLE");
        expect(ReadError::Busy("downloads"), 429, "TOOMANYREQUESTS");
        expect(ReadError::Denied("docker.io: refuses".into()), 403, "DENIED");
        expect(ReadError::Store(path()), 500, "UNKNOWN");
        expect(DeleteError::Unavailable("2 of 5 answered".into()), 503, "UNAVAILABLE");
        expect(DeleteError::Store(path()), 500, "UNKNOWN");
        expect(PutManifestError::Unavailable("2 of 5 answered".into()), 503, "UNAVAILABLE");
        let (tag, digest) = ("v1".parse::<Tag>().unwrap(), Box::new(Digest::sha256(b"")));
        let immutable = DeleteError::TagImmutable { tag: tag.clone(), digest: digest.clone() };
        expect(immutable, 403, "DENIED");
        expect(PutManifestError::TagImmutable { tag, digest }, 403, "DENIED");
        expect(PutManifestError::Refused("it takes none".into()), 400, "MANIFEST_INVALID");
        expect(PutManifestError::NoSpace, 507, "UNAVAILABLE");
        expect(PutManifestError::Store(path()), 500, "UNKNOWN");
        let digest = Digest::sha256(b"");
        let mismatch = PutManifestError::DigestMismatch { given: digest, actual: digest.into() };
        expect(mismatch, 400, "DIGEST_INVALID");
        expect(PutManifestError::BlobsUnknown(vec![digest]), 404, "MANIFEST_BLOB_UNKNOWN");
        expect(UploadError::Unknown, 404, "BLOB_UPLOAD_UNKNOWN");
        expect(UploadError::Busy, 409, "BLOB_UPLOAD_INVALID");
        expect(UploadError::NoSpace, 507, "UNAVAILABLE");
        expect(UploadError::TooManyUploads, 429, "TOOMANYREQUESTS");
        expect(UploadError::DigestMismatch, 400, "DIGEST_INVALID");
        expect(UploadError::OutOfOrder { offset: 7 }, 416, "BLOB_UPLOAD_INVALID");
        expect(UploadError::Io(std::io::Error::other(path())), 500, "UNKNOWN");
    }
}
