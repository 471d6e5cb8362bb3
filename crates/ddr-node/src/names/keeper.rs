//! The storing side: what this node keeps for others, and how it answers about it.
//!
//! Decides what is accepted: a valid signature, a stamp that is newer than what is kept and not
//! more than [`ddr_proto::names::MAX_AHEAD_MS`] ahead. Membership is proven by the connection. It
//! must never acknowledge a record that is not durable, and never say "unknown" while it is young.

use std::sync::{Arc, Mutex, PoisonError};

use ddr_proto::id::Key;
use ddr_proto::names::{stamp_is_acceptable, supersedes};
use ddr_proto::wire::{NameRecord, RefuseReason, Request, Response};
use ddr_store::{IndexError, Store};
use tokio::sync::Semaphore;

use crate::blocking;
use crate::clock::Clock;

/// How long a node that joined others abstains about names that it lacks. By then the others have
/// given it what it is to keep; see [`super::settle`].
const YOUNG_MS: u64 = 30_000;
/// Requests about names that are worked on at once; more are answered "busy".
const MAX_AT_ONCE: usize = 256;

/// Records that one node keeps: about 300 MB.
const MAX_NAMES: usize = 1_000_000;
/// Records read at once when they are counted.
const COUNT_PAGE: usize = 4096;

/// See the module comment.
pub(crate) struct Keeper {
    store: Store,
    clock: Clock,
    turns: Semaphore,
    /// Records kept. Held while one is compared and stored: the index has one writer anyway.
    kept: Mutex<usize>,
    /// True when there are others to join: addresses were given or are known from earlier.
    joins: bool,
}

impl Keeper {
    /// A keeper of `kept` records that are in `store`. `joins`: there are others to join.
    pub(crate) fn new(store: Store, clock: Clock, kept: usize, joins: bool) -> Arc<Self> {
        let turns = Semaphore::new(MAX_AT_ONCE);
        Arc::new(Self { store, clock, turns, kept: Mutex::new(kept), joins })
    }

    /// Counts the records in `store`. Blocks.
    pub(crate) fn count(store: &Store) -> Result<usize, IndexError> {
        let (mut count, mut after) = (0, None);
        loop {
            let page = store.names(COUNT_PAGE, after)?;
            let Some((last, _)) = page.last() else { return Ok(count) };
            after = Some(*last);
            count += page.len();
        }
    }

    /// How many records are kept. Blocks while one is stored.
    pub(crate) fn kept_count(&self) -> usize {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when the node is to join others and has met none of them.
    pub(crate) fn is_stranded(&self, members: usize) -> bool {
        self.joins && members == 0 && self.clock.uptime_ms() < STRANDED_MS
    }

    /// Answers `GetName` and `PutName`; everything else is refused.
    pub(crate) async fn answer(self: &Arc<Self>, request: Request) -> Response {
        let Ok(_turn) = self.turns.try_acquire() else {
            return refused(RefuseReason::Busy);
        };
        let keeper = Arc::clone(self);
        let work = move || match request {
            Request::GetName { key } => keeper.get(key),
            Request::PutName { record } => keeper.put(record),
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
        let record = self.record(key)?;
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
        let key = record.key();
        let mut count = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.record(key)?;
        if kept.as_ref() == Some(&record) {
            return Ok(Response::NameStored { stored: true, newest: None });
        }
        if !supersedes(&record, kept.as_ref()) {
            return Ok(Response::NameStored { stored: false, newest: kept });
        }
        if kept.is_none() && *count >= MAX_NAMES {
            return Ok(refused(RefuseReason::Busy));
        }
        let stored = self.store.put_name(*key.as_bytes(), rank(&record), &record.to_bytes())?;
        *count += usize::from(stored && kept.is_none());
        Ok(Response::NameStored { stored, newest: kept.filter(|_| !stored) })
    }

    /// The record under `key`; one that cannot be read any more counts as none.
    fn record(&self, key: Key) -> Result<Option<NameRecord>, IndexError> {
        let bytes = self.store.name(*key.as_bytes())?;
        Ok(bytes.and_then(|bytes| NameRecord::from_bytes(&bytes).ok()))
    }

    fn is_young(&self) -> bool {
        self.joins && self.clock.uptime_ms() < YOUNG_MS
    }
}

/// How long a node that met nobody waits for its swarm before it counts as alone: as long as it
/// would remember members.
const STRANDED_MS: u64 = crate::peers::MEMBER_MEMORY_MS;

/// The order of records as the store compares it: stamp, then writer.
fn rank(record: &NameRecord) -> u128 {
    let writer = record.writer.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first));
    u128::from(record.stamp) << 64 | u128::from(writer)
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
        Bench { keeper: Keeper::new(store, clock, 0, joins), signer, clock, _dir: dir }
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
            Self::count(&self.store).expect("readable")
        }
    }
}
