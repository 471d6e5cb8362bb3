//! Image manifest and index: parsed for what the registry needs, kept elsewhere as bytes.
//!
//! Decides whether bytes are exactly one of the two kinds, what they point at, and what the
//! referrers API says about them. Never rewrites a manifest: the digest is of the bytes.
//!
//! A document that could be read as both kinds is refused (CVE-2021-41190: the same bytes mean
//! different images to different clients). Docker schema 1 is refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::descriptor::{Descriptor, nullable};
use crate::digest::Digest;
use crate::error::ErrorCode;
use crate::json::{self, Object};
use crate::media_type::{
    DOCKER_LIST, DOCKER_MANIFEST, DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED, OCI_INDEX, OCI_MANIFEST,
    essence, is_non_distributable,
};

/// Largest manifest that is accepted, in bytes (distribution-spec, "Pushing Manifests", asks for
/// at least 4 MB; containerd refuses more than about 4.39 MB).
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// Longest text of the JSON parser that is kept in an error, in bytes.
const MAX_REASON_BYTES: usize = 200;

/// Why bytes are not a manifest.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ManifestError {
    /// More than [`MAX_MANIFEST_BYTES`].
    #[error("manifest of {size} bytes is over the limit of {MAX_MANIFEST_BYTES} bytes")]
    TooLarge {
        /// Size of what was given, in bytes.
        size: usize,
    },
    /// Not JSON, or a field has the wrong type or value.
    #[error("not a manifest: {reason}")]
    Json {
        /// The parser's words, cut short.
        reason: String,
    },
    /// Docker manifest version 2 schema 1.
    #[error("docker schema 1 is not supported: push as schema 2 or OCI")]
    Schema1,
    /// `schemaVersion` is absent or neither 1 nor 2.
    #[error("schemaVersion must be 2")]
    SchemaVersion,
    /// The media type is none of the four manifest types.
    #[error("unsupported manifest media type: want an OCI or docker manifest or index")]
    MediaType,
    /// `Content-Type` and the field `mediaType` differ.
    #[error("Content-Type and mediaType of the manifest differ")]
    MediaTypeMismatch,
    /// Has fields of both an image manifest and an index, or of schema 1.
    #[error("ambiguous manifest: it has fields of more than one kind")]
    Ambiguous,
    /// An image manifest without `config`.
    #[error("image manifest without config")]
    ConfigMissing,
}

impl ManifestError {
    /// The OCI error code.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::SizeInvalid,
            _ => ErrorCode::ManifestInvalid,
        }
    }

    /// The HTTP status: 413 if too large, else 400.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            _ => 400,
        }
    }
}

/// The two kinds of manifest.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum ManifestKind {
    /// One image or artifact: a config and layers.
    Image,
    /// A list of manifests.
    Index,
}

/// What a manifest says, without its bytes.
///
/// An [`ManifestKind::Image`] has a config and no `manifests`; an [`ManifestKind::Index`] has
/// neither config nor layers.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Media type to serve it with, without parameters.
    pub media_type: String,
    /// Image or index.
    pub kind: ManifestKind,
    /// Configuration; always there in an image.
    pub config: Option<Descriptor>,
    /// Layers of an image, bottom first.
    pub layers: Vec<Descriptor>,
    /// Members of an index.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one refers to.
    pub subject: Option<Descriptor>,
    /// Type of the artifact, if stated and not empty.
    pub artifact_type: Option<String>,
    /// Free key and value pairs.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<Object<Descriptor>>,
    layers: Option<Vec<Object<Descriptor>>>,
    manifests: Option<Vec<Object<Descriptor>>>,
    subject: Option<Object<Descriptor>>,
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    annotations: BTreeMap<String, String>,
    fs_layers: Option<IgnoredAny>,
}

