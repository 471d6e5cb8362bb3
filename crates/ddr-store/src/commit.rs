//! How staged content becomes a blob, and how a blob ceases to be one.
//!
//! The order is the whole point. Coming: bytes durable, chain durable, names moved, directory
//! durable, then the row in the index; only the row makes it a blob. Going: the row first, then
//! the files. So at any instant a row stands for a whole and durable file, whatever crash comes.
//! A failed sync is never tried again: the system may have dropped the bytes and forgotten it.

use crate::disk::OpenMode;
use crate::error::{IndexError, UploadError};
use crate::staged::Staged;
use crate::store::{Inner, Store, lock, now_ms};
use ddr_oci::digest::{Algorithm, Digest};
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
    /// Makes staged content a blob and links it. The files at `source` are moved, except where
    /// the blob is here already: then they stay, for the caller to remove.
    pub(crate) fn commit(
        &self,
        staged: &Staged,
        source: &Source,
        digest: &Digest,
        repository: Option<&RepositoryName>,
    ) -> Result<Committed, CommitError> {
        let committed = Committed { digest: *digest, size: staged.len() };
        if !staged.is(digest).map_err(intact)? {
            return Err(lost(UploadError::DigestMismatch));
        }
        let here = self.look(digest).map_err(intact)?.is_some();
        if here && self.link_here(repository, digest).map_err(intact)? {
            return Ok(committed);
        }
        staged.finish().map_err(lost)?;
        let chain = self.stage_chain(staged, source, digest).map_err(intact)?;
        let _held = self.hold(digest);
        if self.look_and_heal(digest).map_err(intact)?.is_some() {
            self.link_here(repository, digest).map_err(intact)?;
            return Ok(committed);
        }
        self.place(source, chain, digest).map_err(|e| self.take_back(source, digest, e))?;
        match self.index.add_blob(digest, committed.size, repository) {
            Ok(()) => Ok(committed),
            Err(error) => Err(self.take_back(source, digest, error.into())),
        }
    }

    /// Links a blob that was seen here; false if it was deleted meanwhile.
    fn link_here(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<bool, IndexError> {
        repository.map_or(Ok(true), |repository| self.index.link_present(repository, digest))
    }

    /// Writes the piece chain beside the staged content, durable; whether there is one.
    fn stage_chain(&self, staged: &Staged, source: &Source, digest: &Digest) -> io::Result<bool> {
        if digest.algorithm() != Algorithm::Sha256 {
            return Ok(false);
        }
        let (_, chain) = staged.hasher().clone().finish();
        if chain.pieces() == 1 {
            return Ok(false);
        }
        self.write_chain(&source.chain, &chain)?;
        Ok(true)
    }

    /// Writes a chain file, durable: the chain, then the SHA-256 of its bytes.
    pub(crate) fn write_chain(&self, path: &Path, chain: &PieceChain) -> io::Result<()> {
        let mut bytes = chain.to_bytes();
        let check = Digest::sha256(&bytes);
        bytes.extend_from_slice(check.as_bytes());
        let file = self.disk.open(path, OpenMode::Write)?;
        file.set_len(0)?;
        file.write_at(0, &bytes)?;
        file.sync()
    }

    /// Moves the files to where blobs are and makes their names durable.
    fn place(&self, source: &Source, chain: bool, digest: &Digest) -> Result<(), UploadError> {
        let shard = self.layout.shard_dir(digest);
        self.make_durable_dir(&shard)?;
        if chain {
            self.disk.rename(&source.chain, &self.layout.chain(digest))?;
        }
        self.disk.rename(&source.data, &self.layout.blob(digest))?;
        self.disk.sync_dir(&shard)?;
        Ok(())
    }

    /// Undoes [`Inner::place`] as far as it came, so that the session can go on.
    fn take_back(&self, source: &Source, digest: &Digest, error: UploadError) -> CommitError {
        let chain = self.layout.chain(digest);
        if let Err(error) = self.remove_if_there(&chain) {
            tracing::warn!(%error, path = %chain.display(), "a chain file was left behind");
        }
        match self.disk.rename(&self.layout.blob(digest), &source.data) {
            Ok(()) => CommitError::Intact(error),
            // It never left.
            Err(e) if e.kind() == io::ErrorKind::NotFound => CommitError::Intact(error),
            Err(_) => CommitError::Lost(error),
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
