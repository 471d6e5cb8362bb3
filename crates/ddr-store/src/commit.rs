//! How staged content becomes a blob, and how a blob ceases to be one.
//!
//! The order is the whole point. Coming: bytes durable, names moved, directory durable, then the row in the index; only the row makes it a blob. Going: the row first, then
//! the files. So at any instant a row stands for a whole and durable file, whatever crash comes.
//!
//! A blob that is here already is hashed before the proven copy is thrown away. If its bits have
//! flipped, it goes as every damaged blob goes (the row, then the file, to quarantine), and the
//! copy comes as every new blob comes. So healing adds no state that a crash could leave: between
//! the two halves the blob is absent, which is better than wrong. Hashing costs reads; replacing
//! the file each time would cost syncs for every layer that is pushed again, and would leave a
//! row over a file whose name is not durable yet.
//!
//! A failed sync is never tried again: the system may have dropped the bytes and forgotten it.

use crate::disk::{DiskFile, OpenMode};
use crate::error::{IndexError, UploadError};
use crate::index::Removed;
use crate::staged::Staged;
use crate::store::{Inner, Store, lock, now_ms};
use ddr_oci::digest::Digest;
use ddr_oci::piece_chain::PieceChain;
use ddr_oci::reference::RepositoryName;
use std::io;
use std::path::{Path, PathBuf};

/// What a commit stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The digest that the content was proven to have.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Content whose digest is proven. Nobody writes to it any more.
pub(crate) struct Proven<'a> {
    pub(crate) digest: &'a Digest,
    /// May be longer than the content: what a failed append left, or a false chain.
    pub(crate) file: &'a dyn DiskFile,
    /// Of the same digest, and so of the content's size.
    pub(crate) chain: &'a PieceChain,
}

impl Proven<'_> {
    /// Makes the file durable, with exactly the bytes that were proven.
    fn finish(&self) -> io::Result<()> {
        if self.file.len()? != self.chain.size() {
            self.file.set_len(self.chain.size())?;
        }
        self.file.sync()
    }
}

/// Where staged content lies.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) data: PathBuf,
    pub(crate) chain: PathBuf,
}

/// Why a commit failed, and whether the staged content may be used again.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// It may.
    Intact(UploadError),
    /// It must be thrown away.
    Lost(UploadError),
}

fn intact(error: impl Into<UploadError>) -> CommitError {
    CommitError::Intact(error.into())
}

fn lost(error: impl Into<UploadError>) -> CommitError {
    CommitError::Lost(error.into())
}

impl Inner {
    /// Makes staged content a blob, if it has the digest; as [`Inner::commit_proven`].
    pub(crate) fn commit(
        &self,
        staged: &Staged,
        source: &Source,
        digest: &Digest,
        repository: Option<&RepositoryName>,
    ) -> Result<Committed, CommitError> {
        if !staged.is(digest).map_err(intact)? {
            return Err(lost(UploadError::DigestMismatch));
        }
        let (file, chain) = (staged.file().as_ref(), &staged.hashing().chain());
        self.commit_proven(&Proven { digest, file, chain }, source, repository)
    }

    /// Makes proven content a blob and links it. The files at `source` are moved, except where
    /// the blob is here already and sound: then they stay, for the caller to remove.
    pub(crate) fn commit_proven(
        &self,
        proven: &Proven<'_>,
        source: &Source,
        repository: Option<&RepositoryName>,
    ) -> Result<Committed, CommitError> {
        let digest = proven.digest;
        let committed = Committed { digest: *digest, size: proven.chain.size() };
        let here = self.look(digest).map_err(intact)?;
        let rotten = here.as_ref().is_some_and(|blob| !blob.is_sound(digest));
        if here.is_some() && !rotten && self.link_here(repository, digest).map_err(intact)? {
            return Ok(committed);
        }
        proven.finish().map_err(lost)?;
        let has_chain = proven.chain.pieces() > 1;
        if has_chain {
            self.write_chain(&source.chain, proven.chain).map_err(intact)?;
        }
        let _held = self.hold(digest);
        if let Some(blob) = self.look_and_heal(digest).map_err(intact)? {
            // Hashed again, for another may have healed it. What came since the first look was
            // proven by its own commit.
            if !rotten || blob.is_sound(digest) {
                self.link_here(repository, digest).map_err(intact)?;
                return Ok(committed);
            }
            self.put_aside_blob(digest, "its bytes do not have its digest").map_err(intact)?;
        }
        self.place(source, has_chain, digest).map_err(|e| self.leave(digest, e))?;
        self.enter(digest, committed.size, repository)
            .map_err(|e| self.take_back(source, digest, e))?;
        Ok(committed)
    }

