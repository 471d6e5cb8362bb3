//! Whether the store still is what it was: every byte against its digest, every table against the
//! others, every file against the tables. A bounded step at a time.
//!
//! Decides that a blob or manifest that is not its digest goes to quarantine and counts as absent
//! from then on (its links stay, so that it can come back from a peer), that chains and derived
//! rows are put right, and that everything else is reported. Must never delete content, and never
//! take one failed read for damage.

mod blobs;
mod files;

use crate::error::IndexError;
use crate::index::{AuditTable, Cursor};
use crate::store::Store;
use blobs::Reading;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use std::io;

/// Digests, links or files of one kind that a report lists; beyond, it only counts.
pub const MAX_LISTED: usize = 1000;
/// ENFILE and EMFILE: they say nothing about a file.
const NO_DESCRIPTORS: [i32; 2] = [23, 24];

/// What a run looks at.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyOptions {
    /// Sizes, chains and tables, but not the bytes of blobs.
    pub fast: bool,
    /// Blobs after this one only: where an earlier run stopped.
    pub after: Option<Digest>,
}

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyPhase {
    /// Blobs and their chains.
    #[default]
    Blobs,
    /// The bytes of manifests.
    Manifests,
    /// The tables of the index.
    Tables,
    /// Files that no table knows.
    Files,
    /// The end.
    Done,
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct VerifyReport {
    /// True if the bytes of blobs were not read.
    pub fast: bool,
    /// Blobs looked at.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Manifests looked at, by repository.
    pub manifests: u64,
    /// Blobs and manifests that were damaged and are in quarantine now.
    pub corrupt: u64,
    /// The first [`MAX_LISTED`] of them.
    pub corrupt_digests: Vec<Digest>,
    /// Blobs whose files could not be opened, and that may be sound.
    pub unreadable: u64,
    /// The first [`MAX_LISTED`] of them.
    pub unreadable_digests: Vec<Digest>,
    /// Piece chains that were written again.
    pub chains_repaired: u64,
    /// Derived rows of the index that were put right.
    pub rows_repaired: u64,
    /// Links whose content is not here.
    pub links_without_content: u64,
    /// The first [`MAX_LISTED`] of them.
    pub dangling: Vec<(RepositoryName, Digest)>,
    /// Manifests that a repository has and whose bytes are missing.
    pub manifests_without_bytes: u64,
    /// The first [`MAX_LISTED`] of them.
    pub manifests_missing: Vec<(RepositoryName, Digest)>,
    /// Blobs that nobody links or leases.
    pub orphans: u64,
    /// Bytes of these.
    pub orphan_bytes: u64,
    /// Files under `blobs/` that no table knows. They are looked at again at the next start.
    pub unknown_files: u64,
    /// The first [`MAX_LISTED`] of them, as paths.
    pub unknown: Vec<String>,
    /// Files in quarantine, old ones included.
    pub quarantined_files: u64,
    /// Bytes of these.
    pub quarantined_bytes: u64,
    /// Linked blobs that were damaged or missing, now or earlier, and are not back.
    pub lost: Vec<Digest>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyStep {
    /// Nothing is left to do.
    pub done: bool,
    /// Bytes that it read, to pace the run by.
    pub bytes: u64,
}

/// A run; see the module comment.
#[derive(Debug)]
pub struct Verify {
    store: Store,
    options: VerifyOptions,
    phase: VerifyPhase,
    cursor: Option<Cursor>,
    reading: Option<Reading>,
    table: usize,
    shard: usize,
    report: VerifyReport,
}

impl Store {
    /// Begins to check the store. Nothing happens before [`Verify::step`].
    pub fn verify(&self, options: VerifyOptions) -> Verify {
        Verify {
            store: self.clone(),
            options,
            phase: VerifyPhase::Blobs,
            cursor: options.after.as_ref().map(crate::index::Index::cursor_after),
            reading: None,
            table: 0,
            shard: 0,
            report: VerifyReport { fast: options.fast, ..VerifyReport::default() },
        }
    }

    /// Linked blobs that were damaged or missing and are not back, at most `limit`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lost(&self, limit: usize) -> Result<Vec<Digest>, IndexError> {
        self.inner.index.lost(limit)
    }

    /// Repositories that link a digest, at most `limit`, in byte order.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn linking(
        &self,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, IndexError> {
        self.inner.index.linking(digest, limit)
    }
}

impl Store {
    /// Links after `last` whose content is not here, at most `limit`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn links_without_content(
        &self,
        last: Option<(RepositoryName, Digest)>,
        limit: usize,
    ) -> Result<Vec<(RepositoryName, Digest)>, IndexError> {
        let mut cursor = last.map(|(name, digest)| {
            let (_, key) = crate::index::Index::cursor_after(&digest);
            (name.to_string(), key)
        });
        let mut found = Vec::new();
        loop {
            let page = self.inner.index.audit(AuditTable::Links, cursor.as_ref())?;
            found.extend(page.dangling);
            if found.len() >= limit || page.next.is_none() {
                found.truncate(limit);
                return Ok(found);
            }
            cursor = page.next;
        }
    }
}

