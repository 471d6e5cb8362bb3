//! Reading blobs, and noticing those that are damaged.
//!
//! Decides that a blob is its row and a file of exactly the size in the row. A file that is not
//! goes to `quarantine/`, its row goes too, and the blob counts as absent. Must never hand out a
//! reader on anything else.

mod cached;

use crate::disk::{DiskFile, OpenMode, read_full};
use crate::layout::{CHAIN_SUFFIX, RandomId};
use crate::staged::{digest_of, read_all};
use crate::store::{Inner, Store};
use ddr_oci::digest::Digest;
use ddr_oci::piece_chain::{ChainHasher, MAX_CHAIN_BYTES, PieceChain};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Bytes of the SHA-256 that ends a chain file.
const CHECK_BYTES: usize = 32;

/// A whole blob, open. It stays readable after the blob is deleted.
#[derive(Debug, Clone)]
pub struct BlobReader {
    file: Arc<dyn DiskFile>,
    size: u64,
}

impl BlobReader {
    pub(crate) fn new(file: Arc<dyn DiskFile>, size: u64) -> Self {
        Self { file, size }
    }

    /// Bytes in the blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads at most `buffer.len()` bytes from `offset`; 0 means the end.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    /// Whether the bytes have this digest: reads all of them. What cannot be read is not sound.
    pub(crate) fn is_sound(&self, digest: &Digest) -> bool {
        match digest_of(self.file.as_ref(), digest.algorithm()) {
            Ok((found, _)) => found == *digest,
            Err(error) => {
                tracing::warn!(%error, %digest, "a blob cannot be read");
                false
            }
        }
    }
}

/// What stands at the place of a blob.
pub(crate) enum Place {
    /// No row.
    Absent,
    Whole(BlobReader),
    /// A row, and no file of that size.
    Damaged,
}

