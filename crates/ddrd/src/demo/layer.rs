//! A layer: a tar of files, compressed with gzip, hashed on both sides of the compression.
//!
//! The same input gives the same bytes: times are zero, owners are root.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ddr_oci::digest::{Algorithm, Digest, Hasher};
use flate2::Compression;
use flate2::write::GzEncoder;

/// A layer on disk.
#[derive(Debug)]
pub(super) struct Layer {
    /// The compressed file.
    pub(super) path: PathBuf,
    /// Digest of the compressed file.
    pub(super) digest: Digest,
    /// Bytes of the compressed file.
    pub(super) size: u64,
    /// Digest of the tar inside (image-spec, config.md, `diff_ids`).
    pub(super) diff_id: Digest,
}

/// Writes one layer.
pub(super) struct Builder<'a> {
    path: PathBuf,
    cancelled: &'a AtomicBool,
    tar: tar::Builder<Hashed<GzEncoder<Hashed<BufWriter<File>>>>>,
}

impl<'a> Builder<'a> {
    /// Writes to `path`, which must not exist, until `cancelled`.
    pub(super) fn new(path: PathBuf, cancelled: &'a AtomicBool) -> io::Result<Self> {
        let file = Hashed::new(BufWriter::new(File::create_new(&path)?));
        let gzip = Hashed::new(GzEncoder::new(file, Compression::fast()));
        Ok(Self { path, cancelled, tar: tar::Builder::new(gzip) })
    }

    /// Adds `size` bytes of `data` as a file at `path`, relative to the root of the image.
    pub(super) fn file(
        &mut self,
        path: &Path,
        mode: u32,
        size: u64,
        data: impl Read,
    ) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let data = Cancellable { inner: data.take(size), cancelled: self.cancelled };
        self.tar.append_data(&mut header, path, data)
    }

    /// Adds a file of this machine at `path`.
    pub(super) fn copy(&mut self, from: &Path, path: &Path) -> io::Result<()> {
        let file = File::open(from)?;
        let size = file.metadata()?.len();
        self.file(path, 0o755, size, file)
    }

    pub(super) fn finish(self) -> io::Result<Layer> {
        let (gzip, diff_id, _) = self.tar.into_inner()?.finish();
        let (mut file, digest, size) = gzip.finish()?.finish();
        file.flush()?;
        Ok(Layer { path: self.path, digest, size, diff_id })
    }
}

/// Reads until somebody says stop.
struct Cancellable<'a, R> {
    inner: R,
    cancelled: &'a AtomicBool,
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        self.inner.read(buffer)
    }
}

/// Hashes and counts what passes through.
struct Hashed<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::new(Algorithm::Sha256), size: 0 }
    }

    fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_content_agree_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let go_on = AtomicBool::new(false);
        let build = |name: &str| {
            let mut builder = Builder::new(dir.path().join(name), &go_on).unwrap();
            builder.file(Path::new("etc/hello"), 0o644, 5, &b"hello"[..]).unwrap();
            builder.finish().unwrap()
        };
        let layer = build("one");
        let bytes = std::fs::read(&layer.path).unwrap();
        assert_eq!((Digest::sha256(&bytes), bytes.len() as u64), (layer.digest, layer.size));
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut tar).unwrap();
        assert_eq!(Digest::sha256(&tar), layer.diff_id);
        let mut archive = tar::Archive::new(&tar[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap(), Path::new("etc/hello"));
        assert_eq!(build("two").digest, layer.digest, "the same input, the same bytes");
    }

    #[test]
    fn a_cancelled_layer_ends_with_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let cancelled = AtomicBool::new(true);
        let mut builder = Builder::new(dir.path().join("one"), &cancelled).unwrap();
        assert!(builder.file(Path::new("etc/hello"), 0o644, 5, &b"hello"[..]).is_err());
    }
}
