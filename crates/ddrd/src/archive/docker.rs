//! Docker archives (`docker save`): manifest.json, a config and plain layers for each image.
//!
//! Such an image has no manifest, so one is made: an OCI manifest that names config and layers as
//! they are. The same image gives the same manifest. A layer must be what the config's diff ID
//! says, as it is or, where a program has compressed it, unpacked.

use std::collections::BTreeMap;

use ddr_oci::digest::Algorithm;
use ddr_oci::media_type::{
    DOCKER_CONFIG, DOCKER_MANIFEST, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_MANIFEST,
};
use ddr_oci::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest};
use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use super::section::digest;
use super::{Archive, ArchiveError, Closure, Image, MAX_CONFIG_BYTES, MAX_IMAGES, Name, spool};
use super::{Section, blob_path};

/// The file that lists the images.
pub(super) const LIST: &str = "manifest.json";
/// Layers of one image; docker has 127 at most.
const MAX_LAYERS: usize = 1024;

/// One image in manifest.json.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Option<Vec<Digest>>,
}

/// Layers by their names in the archive, so that each is read once.
type Known = BTreeMap<String, (Descriptor, Digest)>;

/// Fills an archive with its images. False when this is no docker archive.
pub(super) fn read(archive: &mut Archive) -> Result<bool, ArchiveError> {
    let Some(list) = archive.files.find(LIST)? else { return Ok(false) };
    let bytes = list.read_all(LIST, MAX_MANIFEST_BYTES as u64)?;
    let entries: Vec<Entry> = serde_json::from_slice(&bytes)
        .map_err(|error| ArchiveError::Format(format!("{LIST}: {error}")))?;
    if entries.len() > MAX_IMAGES {
        let what = "the number of images in the archive".to_owned();
        return Err(ArchiveError::TooLarge { what, limit: MAX_IMAGES as u64 });
    }
    let mut known = Known::new();
    for entry in entries {
        let root = image(archive, &entry, &mut known)?;
        let tags = entry.repo_tags.unwrap_or_default();
        let names = tags.iter().map(|tag| Name::parse(tag));
        let names: Vec<Name> = names.collect::<Result<_, _>>()?;
        if names.is_empty() {
            archive.images.push(Image { root: root.clone(), name: None });
        }
        let named = |name| Image { root: root.clone(), name: Some(name) };
        archive.images.extend(names.into_iter().map(named));
    }
    Ok(true)
}

/// Makes the manifest of one image.
fn image(
    archive: &mut Archive,
    entry: &Entry,
    known: &mut Known,
) -> Result<Descriptor, ArchiveError> {
    let section = need(archive, &entry.config)?;
    let bytes = section.read_all(&entry.config, MAX_CONFIG_BYTES)?;
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|error| ArchiveError::Format(format!("{}: {error}", entry.config)))?;
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    let names = entry.layers.as_deref().unwrap_or_default();
    if names.len() != diff_ids.len() || names.len() > MAX_LAYERS {
        let (layers, ids) = (names.len(), diff_ids.len());
        let text = format!("{} has {ids} layers but {LIST} has {layers}", entry.config);
        return Err(ArchiveError::Format(text));
    }
    let config = Descriptor::new(OCI_CONFIG, Digest::sha256(&bytes), bytes.len() as u64);
    archive.found.insert(config.digest, section);
    let mut layers = Vec::new();
    for (name, diff_id) in names.iter().zip(diff_ids) {
        layers.push(layer(archive, name, diff_id, known)?);
    }
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
    });
    let bytes = manifest.to_string().into_bytes();
    let root = Descriptor::new(OCI_MANIFEST, Digest::sha256(&bytes), bytes.len() as u64);
    archive.made.insert(root.digest, bytes.into());
    Ok(root)
}

/// A layer as the manifest names it.
fn layer(
    archive: &mut Archive,
    name: &str,
    diff_id: Digest,
    known: &mut Known,
) -> Result<Descriptor, ArchiveError> {
    if !known.contains_key(name) {
        let section = need(archive, name)?;
        let read = measure(&section, diff_id.algorithm()).map_err(ArchiveError::file(name))?;
        archive.found.insert(read.0.digest, section);
        known.insert(name.to_owned(), read);
    }
    let (descriptor, unpacked) = &known[name];
    if *unpacked == diff_id {
        Ok(descriptor.clone())
    } else {
        Err(ArchiveError::Digest { digest: diff_id, is: Box::new(*unpacked) })
    }
}

/// The descriptor of a layer and the digest of its tar.
fn measure(section: &Section, algorithm: Algorithm) -> std::io::Result<(Descriptor, Digest)> {
    let own = section.digest(Algorithm::Sha256)?;
    if spool::is_gzip(&section.chunk(0)?) {
        let gzip = std::io::BufReader::new(section.reader());
        let unpacked = digest(MultiGzDecoder::new(gzip), algorithm)?;
        return Ok((Descriptor::new(OCI_LAYER_GZIP, own, section.size()), unpacked));
    }
    let tar = if algorithm == Algorithm::Sha256 { own } else { section.digest(algorithm)? };
    Ok((Descriptor::new(OCI_LAYER, own, section.size()), tar))
}

fn need(archive: &Archive, name: &str) -> Result<Section, ArchiveError> {
    let found = archive.files.find(name)?;
    found.ok_or_else(|| ArchiveError::Format(format!("{name} is not in the archive")))
}

/// manifest.json for an exported image, for those who read no layouts; nothing for an index, which
/// it cannot express, and for what is no container image.
pub(super) fn list(root: &Descriptor, closure: &Closure, name: Option<&str>) -> Option<Vec<u8>> {
    let [(only, bytes)] = &closure.manifests[..] else { return None };
    let is_image = matches!(only.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST);
    let manifest = Manifest::parse(Some(&only.media_type), bytes).ok()?;
    let config = manifest.config.filter(|_| is_image && only.digest == root.digest)?;
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
        return None;
    }
    let entry = Entry {
        config: blob_path(&config.digest),
        repo_tags: name.map(|name| vec![name.to_owned()]),
        layers: Some(manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect()),
    };
    serde_json::to_vec(&[entry]).ok()
}
