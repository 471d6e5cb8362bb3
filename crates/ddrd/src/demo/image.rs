//! A real OCI image made here: this program, the libraries it needs, and data to move.
//!
//! `docker run` of it prints the version of `ddr`. Nothing is fetched from anywhere.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ddr_oci::digest::Digest;
use ddr_oci::media_type;
use serde_json::json;
use tokio::sync::oneshot;

use super::layer::{Builder, Layer};

/// Layers of data, beside those with programs.
const DATA_LAYERS: u64 = 2;
/// Files in a layer of data.
const FILES_PER_LAYER: u64 = 24;
/// Bytes of such a file.
const FILE_BYTES: u64 = 1024 * 1024;
/// Media type of the layers (image-spec, layer.md).
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image whose layers are files in a directory.
#[derive(Debug)]
pub(super) struct Image {
    /// The config blob.
    pub(super) config: Vec<u8>,
    /// The layers with a word on what is inside.
    pub(super) layers: Vec<(Layer, &'static str)>,
    /// The manifest.
    pub(super) manifest: Vec<u8>,
}

/// One blob of the image.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlobInfo<'a> {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) what: &'static str,
    /// Where its bytes are.
    pub(super) source: Source<'a>,
}

/// Where the bytes of a blob are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    File(&'a Path),
    Memory(&'a [u8]),
}

impl Image {
    /// Builds the image; its layers become files in `dir`. When the future is dropped, nothing
    /// writes to `dir` any more.
    pub(super) async fn build(dir: PathBuf) -> io::Result<Self> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (sender, image) = oneshot::channel();
        let seen = Arc::clone(&cancelled);
        let thread = std::thread::spawn(move || drop(sender.send(Self::write(&dir, &seen))));
        let _builder = BuilderThread { cancelled, thread: Some(thread) };
        image.await.map_err(io::Error::other)?
    }

    fn write(dir: &Path, cancelled: &AtomicBool) -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let mut layers = Vec::new();
        let libraries = libraries()?;
        let new = |name: &str| Builder::new(dir.join(name), cancelled);
        if !libraries.is_empty() {
            layers.push((library_layer(new("libraries.tar.gz")?, &libraries)?, "libraries"));
        }
        layers.push((program_layer(new("programs.tar.gz")?, &own)?, "ddr and ddrd"));
        for number in 0..DATA_LAYERS {
            let builder = new(&format!("data-{number}.tar.gz"))?;
            layers.push((data_layer(builder, number)?, "data"));
        }
        let config = config(&layers);
        let manifest = manifest(&config, &layers);
        Ok(Self { config, layers, manifest })
    }

    /// Config and layers, in the order in which clients push them.
    pub(super) fn blobs(&self) -> impl Iterator<Item = BlobInfo<'_>> {
        let layers = self.layers.iter().map(|(layer, what)| BlobInfo {
            digest: layer.digest,
            size: layer.size,
            what,
            source: Source::File(&layer.path),
        });
        layers.chain(std::iter::once(BlobInfo {
            digest: Digest::sha256(&self.config),
            size: self.config.len() as u64,
            what: "config",
            source: Source::Memory(&self.config),
        }))
    }
}

/// The thread that builds. Dropping it tells the thread to stop and waits until it has.
struct BuilderThread {
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for BuilderThread {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there shows as a missing image.
            let _ = thread.join();
        }
    }
}

/// Shared libraries that this program has loaded. None when it is linked statically.
fn libraries() -> io::Result<BTreeSet<PathBuf>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).map(PathBuf::from);
    Ok(paths.filter(|path| path.is_absolute() && name(path).contains(".so")).collect())
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn library_layer(mut builder: Builder<'_>, libraries: &BTreeSet<PathBuf>) -> io::Result<Layer> {
    for library in libraries {
        builder.copy(library, inside(library))?;
        // Programs name their loader by one of these two paths (the System V ABI supplements).
        if name(library).starts_with("ld-") {
            builder.copy(library, &Path::new("lib").join(name(library)))?;
            builder.copy(library, &Path::new("lib64").join(name(library)))?;
        }
    }
    builder.finish()
}

/// An absolute path as it stands in a tar.
fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn program_layer(mut builder: Builder<'_>, own: &Path) -> io::Result<Layer> {
    builder.copy(own, Path::new("usr/bin/ddr"))?;
    builder.copy(&own.with_file_name("ddrd"), Path::new("usr/bin/ddrd"))?;
    builder.finish()
}

fn data_layer(mut builder: Builder<'_>, number: u64) -> io::Result<Layer> {
    for index in 0..FILES_PER_LAYER {
        let seed = number * FILES_PER_LAYER + index + 1;
        let path = format!("usr/share/ddr-demo/{number}/{index:02}");
        builder.file(
            Path::new(&path),
            0o644,
            FILE_BYTES,
            Noise { state: seed, word: [0; 8], used: 8 },
        )?;
    }
    builder.finish()
}

/// Bytes that do not compress and are the same everywhere: splitmix64 (Steele, Lea and Flood,
/// OOPSLA 2014).
struct Noise {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in buffer.iter_mut() {
            if self.used == self.word.len() {
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                self.word = (z ^ (z >> 31)).to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
        Ok(buffer.len())
    }
}

/// The config (image-spec, config.md).
fn config(layers: &[(Layer, &'static str)]) -> Vec<u8> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let diff_ids: Vec<_> = layers.iter().map(|(layer, _)| layer.diff_id.to_string()).collect();
    let history: Vec<_> = layers
        .iter()
        .map(|(_, what)| json!({ "created": EPOCH, "created_by": format!("ddr demo: {what}") }))
        .collect();
    let config = json!({
        "created": EPOCH,
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": ["/usr/bin/ddr"], "Cmd": ["--version"], "Env": ["PATH=/usr/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": history,
    });
    config.to_string().into_bytes()
}

/// Every time in the image, so that it is the same each time.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// The manifest (image-spec, manifest.md).
fn manifest(config: &[u8], layers: &[(Layer, &'static str)]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(layer, _)| {
            json!({ "mediaType": LAYER_TYPE, "digest": layer.digest.to_string(), "size": layer.size })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {
            "mediaType": media_type::OCI_CONFIG,
            "digest": Digest::sha256(config).to_string(),
            "size": config.len(),
        },
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_everywhere() {
        let mut bytes = [0; 16];
        Noise { state: 1234567, word: [0; 8], used: 8 }.read_exact(&mut bytes).unwrap();
        // The first two outputs for this seed in the published reference implementation.
        let first = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let second = u64::from_le_bytes(bytes[8..].try_into().unwrap());
        assert_eq!((first, second), (6457827717110365317, 3203168211198807973));
    }

    #[test]
    fn the_loader_and_the_c_library_are_found() {
        let names: Vec<_> = libraries().unwrap().iter().map(|p| name(p).to_owned()).collect();
        if cfg!(target_env = "gnu") && !cfg!(target_feature = "crt-static") {
            assert!(names.iter().any(|n| n.starts_with("libc.so")), "{names:?}");
            assert!(names.iter().any(|n| n.starts_with("ld-")), "{names:?}");
        }
    }
}
