//! `GET /v2/<name>/referrers/<digest>` (end-12a, end-12b).
//!
//! A registry that has this API never answers 404 here: an unknown subject has an empty list.

use bytes::Bytes;
use ddr_oci::digest::Digest;
use ddr_oci::media_type::OCI_INDEX;
use ddr_oci::reference::RepositoryName;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use crate::error::ApiError;
use crate::respond::{self, Reply};
use crate::router::Call;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// The manifests whose subject is `digest`, as an image index.
pub(crate) async fn list(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
    artifact_type: Option<&str>,
) -> Result<Reply, ApiError> {
    let mut descriptors = call.shared.node.referrers(name, digest).await?;
    if let Some(wanted) = artifact_type {
        descriptors.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
    }
    let index = ddr_oci::referrers::index(&descriptors);
    let media_type = HeaderValue::from_static(OCI_INDEX);
    let mut reply = respond::bytes(StatusCode::OK, media_type, Bytes::from(index));
    if artifact_type.is_some() {
        let filtered = HeaderValue::from_static("artifactType");
        reply.headers_mut().insert(OCI_FILTERS_APPLIED, filtered);
    }
    Ok(reply)
}
