//! A file that fills in pieces, in any order, from many threads, while others read it.
//!
//! Decides when a byte may be read: after its piece was verified against the chain, and written.
//! A piece is hashed without any lock. It is written, marked and read under a lock that all of
//! these share; only a change of chain takes it alone, so whoever was verified against the old
//! chain has either been written before the change or is verified again after it. Bytes that
//! may be read are therefore never overwritten by others: under one chain a piece has one content.
//!
//! Must never mark a piece that it has not hashed itself.

use super::pieces::{PieceSet, Pieces};
use crate::disk::{DiskFile, read_full};
use crate::error::PieceError;
use ddr_oci::digest::Digest;
use ddr_oci::piece_chain::PieceChain;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// What became of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is here now.
    New,
    /// It was here before. The bytes were not looked at.
    Duplicate,
}

/// A claimed piece that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Which piece.
    pub index: usize,
    /// It is here. Else it counts as missing.
    pub is_present: bool,
}

#[derive(Debug)]
pub(super) struct Growing {
    digest: Digest,
    file: Arc<dyn DiskFile>,
    pieces: RwLock<Arc<Pieces>>,
    version: AtomicU64,
}

/// Reads the verified pieces of a partial blob, for clients and for peers. Clones are cheap; each
/// stays valid after the commit, and after the partial blob was thrown away.
#[derive(Debug, Clone)]
pub struct PartialReader(pub(super) Arc<Growing>);

impl Growing {
    pub(super) fn new(digest: Digest, file: Arc<dyn DiskFile>, pieces: Pieces) -> Self {
        let pieces = RwLock::new(Arc::new(pieces));
        Self { digest, file, pieces, version: AtomicU64::new(0) }
    }

    /// A panic of another holder leaves nothing half-done here.
    fn shared(&self) -> RwLockReadGuard<'_, Arc<Pieces>> {
        self.pieces.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(super) fn file(&self) -> &dyn DiskFile {
        self.file.as_ref()
    }

    /// The pieces under the chain of now.
    pub(super) fn pieces(&self) -> Arc<Pieces> {
        Arc::clone(&self.shared())
    }

    fn change(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// See [`super::PartialBlob::write_piece`].
    pub(super) fn write_piece(&self, index: usize, bytes: &[u8]) -> Result<Written, PieceError> {
        loop {
            let pieces = self.pieces();
            if pieces.is_present(index) {
                return Ok(Written::Duplicate);
            }
            let range = pieces.chain.piece_range(index).ok_or(PieceError::Wrong)?;
            if !pieces.chain.accepts(&self.digest, index, bytes) {
                return Err(PieceError::Wrong);
            }
            let shared = self.shared();
            if !Arc::ptr_eq(&shared, &pieces) {
                continue;
            }
            self.file.write_at(range.start, bytes)?;
            if !shared.insert(index) {
                return Ok(Written::Duplicate);
            }
            self.change();
            return Ok(Written::New);
        }
    }

    /// See [`super::PartialBlob::check_next`].
    pub(super) fn check_next(&self) -> io::Result<Option<Checked>> {
        loop {
            let pieces = self.pieces();
            let Some(index) = pieces.next_claimed() else { return Ok(None) };
            let range = pieces.chain.piece_range(index).unwrap_or_default();
            let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
            let mut bytes = vec![0; len];
            let read = read_full(self.file.as_ref(), range.start, &mut bytes);
            let is_right = read.as_ref().is_ok_and(|read| *read == len)
                && pieces.chain.accepts(&self.digest, index, &bytes);
            let shared = self.shared();
            if !Arc::ptr_eq(&shared, &pieces) {
                continue;
            }
            if is_right && shared.insert(index) {
                self.change();
            }
            shared.settle(index);
            read?;
            return Ok(Some(Checked { index, is_present: shared.is_present(index) }));
        }
    }

    /// See [`super::PartialBlob::rechain`].
    pub(super) fn rechain(&self, chain: PieceChain) {
        let mut pieces = self.pieces.write().unwrap_or_else(PoisonError::into_inner);
        if !pieces.is_complete() {
            let next = pieces.rechained(chain);
            *pieces = Arc::new(next);
            self.change();
        }
    }
}

impl PartialReader {
    /// The digest that the whole blob has.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        self.0.digest()
    }

    /// The chain that the pieces are verified against: a claim until the blob is complete.
    #[must_use]
    pub fn chain(&self) -> PieceChain {
        self.0.shared().chain.clone()
    }

    /// Size of the whole blob in bytes, as the chain says.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.shared().chain.size()
    }

    /// The pieces that can be read: 256 bytes at most.
    #[must_use]
    pub fn have(&self) -> PieceSet {
        self.0.shared().present()
    }

    /// Whether every piece is here, which proves the blob.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.shared().is_complete()
    }

    /// A number that every change of what can be read raises. The calls of
    /// [`super::PartialBlob`] that change it are the owner's, who wakes whoever waits.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// The end of the bytes that can be read from `offset` on without a gap: `offset` itself
    /// where there are none.
    #[must_use]
    pub fn readable_from(&self, offset: u64) -> u64 {
        self.0.shared().readable_from(offset, u64::MAX)
    }

    /// Reads at most `buffer.len()` bytes from `offset`, of verified pieces only; 0 means that
    /// there are none there yet, or that `offset` is at the end.
    ///
    /// # Errors
    /// What the disk says; `UnexpectedEof` where somebody cut the file.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // Held while reading: see the module comment.
        let pieces = self.0.shared();
        let most = offset.saturating_add(buffer.len() as u64);
        let n = usize::try_from(pieces.readable_from(offset, most) - offset).unwrap_or(usize::MAX);
        if n == 0 {
            return Ok(0);
        }
        match self.0.file.read_at(offset, &mut buffer[..n])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddr_oci::Algorithm;
    use std::sync::{OnceLock, Weak};

    /// A file in whose use no one may change the chain.
    #[derive(Debug, Default)]
    struct Guarded(OnceLock<Weak<Growing>>);

    impl Guarded {
        fn assert_chain_is_held(&self) {
            let growing = self.0.get().and_then(Weak::upgrade).unwrap();
            assert!(growing.pieces.try_write().is_err(), "the chain could be changed");
            assert!(growing.pieces.try_read().is_ok(), "others could not read or write");
        }
    }

    impl DiskFile for Guarded {
        fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<usize> {
            self.assert_chain_is_held();
            Ok(buffer.len())
        }
        fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
            self.assert_chain_is_held();
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_changes_the_chain_while_a_piece_is_written_or_read() {
        let bytes = [7; 100];
        let chain = PieceChain::of_one_piece(Algorithm::Sha256, 100).unwrap();
        let file = Arc::new(Guarded::default());
        let shared: Arc<dyn DiskFile> = Arc::<Guarded>::clone(&file);
        let growing = Growing::new(Digest::sha256(&bytes), shared, Pieces::new(chain));
        let growing = Arc::new(growing);
        file.0.set(Arc::downgrade(&growing)).unwrap();
        assert_eq!(growing.write_piece(0, &bytes).unwrap(), Written::New);
        assert_eq!(PartialReader(growing).read_at(0, &mut [0; 200]).unwrap(), 100);
    }
}