impl Manifest {
    /// Parses the bytes of a manifest.
    ///
    /// The media type is that of `content_type` (parameters are dropped), else the field
    /// `mediaType`, else what the fields show. If both are there they must be equal.
    ///
    /// # Errors
    /// [`ManifestError`] if the bytes are too large, not JSON, of no supported type, or readable
    /// as more than one kind.
    pub fn parse(content_type: Option<&str>, bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { size: bytes.len() });
        }
        let stated = content_type.map(essence).filter(|stated| !stated.is_empty());
        if stated.is_some_and(is_schema1) {
            return Err(ManifestError::Schema1);
        }
        if json::is_too_deep(bytes) {
            let reason = format!("nested deeper than {} levels", json::MAX_DEPTH);
            return Err(ManifestError::Json { reason });
        }
        let Object(version): Object<Version> = serde_json::from_slice(bytes).map_err(json_error)?;
        match version.schema_version {
            Some(2) => {}
            Some(1) => return Err(ManifestError::Schema1),
            _ => return Err(ManifestError::SchemaVersion),
        }
        let Object(document): Object<Document> =
            serde_json::from_slice(bytes).map_err(json_error)?;
        document.check(stated)
    }

    /// The blobs that must be there before this manifest is accepted: config, then layers that
    /// are distributed, in order. Empty for an index, whose members are manifests.
    pub fn required_blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let layers = self.layers.iter().filter(|layer| !is_non_distributable(&layer.media_type));
        self.config.iter().chain(layers)
    }

    /// This manifest as the referrers API of its subject lists it.
    ///
    /// `digest` and `size` (bytes) are those of the manifest's bytes. The artifact type is the
    /// stated one, else the media type of an image's config (distribution-spec, "Listing
    /// Referrers").
    #[must_use]
    pub fn referrer_descriptor(&self, digest: Digest, size: u64) -> Descriptor {
        let config_type = || self.config.as_ref().map(|config| config.media_type.clone());
        let mut descriptor = Descriptor::new(&self.media_type, digest, size);
        descriptor.artifact_type = self.artifact_type.clone().or_else(config_type);
        descriptor.annotations = self.annotations.clone();
        descriptor
    }
}

/// Read first, so that schema 1 is named as such and not as a broken schema 2.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    schema_version: Option<u64>,
}

impl Document {
    fn check(self, stated: Option<&str>) -> Result<Manifest, ManifestError> {
        debug_assert_eq!(self.schema_version, Some(2));
        let field = self.media_type.as_deref().filter(|field| !field.is_empty());
        let media_type = match (stated, field) {
            (Some(stated), Some(field)) if stated != field => {
                return Err(ManifestError::MediaTypeMismatch);
            }
            (Some(media_type), _) | (None, Some(media_type)) => media_type,
            (None, None) => self.shape()?,
        };
        let kind = kind_of(media_type)?;
        let foreign = match kind {
            ManifestKind::Image => self.manifests.is_some(),
            ManifestKind::Index => self.config.is_some() || self.layers.is_some(),
        };
        if foreign || self.fs_layers.is_some() {
            return Err(ManifestError::Ambiguous);
        }
        if kind == ManifestKind::Image && self.config.is_none() {
            return Err(ManifestError::ConfigMissing);
        }
        Ok(Manifest {
            media_type: media_type.to_owned(),
            kind,
            config: self.config.map(|Object(config)| config),
            layers: descriptors(self.layers),
            manifests: descriptors(self.manifests),
            subject: self.subject.map(|Object(subject)| subject),
            artifact_type: self.artifact_type.filter(|stated| !stated.is_empty()),
            annotations: self.annotations,
        })
    }

    /// The OCI type that the fields show when nothing states one.
    fn shape(&self) -> Result<&'static str, ManifestError> {
        match (self.config.is_some() || self.layers.is_some(), self.manifests.is_some()) {
            (true, false) => Ok(OCI_MANIFEST),
            (false, true) => Ok(OCI_INDEX),
            (true, true) => Err(ManifestError::Ambiguous),
            (false, false) => Err(ManifestError::MediaType),
        }
    }
}

fn descriptors(list: Option<Vec<Object<Descriptor>>>) -> Vec<Descriptor> {
    list.unwrap_or_default().into_iter().map(|Object(descriptor)| descriptor).collect()
}

fn kind_of(media_type: &str) -> Result<ManifestKind, ManifestError> {
    match media_type {
        OCI_MANIFEST | DOCKER_MANIFEST => Ok(ManifestKind::Image),
        OCI_INDEX | DOCKER_LIST => Ok(ManifestKind::Index),
        schema1 if is_schema1(schema1) => Err(ManifestError::Schema1),
        _ => Err(ManifestError::MediaType),
    }
}

fn is_schema1(media_type: &str) -> bool {
    media_type == DOCKER_SCHEMA1 || media_type == DOCKER_SCHEMA1_SIGNED
}

/// The parser may quote what it read, so its text is cut.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn json_error(error: serde_json::Error) -> ManifestError {
    let mut reason = error.to_string();
    if reason.len() > MAX_REASON_BYTES {
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        reason.push('…');
    }
    ManifestError::Json { reason }
}

#[cfg(test)]
mod tests;
