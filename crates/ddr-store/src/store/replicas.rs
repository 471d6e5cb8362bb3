//! What the node keeps for its swarm, and the room that there is for more.

use super::Store;
use crate::disk::Space;
use crate::error::IndexError;
use crate::index::ReplicaRecord;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use std::io;

impl Store {
    /// Keeps a record of the parts (blobs and the manifest itself) that this node keeps for a manifest, in
    /// place of the one before, unless the repository has not got the manifest or one of the parts here;
    /// whether it did.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn keep_replica(
        &self,
        replica: &ReplicaRecord,
        kept: &[Digest],
    ) -> Result<bool, IndexError> {
        self.inner.index.keep_replica(replica, kept)
    }

    /// Forgets the record of a manifest; its content becomes a cache. Whether there was one.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn drop_replica(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<bool, IndexError> {
        self.inner.index.drop_replica(repository, manifest)
    }

    /// The record of a manifest.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn replica(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<Option<Vec<u8>>, IndexError> {
        self.inner.index.replica(repository, manifest)
    }

    /// At most `limit` records after the one of this manifest, in the order of (repository, manifest).
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn replicas(
        &self,
        after: Option<&(RepositoryName, Digest)>,
        limit: usize,
    ) -> Result<Vec<ReplicaRecord>, IndexError> {
        self.inner.index.replicas(after, limit)
    }

    /// Manifests of a repository for which a part is kept here, at most `limit`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn kept_for(
        &self,
        part: &Digest,
        repository: &RepositoryName,
        limit: usize,
    ) -> Result<Vec<Digest>, IndexError> {
        self.inner.index.kept_for(part, repository, limit)
    }

    /// Whether content is kept here for the swarm, in any repository.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn is_replica(&self, part: &Digest) -> Result<bool, IndexError> {
        self.inner.index.is_replica(part)
    }

    /// The room on the file system of the store.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn space(&self) -> io::Result<Space> {
        self.inner.disk.space(self.inner.layout.root())
    }
}
