//! Names of files in archives, and of images.

use ddr_oci::{ImageReference, Tag};

use super::{ArchiveError, MAX_NAME_BYTES};

/// What an archive calls an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Repository and tag.
    Full(ImageReference),
    /// A tag of a repository that the archive does not name.
    Tag(Tag),
}

impl Name {
    /// Reads the annotation of a layout or a tag of a docker archive. Without `/`, `:` and `@` it
    /// is a tag (image-spec, annotations.md, `org.opencontainers.image.ref.name`).
    pub(super) fn parse(text: &str) -> Result<Self, ArchiveError> {
        let name = if text.contains(['/', ':', '@']) {
            text.parse().map(Self::Full)
        } else {
            text.parse().map(Self::Tag)
        };
        name.map_err(|why| ArchiveError::Format(format!("the archive names {text:?}: {why}")))
    }
}

/// A relative path with plain components only, as it stands in an archive.
pub(super) fn clean(name: &str) -> Result<String, ArchiveError> {
    let shown = || name.chars().take(MAX_NAME_BYTES).collect();
    if name.len() > MAX_NAME_BYTES || name.starts_with('/') || name.contains(['\0', '\\']) {
        return Err(ArchiveError::Path(shown()));
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(ArchiveError::Path(shown()));
    }
    Ok(parts.join("/"))
}

/// Where a symbolic link of the name `from` leads.
pub(super) fn resolve(from: &str, target: &str) -> Result<String, ArchiveError> {
    let outside = || ArchiveError::Path(format!("{from} -> {target}"));
    if target.len() > MAX_NAME_BYTES || target.starts_with('/') {
        return Err(outside());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            plain => parts.push(plain),
        }
    }
    clean(&parts.join("/"))
}
