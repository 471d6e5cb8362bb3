//! What is done to the data directory at start: every file is accounted for.
//!
//! Decides by one table. A blob file with a row of its size: kept. Of another size: put aside,
//! row removed. Without a row: hashed; kept if it has its digest (a crash between rename and
//! row), else put aside; removed if the digest is doomed (a crash in a deletion). A row without
//! a file: removed, with a warning. Fetches: removed. Partial blobs: taken up, or removed if they
//! are old or damaged. Upload sessions: taken up, or removed if
//! they are incomplete. Anything else inside the directories of the store: put aside. Must
//! never delete what it cannot name, and never guess a row from a file that it has not hashed.

use crate::blob::chain_owner;
use crate::disk::{Entry, EntryKind, OpenMode};
use crate::error::{IndexError, OpenError};
use crate::layout::{ALGORITHMS, FETCH, RandomId, UPLOADS, digest_of_file, is_shard};
use crate::open::unusable;
use crate::staged::digest_of;
use crate::store::{Inner, lock};
use ddr_oci::digest::{Algorithm, Digest};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// What the index says, and what has been found of it.
struct Census {
    rows: BTreeMap<Digest, u64>,
    doomed: BTreeSet<Digest>,
    found: BTreeSet<Digest>,
}

impl Inner {
    /// Cleans up after an earlier process.
    pub(crate) fn recover(&self) -> Result<(), OpenError> {
        self.recover_fetches()?;
        self.recover_uploads()?;
        self.recover_blobs()?;
        self.recover_partials()
    }

    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<Entry>, OpenError> {
        self.disk.list(dir).map_err(unusable(dir))
    }

    fn recover_fetches(&self) -> Result<(), OpenError> {
        for entry in self.list(&self.layout.top(FETCH))? {
            let id = chain_owner(&entry.name).unwrap_or(&entry.name);
            let ours = entry.kind == EntryKind::File && RandomId::parse(id).is_some();
            let done =
                if ours { self.disk.remove(&entry.path) } else { self.put_aside(&entry.path) };
            done.map_err(unusable(entry.path))?;
        }
        Ok(())
    }

    fn recover_uploads(&self) -> Result<(), OpenError> {
        for entry in self.list(&self.layout.top(UPLOADS))? {
            let id = RandomId::parse(&entry.name).filter(|_| entry.kind == EntryKind::Directory);
            let done = match id {
                Some(id) => self.adopt_upload(&id),
                None => self.put_aside(&entry.path),
            };
            done.map_err(unusable(entry.path))?;
        }
        Ok(())
    }

    fn recover_blobs(&self) -> Result<(), OpenError> {
        let mut census = self.census().map_err(|e| self.index_unusable(e))?;
        for algorithm in ALGORITHMS {
            let dir = self.layout.algorithm_dir(algorithm);
            // The process before may have died before it did this itself.
            self.disk.sync_dir(&dir).map_err(unusable(&dir))?;
            for shard in self.list(&dir)? {
                if shard.kind == EntryKind::Directory && is_shard(&shard.name) {
                    self.recover_shard(algorithm, &shard, &mut census)?;
                } else {
                    self.put_aside(&shard.path).map_err(unusable(shard.path))?;
                }
            }
        }
        self.settle(&census).map_err(|e| self.index_unusable(e))
    }

    fn census(&self) -> Result<Census, IndexError> {
        let rows = self.index.blobs()?.into_iter().collect();
        let doomed = self.index.doomed()?.into_iter().collect();
        Ok(Census { rows, doomed, found: BTreeSet::new() })
    }

    fn index_unusable(&self, error: IndexError) -> OpenError {
        let path = self.layout.top(crate::layout::INDEX);
        match error {
            IndexError::Damaged(reason) => OpenError::IndexDamaged { path, reason },
            other => unusable(path)(other.into()),
        }
    }

    fn recover_shard(
        &self,
        algorithm: Algorithm,
        shard: &Entry,
        census: &mut Census,
    ) -> Result<(), OpenError> {
        let (chains, blobs) = self
            .list(&shard.path)?
            .into_iter()
            .partition::<Vec<_>, _>(|entry| chain_owner(&entry.name).is_some());
        for entry in blobs {
            let digest = digest_of_file(algorithm, &shard.name, &entry.name)
                .filter(|_| entry.kind == EntryKind::File);
            let done = match digest {
                Some(digest) => self.recover_blob(&digest, &entry, census),
                None => self.put_aside(&entry.path),
            };
            done.map_err(unusable(entry.path))?;
        }
        for entry in chains {
            let digest = chain_owner(&entry.name)
                .and_then(|name| digest_of_file(algorithm, &shard.name, name))
                .filter(|_| entry.kind == EntryKind::File);
            let done = match digest {
                Some(digest) if census.found.contains(&digest) => Ok(()),
                Some(_) => self.disk.remove(&entry.path),
                None => self.put_aside(&entry.path),
            };
            done.map_err(unusable(entry.path))?;
        }
        // A removal must be durable before `settle` forgets that it was due.
        let doomed_here = |digest: &Digest| self.layout.shard_dir(digest) == shard.path;
        if census.doomed.iter().any(doomed_here) {
            self.disk.sync_dir(&shard.path).map_err(unusable(&shard.path))?;
        }
        lock(&self.durable_dirs).insert(shard.path.clone());
        Ok(())
    }

    fn recover_blob(&self, digest: &Digest, entry: &Entry, census: &mut Census) -> io::Result<()> {
        match census.rows.get(digest) {
            Some(size) if *size == entry.len => {
                census.found.insert(*digest);
                Ok(())
            }
            Some(size) => {
                let found = entry.len;
                tracing::warn!(%digest, size, found, "a blob file has the wrong size");
                self.put_aside(&entry.path)
            }
            None if census.doomed.contains(digest) => self.disk.remove(&entry.path),
            None => self.adopt_blob(digest, entry, census),
        }
    }

    /// A file without a row: a commit was cut off after its rename, or someone put it there.
    fn adopt_blob(&self, digest: &Digest, entry: &Entry, census: &mut Census) -> io::Result<()> {
        let file = self.disk.open(&entry.path, OpenMode::Write)?;
        let (found, size) = digest_of(file.as_ref(), digest.algorithm())?;
        if found != *digest {
            tracing::warn!(%digest, "a blob file does not have its digest");
            return self.put_aside(&entry.path);
        }
        file.sync()?;
        if let Some(shard) = entry.path.parent() {
            self.disk.sync_dir(shard)?;
        }
        match self.index.add_blob(digest, size, None) {
            Ok(()) => {
                tracing::info!(%digest, size, "a blob of an unfinished commit was taken up");
                census.found.insert(*digest);
                Ok(())
            }
            Err(error) => {
                // Not fatal: without a row it is not served, and the next start tries again.
                tracing::warn!(%digest, %error, "a blob of an unfinished commit is left alone");
                Ok(())
            }
        }
    }

    /// Removes the rows without files, and the notes about deletions, which are done now.
    fn settle(&self, census: &Census) -> Result<(), IndexError> {
        let missing = census.rows.keys().filter(|digest| !census.found.contains(*digest));
        let missing = missing.copied().collect::<Vec<_>>();
        if !missing.is_empty() {
            for digest in &missing {
                tracing::warn!(%digest, "a blob has no whole file any more; it counts as absent");
            }
            self.index.forget_blobs(&missing)?;
        }
        if !census.doomed.is_empty() {
            self.index.clear_doomed()?;
        }
        Ok(())
    }
}
