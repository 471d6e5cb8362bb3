//! Blobs that are read from another place on this machine: a registry that runs beside, or the content
//! store of containerd (docs/drivers.md).
//!
//! Decides that such a blob counts only after all of its bytes were read once and had its digest; from
//! then on its row says its size and its piece chain, and where it is read from. One that is gone from
//! there loses its row when that is noticed. Must never write to that place.

use crate::blob::BlobReader;
use crate::disk::DiskFile;
use crate::error::IndexError;
use crate::evict::EvictOptions;
use crate::index::OutsideRow;
use crate::staged::read_range;
use crate::store::{Inner, Store};
use ddr_oci::digest::Digest;
use ddr_oci::piece_chain::ChainHasher;
use ddr_oci::reference::RepositoryName;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// Bytes that are read between two questions whether to stop.
const STEP_BYTES: u64 = 64 * 1024 * 1024;

/// Where blobs lie that this store does not keep itself.
pub trait Outside: Debug + Send + Sync {
    /// The bytes of a blob, to read only. `None`: it is not there.
    ///
    /// # Errors
    /// The place cannot be asked now.
    fn open(&self, blob: &OutsideBlob) -> io::Result<Option<Arc<dyn DiskFile>>>;
}

/// A blob that lies outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// A repository that it belongs to there.
    pub repository: RepositoryName,
    /// It stays there until somebody deletes it: it counts as kept by this node. Else it is a cache.
    pub is_kept: bool,
}

impl Inner {
    /// What is known of a blob that lies outside and is not on this disk.
    pub(crate) fn only_outside(&self, digest: &Digest) -> io::Result<Option<OutsideRow>> {
        if self.outside.get().is_none() {
            return Ok(None);
        }
        let Some(row) = self.index.outside(digest)? else { return Ok(None) };
        Ok(self.look(digest)?.is_none().then_some(row))
    }

    /// The blob as it lies outside, if that place can be asked. Its row goes if it is not there any more.
    pub(crate) fn look_outside(&self, digest: &Digest) -> io::Result<Option<BlobReader>> {
        let Some(outside) = self.outside.get() else { return Ok(None) };
        let Some(row) = self.index.outside(digest)? else { return Ok(None) };
        match outside.open(&row.blob) {
            Ok(Some(file)) => Ok(Some(BlobReader::new(file, row.blob.size))),
            // It may be there again soon; others may have it meanwhile.
            Err(error) => {
                tracing::warn!(%digest, %error, "a blob cannot be read where it lies");
                Ok(None)
            }
            Ok(None) => {
                tracing::info!(%digest, "a blob is gone from where it was read");
                self.index.forget_outside(&[*digest])?;
                Ok(None)
            }
        }
    }
}

impl Store {
    /// From now on blobs lie at `outside`, too; the first call counts. Without one, no blob does: the rows
    /// that are left from an earlier run go with [`Store::forget_outside`].
    pub fn set_outside(&self, outside: Arc<dyn Outside>) {
        let _ = self.inner.outside.set(outside);
    }

    /// Reads a blob that lies outside, all of it, and takes it in if it has its digest; false if it is
    /// not there or is not what it is said to be. Asks from time to time whether to stop.
    ///
    /// # Errors
    /// The place cannot be read, or the index fails; `Interrupted`: it was to stop.
    pub fn take_outside(&self, blob: &OutsideBlob, stop: impl Fn() -> bool) -> io::Result<bool> {
        let Some(outside) = self.inner.outside.get() else { return Ok(false) };
        let Some(file) = outside.open(blob)? else { return Ok(false) };
        let mut hasher = ChainHasher::new(blob.digest.algorithm());
        let mut len = 0;
        loop {
            let end = len + STEP_BYTES;
            len = read_range(file.as_ref(), len..end, |bytes| hasher.update(bytes))?;
            if len < end {
                break;
            }
            if stop() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        let (found, chain) = hasher.finish();
        if found != blob.digest || len != blob.size {
            tracing::warn!(digest = %blob.digest, %found, len, "a blob outside is not what it is said to be");
            return Ok(false);
        }
        self.inner
            .index
            .put_outside(&OutsideRow { blob: blob.clone(), chain: chain.to_bytes() })?;
        Ok(true)
    }

    /// Takes in a blob outside of which this store has a copy: it was put there from here. False: there is no
    /// such copy.
    ///
    /// # Errors
    /// What the disk or the index says.
    pub fn note_outside(&self, blob: &OutsideBlob) -> io::Result<bool> {
        let own = self.inner.look(&blob.digest)?.filter(|own| own.size() == blob.size);
        let chain = match own {
            Some(_) => self.piece_chain(&blob.digest)?,
            None => None,
        };
        let Some(chain) = chain else { return Ok(false) };
        self.inner
            .index
            .put_outside(&OutsideRow { blob: blob.clone(), chain: chain.to_bytes() })?;
        Ok(true)
    }

    /// What is known of a blob that lies outside.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn outside(&self, digest: &Digest) -> Result<Option<OutsideBlob>, IndexError> {
        Ok(self.inner.index.outside(digest)?.map(|row| row.blob))
    }

    /// The blobs outside with digests after `last`, at most `limit`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn outside_after(
        &self,
        last: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<OutsideBlob>, IndexError> {
        self.inner.index.outside_after(last, limit)
    }

    /// How many blobs lie outside, and their bytes.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn outside_sums(&self) -> Result<(usize, u64), IndexError> {
        self.inner.index.outside_sums()
    }

    /// Forgets blobs that are not outside any more.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn forget_outside(&self, digests: &[Digest]) -> Result<(), IndexError> {
        self.inner.index.forget_outside(digests)
    }

    /// Whether this node keeps the blob: on its own disk, or where it stays outside.
    ///
    /// # Errors
    /// What the disk or the index says.
    pub fn keeps(&self, digest: &Digest) -> io::Result<bool> {
        if self.inner.look(digest)?.is_some() {
            return Ok(true);
        }
        Ok(self.outside(digest)?.is_some_and(|blob| blob.is_kept))
    }

    /// Removes the own copy of a blob that lies outside, too; whether it did. Where it is only a cache
    /// outside, only what may be evicted by `options` goes.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn leave_outside(
        &self,
        digest: &Digest,
        options: EvictOptions,
    ) -> Result<bool, IndexError> {
        let inner = &self.inner;
        let _held = inner.hold(digest);
        if !inner.index.leave_outside(digest, options.rules(&inner.uses))? {
            return Ok(false);
        }
        if let Err(error) = inner.remove_blob_files(digest) {
            tracing::warn!(%error, %digest, "a removed blob's files go at the next start");
        }
        Ok(true)
    }
}
