//! A small image as an OCI archive, which containerd imports.

use std::fs::File;
use std::path::{Path, PathBuf};

use ddr_oci::Digest;
use serde_json::{Value, json};
use tar::{Builder, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What is in the archive.
pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    pub(crate) manifest: Digest,
    pub(crate) config: Digest,
    pub(crate) layer: Digest,
}

/// An image of one layer, which is `layer` and no archive at all: nothing unpacks it.
pub(crate) fn archive(dir: &Path, image: &str, layer: &[u8]) -> Archive {
    let path = dir.join(format!("{}.tar", Digest::sha256(layer).short()));
    let mut tar = Builder::new(File::create(&path).expect("a file"));
    let layer = blob(&mut tar, LAYER, layer);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let config = blob(&mut tar, CONFIG, config.to_string().as_bytes());
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut manifest = blob(&mut tar, MANIFEST, manifest.to_string().as_bytes());
    let digests = [&manifest, &config, &layer].map(digest);
    manifest["annotations"] = json!({ "io.containerd.image.name": image });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    add(&mut tar, "index.json", index.to_string().as_bytes());
    add(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    tar.finish().expect("an archive");
    let [manifest, config, layer] = digests;
    Archive { path, manifest, config, layer }
}

/// Adds a blob; its descriptor.
fn blob(tar: &mut Builder<File>, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::sha256(bytes);
    add(tar, &format!("blobs/sha256/{}", digest.hex()), bytes);
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}

fn add(tar: &mut Builder<File>, name: &str, bytes: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(u64::try_from(bytes.len()).expect("a size"));
    header.set_mode(0o644);
    tar.append_data(&mut header, name, bytes).expect("an entry");
}

fn digest(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().expect("a text").parse().expect("a digest")
}
