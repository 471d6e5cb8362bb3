//! An image that is pushed once and looked for ever after.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::e2e::Random;
use crate::run;
use crate::tools::SKOPEO;
use crate::torture::shown_digest;
use crate::wire::{Connection, Head};

const REPOSITORIES: usize = 4;
const MAX_LAYERS: usize = 2;
/// Largest layers, bytes. Most are small, as each round copies three parts in five of all that was ever pushed.
const MAX_SMALL_BYTES: usize = 32 << 10;
/// These come piece by piece, and some are large enough for a second copy while they are pushed.
const MAX_LARGE_BYTES: usize = 3 << 20;
/// One layer in so many is of these.
const LARGE_ONE_IN: usize = 8;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// What is read of a body at once, bytes.
const BUFFER: usize = 256 * 1024;

/// See the module comment.
#[derive(Debug)]
pub(super) struct Image {
    repository: String,
    tag: String,
    manifest: String,
    blobs: Vec<(String, u64)>,
    layout: PathBuf,
}

impl Image {
    /// Makes the `number`th image as an OCI layout in `dir`, which it replaces.
    pub(super) fn make(dir: &Path, number: usize, random: &mut Random) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        let mut layout = Layout::new(dir)?;
        let layers: Vec<(String, u64)> = (0..=random.below(MAX_LAYERS))
            .map(|_| {
                let is_large = random.below(LARGE_ONE_IN) == 0;
                let most = if is_large { MAX_LARGE_BYTES } else { MAX_SMALL_BYTES };
                let len = 1 + random.below(most);
                layout.put(&random.bytes(len))
            })
            .collect::<Result<_>>()?;
        let diffs: Vec<&str> = layers.iter().map(|(digest, _)| digest.as_str()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Labels": {"number": number.to_string()}},
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = layout.put(config.to_string().as_bytes())?;
        let describe = |kind: &str, (digest, size): &(String, u64)| json!({"mediaType": kind, "digest": digest, "size": size});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": describe(CONFIG, &config),
            "layers": layers.iter().map(|layer| describe(LAYER, layer)).collect::<Vec<Value>>(),
        });
        let manifest = layout.put(manifest.to_string().as_bytes())?;
        layout.finish(&describe(MANIFEST, &manifest))?;
        let mut blobs = layers;
        blobs.push(config);
        Ok(Self {
            repository: format!("burn/r{}", number % REPOSITORIES),
            tag: format!("i{number}"),
            manifest: manifest.0,
            blobs,
            layout: dir.to_path_buf(),
        })
    }

    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }

    /// skopeo pushes it; `Ok` is an acknowledgement.
    pub(super) fn push(&self, registry: &str) -> Result<()> {
        let mut copy = run::client(SKOPEO);
        copy.args(["copy", "--preserve-digests", "--dest-tls-verify=false"]);
        copy.arg(format!("oci:{}:{}", self.layout.display(), Layout::REFERENCE));
        run::output(copy.arg(format!("docker://{registry}/{}", self.name())))?;
        Ok(())
    }

    /// The node knows the tag and finds every blob.
    pub(super) fn look(&self, node: &mut Connection) -> Result<()> {
        let head = self.head(node, &format!("manifests/{}", self.tag))?;
        let digest = head.field("docker-content-digest").unwrap_or_default();
        ensure!(digest == self.manifest, "the tag is {digest:?}, not {}", self.manifest);
        for (digest, size) in &self.blobs {
            let head = self.head(node, &format!("blobs/{digest}"))?;
            let length = head.field("content-length").unwrap_or_default();
            ensure!(length == size.to_string(), "{digest} has {length} bytes, not {size}");
        }
        Ok(())
    }

    fn head(&self, node: &mut Connection, what: &str) -> Result<Head> {
        let target = format!("/v2/{}/{what}", self.repository);
        node.send("HEAD", &target, &[&format!("Accept: {MANIFEST}")], None)?;
        let head = node.receive_head()?;
        ensure!(head.status == 200, "HEAD {target}: {}", head.status);
        Ok(head)
    }

    /// The node gives the manifest and every blob, with the right bytes.
    pub(super) fn pull(&self, node: &mut Connection) -> Result<()> {
        let manifest = (self.manifest.as_str(), format!("manifests/{}", self.tag));
        let blobs =
            self.blobs.iter().map(|(digest, _)| (digest.as_str(), format!("blobs/{digest}")));
        for (digest, what) in std::iter::once(manifest).chain(blobs) {
            let target = format!("/v2/{}/{what}", self.repository);
            node.send("GET", &target, &[&format!("Accept: {MANIFEST}")], None)?;
            let head = node.receive_head()?;
            ensure!(head.status == 200, "GET {target}: {}", head.status);
            let mut hash = Sha256::new();
            node.receive_body(&head, &mut vec![0; BUFFER], |piece| hash.update(piece))?;
            let found = shown_digest(hash);
            ensure!(found == digest, "GET {target} gave {found}");
        }
        Ok(())
    }
}

/// An OCI image layout (image-spec, image-layout.md).
struct Layout(PathBuf);

impl Layout {
    const REFERENCE: &'static str = "image";

    fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self(dir.to_path_buf()))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(String, u64)> {
        let digest = shown_digest(Sha256::new_with_prefix(bytes));
        let hex = digest.strip_prefix("sha256:").context("a digest")?;
        fs::write(self.0.join("blobs/sha256").join(hex), bytes)?;
        Ok((digest, bytes.len() as u64))
    }

    fn finish(self, manifest: &Value) -> Result<()> {
        let mut entry = manifest.clone();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": Self::REFERENCE});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(self.0.join("index.json"), index.to_string())?;
        Ok(())
    }
}