    /// Links a blob that was seen here; false if it was deleted meanwhile.
    fn link_here(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<bool, IndexError> {
        repository.map_or(Ok(true), |repository| self.index.link_present(repository, digest))
    }

    /// Writes a chain file: the chain, then the SHA-256 of its bytes. It is not synced: one that
    /// a power cut damages is noticed and computed again.
    pub(crate) fn write_chain(&self, path: &Path, chain: &PieceChain) -> io::Result<()> {
        let mut bytes = chain.to_bytes();
        let check = Digest::sha256(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        let file = self.disk.open(path, OpenMode::Write)?;
        file.set_len(0)?;
        file.write_at(0, &bytes)
    }

    /// Moves the files to where blobs are, the data last.
    fn place(&self, source: &Source, chain: bool, digest: &Digest) -> io::Result<()> {
        self.make_durable_dir(&self.layout.shard_dir(digest))?;
        if chain {
            self.disk.rename(&source.chain, &self.layout.chain(digest))?;
        }
        self.disk.rename(&source.data, &self.layout.blob(digest))
    }

    /// Makes the names durable, then writes the row.
    fn enter(
        &self,
        digest: &Digest,
        size: u64,
        repository: Option<&RepositoryName>,
    ) -> Result<(), UploadError> {
        self.disk.sync_dir(&self.layout.shard_dir(digest))?;
        Ok(self.index.add_blob(digest, size, repository)?)
    }

    /// Undoes [`Inner::place`] where it failed: the data has not moved. What stands at its place
    /// then is a damaged file that could not be put aside, so it must not be taken back.
    fn leave(&self, digest: &Digest, error: io::Error) -> CommitError {
        self.drop_chain(digest);
        intact(error)
    }

    /// Undoes a whole [`Inner::place`], so that the session can go on.
    fn take_back(&self, source: &Source, digest: &Digest, error: UploadError) -> CommitError {
        self.drop_chain(digest);
        match self.disk.rename(&self.layout.blob(digest), &source.data) {
            Ok(()) => CommitError::Intact(error),
            Err(_) => CommitError::Lost(error),
        }
    }

    fn drop_chain(&self, digest: &Digest) {
        let chain = self.layout.chain(digest);
        if let Err(error) = self.remove_if_there(&chain) {
            tracing::warn!(%error, path = %chain.display(), "a chain file was left behind");
        }
    }

    fn make_durable_dir(&self, shard: &Path) -> io::Result<()> {
        if lock(&self.durable_dirs).contains(shard) {
            return Ok(());
        }
        self.disk.create_dir(shard)?;
        if let Some(parent) = shard.parent() {
            self.disk.sync_dir(parent)?;
        }
        lock(&self.durable_dirs).insert(shard.to_owned());
        Ok(())
    }

    /// Removes the files of a blob that the index has given up. What fails here is done when
    /// the store is opened next, for the digest is recorded as doomed.
    pub(crate) fn remove_blob_files(&self, digest: &Digest) -> io::Result<()> {
        self.remove_if_there(&self.layout.blob(digest))?;
        self.remove_if_there(&self.layout.chain(digest))
    }

    /// The same for many; how many failed. The caller holds their digests.
    pub(crate) fn remove_files_of(&self, removed: &Removed) -> u64 {
        let mut left = 0;
        for (digest, _) in &removed.blobs {
            if let Err(error) = self.remove_blob_files(digest) {
                tracing::warn!(%error, %digest, "a removed blob's files go at the next start");
                left += 1;
            }
        }
        left
    }

    pub(crate) fn remove_if_there(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl Store {
    /// Takes a blob from a repository; whether it had it. The file goes when no repository links
    /// it and no lease holds it; who has it open reads on.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, IndexError> {
        let inner = &self.inner;
        let _held = inner.hold(digest);
        let unlinked = inner.index.unlink(repository, digest, now_ms())?;
        if unlinked.remove_file
            && let Err(error) = inner.remove_blob_files(digest)
        {
            tracing::warn!(%error, blob = digest.short(), "a deleted blob goes at the next start");
        }
        Ok(unlinked.was_linked)
    }
}
