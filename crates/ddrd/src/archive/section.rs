//! A part of a file that is the content of something: a file of a directory, or of a tar.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::digest::{Algorithm, Hasher};
use ddr_oci::{Descriptor, Digest};

use super::{ArchiveError, CHUNK_BYTES};

/// Bytes of an open file. Cheap to clone; readers do not disturb each other.
#[derive(Clone, Debug)]
pub struct Section {
    file: Arc<File>,
    offset: u64,
    size: u64,
}

impl Section {
    pub(super) fn new(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self { file, offset, size }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// At most [`CHUNK_BYTES`] from byte `at`; nothing at the end.
    ///
    /// # Errors
    ///
    /// What the system says; `UnexpectedEof` when the file has become shorter.
    pub fn chunk(&self, at: u64) -> io::Result<Bytes> {
        let left = self.size.saturating_sub(at);
        let len = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let mut chunk = vec![0; len];
        self.file.read_exact_at(&mut chunk, self.offset + at)?;
        Ok(chunk.into())
    }

    /// All of it, if it is no longer than `limit` bytes. `what` is its name for an error.
    pub(super) fn read_all(&self, what: &str, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        if self.size > limit {
            return Err(ArchiveError::TooLarge { what: what.to_owned(), limit });
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes).map_err(ArchiveError::file(what))?;
        Ok(bytes)
    }

    /// Reads it from the start.
    pub(super) fn reader(&self) -> impl Read {
        Reader { section: self.clone(), at: 0, chunk: Bytes::new() }
    }

    /// The digest of its bytes. Blocks as long as the disk takes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn digest(&self, algorithm: Algorithm) -> io::Result<Digest> {
        digest(self.reader(), algorithm)
    }

    /// Checks the bytes against a descriptor.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Digest`], or what the system says.
    pub fn verify(&self, wanted: &Descriptor) -> Result<(), ArchiveError> {
        let is = self
            .digest(wanted.digest.algorithm())
            .map_err(ArchiveError::file(wanted.digest.to_string()))?;
        if is == wanted.digest {
            Ok(())
        } else {
            Err(ArchiveError::Digest { digest: wanted.digest, is: Box::new(is) })
        }
    }
}

/// The digest of everything that `input` gives.
pub(super) fn digest(mut input: impl Read, algorithm: Algorithm) -> io::Result<Digest> {
    let mut hasher = Hasher::new(algorithm);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match input.read(&mut chunk)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&chunk[..read]),
        }
    }
}

struct Reader {
    section: Section,
    at: u64,
    chunk: Bytes,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            self.chunk = self.section.chunk(self.at)?;
            self.at += self.chunk.len() as u64;
        }
        let len = self.chunk.len().min(buffer.len());
        buffer[..len].copy_from_slice(&self.chunk.split_to(len));
        Ok(len)
    }
}
