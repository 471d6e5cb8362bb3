//! Fetches: content that comes from peers. It can be read while it grows.
//!
//! Decides that there is one fetch for a digest at a time and that nothing of it outlives the
//! handle unless it was committed. Must never count bytes as content before the commit has
//! proven them: what a [`FetchReader`] reads is a claim.

use crate::commit::{CommitError, Committed, Source};
use crate::disk::DiskFile;
use crate::error::UploadError;
use crate::layout::RandomId;
use crate::running::Hashing;
use crate::staged::{Staged, Way};
use crate::store::{Inner, Store, lock};
use ddr_oci::digest::Digest;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Fetches that may run at once, partial blobs included.
pub const MAX_FETCHES: usize = 1024;

/// Content on its way in. Dropped without a commit, it is thrown away.
#[derive(Debug)]
pub struct Fetch {
    store: Store,
    digest: Digest,
    source: Source,
    staged: Staged,
}

/// Reads what a [`Fetch`] has received. It stays valid after the commit, and after the fetch was
/// thrown away.
#[derive(Debug, Clone)]
pub struct FetchReader {
    file: Arc<dyn DiskFile>,
    available: Arc<AtomicU64>,
}

impl Store {
    /// Begins to fetch a digest. The caller has looked whether the blob is here.
    ///
    /// # Errors
    /// `Busy` if it is being fetched already, `TooManyUploads`, `NoSpace`, `Io`.
    pub fn begin_fetch(&self, digest: &Digest) -> Result<Fetch, UploadError> {
        let inner = &self.inner;
        inner.claim_fetch(digest)?;
        let begun = RandomId::generate().and_then(|id| {
            let source =
                Source { data: inner.layout.fetch(&id), chain: inner.layout.fetch_chain(&id) };
            let staged = Staged::create(inner.disk.as_ref(), &source.data, Way::Cached)?;
            staged.hashing().expect(digest.algorithm());
            Ok((source, staged))
        });
        match begun {
            Ok((source, staged)) => {
                Ok(Fetch { store: self.clone(), digest: *digest, source, staged })
            }
            Err(error) => {
                lock(&inner.fetching).remove(digest);
                Err(error.into())
            }
        }
    }
}

impl Inner {
    /// Notes that a digest is being fetched, by one of any kind.
    pub(crate) fn claim_fetch(&self, digest: &Digest) -> Result<(), UploadError> {
        let mut fetching = lock(&self.fetching);
        if fetching.contains(digest) {
            return Err(UploadError::Busy);
        }
        if fetching.len() >= MAX_FETCHES {
            return Err(UploadError::TooManyUploads);
        }
        fetching.insert(*digest);
        Ok(())
    }
}

impl Fetch {
    /// The digest that the content should have.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.staged.len()
    }

    /// Adds bytes; readers see them at once. After an error the fetch is as before the call.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        Ok(self.staged.append(bytes)?)
    }

    /// As [`Fetch::append`], for bytes that another thread gives to [`Fetch::hashing`] at the
    /// same time, under the offset that the fetch has before the call.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        Ok(self.staged.write(bytes)?)
    }

    /// The running hash, for bytes that [`Fetch::write`] writes.
    pub fn hashing(&self) -> Hashing {
        self.staged.hashing().clone()
    }

    /// A reader of what has been and will be received.
    pub fn reader(&self) -> FetchReader {
        let file = Arc::clone(self.staged.file());
        FetchReader { file, available: Arc::clone(self.staged.available()) }
    }

    /// Whether what has been received is the whole content.
    ///
    /// # Errors
    /// What the disk says.
    pub fn is_whole(&self) -> io::Result<bool> {
        self.staged.is(&self.digest)
    }

    /// Makes the content a blob, durable. It is not linked to any repository by this.
    ///
    /// # Errors
    /// `DigestMismatch`, `NoSpace`, `Io`. What was received is thrown away.
    pub fn commit(self) -> Result<Committed, UploadError> {
        let inner = &self.store.inner;
        inner.commit(&self.staged, &self.source, &self.digest, None).map_err(|error| match error {
            CommitError::Intact(error) | CommitError::Lost(error) => error,
        })
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        let inner = &self.store.inner;
        for path in [&self.source.data, &self.source.chain] {
            if let Err(error) = inner.remove_if_there(path) {
                tracing::warn!(%error, path = %path.display(), "removed at the next start");
            }
        }
        lock(&inner.fetching).remove(&self.digest);
    }
}

impl FetchReader {
    /// Bytes that can be read.
    pub fn available(&self) -> u64 {
        self.available.load(Ordering::Acquire)
    }

    /// Reads at most `buffer.len()` of the bytes received, from `offset`; 0 means that there are
    /// none yet, or none more.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.available().saturating_sub(offset);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if n == 0 { Ok(0) } else { self.file.read_at(offset, &mut buffer[..n]) }
    }
}
