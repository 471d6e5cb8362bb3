//! The storing side: what this node keeps for others, and how it answers about it.
//!
//! Decides what is accepted: a valid signature, a stamp that is newer than what is kept and not
//! more than [`ddr_proto::names::MAX_AHEAD_MS`] ahead. Membership is proven by the connection. It
//! must never acknowledge a record that is not durable, and never say "unknown" while it is young.
//! The word that content was deleted takes effect here before it is acknowledged.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ddr_oci::{Digest, RepositoryName, Tag};
use ddr_proto::id::Key;
use ddr_proto::names::{SetPage, stamp_is_acceptable, stamp_ms};
use ddr_proto::wire::{
    Fact, FactRecord, MAX_ENTRIES_PER_PAGE, MAX_PAGE_BYTES, Member, NameRecord, RefuseReason,
    Request, Response, SetEntry, SetName,
};
use ddr_store::{Batch, IndexError, KeptEntry, KeptName, Outcome, Store};
use tokio::sync::Semaphore;

use super::cache::Cache;
use crate::blocking;
use crate::clock::Clock;
use crate::forget::{Content, Forget};

/// How long a node that joined others abstains about names that it lacks. By then the others have
/// given it what it is to keep; see [`super::settle`].
const YOUNG_MS: u64 = 30_000;
/// How long a tombstone, or the word that content was deleted, is kept: 7 days.
pub(crate) const TOMBSTONE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Requests about names that are worked on at once; more are answered "busy".
const MAX_AT_ONCE: usize = 256;

/// Records that one node keeps: about 300 MB.
const MAX_NAMES: usize = 1_000_000;
/// Entries of sets that one node keeps: about 400 MB.
const MAX_ENTRIES: usize = 1_000_000;
/// Records read at once when they are counted.
const COUNT_PAGE: usize = 4096;
/// Names in memory, in each of two generations: about 20 MB.
const MAX_CACHED: usize = 16_384;

/// A kept name in memory: its rank, and what it says. `None`: there is no record.
type CachedName = Option<(u128, Arc<NameRecord>)>;

/// See the module comment.
pub(crate) struct Keeper {
    store: Store,
    clock: Clock,
    forget: Arc<Forget>,
    turns: Semaphore,
    names: AtomicUsize,
    entries: AtomicUsize,
    /// Kept names as they are on disk, written through.
    cache: Cache<CachedName>,
    /// Held from the word that content was deleted, or came back, until it has taken effect: an
    /// older word must not take away what a newer one let in.
    applying: Mutex<()>,
    /// True when there are others to join: addresses were given or are known from earlier.
    joins: bool,
}

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

/// How many records and entries are in a store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    pub(crate) names: usize,
    pub(crate) entries: usize,
}

impl Keeper {
    /// A keeper of what is in `store`, counted. `joins`: there are others to join.
    pub(crate) fn new(
        store: Store,
        clock: Clock,
        forget: Arc<Forget>,
        counts: Counts,
        joins: bool,
    ) -> Arc<Self> {
        let (names, entries) = (counts.names.into(), counts.entries.into());
        let (turns, cache) = (Semaphore::new(MAX_AT_ONCE), Cache::new(MAX_CACHED));
        let applying = Mutex::new(());
        Arc::new(Self { store, clock, forget, turns, names, entries, cache, applying, joins })
    }

    /// Counts what is in `store`, makes the entries of names that were kept before there were
    /// sets, and lets deletes take effect that a crash cut off. Blocks.
    pub(crate) fn count(store: &Store) -> Result<Counts, IndexError> {
        let mut counts = Counts { names: 0, entries: count_entries(store)? };
        let mut after = None;
        loop {
            let page = store.names(COUNT_PAGE, after)?;
            let Some((last, _)) = page.last() else { return Ok(counts) };
            after = Some(*last);
            counts.names += page.len();
            if counts.entries < counts.names {
                let records =
                    page.iter().filter_map(|(_, bytes)| NameRecord::from_bytes(bytes).ok());
                let entries = records.map(|record| kept_entry(&SetEntry::Tag(record))).collect();
                let outcomes = store.keep(&Batch { entries, ..Batch::default() })?;
                counts.entries += outcomes.iter().filter(|one| **one == Outcome::New).count();
            }
        }
    }

    /// How many name records are kept.
    pub(crate) fn kept_count(&self) -> usize {
        self.names.load(Ordering::Relaxed)
    }

