//! A file that content is appended to before it is known to be right: the common half of an
//! upload and a fetch.
//!
//! Decides that the length is what was written whole: what was hashed beyond it does not count. Must never make a file visible as a blob; that is `commit`.

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::running::Hashing;
use ddr_oci::digest::{Algorithm, Digest, Hasher};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes read at once when a file is hashed again.
const READ_BYTES: usize = 256 * 1024;

/// Which way bytes go to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Someone reads them while they come: they stay in the cache of the system.
    Cached,
    /// Nobody reads them before the commit: they may go past the cache.
    Past,
}

#[derive(Debug)]
pub(crate) struct Staged {
    file: Arc<dyn DiskFile>,
    way: Way,
    hashing: Hashing,
    /// Bytes written, which readers may see.
    available: Arc<AtomicU64>,
}

impl Staged {
    /// An empty new file.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, way: Way) -> io::Result<Self> {
        let file = disk.open(path, OpenMode::CreateNew)?;
        Ok(Self { file, way, hashing: Hashing::new(), available: Arc::default() })
    }

    /// A file of an earlier process: what is in it is hashed again.
    pub(crate) fn resume(disk: &dyn Disk, path: &Path, way: Way) -> io::Result<Self> {
        // Opened for reading first: a missing file must stay missing.
        disk.open(path, OpenMode::Read)?;
        let file = disk.open(path, OpenMode::Write)?;
        let hashing = Hashing::new();
        let mut len = 0;
        read_all(file.as_ref(), |bytes| {
            hashing.update(len, bytes);
            len += bytes.len() as u64;
        })?;
        Ok(Self { file, way, hashing, available: Arc::new(AtomicU64::new(len)) })
    }

    /// Bytes that the file holds.
    pub(crate) fn len(&self) -> u64 {
        self.available.load(Ordering::Acquire)
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    pub(crate) fn hashing(&self) -> &Hashing {
        &self.hashing
    }

    pub(crate) fn available(&self) -> &Arc<AtomicU64> {
        &self.available
    }

    /// Adds bytes and hashes them. After an error the file holds what it held before.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let at = self.len();
        self.write(bytes)?;
        self.hashing.update(at, bytes);
        Ok(())
    }

    /// Adds bytes, which another thread hashes. After an error the file holds what it held before.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = self.len();
        let written = match self.way {
            Way::Cached => self.file.write_at(len, bytes),
            Way::Past => self.file.write_past_cache(len, bytes),
        };
        if let Err(error) = written {
            // Part of the bytes may be there. If this fails too, the next append writes over
            // them, or `finish` cuts them off.
            if let Err(error) = self.file.set_len(len) {
                tracing::warn!(%error, "a failed write could not be undone yet");
            }
            self.hashing = self.hashing.anew();
            return Err(error);
        }
        self.available.store(len + bytes.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Whether the content has this digest. The running hash says so, unless it was of the other
    /// algorithm or did not see all: then the file is read.
    pub(crate) fn is(&self, digest: &Digest) -> io::Result<bool> {
        let found = self.hashing.digest(digest.algorithm(), self.file.as_ref(), self.len())?;
        Ok(found == *digest)
    }
}

/// The digest and the size of a file.
pub(crate) fn digest_of(file: &dyn DiskFile, algorithm: Algorithm) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::new(algorithm);
    let len = read_all(file, |bytes| hasher.update(bytes))?;
    Ok((hasher.finish(), len))
}

/// Reads a file from start to end in pieces of bounded size; its length.
pub(crate) fn read_all(file: &dyn DiskFile, each: impl FnMut(&[u8])) -> io::Result<u64> {
    read_range(file, 0..u64::MAX, each)
}

/// Reads a part of a file in pieces of bounded size; where it ended.
pub(crate) fn read_range(
    file: &dyn DiskFile,
    range: Range<u64>,
    mut each: impl FnMut(&[u8]),
) -> io::Result<u64> {
    let Range { start: mut offset, end } = range;
    if offset >= end {
        return Ok(offset);
    }
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let left = usize::try_from(end - offset).unwrap_or(READ_BYTES).min(READ_BYTES);
        let n = file.read_at(offset, &mut buffer[..left])?;
        if n == 0 {
            return Ok(offset);
        }
        each(&buffer[..n]);
        offset += n as u64;
    }
}
