//! Pulled content is a cache: what was not used for the longest time makes room, a bounded step at a time.
//!
//! Decides the order: first all blobs are looked at, and of those that may go the longest unused are remembered,
//! as many as free the bytes that are wanted; then they go, a few a transaction, each judged again in the
//! transaction that removes it. Rows go first, files right after, under the lock of their digests; after a crash in between
//! the files go at the next start. Manifests stay: they are small, and a later pull brings the blobs again.
//! Must never take what is kept for the swarm, leased, pinned or young.

use crate::error::IndexError;
use crate::index::{CacheRules, Candidate, Index, Removed};
use crate::store::Store;
use crate::uses::Uses;
use ddr_oci::digest::Digest;
use std::collections::BTreeSet;

/// Blobs that one run remembers, and so removes at most.
pub const MAX_CANDIDATES: usize = 4096;
/// Blobs removed in one step.
const BLOBS_PER_STEP: usize = 32;

/// What a run may remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct EvictOptions {
    /// The time of the run, unix milliseconds.
    pub now_ms: u64,
    /// Bytes that shall be free after it.
    pub bytes: u64,
    /// Milliseconds since its last use that a blob stays at least. Uses are noted to ten minutes.
    pub min_age_ms: u64,
    /// The same for its use by a repository of which no manifest refers to it: the push may still go on.
    pub loose_age_ms: u64,
}

impl EvictOptions {
    pub(crate) fn rules(self, uses: &Uses) -> CacheRules<'_> {
        let Self { now_ms, min_age_ms, loose_age_ms, .. } = self;
        CacheRules { now_ms, min_age_ms, loose_age_ms, uses }
    }
}

/// What a run found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct EvictReport {
    /// Blobs looked at.
    pub blobs_looked_at: u64,
    /// Blobs removed.
    pub blobs_removed: u64,
    /// Bytes of these.
    pub bytes_freed: u64,
    /// Bytes kept for the swarm.
    pub duty_bytes: u64,
    /// Bytes that a lease or a pin holds.
    pub held_bytes: u64,
    /// Bytes that were used a short time ago.
    pub young_bytes: u64,
    /// Bytes that may go and are left: there was no need, or they were in use just then.
    pub spared_bytes: u64,
    /// Files that did not go; they do at the next start.
    pub files_left: u64,
}

/// What one step did.
#[derive(Debug, Clone, Default)]
pub struct EvictStep {
    /// Nothing is left to do.
    pub done: bool,
    /// Blobs that were removed.
    pub removed: Vec<Digest>,
}

/// A run; see the module comment. Dropped before its end, it has done a part of its work.
#[derive(Debug)]
pub struct Evict {
    store: Store,
    options: EvictOptions,
    is_looking: bool,
    cursor: Option<Vec<u8>>,
    /// The longest unused, at most [`MAX_CANDIDATES`].
    chosen: BTreeSet<Candidate>,
    chosen_bytes: u64,
    report: EvictReport,
}

impl Store {
    /// Begins to make room. Nothing happens before [`Evict::step`].
    pub fn evict(&self, options: EvictOptions) -> Evict {
        Evict {
            store: self.clone(),
            options,
            is_looking: true,
            cursor: None,
            chosen: BTreeSet::new(),
            chosen_bytes: 0,
            report: EvictReport::default(),
        }
    }
}

impl Evict {
    /// What it has found and done so far.
    pub fn report(&self) -> EvictReport {
        self.report
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// [`IndexError`]; a later run takes up what is left.
    pub fn run(mut self) -> Result<EvictReport, IndexError> {
        while !self.step()?.done {}
        Ok(self.report)
    }

    /// Does a bounded part of the work: one read or one write transaction, and the files that go with it.
    ///
    /// # Errors
    /// [`IndexError`]. The same step may be tried again.
    pub fn step(&mut self) -> Result<EvictStep, IndexError> {
        if self.is_looking {
            self.look()?;
            return Ok(EvictStep::default());
        }
        let some: Vec<_> = self.chosen.iter().take(BLOBS_PER_STEP).cloned().collect();
        let removed = self.remove(&some)?;
        for one in &some {
            self.chosen.remove(one);
        }
        Ok(EvictStep { done: self.chosen.is_empty(), removed })
    }

    fn rules(&self) -> CacheRules<'_> {
        self.options.rules(&self.store.inner.uses)
    }

    fn look(&mut self) -> Result<(), IndexError> {
        let index = &self.store.inner.index;
        let survey = index.survey_cache(self.cursor.as_deref(), self.rules())?;
        self.report.blobs_looked_at += survey.blobs;
        self.report.duty_bytes += survey.duty_bytes;
        self.report.held_bytes += survey.held_bytes;
        self.report.young_bytes += survey.young_bytes;
        survey.candidates.into_iter().for_each(|one| self.choose(one));
        self.is_looking = survey.next.is_some();
        self.cursor = survey.next;
        Ok(())
    }

    /// Remembers a blob if it belongs to the longest unused.
    fn choose(&mut self, one: Candidate) {
        self.chosen_bytes += one.bytes;
        self.chosen.insert(one);
        while let Some(last) = self.chosen.last() {
            let is_enough = self.chosen_bytes - last.bytes >= self.options.bytes;
            if !is_enough && self.chosen.len() <= MAX_CANDIDATES {
                return;
            }
            self.chosen_bytes -= last.bytes;
            self.report.spared_bytes += last.bytes;
            self.chosen.pop_last();
        }
    }

    /// Removes rows, then the files of the blobs that went with them.
    fn remove(&mut self, some: &[Candidate]) -> Result<Vec<Digest>, IndexError> {
        let digests = some.iter().map(|one| Index::digest_of_key(&one.key));
        let digests = digests.collect::<Result<Vec<_>, _>>()?;
        let inner = &self.store.inner;
        // Nobody may place a new copy between the row and the file. What is being written just now stays.
        let held = inner.hold_free(&digests);
        let free = some.iter().zip(&digests).filter(|(_, digest)| held.has(digest));
        let free: Vec<_> = free.map(|(one, _)| one.clone()).collect();
        let removed = match free.is_empty() {
            true => Removed::default(),
            false => inner.index.evict(&free, self.rules())?,
        };
        let files_left = inner.remove_files_of(&removed);
        drop(held);
        let freed = removed.blobs.iter().map(|(_, bytes)| bytes).sum::<u64>();
        self.report.files_left += files_left;
        self.report.blobs_removed += removed.blobs.len() as u64;
        self.report.bytes_freed += freed;
        self.report.spared_bytes += some.iter().map(|one| one.bytes).sum::<u64>() - freed;
        Ok(removed.blobs.into_iter().map(|(digest, _)| digest).collect())
    }
}
