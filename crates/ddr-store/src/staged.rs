//! A file that content is appended to before it is known to be right: the common half of an
//! upload and a fetch.
//!
//! Decides that bytes are hashed after they are written, so that the hash never runs ahead of
//! the file. Must never make a file visible as a blob; that is `commit`.

use crate::disk::{Disk, DiskFile, OpenMode};
use ddr_oci::digest::{Algorithm, Digest, Hasher};
use ddr_oci::piece_chain::ChainHasher;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes read at once when a file is hashed again.
const READ_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Staged {
    file: Arc<dyn DiskFile>,
    hasher: ChainHasher,
    /// Bytes that readers may see: those written.
    available: Arc<AtomicU64>,
}

impl Staged {
    /// An empty new file.
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::CreateNew)?;
        Ok(Self { file, hasher: ChainHasher::new(), available: Arc::default() })
    }

    /// A file of an earlier process: what is in it is hashed again.
    pub(crate) fn resume(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        // Opened for reading first: a missing file must stay missing.
        disk.open(path, OpenMode::Read)?;
        let file = disk.open(path, OpenMode::Write)?;
        let mut hasher = ChainHasher::new();
        read_all(file.as_ref(), |bytes| hasher.update(bytes))?;
        let available = Arc::new(AtomicU64::new(hasher.len()));
        Ok(Self { file, hasher, available })
    }

    /// Bytes that the file holds.
    pub(crate) fn len(&self) -> u64 {
        self.hasher.len()
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    pub(crate) fn hasher(&self) -> &ChainHasher {
        &self.hasher
    }

    pub(crate) fn available(&self) -> &Arc<AtomicU64> {
        &self.available
    }

    /// Adds bytes. After an error the file holds what it held before.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = self.len();
        if let Err(error) = self.file.write_at(len, bytes) {
            // Part of the bytes may be there. If this fails too, the next append writes over
            // them, or `finish` cuts them off.
            if let Err(error) = self.file.set_len(len) {
                tracing::warn!(%error, "a failed write could not be undone yet");
            }
            return Err(error);
        }
        self.hasher.update(bytes);
        self.available.store(self.len(), Ordering::Release);
        Ok(())
    }

    /// Whether the content has this digest. SHA-256 is known from the running hash; for SHA-512
    /// the file is read again.
    pub(crate) fn is(&self, digest: &Digest) -> io::Result<bool> {
        match digest.algorithm() {
            Algorithm::Sha256 => Ok(self.hasher.digest() == *digest),
            Algorithm::Sha512 => {
                self.cut()?;
                Ok(digest_of(self.file.as_ref(), Algorithm::Sha512)?.0 == *digest)
            }
        }
    }

    /// Makes the file durable, with exactly the bytes that were hashed.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.cut()?;
        self.file.sync()
    }

    /// Cuts off what a failed append may have left.
    fn cut(&self) -> io::Result<()> {
        if self.file.len()? != self.len() {
            self.file.set_len(self.len())?;
        }
        Ok(())
    }
}

/// The digest and the size of a file.
pub(crate) fn digest_of(file: &dyn DiskFile, algorithm: Algorithm) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let len = read_all(file, |bytes| hasher.update(bytes))?;
    Ok((hasher.finish(), len))
}

/// Reads a file from start to end in pieces of bounded size; its length.
pub(crate) fn read_all(file: &dyn DiskFile, mut each: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        let n = file.read_at(offset, &mut buffer)?;
        if n == 0 {
            return Ok(offset);
        }
        each(&buffer[..n]);
        offset += n as u64;
    }
}