    /// True when the node is to join others and has met none of them.
    pub(crate) fn is_stranded(&self, members: usize) -> bool {
        self.joins && members == 0 && self.clock.uptime_ms() < STRANDED_MS
    }

    /// Answers the requests about names and sets; everything else is refused.
    pub(crate) async fn answer(self: &Arc<Self>, request: Request) -> Response {
        let Ok(_turn) = self.turns.try_acquire() else {
            return refused(RefuseReason::Busy);
        };
        let keeper = Arc::clone(self);
        let work = move || match request {
            Request::GetName { key } => keeper.get(key),
            Request::PutName { record } => keeper.put(record),
            Request::GetSet { key, from, limit } => keeper.get_set(key, &from, limit.into()),
            Request::PutEntry { entry } => keeper.put_entry(entry),
            _ => Ok(refused(RefuseReason::Unsupported)),
        };
        match blocking(work).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::error!(%error, "a name could not be read or stored");
                refused(RefuseReason::Busy)
            }
            Err(error) => {
                tracing::error!(%error, "a name could not be read or stored");
                refused(RefuseReason::Busy)
            }
        }
    }

    fn get(&self, key: Key) -> Result<Response, IndexError> {
        let record = self.record(key)?.map(Arc::unwrap_or_clone);
        if record.is_none() && self.is_young() {
            return Ok(refused(RefuseReason::Unsupported));
        }
        Ok(Response::Name { record })
    }

    fn put(&self, record: NameRecord) -> Result<Response, IndexError> {
        if record.verify().is_err() {
            return Ok(refused(RefuseReason::BadSignature));
        }
        if !stamp_is_acceptable(record.stamp, self.clock.now()) {
            return Ok(refused(RefuseReason::ClockAhead));
        }
        if record.digest.is_none() && self.is_past(record.stamp) {
            return Ok(Response::NameStored { stored: true, newest: None });
        }
        let key = record.key();
        if self.kept_count() >= MAX_NAMES && self.record(key)?.is_none() {
            return Ok(refused(RefuseReason::Busy));
        }
        let outcomes = self.keep(Keeping { names: vec![record], ..Keeping::default() })?;
        Ok(match outcomes.into_iter().next() {
            Some(Outcome::Newer(bytes)) => {
                Response::NameStored { stored: false, newest: NameRecord::from_bytes(&bytes).ok() }
            }
            _ => Response::NameStored { stored: true, newest: None },
        })
    }

    fn get_set(&self, key: Key, from: &Member, limit: usize) -> Result<Response, IndexError> {
        let page = self.set_page(&key, from, limit.min(MAX_ENTRIES_PER_PAGE), MAX_PAGE_BYTES)?;
        let SetPage { entries, more } = page;
        Ok(Response::Set { entries, more, young: self.is_young() })
    }

    fn put_entry(&self, entry: SetEntry) -> Result<Response, IndexError> {
        if entry.verify().is_err() {
            return Ok(refused(RefuseReason::BadSignature));
        }
        if !stamp_is_acceptable(entry.stamp(), self.clock.now()) {
            return Ok(refused(RefuseReason::ClockAhead));
        }
        if has_idle_value(&entry) {
            return Ok(refused(RefuseReason::Unsupported));
        }
        if self.has_ended(&entry) {
            return Ok(Response::EntryStored { stored: true, newest: None });
        }
        let full = self.entries.load(Ordering::Relaxed) >= MAX_ENTRIES;
        if full && self.entry(&entry.set(), &entry.member())?.is_none() {
            return Ok(refused(RefuseReason::Busy));
        }
        let outcomes = self.keep(Keeping { entries: vec![entry], ..Keeping::default() })?;
        Ok(match outcomes.into_iter().next() {
            Some(Outcome::Newer(bytes)) => {
                Response::EntryStored { stored: false, newest: SetEntry::from_bytes(&bytes).ok() }
            }
            _ => Response::EntryStored { stored: true, newest: None },
        })
    }

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

    /// The entry of one member of a set. Blocks.
    pub(crate) fn entry(
        &self,
        set: &SetName,
        member: &Member,
    ) -> Result<Option<SetEntry>, IndexError> {
        let bytes = self.store.set_entry(*set.key().as_bytes(), member.as_bytes())?;
        let entry = bytes.and_then(|bytes| SetEntry::from_bytes(&bytes).ok());
        Ok(entry.filter(|entry| !self.has_ended(entry)))
    }

    /// Entries of one set as they are kept here. Blocks.
    pub(crate) fn set_page(
        &self,
        key: &Key,
        from: &Member,
        limit: usize,
        max_bytes: usize,
    ) -> Result<SetPage, IndexError> {
        let (rows, more) =
            self.store.set_page(*key.as_bytes(), from.as_bytes(), limit.max(1), max_bytes)?;
        let entries = rows.iter().filter_map(|row| SetEntry::from_bytes(row).ok()).collect();
        Ok(SetPage { entries, more })
    }

    /// Forgets tombstones, and the word of deletes, that are older than [`TOMBSTONE_MS`]. Blocks.
    pub(crate) fn drop_ended(
        &self,
        names: &[NameRecord],
        entries: &[SetEntry],
    ) -> Result<(), IndexError> {
        let names: Vec<_> = names
            .iter()
            .filter(|record| record.digest.is_none() && self.is_past(record.stamp))
            .map(|record| (*record.key().as_bytes(), rank(record.stamp, &record.writer)))
            .collect();
        let entries: Vec<_> = entries
            .iter()
            .filter(|entry| self.has_ended(entry))
            .map(kept_entry)
            .map(|kept| (kept.set, kept.member, kept.rank))
            .collect();
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

    /// True for what nobody needs to hear any more.
    fn has_ended(&self, entry: &SetEntry) -> bool {
        let ends = !entry.is_present() || about_content(entry).is_some();
        ends && self.is_past(entry.stamp())
    }

    fn is_past(&self, stamp: u64) -> bool {
        stamp_ms(stamp).saturating_add(TOMBSTONE_MS) < self.clock.now_ms()
    }

    fn is_young(&self) -> bool {
        self.joins && self.clock.uptime_ms() < YOUNG_MS
    }
}

