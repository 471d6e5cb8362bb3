//! Files against the tables: what lies under `blobs/` and in quarantine.
//!
//! Decides that an unknown file is reported and left: the next start hashes it, and takes it up or
//! puts it aside. A file of a deleted blob goes now.

use super::{Verify, VerifyPhase, VerifyStep, list};
use crate::blob::chain_owner;
use crate::disk::{Entry, EntryKind, OpenMode};
use crate::layout::{ALGORITHMS, QUARANTINE, RandomId, digest_of_file};
use crate::store::Inner;
use ddr_oci::digest::{Algorithm, Digest};
use std::io;
use std::path::Path;

/// Shard directories of one algorithm.
const SHARDS: usize = 256;

impl Verify {
    /// One shard directory; at the end the quarantine and what the tables say in sum.
    pub(super) fn files(&mut self) -> io::Result<VerifyStep> {
        let Some(algorithm) = ALGORITHMS.get(self.shard / SHARDS).copied() else {
            return self.sums();
        };
        let shard = format!("{:02x}", self.shard % SHARDS);
        self.shard += 1;
        let dir = self.store.inner.layout.algorithm_dir(algorithm).join(&shard);
        let entries = match self.store.inner.disk.list(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        for entry in entries {
            if !self.store.inner.is_known(algorithm, &shard, &entry)? {
                self.report.unknown_files += 1;
                list(&mut self.report.unknown, entry.path.display().to_string());
            }
        }
        Ok(VerifyStep::default())
    }

    fn sums(&mut self) -> io::Result<VerifyStep> {
        let inner = &self.store.inner;
        for entry in inner.disk.list(&inner.layout.top(QUARANTINE))? {
            self.report.quarantined_files += 1;
            self.report.quarantined_bytes += entry.len;
        }
        (self.report.orphans, self.report.orphan_bytes) = inner.index.orphans()?;
        self.report.lost = inner.index.lost(super::MAX_LISTED)?;
        Ok(self.enter(VerifyPhase::Done))
    }
}

impl Inner {
    /// Whether a file in a shard directory belongs to a blob. That of a deleted one is removed.
    fn is_known(&self, algorithm: Algorithm, shard: &str, entry: &Entry) -> io::Result<bool> {
        let name = chain_owner(&entry.name).unwrap_or(&entry.name);
        let digest = digest_of_file(algorithm, shard, name);
        let Some(digest) = digest.filter(|_| entry.kind == EntryKind::File) else {
            return Ok(false);
        };
        if self.index.blob_size(&digest)?.is_some() {
            return Ok(true);
        }
        // It may be on its way in or out, which happens under this lock.
        let _held = self.hold(&digest);
        if self.index.blob_size(&digest)?.is_some() || !self.is_file(&entry.path)? {
            return Ok(true);
        }
        if self.index.is_doomed(&digest)? {
            self.remove_if_there(&entry.path)?;
            return Ok(true);
        }
        Ok(false)
    }

    pub(super) fn is_file(&self, path: &Path) -> io::Result<bool> {
        match self.disk.open(path, OpenMode::Read) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Keeps damaged bytes for whoever looks into the quarantine. That they are kept is a favour:
    /// a full disk must not stop the run.
    pub(super) fn quarantine_bytes(&self, digest: &Digest, bytes: &[u8]) {
        let write = || {
            let path = self.layout.quarantined(&RandomId::generate()?, &digest.hex());
            let file = self.disk.open(&path, OpenMode::CreateNew)?;
            file.write_at(0, bytes)?;
            file.sync()
        };
        tracing::warn!(%digest, "the bytes of a manifest do not have its digest; put aside");
        if let Err(error) = write() {
            tracing::warn!(%error, %digest, "the damaged bytes of a manifest were not kept");
        }
    }
}
