//! Power loss, proven on a recording: everything that a store wrote is played again and cut off
//! after every operation, and for each cut the disk is put together in every way that fsync
//! allows where the unsynced operations are few, else in a number of ways chosen by seed.
//!
//! `DDR_POWER_EXHAUSTIVE` (operations up to which every subset is tried) and `DDR_POWER_SAMPLES`
//! (subsets beyond) make it longer; docs/testing.md has the numbers.

use crate::partial;
use crate::support::{
    blob, check_served, content, fetch, manifest, names, open, path, push, repository, tag,
    try_open,
};
use ddr_oci::{Algorithm, Digest, RepositoryName};
use ddr_store::disk::{Disk, EntryKind, FaultyDisk, Recording, Replay};
use ddr_store::{ManifestEntry, Store, UploadError};
use redb::backends::InMemoryBackend;
use redb::{ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Unsynced operations of which every subset is tried.
const EXHAUSTIVE: usize = 4;
/// Subsets that are tried of more, beside none and all.
const SAMPLES: usize = 4;
/// Writers at the same time in the recording of many.
const WRITERS: u64 = 4;
/// Every so many cuts the store is also used again.
const REUSE_EVERY: usize = 8;

type Step = (&'static str, fn(&Store));
/// Name, step that makes it true, step that ends it, what.
type Fact = (&'static str, usize, Option<usize>, fn(&Store) -> bool);

/// A step is marked when it begins and when it was acknowledged.
const fn begun(step: usize) -> u64 {
    2 * step as u64
}

const fn done(step: usize) -> u64 {
    2 * step as u64 + 1
}

fn app() -> RepositoryName {
    repository("team/app")
}

fn layer() -> Vec<u8> {
    content(1, 150_000)
}

fn config() -> Vec<u8> {
    content(2, 700)
}

fn fetched() -> Vec<u8> {
    content(3, 140_000)
}

fn chunked() -> Vec<u8> {
    content(4, 170_000)
}

fn image() -> ManifestEntry {
    manifest(b"{\"image\":1}", &[Digest::sha256(&layer()), Digest::sha256(&config())], None)
}

fn newer() -> ManifestEntry {
    manifest(b"{\"image\":2}", &[Digest::sha256(&chunked())], Some(image().digest))
}

fn pushed(store: &Store, name: &str, bytes: &[u8]) {
    push(store, &repository(name), bytes).unwrap();
}

fn by_chunks(store: &Store) {
    let bytes = chunked();
    let id = store.begin_upload(&app()).unwrap();
    for chunk in bytes.chunks(65_000) {
        store.upload(&app(), &id).unwrap().append(chunk).unwrap();
    }
    store.upload(&app(), &id).unwrap().commit(&Digest::sha256(&bytes)).unwrap();
}

fn abandoned(store: &Store) {
    let id = store.begin_upload(&app()).unwrap();
    store.upload(&app(), &id).unwrap().append(&content(5, 80_000)).unwrap();
    store.upload(&app(), &id).unwrap().cancel();
    let id = store.begin_upload(&app()).unwrap();
    let mut upload = store.upload(&app(), &id).unwrap();
    upload.append(b"other bytes").unwrap();
    let refused = upload.commit(&Digest::sha256(b"bytes"));
    assert!(matches!(refused, Err(UploadError::DigestMismatch)));
    let mut fetch = store.begin_fetch(&Digest::sha256(b"never whole")).unwrap();
    fetch.append(&content(6, 70_000)).unwrap();
}

fn in_pieces() -> Vec<u8> {
    content(7, 3 * 65_536 + 9)
}

/// Two pieces of four, let go.
fn half(store: &Store) {
    let bytes = in_pieces();
    partial::write(&partial::begin(store, &bytes), &bytes, [3, 1]);
}

/// Taken up, and brought to its end.
fn other_half(store: &Store) {
    let bytes = in_pieces();
    let partial = partial::begin(store, &bytes);
    partial::check_all(&partial);
    partial::write(&partial, &bytes, 0..4);
    partial.commit().unwrap();
}

fn delete(store: &Store, bytes: &[u8]) {
    assert!(store.delete_blob(&app(), &Digest::sha256(bytes)).unwrap());
}

fn steps() -> Vec<Step> {
    vec![
        ("push layer", |s| pushed(s, "team/app", &layer())),
        ("push config", |s| pushed(s, "team/app", &config())),
        ("put manifest with tags", |s| {
            s.put_manifest(&app(), &image(), &[tag("1"), tag("latest")]).unwrap();
        }),
        ("push by chunks", by_chunks),
        ("abandon", abandoned),
        ("move tag", |s| s.put_manifest(&app(), &newer(), &[tag("latest")]).unwrap()),
        ("fetch", |s| assert!(fetch(s, &fetched()).is_ok())),
        ("link", |s| s.link(&app(), &Digest::sha256(&fetched())).unwrap()),
        ("push elsewhere", |s| pushed(s, "other", &layer())),
        ("delete config", |s| delete(s, &config())),
        ("collect fetched", |s| delete(s, &fetched())),
        ("push config again", |s| pushed(s, "team/app", &config())),
        ("delete tag", |s| assert!(s.delete_tag(&app(), &tag("1")).unwrap())),
        ("name", |s| assert!(s.put_name([7; 32], 9, b"record").unwrap())),
        ("half in pieces", half),
        ("other half in pieces", other_half),
    ]
}

fn serves(store: &Store, name: &str, bytes: &[u8]) -> bool {
    let digest = Digest::sha256(bytes);
    store.is_linked(&repository(name), &digest).unwrap()
        && blob(store, &digest).as_deref() == Some(bytes)
}

fn gone(store: &Store, bytes: &[u8]) -> bool {
    let digest = Digest::sha256(bytes);
    blob(store, &digest).is_none() && !store.is_linked(&app(), &digest).unwrap()
}

fn has(store: &Store, entry: &ManifestEntry) -> bool {
    let stored = store.manifest(&app(), &entry.digest).unwrap();
    stored.is_some_and(|stored| stored.bytes == entry.bytes)
}

fn names_tag(store: &Store, name: &str, entry: &ManifestEntry) -> bool {
    store.tag(&app(), &tag(name)).unwrap() == Some(entry.digest)
}

fn facts() -> Vec<Fact> {
    vec![
        ("layer", 0, None, |s| serves(s, "team/app", &layer())),
        ("config", 1, Some(9), |s| serves(s, "team/app", &config())),
        ("image", 2, None, |s| has(s, &image())),
        ("tag 1", 2, Some(12), |s| names_tag(s, "1", &image())),
        ("tag before its move", 2, Some(5), |s| names_tag(s, "latest", &image())),
        ("tag, moved or not", 2, None, |s| {
            names_tag(s, "latest", &image())
                || (names_tag(s, "latest", &newer()) && has(s, &newer()))
        }),
        ("chunks", 3, None, |s| serves(s, "team/app", &chunked())),
        ("nothing abandoned", 4, None, |s| {
            [&content(5, 80_000)[..], b"bytes", b"other bytes"]
                .iter()
                .all(|bytes| blob(s, &Digest::sha256(bytes)).is_none())
        }),
        ("tag after its move", 5, None, |s| names_tag(s, "latest", &newer())),
        ("referrer", 5, None, |s| s.referrers(&app(), &image().digest).unwrap().len() == 1),
        ("fetched", 6, Some(10), |s| blob(s, &Digest::sha256(&fetched())) == Some(fetched())),
        ("link", 7, Some(10), |s| s.is_linked(&app(), &Digest::sha256(&fetched())).unwrap()),
        ("elsewhere", 8, None, |s| serves(s, "other", &layer())),
        ("config deleted", 9, Some(11), |s| gone(s, &config())),
        ("fetched collected", 10, None, |s| gone(s, &fetched())),
        ("config again", 11, None, |s| serves(s, "team/app", &config())),
        ("tag deleted", 12, None, |s| s.tag(&app(), &tag("1")).unwrap().is_none()),
        ("name", 13, None, |s| s.name([7; 32]).unwrap().as_deref() == Some(b"record")),
        ("in pieces", 15, None, |s| blob(s, &Digest::sha256(&in_pieces())) == Some(in_pieces())),
    ]
}

fn check_facts(store: &Store, marks: &[u64], context: &str) {
    for (name, from, until, fact) in facts() {
        let ended = until.is_some_and(|step| marks.contains(&begun(step)));
        if marks.contains(&done(from)) && !ended {
            assert!(fact(store), "{context}: {name} is not as acknowledged");
        }
    }
}

/// Nothing is there but what counts: rows with their files, and sessions that can go on.
fn check_reclaimed(store: &Store, disk: &FaultyDisk, context: &str) {
    assert!(names(disk, "fetch").is_empty(), "{context}: a fetch was left behind");
    assert!(names(disk, "quarantine").is_empty(), "{context}: something was put aside");
    check_partials(store, disk, context);
    let rows = store.blobs().unwrap();
    for shard in disk.list(&path("blobs/sha256")).unwrap() {
        for file in disk.list(&shard.path).unwrap() {
            let hex = file.name.strip_suffix(".chain").unwrap_or(&file.name);
            let known = rows.iter().any(|(digest, _)| digest.hex() == hex);
            assert!(known, "{context}: {} takes space for nothing", file.name);
        }
    }
    for session in disk.list(&path("uploads")).unwrap() {
        assert_eq!(session.kind, EntryKind::Directory, "{context}");
        let found = [app(), repository("other")]
            .iter()
            .any(|name| store.upload(name, &session.name).is_ok());
        assert!(found, "{context}: {} is no session", session.name);
    }
}

/// Of partial blobs there are those that can go on, whose pieces are right once they count.
fn check_partials(store: &Store, disk: &FaultyDisk, context: &str) {
    let idle = store.idle_partials();
    let files = names(disk, "partial");
    assert_eq!(files.len(), 2 * idle.len(), "{context}: {files:?} for {idle:?}");
    for found in idle {
        let partial = store.resume_partial(&found.digest).unwrap();
        let partial = partial.unwrap_or_else(|| panic!("{context}: {found:?} is of no use"));
        partial::check_all(&partial);
        partial::check_reader(&partial.reader(), &in_pieces());
    }
}

/// What is on the disk before anything is repaired: each row of the index stands for a whole file.
fn check_rows(disk: &FaultyDisk, context: &str) {
    let bytes = disk.peek(&path("index.redb")).unwrap();
    let backend = InMemoryBackend::new();
    backend.set_len(bytes.len() as u64).unwrap();
    backend.write(0, &bytes).unwrap();
    let database = redb::Builder::new().create_with_backend(backend).unwrap();
    let transaction = database.begin_read().unwrap();
    let rows = TableDefinition::<'_, &[u8], u64>::new("blobs");
    for row in transaction.open_table(rows).unwrap().iter().unwrap() {
        let (key, size) = row.unwrap();
        let digest = Digest::from_parts(Algorithm::Sha256, &key.value()[1..]).unwrap();
        let hex = digest.hex();
        let file = disk.peek(&path("blobs/sha256").join(&hex[..2]).join(&hex));
        let whole = file.is_ok_and(|file| Digest::sha256(&file) == digest);
        assert!(whole, "{context}: a row of {} bytes without its whole file", size.value());
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// How much is tried.
struct Bounds {
    exhaustive: usize,
    samples: usize,
}

impl Bounds {
    fn read() -> Self {
        Self {
            exhaustive: setting("DDR_POWER_EXHAUSTIVE", EXHAUSTIVE),
            samples: setting("DDR_POWER_SAMPLES", SAMPLES),
        }
    }
}

#[derive(Default)]
struct Tried {
    prefixes: AtomicUsize,
    /// Prefixes of which every subset was tried.
    whole: AtomicUsize,
    cuts: AtomicUsize,
    most_unsynced: AtomicUsize,
}

/// All disks that this prefix can leave, within the bounds, with what to call them.
fn each_cut(
    replay: &Replay<'_>,
    bounds: &Bounds,
    tried: &Tried,
    mut each: impl FnMut(FaultyDisk, &str),
) {
    let unsynced = replay.unsynced();
    tried.prefixes.fetch_add(1, Ordering::Relaxed);
    tried.most_unsynced.fetch_max(unsynced, Ordering::Relaxed);
    let place = format!("after {} operations, {unsynced} unsynced", replay.done());
    if unsynced <= bounds.exhaustive {
        tried.whole.fetch_add(1, Ordering::Relaxed);
        for subset in 0..1_u64 << unsynced {
            let keep = (0..unsynced).map(|bit| subset >> bit & 1 == 1).collect::<Vec<_>>();
            each(replay.cut_whole(&keep), &format!("{place}, subset {subset:#b}"));
        }
    } else {
        each(replay.cut_whole(&vec![false; unsynced]), &format!("{place}, none kept"));
        each(replay.cut_whole(&vec![true; unsynced]), &format!("{place}, all kept"));
    }
    let first = 2 + (replay.done() * bounds.samples) as u64;
    for seed in first..first + bounds.samples as u64 {
        each(replay.cut_torn(seed), &format!("{place}, seed {seed}"));
    }
}

/// Cuts the recording everywhere, on all cores. `settled`: the system writes back by itself at
/// each mark, which leaves few unsynced operations; else nothing is written back but by a sync.
fn cut_everywhere(
    what: &str,
    recording: &Recording,
    settled: bool,
    check: impl Fn(&Store, &[u64], &str) + Sync,
) {
    let (bounds, tried) = (Bounds::read(), Tried::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let check_one = |replay: &Replay<'_>, disk: &FaultyDisk, context: &str| {
        let context = format!("{what}: {context}");
        check_rows(disk, &context);
        let store = try_open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        check(&store, replay.marks(), &context);
        check_served(&store, &context);
        check_reclaimed(&store, disk, &context);
        if tried.cuts.fetch_add(1, Ordering::Relaxed).is_multiple_of(REUSE_EVERY) {
            push(&store, &app(), &layer()).unwrap();
            assert!(serves(&store, "team/app", &layer()), "{context}: reuse");
        }
    };
    // Every thread plays the whole recording and cuts off its share of the places.
    let play = |thread: usize| {
        let mut replay = recording.replay();
        let mut marks = 0;
        while replay.step().unwrap() {
            if settled && replay.marks().len() > marks {
                marks = replay.marks().len();
                replay.settle();
            }
            if replay.done() % threads == thread {
                each_cut(&replay, &bounds, &tried, |disk, at| check_one(&replay, &disk, at));
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let play = &play;
            scope.spawn(move || play(thread));
        }
    });
    println!(
        "{what}: {} prefixes, {} of them with every subset (up to {} unsynced operations; at most \
         {} met), {} power cuts",
        tried.prefixes.load(Ordering::Relaxed),
        tried.whole.load(Ordering::Relaxed),
        bounds.exhaustive,
        tried.most_unsynced.load(Ordering::Relaxed),
        tried.cuts.load(Ordering::Relaxed),
    );
    assert!(tried.prefixes.load(Ordering::Relaxed) > 100, "the recording is too short");
}

/// What the steps write, on a store that is new and durable.
fn recorded() -> Recording {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    disk.start_recording();
    for (number, (_, step)) in steps().into_iter().enumerate() {
        disk.mark(begun(number));
        step(&store);
        disk.mark(done(number));
    }
    disk.stop_recording().unwrap()
}

#[test]
fn every_prefix_with_the_fewest_unsynced_operations() {
    cut_everywhere("settled", &recorded(), true, |store, marks, context| {
        check_facts(store, marks, context);
    });
}

#[test]
fn every_prefix_when_nothing_is_written_back_but_by_a_sync() {
    cut_everywhere("unsettled", &recorded(), false, |store, marks, context| {
        check_facts(store, marks, context);
    });
}

fn of_writer(writer: u64, round: u64) -> Vec<u8> {
    content(100 + 10 * writer + round, 66_000 + 100 * usize::try_from(writer).unwrap())
}

fn image_of(writer: u64, round: u64) -> ManifestEntry {
    let bytes = format!("{{\"writer\":{writer},\"round\":{round}}}");
    manifest(bytes.as_bytes(), &[Digest::sha256(&of_writer(writer, round))], None)
}

/// Pushes of several writers at once, whose changes share transactions as it comes.
fn recorded_of_many() -> Recording {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    disk.start_recording();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, disk) = (&store, &disk);
            scope.spawn(move || {
                for round in 0..3 {
                    let mark = 10 * (writer * 10 + round);
                    push(store, &app(), &of_writer(writer, round)).unwrap();
                    disk.mark(mark + 1);
                    let name = tag(&format!("w{writer}"));
                    disk.mark(mark + 2);
                    store.put_manifest(&app(), &image_of(writer, round), &[name]).unwrap();
                    disk.mark(mark + 3);
                }
                let mark = 10 * (writer * 10);
                disk.mark(mark + 4);
                delete(store, &of_writer(writer, 0));
                disk.mark(mark + 5);
            });
        }
    });
    disk.stop_recording().unwrap()
}

fn check_writers(store: &Store, marks: &[u64], context: &str) {
    for writer in 0..WRITERS {
        let met = |round: u64, what: u64| marks.contains(&(10 * (writer * 10 + round) + what));
        for round in 0..3 {
            let bytes = of_writer(writer, round);
            if met(round, 1) && !met(round, 4) {
                assert!(serves(store, "team/app", &bytes), "{context}: {writer}, {round}");
            }
            if met(round, 3) {
                assert!(has(store, &image_of(writer, round)), "{context}: {writer}, {round}");
            }
            if met(round, 5) {
                assert!(gone(store, &bytes), "{context}: {writer}, {round}");
            }
        }
        let last = (0..3).rev().find(|round| met(*round, 3));
        let Some(last) = last else { continue };
        let next = (last + 1).min(2);
        let name = format!("w{writer}");
        let moved = met(next, 2) && names_tag(store, &name, &image_of(writer, next));
        assert!(
            moved || names_tag(store, &name, &image_of(writer, last)),
            "{context}: the tag of {writer} went back"
        );
    }
}

#[test]
fn every_prefix_of_many_writers_at_once() {
    cut_everywhere("many", &recorded_of_many(), false, |store, marks, context| {
        check_writers(store, marks, context);
    });
}