impl Verify {
    /// What it is at.
    pub fn phase(&self) -> VerifyPhase {
        self.phase
    }

    /// What it has found so far.
    pub fn report(&self) -> &VerifyReport {
        &self.report
    }

    /// Blobs looked at, and blobs in all, roughly.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn progress(&self) -> Result<(u64, u64), IndexError> {
        let (blobs, _) = self.store.inner.index.counts()?;
        Ok((self.report.blobs, blobs.max(self.report.blobs)))
    }

    /// The last blob that was looked at, for a run that goes on here later; `None` once all were.
    pub fn reached(&self) -> Option<Digest> {
        let cursor = self.cursor.as_ref().filter(|_| self.phase == VerifyPhase::Blobs)?;
        crate::index::Index::digest_of_key(&cursor.1).ok()
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// What the disk or the index says.
    pub fn run(mut self) -> io::Result<VerifyReport> {
        while !self.step()?.done {}
        Ok(self.report)
    }

    /// Does a bounded part of the work: reads at most 1 MiB of a blob, or a page of rows, or one
    /// directory.
    ///
    /// # Errors
    /// What the disk or the index says. The same step may be tried again.
    pub fn step(&mut self) -> io::Result<VerifyStep> {
        match self.phase {
            VerifyPhase::Blobs => self.blobs(),
            VerifyPhase::Manifests => self.manifests(),
            VerifyPhase::Tables => self.tables(),
            VerifyPhase::Files => self.files(),
            VerifyPhase::Done => Ok(VerifyStep { done: true, bytes: 0 }),
        }
    }

    fn enter(&mut self, phase: VerifyPhase) -> VerifyStep {
        (self.phase, self.cursor) = (phase, None);
        VerifyStep { done: phase == VerifyPhase::Done, bytes: 0 }
    }

    fn corrupt(&mut self, digest: &Digest) {
        self.report.corrupt += 1;
        list(&mut self.report.corrupt_digests, *digest);
    }

    /// Notes a blob that cannot be read, if `error` is about its file alone.
    fn unreadable(&mut self, digest: &Digest, error: io::Error) -> io::Result<()> {
        let is_of_file = match error.raw_os_error() {
            Some(code) => !NO_DESCRIPTORS.contains(&code),
            None => error.kind() == io::ErrorKind::PermissionDenied,
        };
        if !is_of_file {
            return Err(error);
        }
        tracing::error!(%error, %digest, "a blob could not be opened");
        self.report.unreadable += 1;
        list(&mut self.report.unreadable_digests, *digest);
        Ok(())
    }

    fn manifests(&mut self) -> io::Result<VerifyStep> {
        let inner = &self.store.inner;
        let (wrong, next, bytes) = inner.index.wrong_manifests(self.cursor.as_ref())?;
        for digest in wrong {
            if let Some(bytes) = self.store.inner.index.take_wrong_manifest(&digest)? {
                self.store.inner.quarantine_bytes(&digest, &bytes);
                self.corrupt(&digest);
            }
        }
        self.report.bytes += bytes;
        self.cursor = next;
        if self.cursor.is_none() {
            self.enter(VerifyPhase::Tables);
        }
        Ok(VerifyStep { done: false, bytes })
    }

    fn tables(&mut self) -> io::Result<VerifyStep> {
        let Some(table) = AuditTable::ALL.get(self.table).copied() else {
            return Ok(self.enter(VerifyPhase::Files));
        };
        let index = &self.store.inner.index;
        let found = index.audit(table, self.cursor.as_ref())?;
        index.repair(table, &found)?;
        let report = &mut self.report;
        report.rows_repaired += found.wrong() as u64;
        report.links_without_content += found.dangling.len() as u64;
        found.dangling.into_iter().for_each(|row| list(&mut report.dangling, row));
        report.manifests_without_bytes += found.without_bytes.len() as u64;
        found.without_bytes.into_iter().for_each(|row| list(&mut report.manifests_missing, row));
        if table == AuditTable::Revisions {
            report.manifests += found.rows as u64;
        }
        self.cursor = found.next;
        if self.cursor.is_none() {
            self.table += 1;
        }
        Ok(VerifyStep::default())
    }
}

/// Adds to a list of a report as long as there is room.
fn list<T>(to: &mut Vec<T>, one: T) {
    if to.len() < MAX_LISTED {
        to.push(one);
    }
}