/// How long a node that met nobody waits for its swarm before it counts as alone: as long as it
/// would remember members.
const STRANDED_MS: u64 = crate::peers::MEMBER_MEMORY_MS;

fn count_entries(store: &Store) -> Result<usize, IndexError> {
    let (mut count, mut after) = (0, None::<([u8; 32], Vec<u8>)>);
    loop {
        let from = after.as_ref().map(|(set, member)| (*set, member.as_slice()));
        let rows = store.sets(COUNT_PAGE, from)?;
        let Some((set, member, _)) = rows.last() else { return Ok(count) };
        after = Some((*set, member.clone()));
        count += rows.len();
        for (_, _, bytes) in &rows {
            let Ok(entry) = SetEntry::from_bytes(bytes) else { continue };
            if let Some(content) = about_content(&entry)
                && entry.is_present()
            {
                crate::forget::unlink(store, content)?;
            }
        }
    }
}

/// What a word about deleted content is about.
fn about_content(entry: &SetEntry) -> Option<Content<'_>> {
    match entry {
        SetEntry::Fact(FactRecord { fact: Fact::Deleted { repository, digest, kind }, .. }) => {
            Some((repository, digest, *kind))
        }
        _ => None,
    }
}

fn kept_name(record: &NameRecord) -> KeptName {
    let rank = rank(record.stamp, &record.writer);
    KeptName { key: *record.key().as_bytes(), rank, record: record.to_bytes() }
}

fn kept_entry(entry: &SetEntry) -> KeptEntry {
    KeptEntry {
        set: *entry.set().key().as_bytes(),
        member: entry.member().as_bytes().to_vec(),
        rank: rank(entry.stamp(), entry.writer()),
        record: entry.to_bytes(),
    }
}

/// The order of records as the store compares it: stamp, then writer.
fn rank(stamp: u64, writer: &[u8; 32]) -> u128 {
    let writer = writer.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first));
    u128::from(stamp) << 64 | u128::from(writer)
}

/// Whether the entry carries bytes where its fact has none to say.
fn has_idle_value(entry: &SetEntry) -> bool {
    let SetEntry::Fact(record) = entry else { return false };
    let says_nothing = matches!(record.fact, Fact::Repository(_) | Fact::Deleted { .. });
    says_nothing && entry.value().is_some_and(|value| !value.is_empty())
}