impl Inner {
    pub(crate) fn place_of(&self, digest: &Digest) -> io::Result<Place> {
        let Some(size) = self.index.blob_size(digest)? else { return Ok(Place::Absent) };
        let file = match self.disk.open(&self.layout.blob(digest), OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Place::Damaged),
            Err(e) => return Err(e),
        };
        if file.len()? == size {
            Ok(Place::Whole(BlobReader { file, size }))
        } else {
            Ok(Place::Damaged)
        }
    }

    /// The blob, if it is whole.
    pub(crate) fn look(&self, digest: &Digest) -> io::Result<Option<BlobReader>> {
        match self.place_of(digest)? {
            Place::Whole(reader) => Ok(Some(reader)),
            Place::Absent | Place::Damaged => Ok(None),
        }
    }

    /// As [`Inner::look`], and puts a damaged one aside. The caller holds the digest.
    pub(crate) fn look_and_heal(&self, digest: &Digest) -> io::Result<Option<BlobReader>> {
        match self.place_of(digest)? {
            Place::Whole(reader) => Ok(Some(reader)),
            Place::Absent => Ok(None),
            Place::Damaged => {
                self.put_aside_blob(digest, "its file is not the one that was committed")?;
                Ok(None)
            }
        }
    }

    /// Forgets a damaged blob and moves its files out of the way. The caller holds the digest.
    pub(crate) fn put_aside_blob(&self, digest: &Digest, reason: &str) -> io::Result<()> {
        tracing::warn!(%digest, reason, "a damaged blob is put aside; it counts as absent");
        self.index.forget_blobs(&[*digest])?;
        self.put_aside(&self.layout.blob(digest))?;
        self.remove_if_there(&self.layout.chain(digest))
    }

    /// Moves a file or directory into `quarantine/`, where nothing is ever served from. It may
    /// be missing.
    pub(crate) fn put_aside(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let to = self.layout.quarantined(&RandomId::generate()?, &name);
        match self.disk.rename(path, &to) {
            Ok(()) => {
                tracing::warn!(from = %path.display(), to = %to.display(), "put aside");
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The chain in a chain file; `None` where there is no file or no such chain in it.
    pub(crate) fn read_chain(&self, digest: &Digest, size: u64) -> io::Result<Option<PieceChain>> {
        let file = match self.disk.open(&self.layout.chain(digest), OpenMode::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut bytes = vec![0; MAX_CHAIN_BYTES + CHECK_BYTES + 1];
        let len = read_full(file.as_ref(), 0, &mut bytes)?;
        let chain = parse_chain(&bytes[..len])
            .filter(|chain| chain.size() == size && chain.algorithm() == digest.algorithm());
        if chain.is_none() {
            // A power cut does this: chains are not synced. Nothing is lost with it.
            tracing::info!(%digest, "a damaged piece chain is removed and computed again");
            self.remove_if_there(&self.layout.chain(digest))?;
        }
        Ok(chain)
    }

    /// Computes the chain of a blob from its bytes, which proves the blob on the way.
    fn rebuild_chain(
        &self,
        digest: &Digest,
        reader: &BlobReader,
    ) -> io::Result<Option<PieceChain>> {
        let mut hasher = ChainHasher::new(digest.algorithm());
        read_all(reader.file.as_ref(), |bytes| hasher.update(bytes))?;
        let (found, chain) = hasher.finish();
        if found != *digest {
            // The file may have been replaced since it was opened: it is read again, alone.
            self.put_aside_if_rotten(digest)?;
            return Ok(None);
        }
        let _held = self.hold(digest);
        if chain.pieces() > 1
            && let Err(error) = self.keep_chain(digest, &chain)
        {
            tracing::warn!(%error, %digest, "a piece chain was not kept");
        }
        Ok(Some(chain))
    }

    pub(crate) fn keep_chain(&self, digest: &Digest, chain: &PieceChain) -> io::Result<()> {
        if self.look(digest)?.is_none() {
            return Ok(());
        }
        let staged = self.layout.fetch_chain(&RandomId::generate()?);
        let kept = self
            .write_chain(&staged, chain)
            .and_then(|()| self.disk.rename(&staged, &self.layout.chain(digest)));
        if kept.is_err() {
            self.remove_if_there(&staged)?;
        }
        kept
    }
}

fn parse_chain(bytes: &[u8]) -> Option<PieceChain> {
    let (chain, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
    if Digest::sha256(chain).as_bytes() != check {
        return None;
    }
    PieceChain::from_bytes(chain).ok()
}

impl Store {
    /// A blob, whoever may read it (ask [`Store::is_linked`]); `None` if it is not here whole.
    ///
    /// # Errors
    /// What the disk or the index says.
    pub fn blob(&self, digest: &Digest) -> io::Result<Option<BlobReader>> {
        let inner = &self.inner;
        match inner.place_of(digest)? {
            Place::Whole(reader) => return Ok(Some(reader)),
            Place::Absent => {}
            Place::Damaged => {
                // Or just being deleted: look again when that is over.
                let _held = inner.hold(digest);
                if let Some(reader) = inner.look_and_heal(digest)? {
                    return Ok(Some(reader));
                }
            }
        }
        inner.look_outside(digest)
    }

    /// Bytes in a blob; `None` if it is not here whole. Of one outside as it was when it was read last.
    ///
    /// # Errors
    /// What the disk or the index says.
    pub fn blob_size(&self, digest: &Digest) -> io::Result<Option<u64>> {
        if let Some(row) = self.inner.only_outside(digest)? {
            return Ok(Some(row.blob.size));
        }
        Ok(self.blob(digest)?.map(|reader| reader.size))
    }

    /// All blobs and their sizes, in the order of digests.
    ///
    /// # Errors
    /// What the index says.
    pub fn blobs(&self) -> io::Result<Vec<(Digest, u64)>> {
        Ok(self.inner.index.blobs()?)
    }

    /// The piece chain of a blob; `None` if the blob is not here. A blob of one piece has no
    /// chain file, and a damaged file is removed: then the chain is computed from the bytes.
    ///
    /// # Errors
    /// What the disk or the index says.
    pub fn piece_chain(&self, digest: &Digest) -> io::Result<Option<PieceChain>> {
        if let Some(row) = self.inner.only_outside(digest)? {
            return Ok(PieceChain::from_bytes(&row.chain).ok());
        }
        let Some(reader) = self.blob(digest)? else { return Ok(None) };
        if let Some(chain) = self.inner.read_chain(digest, reader.size)? {
            return Ok(Some(chain));
        }
        self.inner.rebuild_chain(digest, &reader)
    }
}

/// The name of the blob that a chain file belongs to.
pub(crate) fn chain_owner(name: &str) -> Option<&str> {
    name.strip_suffix(CHAIN_SUFFIX)
}
