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

    /// The record that the keeper tells, with a clock that is right.
    async fn told(&self, key: Key) -> Option<NameRecord> {
        match self.get(key).await {
            Response::Name { record, clock_ms } => {
                assert!(self.clock.now_ms().abs_diff(clock_ms) < MAX_AHEAD_MS);
                record
            }
            other => panic!("{other:?}"),
        }
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
    assert_eq!(bench.told(new.key()).await, Some(new));
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
    let key = young.record("x", 0).key();
    assert_eq!(young.told(key).await, Some(record), "what it has it says");

    let unknown = Key::of_content(&Digest::sha256(b"no name"));
    assert_eq!(young.get(unknown).await, refused(RefuseReason::Unsupported));
    tokio::time::advance(Duration::from_millis(YOUNG_MS)).await;
    assert_eq!(young.get(unknown).await, refused(RefuseReason::Unsupported), "it met nobody yet");
    young.keeper.met_another();
    tokio::time::advance(Duration::from_millis(YOUNG_MS)).await;
    assert_eq!(young.told(unknown).await, None);

    let founder = bench(false);
    assert_eq!(founder.told(unknown).await, None);
    assert!(!founder.keeper.is_stranded(0));
}

impl Keeper {
    fn count_again(&self) -> usize {
        Self::count(&self.store).expect("readable").names
    }
}

#[tokio::test]
async fn a_name_that_is_known_is_moved_when_there_is_no_room_for_entries_and_a_new_one_is_not() {
    let (bench, other) = (bench(false), bench(false));
    let (old, new) = (bench.record("old", 5 << 16), bench.record("new", 6 << 16));
    assert_eq!(bench.put(&old).await, stored());
    for one in [&bench, &other] {
        one.keeper.entries.store(MAX_ENTRIES, Ordering::Relaxed);
    }
    assert_eq!(bench.put(&new).await, stored());
    assert_eq!(other.put(&new).await, refused(RefuseReason::Busy));
}
