//! The collection of garbage, a bounded step at a time.
//!
//! Decides the order of a run: uses and leases are settled, then (if asked) manifests that no tag
//! reaches, then links that no manifest needs, then blobs that nobody links. Writers go on between
//! any two steps, and each removal judges again what it removes, so a run may be stopped, begun
//! anew or interleaved with anything. The files of a blob go right after the transaction that
//! dooms it, under the lock of its digest; after a crash in between they go at the next start.
//! Must never remove what it has not judged in the transaction that removes.

use crate::error::IndexError;
use crate::index::{Cursor, Index, Looked, Removed, Rules};
use crate::partial::MAX_IDLE_PARTIAL_BYTES;
use crate::store::Store;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use std::collections::BTreeSet;

/// Removed manifests that a run remembers: their referrers go with them. Those of others stay, as
/// those of a subject that another node has.
const MAX_REMEMBERED: usize = 65_536;

/// What a run may remove.
#[derive(Debug, Clone, Default)]
pub struct GcOptions {
    /// The time of the run, unix milliseconds: what is used later is younger than any window.
    pub now_ms: u64,
    /// Milliseconds since its last use that content without a reference stays.
    pub grace_ms: u64,
    /// Also manifests that no tag reaches.
    pub untagged: bool,
    /// Manifests that count as tagged although the local index does not say so.
    pub tagged: BTreeSet<(RepositoryName, Digest)>,
    /// Only count. What only untagged manifests keep is not counted as garbage then.
    pub dry_run: bool,
}

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GcPhase {
    /// Uses and leases are settled.
    #[default]
    Preparing,
    /// Manifests that no tag reaches.
    Manifests,
    /// Links that no manifest needs.
    Links,
    /// Blobs that nobody links.
    Blobs,
    /// Notes of uses of what is gone.
    Touches,
    /// The end.
    Done,
}

/// What a run found and did. Of a dry run: what it would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct GcReport {
    /// True if nothing was removed because that was asked for.
    pub dry_run: bool,
    /// Manifests looked at, in all passes.
    pub manifests_looked_at: u64,
    /// Manifests removed from a repository.
    pub manifests_removed: u64,
    /// Links looked at.
    pub links_looked_at: u64,
    /// Links removed.
    pub links_removed: u64,
    /// Blobs looked at.
    pub blobs_looked_at: u64,
    /// Blobs removed.
    pub blobs_removed: u64,
    /// Bytes of these blobs.
    pub bytes_freed: u64,
    /// Manifests, links and blobs that only the grace window keeps.
    pub kept_by_grace: u64,
    /// Those that a lease or a running transfer keeps, or that were being changed just then.
    pub kept_by_lease: u64,
    /// Files that did not go; they do at the next start.
    pub files_left: u64,
}

/// What one step did.
#[derive(Debug, Clone, Default)]
pub struct GcStep {
    /// Nothing is left to do.
    pub done: bool,
    /// Blobs and manifests that were removed from the store or from a repository.
    pub removed: Vec<Digest>,
}

/// A run; see the module comment. Dropped before its end, it has done a part of its work.
#[derive(Debug)]
pub struct Gc {
    store: Store,
    options: GcOptions,
    phase: GcPhase,
    cursor: Option<Cursor>,
    removed_in_pass: usize,
    /// Manifests that it has removed, at most [`MAX_REMEMBERED`].
    removed: BTreeSet<(RepositoryName, Digest)>,
    report: GcReport,
}

impl Store {
    /// Begins to collect garbage. Nothing happens before [`Gc::step`].
    pub fn gc(&self, options: GcOptions) -> Gc {
        let report = GcReport { dry_run: options.dry_run, ..GcReport::default() };
        let (phase, cursor) = (GcPhase::Preparing, None);
        let removed = BTreeSet::new();
        Gc { store: self.clone(), options, phase, cursor, removed_in_pass: 0, removed, report }
    }
}

impl Gc {
    /// What it is at.
    pub fn phase(&self) -> GcPhase {
        self.phase
    }

    /// What it has found and done so far.
    pub fn report(&self) -> GcReport {
        self.report
    }

    /// Rows looked at, and rows that a whole run looks at, roughly.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn progress(&self) -> Result<(u64, u64), IndexError> {
        let [manifests, links, blobs] = self.store.inner.index.rows_to_look_at()?;
        let manifests = if self.options.untagged { manifests } else { 0 };
        let report = &self.report;
        let done = report.manifests_looked_at.min(manifests)
            + report.links_looked_at
            + report.blobs_looked_at;
        Ok((done, (manifests + links + blobs).max(done)))
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// [`IndexError`]; a later run takes up what is left.
    pub fn run(mut self) -> Result<GcReport, IndexError> {
        while !self.step()?.done {}
        Ok(self.report)
    }

    /// Does a bounded part of the work: at most one read and one write transaction, and the
    /// files that go with it.
    ///
    /// # Errors
    /// [`IndexError`]. The same step may be tried again.
    pub fn step(&mut self) -> Result<GcStep, IndexError> {
        match self.phase {
            GcPhase::Preparing => self.prepare(),
            GcPhase::Manifests => self.manifests(),
            GcPhase::Links | GcPhase::Blobs => self.content(),
            GcPhase::Touches => self.touches(),
            GcPhase::Done => Ok(GcStep { done: true, removed: Vec::new() }),
        }
    }

