//! The storing side: what this node keeps for others, and how it answers about it.
//!
//! Decides what is accepted: a valid signature, a stamp that is newer than what is kept and not
//! more than [`ddr_proto::names::MAX_AHEAD_MS`] ahead. Membership is proven by the connection. It
//! must never acknowledge a record that is not durable, and never say "unknown" while it is young.
//! The word that content was deleted takes effect here before it is acknowledged.

mod count;
mod guard;
mod keeping;
mod rows;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ddr_proto::id::Key;
use ddr_proto::names::{Ballot, SetPage, next_stamp, stamp_is_acceptable, stamp_ms};
use ddr_proto::wire::{
    Fact, MAX_ENTRIES_PER_PAGE, MAX_HISTORY, MAX_PAGE_BYTES, Member, NameRecord, RefuseReason,
    Request, Response, SetEntry, SetName,
};
use ddr_store::{IndexError, Outcome, Store};
use tokio::sync::Semaphore;

pub(crate) use self::count::Counts;
use self::guard::Guards;
pub(crate) use self::keeping::Keeping;
use self::rows::about_content;
use super::cache::Cache;
use super::doubt::Standing;
use crate::blocking;
use crate::clock::Clock;
use crate::forget::Forget;

/// How long a node abstains about names that it lacks after it has met the others that it joins. By then the others have
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
    /// Who may write next where nothing may be overwritten.
    guards: Guards,
    /// Records stamped up to this are doubted; see [`super::doubt`]. 0: none.
    doubted: AtomicU64,
    /// The node was never in touch with others before it started.
    is_new: AtomicBool,
    /// When the node first met another, as milliseconds since its start. [`u64::MAX`]: not yet.
    met_ms: AtomicU64,
    /// True when there are others to join: addresses were given or are known from earlier.
    /// Whether others have said whom they count.
    knows_members: AtomicBool,
    joins: bool,
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
        let (applying, guards) = (Mutex::new(()), Guards::new(clock.now()));
        Arc::new(Self {
            store,
            clock,
            forget,
            turns,
            names,
            entries,
            cache,
            applying,
            guards,
            doubted: AtomicU64::new(0),
            is_new: AtomicBool::new(joins),
            met_ms: AtomicU64::new(u64::MAX),
            knows_members: AtomicBool::new(false),
            joins,
        })
    }

    /// How many name records are kept.
    pub(crate) fn kept_count(&self) -> usize {
        self.names.load(Ordering::Relaxed)
    }

    /// True when the node is to join others and has met none of them.
    pub(crate) fn is_stranded(&self, members: usize) -> bool {
        self.joins && members == 0 && self.clock.uptime_ms() < STRANDED_MS
    }

    /// True while the node is to join others and has not heard whom they count: it may know less than half of
    /// them, and take that for all.
    pub(crate) fn is_ignorant(&self) -> bool {
        self.joins
            && !self.knows_members.load(Ordering::SeqCst)
            && self.clock.uptime_ms() < STRANDED_MS
    }

    /// The node has heard whom others count.
    pub(crate) fn learnt_members(&self) {
        self.knows_members.store(true, Ordering::SeqCst);
    }

    /// What the node is worth as a witness, to be said once, before it answers anybody.
    pub(crate) fn stand(&self, standing: Standing) {
        self.is_new.store(standing == Standing::New, Ordering::SeqCst);
        if standing == Standing::Doubtful {
            self.doubted.store(next_stamp(None, self.clock.now()), Ordering::SeqCst);
        }
    }

    /// The node has met another.
    pub(crate) fn met_another(&self) {
        let now = self.clock.uptime_ms();
        let _ = self.met_ms.compare_exchange(u64::MAX, now, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The end of all doubt. As a new node it is given what it lacks before it says "unknown".
    pub(crate) fn believe(&self) {
        self.is_new.store(true, Ordering::SeqCst);
        self.doubted.store(0, Ordering::SeqCst);
        self.met_ms.store(self.clock.uptime_ms(), Ordering::SeqCst);
    }

    /// True while something that is kept is doubted.
    pub(crate) fn doubts(&self) -> bool {
        self.doubted.load(Ordering::SeqCst) > 0
    }

    /// True when it means something that this node does not know a name.
    pub(crate) fn is_fit(&self) -> bool {
        let is_fresh = self.is_young() && self.is_new.load(Ordering::SeqCst);
        !is_fresh && !self.doubts()
    }

    /// True while a record with this stamp is doubted.
    pub(crate) fn is_doubted(&self, stamp: u64) -> bool {
        stamp <= self.doubted.load(Ordering::SeqCst)
    }

    /// Whether nothing may be said about a name of which this is kept.
    fn must_not_say(&self, record: Option<&NameRecord>) -> bool {
        self.doubts() && record.is_none_or(|record| self.is_doubted(record.stamp))
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
            Request::PrepareName { key, stamp, writer } => {
                keeper.prepare(key, Ballot { stamp, writer })
            }
            Request::AcceptName { record } => keeper.accept(record),
            Request::GetHistory { key } => keeper.history(key),
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
        if self.must_not_say(record.as_ref()) {
            return Ok(refused(RefuseReason::Doubtful));
        }
        if record.is_none() && self.is_young() {
            return Ok(refused(RefuseReason::Unsupported));
        }
        Ok(Response::Name { record, clock_ms: self.clock.now_ms() })
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
        // A name brings its entry in the list along.
        let is_full =
            self.kept_count() >= MAX_NAMES || self.entries.load(Ordering::Relaxed) >= MAX_ENTRIES;
        if is_full && self.record(key)?.is_none() {
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

    fn history(&self, key: Key) -> Result<Response, IndexError> {
        if self.doubts() {
            return Ok(refused(RefuseReason::Doubtful));
        }
        let rows = self.store.name_history(*key.as_bytes())?;
        if rows.is_empty() && !self.is_fit() {
            return Ok(refused(RefuseReason::Unsupported));
        }
        let records = rows.iter().filter_map(|row| NameRecord::from_bytes(row).ok());
        Ok(Response::History { records: records.take(MAX_HISTORY).collect() })
    }

    fn get_set(&self, key: Key, from: &Member, limit: usize) -> Result<Response, IndexError> {
        if self.doubts() {
            return Ok(refused(RefuseReason::Doubtful));
        }
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

    /// True for what nobody needs to hear any more.
    fn has_ended(&self, entry: &SetEntry) -> bool {
        let ends = !entry.is_present() || about_content(entry).is_some();
        ends && self.is_past(entry.stamp())
    }

    fn is_past(&self, stamp: u64) -> bool {
        stamp_ms(stamp).saturating_add(TOMBSTONE_MS) < self.clock.now_ms()
    }

    fn is_young(&self) -> bool {
        let met_ms = self.met_ms.load(Ordering::SeqCst);
        self.joins
            && (met_ms == u64::MAX || self.clock.uptime_ms() < met_ms.saturating_add(YOUNG_MS))
    }
}

/// How long a node that met nobody waits for its swarm before it counts as alone: as long as it
/// would remember members.
const STRANDED_MS: u64 = crate::peers::MEMBER_MEMORY_MS;

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
mod tests;