fn refused(reason: RefuseReason) -> Response {
    Response::Refused { reason }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ddr_net::Identity;
    use ddr_oci::Digest;
    use ddr_proto::names::{MAX_AHEAD_MS, next_stamp};
    use ddr_proto::time::Timestamp;
    use ddr_proto::wire::Signer;
    use ddr_store::StoreConfig;
    use tempfile::TempDir;

    use super::*;

    struct Bench {
        keeper: Arc<Keeper>,
        signer: Signer,
        clock: Clock,
        _dir: TempDir,
    }

    fn bench(joins: bool) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreConfig::new(dir.path())).expect("a store");
        let identity = Identity::generate().expect("a key");
        let public_key = identity.public_key();
        let signer = Signer::new(public_key, move |bytes| identity.sign(bytes));
        let clock = Clock::start();
        let overlay = crate::overlay::OverlayHandle::to_nobody();
        let announcer = crate::announce::Announcer::new(overlay.clone());
        let locator = crate::pull::Locator::new(overlay);
        let forget = Arc::new(Forget::new(store.clone(), announcer, locator));
        let keeper = Keeper::new(store, clock, forget, Counts::default(), joins);
        Bench { keeper, signer, clock, _dir: dir }
    }

    impl Bench {
        fn record(&self, text: &str, stamp: u64) -> NameRecord {
            let (name, tag) = ("team/app".parse(), "v1".parse());
            let digest = Some(Digest::sha256(text.as_bytes()));
            let (name, tag) = (name.expect("a name"), tag.expect("a tag"));
            NameRecord::sign(&self.signer, name, tag, digest, stamp)
        }

        fn stamp_in(&self, ms: u64) -> u64 {
            next_stamp(None, Timestamp(self.clock.now_ms() + ms))
        }

        async fn put(&self, record: &NameRecord) -> Response {
            self.keeper.answer(Request::PutName { record: record.clone() }).await
        }

        async fn get(&self, key: Key) -> Response {
            self.keeper.answer(Request::GetName { key }).await
        }
    }

    fn stored() -> Response {
        Response::NameStored { stored: true, newest: None }
    }

    #[tokio::test]
    async fn the_newest_is_kept_and_lower_stamps_are_refused() {
        let bench = bench(false);
        let (old, new) = (bench.record("old", 5 << 16), bench.record("new", 6 << 16));
        assert_eq!(bench.put(&old).await, stored());
        assert_eq!(bench.put(&new).await, stored());
        assert_eq!(bench.put(&new).await, stored(), "the same again is kept already");
        let refused = Response::NameStored { stored: false, newest: Some(new.clone()) };
        assert_eq!(bench.put(&old).await, refused);
        assert_eq!(bench.get(new.key()).await, Response::Name { record: Some(new) });
        assert_eq!(bench.keeper.kept_count(), 1);
        assert_eq!(bench.keeper.count_again(), 1);
    }

    #[tokio::test]
    async fn forged_and_premature_records_are_refused() {
        let bench = bench(false);
        let mut forged = bench.record("content", 5 << 16);
        forged.digest = Some(Digest::sha256(b"other"));
        assert_eq!(bench.put(&forged).await, refused(RefuseReason::BadSignature));
        let ahead = bench.record("content", bench.stamp_in(MAX_AHEAD_MS + 10_000));
        assert_eq!(bench.put(&ahead).await, refused(RefuseReason::ClockAhead));
        let near = bench.record("content", bench.stamp_in(MAX_AHEAD_MS - 10_000));
        assert_eq!(bench.put(&near).await, stored());
        let other = bench.keeper.answer(Request::Ping).await;
        assert_eq!(other, refused(RefuseReason::Unsupported));
    }

    #[tokio::test(start_paused = true)]
    async fn a_young_node_abstains_about_what_it_lacks() {
        let young = bench(true);
        let record = young.record("content", 5 << 16);
        assert_eq!(young.get(record.key()).await, refused(RefuseReason::Unsupported));
        assert!(young.keeper.is_stranded(0) && !young.keeper.is_stranded(1));
        assert_eq!(young.put(&record).await, stored());
        let kept = Response::Name { record: Some(record) };
        assert_eq!(young.get(young.record("x", 0).key()).await, kept, "what it has it says");

        let unknown = Key::of_content(&Digest::sha256(b"no name"));
        assert_eq!(young.get(unknown).await, refused(RefuseReason::Unsupported));
        tokio::time::advance(Duration::from_millis(YOUNG_MS)).await;
        assert_eq!(young.get(unknown).await, Response::Name { record: None });

        let founder = bench(false);
        assert_eq!(founder.get(unknown).await, Response::Name { record: None });
        assert!(!founder.keeper.is_stranded(0));
    }

    impl Keeper {
        fn count_again(&self) -> usize {
            Self::count(&self.store).expect("readable").names
        }
    }
}