    fn rules(&self) -> Rules<'_> {
        let GcOptions { now_ms, grace_ms, ref tagged, .. } = self.options;
        let (uses, removed) = (&self.store.inner.uses, &self.removed);
        Rules { now_ms, grace_ms, tagged, uses, removed }
    }

    fn index(&self) -> &Index {
        &self.store.inner.index
    }

    fn prepare(&mut self) -> Result<GcStep, IndexError> {
        if !self.options.dry_run {
            self.store.write_touches()?;
            self.index().drop_expired_leases(self.options.now_ms)?;
            self.store.drop_idle_partials(MAX_IDLE_PARTIAL_BYTES);
        }
        let untagged = self.options.untagged;
        self.enter(if untagged { GcPhase::Manifests } else { GcPhase::Links });
        Ok(GcStep::default())
    }

    fn enter(&mut self, phase: GcPhase) {
        (self.phase, self.cursor, self.removed_in_pass) = (phase, None, 0);
    }

    fn note(&mut self, looked: &Looked) {
        self.report.kept_by_grace += looked.young as u64;
        self.report.kept_by_lease += looked.held as u64;
    }

    fn manifests(&mut self) -> Result<GcStep, IndexError> {
        let looked = self.index().look_at_manifests(self.cursor.as_ref(), self.rules())?;
        let mut removed = Vec::new();
        if self.options.dry_run {
            self.report.manifests_removed += (looked.garbage + looked.later) as u64;
        } else if !looked.candidates.is_empty() {
            let gone = self.index().remove_manifests(&looked.candidates, self.rules())?;
            removed.extend(gone.iter().map(|(_, digest)| *digest));
            if self.removed.len() + gone.len() <= MAX_REMEMBERED {
                self.removed.extend(gone);
            }
            self.report.manifests_removed += removed.len() as u64;
            self.removed_in_pass += removed.len();
        }
        self.report.manifests_looked_at += looked.rows as u64;
        let is_last_pass = self.removed_in_pass == 0;
        self.cursor = looked.next.clone();
        if self.cursor.is_none() && !is_last_pass {
            // What they kept may go now. What the grace window keeps is counted by the last pass.
            self.report.kept_by_grace = 0;
            self.report.kept_by_lease = 0;
            self.enter(GcPhase::Manifests);
        } else {
            self.note(&looked);
            if self.cursor.is_none() {
                self.enter(GcPhase::Links);
            }
        }
        Ok(GcStep { done: false, removed })
    }

    /// A part of the links, or of the blobs.
    fn content(&mut self) -> Result<GcStep, IndexError> {
        let is_links = self.phase == GcPhase::Links;
        let (index, cursor) = (self.index(), self.cursor.as_ref());
        let looked = if is_links {
            index.look_at_links(cursor, self.rules())?
        } else {
            index.look_at_orphans(cursor, self.rules())?
        };
        let mut removed = Vec::new();
        if self.options.dry_run {
            self.report.blobs_removed += looked.blobs as u64;
            self.report.bytes_freed += looked.bytes;
            self.report.links_removed += if is_links { looked.garbage as u64 } else { 0 };
        } else if !looked.candidates.is_empty() {
            removed = self.remove(is_links, &looked.candidates)?;
        }
        self.note(&looked);
        let count = looked.rows as u64;
        if is_links {
            self.report.links_looked_at += count;
        } else {
            self.report.blobs_looked_at += count;
        }
        self.cursor = looked.next;
        if self.cursor.is_none() {
            self.enter(if is_links { GcPhase::Blobs } else { GcPhase::Touches });
        }
        Ok(GcStep { done: false, removed })
    }

    /// Removes rows, then the files of the blobs that went with them.
    fn remove(&mut self, is_links: bool, candidates: &[Cursor]) -> Result<Vec<Digest>, IndexError> {
        let digests = candidates.iter().map(|(_, key)| Index::digest_of_key(key));
        let digests = digests.collect::<Result<Vec<_>, _>>()?;
        let inner = &self.store.inner;
        // Nobody may place a new copy between the row and the file. What is being read or written
        // just now is left to the next run: a client never waits for 64 others.
        let held = inner.hold_free(&digests);
        let free = candidates.iter().zip(&digests).filter(|(_, digest)| held.has(digest));
        let free: Vec<_> = free.map(|(row, _)| row.clone()).collect();
        let busy = (candidates.len() - free.len()) as u64;
        let removed = match is_links {
            _ if free.is_empty() => Removed::default(),
            true => inner.index.remove_links(&free, self.rules())?,
            false => inner.index.remove_orphans(&free, self.rules())?,
        };
        self.report.files_left += inner.remove_files_of(&removed);
        self.report.kept_by_lease += busy;
        self.report.links_removed += if is_links { removed.rows as u64 } else { 0 };
        self.report.blobs_removed += removed.blobs.len() as u64;
        self.report.bytes_freed += removed.blobs.iter().map(|(_, bytes)| bytes).sum::<u64>();
        Ok(removed.blobs.into_iter().map(|(digest, _)| digest).collect())
    }

    fn touches(&mut self) -> Result<GcStep, IndexError> {
        self.cursor = match self.options.dry_run {
            true => None,
            false => self.index().drop_touches(self.cursor.as_ref())?,
        };
        if self.cursor.is_none() {
            self.enter(GcPhase::Done);
        }
        Ok(GcStep { done: self.phase == GcPhase::Done, removed: Vec::new() })
    }
}
