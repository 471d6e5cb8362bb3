//! What becomes durable here, and what follows from it at once.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use ddr_oci::{Digest, RepositoryName, Tag};
use ddr_proto::id::Key;
use ddr_proto::wire::{NameRecord, SetEntry};
use ddr_store::{Batch, IndexError, Outcome};

use super::rows::{about_content, kept_entry, kept_name, rank};
use super::{CachedName, Keeper};

/// Records to keep in one durable step, and rows of the local list of tags.
#[derive(Default)]
pub(crate) struct Keeping {
    pub(crate) names: Vec<NameRecord>,
    pub(crate) entries: Vec<SetEntry>,
    pub(crate) tags: Vec<(RepositoryName, Tag, Option<Digest>)>,
}

impl Keeping {
    /// The same with the entry of each name and the name of each entry, added at the ends.
    fn paired(mut self) -> Self {
        let (asked_names, asked_entries) = (self.names.len(), self.entries.len());
        for record in &self.names[..asked_names] {
            let entry = SetEntry::Tag(record.clone());
            if !self.entries.contains(&entry) {
                self.entries.push(entry);
            }
        }
        for entry in &self.entries[..asked_entries] {
            if let SetEntry::Tag(record) = entry
                && !self.names.contains(record)
            {
                self.names.push(record.clone());
            }
        }
        self
    }
}

impl Keeper {
    /// Keeps records that are verified, or this node's own, where they are newer than what is kept;
    /// the outcomes of names, then of entries. Blocks until all is durable and has taken effect.
    ///
    /// A name and its entry in the list of tags are the same record, and the one is never kept
    /// without the other: a crash must not leave a tag that is read and not listed, or listed and
    /// not read.
    pub(crate) fn keep(&self, keeping: Keeping) -> Result<Vec<Outcome>, IndexError> {
        let asked = (keeping.names.len(), keeping.entries.len());
        let Keeping { names, entries, tags } = keeping.paired();
        let deletes = entries.iter().any(|entry| about_content(entry).is_some());
        let _applying =
            deletes.then(|| self.applying.lock().unwrap_or_else(PoisonError::into_inner));
        let batch = Batch {
            names: names.iter().map(kept_name).collect(),
            entries: entries.iter().map(kept_entry).collect(),
            tags,
        };
        let outcomes = self.store.keep(&batch)?;
        let (of_names, of_entries) = outcomes.split_at(names.len());
        let fresh = |all: &[Outcome]| all.iter().filter(|one| **one == Outcome::New).count();
        self.names.fetch_add(fresh(of_names), Ordering::Relaxed);
        self.entries.fetch_add(fresh(of_entries), Ordering::Relaxed);
        for (record, outcome) in names.into_iter().zip(of_names) {
            match outcome {
                Outcome::Newer(bytes) => {
                    if let Ok(newer) = NameRecord::from_bytes(bytes) {
                        self.remember(newer.key(), Some(newer), None);
                    }
                }
                _ => self.remember(record.key(), Some(record), None),
            }
        }
        for (entry, outcome) in entries.iter().zip(of_entries) {
            // Also the same again: it may not have taken effect when it came first.
            let holds = !matches!(outcome, Outcome::Newer(_));
            if let Some(content) = about_content(entry)
                && holds
                && entry.is_present()
            {
                self.forget.content(content)?;
            }
        }
        let of_pairs = [&of_names[..asked.0], &of_entries[..asked.1]];
        Ok(of_pairs.concat())
    }

    /// The record under `key` if it is in memory: no disk, no waiting.
    pub(crate) fn peek(&self, key: Key) -> Option<Option<Arc<NameRecord>>> {
        let cached = self.cache.get(key.as_bytes())?;
        Some(cached.map(|(_, record)| record))
    }

    /// The record under `key`; one that cannot be read any more counts as none. Blocks.
    pub(crate) fn record(&self, key: Key) -> Result<Option<Arc<NameRecord>>, IndexError> {
        if let Some(known) = self.peek(key) {
            return Ok(known);
        }
        let since = self.cache.turns();
        let bytes = self.store.name(*key.as_bytes())?;
        let record = bytes.and_then(|bytes| NameRecord::from_bytes(&bytes).ok());
        self.remember(key, record.clone(), Some(since));
        Ok(record.map(Arc::new))
    }

    /// Forgets tombstones, and the word of deletes, that are older than [`TOMBSTONE_MS`]. Blocks.
    pub(crate) fn drop_ended(
        &self,
        names: &[NameRecord],
        entries: &[SetEntry],
    ) -> Result<(), IndexError> {
        let ended = |record: &&NameRecord| record.digest.is_none() && self.is_past(record.stamp);
        let names: Vec<NameRecord> = names.iter().filter(ended).cloned().collect();
        let entries: Vec<SetEntry> =
            entries.iter().filter(|entry| self.has_ended(entry)).cloned().collect();
        self.forget_rows(&names, &entries)
    }

    /// Forgets records and entries unless newer ones took their places. Blocks.
    pub(crate) fn forget_rows(
        &self,
        names: &[NameRecord],
        entries: &[SetEntry],
    ) -> Result<(), IndexError> {
        let names: Vec<_> = names
            .iter()
            .map(|record| (*record.key().as_bytes(), rank(record.stamp, &record.writer)))
            .collect();
        let entries: Vec<_> =
            entries.iter().map(kept_entry).map(|kept| (kept.set, kept.member, kept.rank)).collect();
        if names.is_empty() && entries.is_empty() {
            return Ok(());
        }
        self.store.forget_kept(&names, &entries)?;
        names.iter().for_each(|(key, _)| self.cache.remove(key));
        let less = |by: usize| move |count: usize| Some(count.saturating_sub(by));
        let _ = self.names.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less(names.len()));
        let _ =
            self.entries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less(entries.len()));
        Ok(())
    }

    fn remember(&self, key: Key, record: Option<NameRecord>, since: Option<u64>) {
        let cached = record.map(|record| (rank(record.stamp, &record.writer), Arc::new(record)));
        let cached_rank = cached.as_ref().map(|(rank, _)| *rank);
        let keeps = |there: &CachedName| there.as_ref().map(|(rank, _)| *rank) > cached_rank;
        self.cache.insert(*key.as_bytes(), cached, since, keeps);
    }
}
