//! The shape of a path, and which methods it takes.
//!
//! Decides the endpoint by the last segments of the path; all before them is the name.

use std::borrow::Cow;

use super::encoding::decode;
use super::query::Query;
use super::{MAX_UPLOAD_ID_BYTES, Request, RouteError};
use crate::digest::Digest;
use crate::reference::{Reference, ReferenceError, RepositoryName};

/// A path taken apart; names and digests in it are decoded but not yet checked.
pub(super) enum Endpoint<'a> {
    Ping,
    Catalog,
    TagList { name: Name<'a> },
    Blob { name: Name<'a>, digest: Cow<'a, str> },
    Uploads { name: Name<'a> },
    Upload { name: Name<'a>, id: Cow<'a, str> },
    Manifest { name: Name<'a>, reference: Cow<'a, str> },
    Referrers { name: Name<'a>, digest: Cow<'a, str> },
}

/// The segments of a repository name, as sent.
pub(super) struct Name<'a>(Vec<&'a str>);

impl Name<'_> {
    fn check(&self) -> Result<RepositoryName, RouteError> {
        let mut name = String::new();
        for segment in &self.0 {
            let segment = decode(segment)?;
            if segment.contains('/') {
                return Err(RouteError::NameInvalid);
            }
            if !name.is_empty() {
                name.push('/');
            }
            name.push_str(&segment);
        }
        name.parse().map_err(|_| RouteError::NameInvalid)
    }
}

impl<'a> Endpoint<'a> {
    pub(super) fn find(path: &'a str) -> Result<Self, RouteError> {
        let rest = match path.strip_prefix("/v2") {
            Some("" | "/") => return Ok(Self::Ping),
            Some("/_catalog") => return Ok(Self::Catalog),
            Some(rest) => rest.strip_prefix('/').ok_or(RouteError::NotFound)?,
            None => return Err(RouteError::NotFound),
        };
        let segments: Vec<&str> = rest.split('/').collect();
        match segments.as_slice() {
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads { name: named(name)? })
            }
            [name @ .., "blobs", "uploads", id] => {
                Ok(Self::Upload { name: named(name)?, id: decode(id)? })
            }
            [name @ .., "tags", "list"] => Ok(Self::TagList { name: named(name)? }),
            [name @ .., "blobs", digest] => {
                Ok(Self::Blob { name: named(name)?, digest: decode(digest)? })
            }
            [name @ .., "manifests", reference] => {
                Ok(Self::Manifest { name: named(name)?, reference: decode(reference)? })
            }
            [name @ .., "referrers", digest] => {
                Ok(Self::Referrers { name: named(name)?, digest: decode(digest)? })
            }
            _ => Err(RouteError::NotFound),
        }
    }

    pub(super) fn request(self, method: &str, query: &Query<'_>) -> Result<Request, RouteError> {
        match self {
            Self::Ping => read_only(method).map(|()| Request::Ping),
            Self::Catalog => {
                read_only(method)?;
                let (n, last) = query.page()?;
                Ok(Request::Catalog { n, last })
            }
            Self::TagList { name } => {
                read_only(method)?;
                let name = name.check()?;
                let (n, last) = query.page()?;
                Ok(Request::TagList { name, n, last })
            }
            Self::Referrers { name, digest } => {
                read_only(method)?;
                let name = name.check()?;
                let digest = checked_digest(&digest)?;
                let artifact_type = query.artifact_type()?;
                let (n, last) = query.page()?;
                let last = last.map(|last| last.parse().map_err(|_| RouteError::PageInvalid));
                Ok(Request::Referrers { name, digest, artifact_type, n, last: last.transpose()? })
            }
            Self::Blob { name, digest } => blob(method, &name, &digest),
            Self::Uploads { name } => upload_start(method, &name, query),
            Self::Upload { name, id } => upload(method, &name, id.into_owned(), query),
            Self::Manifest { name, reference } => manifest(method, &name, &reference, query),
        }
    }
}

fn named<'a>(segments: &[&'a str]) -> Result<Name<'a>, RouteError> {
    if segments.is_empty() { Err(RouteError::NotFound) } else { Ok(Name(segments.to_vec())) }
}

fn read_only(method: &str) -> Result<(), RouteError> {
    match method {
        "GET" | "HEAD" => Ok(()),
        _ => Err(RouteError::MethodNotAllowed { allow: "GET, HEAD" }),
    }
}

fn checked_digest(text: &str) -> Result<Digest, RouteError> {
    text.parse().map_err(|_| RouteError::DigestInvalid)
}

fn blob(method: &str, name: &Name<'_>, digest: &str) -> Result<Request, RouteError> {
    let delete = match method {
        "GET" | "HEAD" => false,
        "DELETE" => true,
        _ => return Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, DELETE" }),
    };
    let name = name.check()?;
    let digest = checked_digest(digest)?;
    Ok(if delete { Request::BlobDelete { name, digest } } else { Request::Blob { name, digest } })
}

fn upload_start(method: &str, name: &Name<'_>, query: &Query<'_>) -> Result<Request, RouteError> {
    if method != "POST" {
        return Err(RouteError::MethodNotAllowed { allow: "POST" });
    }
    Ok(Request::UploadStart {
        name: name.check()?,
        digest: query.digest()?,
        algorithm: query.algorithm()?,
        mount: query.mount()?,
    })
}

fn upload(
    method: &str,
    name: &Name<'_>,
    id: String,
    query: &Query<'_>,
) -> Result<Request, RouteError> {
    if !matches!(method, "GET" | "HEAD" | "PATCH" | "PUT" | "DELETE") {
        return Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, PATCH, PUT, DELETE" });
    }
    let name = name.check()?;
    let is_id_byte = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if id.is_empty() || id.len() > MAX_UPLOAD_ID_BYTES || !id.bytes().all(is_id_byte) {
        return Err(RouteError::UploadUnknown);
    }
    match method {
        "PATCH" => Ok(Request::UploadPatch { name, id }),
        "PUT" => {
            let digest = query.digest()?.ok_or(RouteError::DigestMissing)?;
            Ok(Request::UploadPut { name, id, digest })
        }
        "DELETE" => Ok(Request::UploadCancel { name, id }),
        _ => Ok(Request::UploadStatus { name, id }),
    }
}

fn manifest(
    method: &str,
    name: &Name<'_>,
    reference: &str,
    query: &Query<'_>,
) -> Result<Request, RouteError> {
    if !matches!(method, "GET" | "HEAD" | "PUT" | "DELETE") {
        return Err(RouteError::MethodNotAllowed { allow: "GET, HEAD, PUT, DELETE" });
    }
    let name = name.check()?;
    let reference: Reference = reference.parse().map_err(|error| match error {
        ReferenceError::Digest(_) => RouteError::DigestInvalid,
        _ if method == "PUT" => RouteError::TagInvalid,
        _ => RouteError::ManifestUnknown,
    })?;
    match method {
        "PUT" => Ok(Request::ManifestPut { name, reference, tags: query.tags()? }),
        "DELETE" => Ok(Request::ManifestDelete { name, reference }),
        _ => Ok(Request::Manifest { name, reference }),
    }
}
