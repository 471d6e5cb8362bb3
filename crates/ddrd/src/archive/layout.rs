//! OCI image layouts (image-spec, image-layout.md).

use ddr_oci::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, ManifestKind};
use serde::Deserialize;

use super::files::Files;
use super::{ArchiveError, Image, MAX_IMAGES, Name};

/// The file that says that this is a layout.
pub const MARK: &str = "oci-layout";
/// What it says.
pub const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The file that lists the images.
pub const INDEX: &str = "index.json";
/// Bytes of the mark; the specification has one field.
const MAX_MARK_BYTES: u64 = 4096;

/// Annotations with names, the most exact first: containerd's and docker's, then the specified one.
const NAMES: [&str; 2] = ["io.containerd.image.name", REF_NAME];
/// The specified one (image-spec, annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    image_layout_version: String,
}

/// Where a blob is.
#[must_use]
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// The images of a layout; nothing when there is none.
pub(super) fn images(files: &Files) -> Result<Option<Vec<Image>>, ArchiveError> {
    let Some(mark) = files.find(MARK)? else { return Ok(None) };
    let bytes = mark.read_all(MARK, MAX_MARK_BYTES)?;
    let mark: Mark = serde_json::from_slice(&bytes)
        .map_err(|error| ArchiveError::Format(format!("{MARK}: {error}")))?;
    if !mark.image_layout_version.starts_with("1.") {
        let version = mark.image_layout_version.chars().take(20).collect::<String>();
        return Err(ArchiveError::Format(format!("{MARK}: version {version:?} is not known")));
    }
    let index = files
        .find(INDEX)?
        .ok_or_else(|| ArchiveError::Format(format!("the layout has no {INDEX}")))?;
    let bytes = index.read_all(INDEX, MAX_MANIFEST_BYTES as u64)?;
    let index = Manifest::parse(None, &bytes)
        .map_err(|error| ArchiveError::Format(format!("{INDEX}: {error}")))?;
    if index.kind != ManifestKind::Index {
        return Err(ArchiveError::Format(format!("{INDEX} is an image and not a list of them")));
    }
    if index.manifests.len() > MAX_IMAGES {
        let what = "the number of images in the archive".to_owned();
        return Err(ArchiveError::TooLarge { what, limit: MAX_IMAGES as u64 });
    }
    index.manifests.into_iter().map(image).collect::<Result<_, _>>().map(Some)
}

fn image(mut root: Descriptor) -> Result<Image, ArchiveError> {
    let text = NAMES.iter().find_map(|key| root.annotations.get(*key));
    let name = text.map(|text| Name::parse(text)).transpose()?;
    root.annotations.clear();
    Ok(Image { root, name })
}

/// `index.json` of a layout with one image.
pub(super) fn index(root: &Descriptor, name: &str) -> Vec<u8> {
    let mut root = root.clone();
    for key in NAMES {
        root.annotations.insert(key.to_owned(), name.to_owned());
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": ddr_oci::media_type::OCI_INDEX,
        "manifests": [root],
    });
    index.to_string().into_bytes()
}
