//! What a restart, a kill, a power cut and damage leave of a partial blob.

use super::{LEN, PIECE, begin, check_all, check_gone, check_reader, have, sha256_chain, write};
use crate::support::{blob, check_sound, content, names, open, path, push, repository};
use ddr_oci::Digest;
use ddr_store::disk::{Disk, FaultyDisk};
use ddr_store::{GcOptions, PARTIAL_IDLE_MS, Store, now_ms};
use std::path::PathBuf;

/// Bytes of the sidecar that are written again and again.
const SECTOR: usize = 512;

/// A store whose disk has pieces 0 and 2 of four, let go cleanly.
fn let_go() -> (FaultyDisk, Vec<u8>, Digest) {
    let disk = FaultyDisk::new();
    let bytes = content(1, LEN);
    let_go_of(&open(&disk), &bytes);
    let digest = Digest::sha256(&bytes);
    (disk, bytes, digest)
}

fn let_go_of(store: &Store, bytes: &[u8]) {
    write(&begin(store, bytes), bytes, [2, 0]);
}

/// The only file of a partial blob with this suffix.
fn file(disk: &FaultyDisk, suffix: &str) -> PathBuf {
    let mut found = names(disk, "partial");
    found.retain(|name| name.ends_with(suffix) && (!suffix.is_empty() || name.len() == 32));
    assert_eq!(found.len(), 1, "{found:?}");
    path("partial").join(&found[0])
}

/// Goes on to the end.
fn complete(store: &Store, bytes: &[u8]) {
    let partial = begin(store, bytes);
    check_all(&partial);
    check_reader(&partial.reader(), bytes);
    write(&partial, bytes, 0..bytes.len().div_ceil(PIECE));
    partial.commit().unwrap();
    assert_eq!(blob(store, &Digest::sha256(bytes)).as_deref(), Some(bytes));
}

#[test]
fn it_goes_on_where_it_was_and_hashes_again_before_it_counts() {
    let (disk, bytes, digest) = let_go();
    let store = open(&disk);
    let idle = store.idle_partials();
    assert_eq!((idle.len(), idle[0].digest, idle[0].size), (1, digest, LEN as u64));
    assert_eq!(idle[0].held_bytes, 2 * PIECE as u64);
    assert!(store.partial(&digest).is_none(), "nothing is verified, so nothing is served");

    let partial = store.resume_partial(&digest).unwrap().unwrap();
    assert_eq!(partial.reader().chain(), sha256_chain(&bytes).1);
    assert!(have(&partial).is_empty());
    check_reader(&partial.reader(), &bytes);
    assert_eq!(partial.claimed().iter().collect::<Vec<_>>(), [0, 2]);
    let version = partial.reader().version();
    assert!(check_all(&partial).is_empty());
    assert_eq!(have(&partial), [0, 2]);
    assert_eq!(partial.reader().version(), version + 2);
    write(&partial, &bytes, [1, 3]);
    partial.commit().unwrap();
    check_gone(&disk, &store, &digest);
    assert_eq!(blob(&store, &digest), Some(bytes));
    check_sound(&store, &disk, "after going on");
}

#[test]
fn it_goes_on_in_the_same_process_too_and_unchecked_claims_are_not_forgotten() {
    let (disk, bytes, digest) = let_go();
    let store = open(&disk);
    for _ in 0..2 {
        drop(store.resume_partial(&digest).unwrap().unwrap());
    }
    assert_eq!(store.idle_partials()[0].held_bytes, 2 * PIECE as u64);
    drop(store);
    complete(&open(&disk), &bytes);
}

#[test]
fn another_chain_may_be_the_one_to_go_on_with() {
    let (disk, bytes, digest) = let_go();
    let (forged, claim) = super::false_chain(&bytes, 1);
    let store = open(&disk);
    let partial = store.begin_partial(&digest, claim).unwrap();
    assert!(check_all(&partial).is_empty(), "both chains take the bytes of piece 2");
    write(&partial, &forged, [1]);
    drop(partial);
    drop(store);
    let store = open(&disk);
    let partial = begin(&store, &bytes);
    assert_eq!(check_all(&partial), [1]);
    assert_eq!(have(&partial), [0, 2]);
    drop(partial);
    complete(&store, &bytes);
}

#[test]
fn a_kill_loses_what_came_since_the_sidecar_was_written_and_no_more() {
    // The sidecar is written with the first piece, and again after 16 MiB.
    for (len, least) in [(LEN, PIECE), (17 << 20, 16 << 20)] {
        let bytes = content(2, len);
        let digest = Digest::sha256(&bytes);
        for power in [None, Some(7)] {
            let disk = FaultyDisk::new();
            let store = open(&disk);
            let partial = begin(&store, &bytes);
            write(&partial, &bytes, (1..len.div_ceil(PIECE)).rev());
            // What the process does in its end does not reach the disk.
            disk.crash_after(0);
            drop((partial, store));
            match power {
                None => disk.restart(),
                Some(seed) => disk.power_cut(seed),
            }
            let store = open(&disk);
            let found = store.resume_partial(&digest).unwrap();
            if let Some(partial) = &found {
                check_all(partial);
                check_reader(&partial.reader(), &bytes);
                let held = partial.reader().have().count() * PIECE;
                assert!(power.is_some() || held >= least, "{held} bytes are left of {len}");
            }
            assert!(found.is_some() || power.is_some(), "a kill lost all");
            drop(found);
            complete(&store, &bytes);
            check_sound(&store, &disk, &format!("{power:?}"));
        }
    }
}

#[test]
fn without_a_piece_nothing_stays() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(4, LEN);
    drop(begin(&store, &bytes));
    check_gone(&disk, &store, &Digest::sha256(&bytes));
}

#[test]
fn bits_that_flipped_meanwhile_are_found() {
    let (disk, bytes, _) = let_go();
    let data = file(&disk, "");
    let mut rotten = disk.peek(&data).unwrap();
    rotten[2 * PIECE + 77] ^= 1;
    disk.plant(&data, &rotten).unwrap();
    let store = open(&disk);
    let partial = begin(&store, &bytes);
    assert_eq!(check_all(&partial), [2]);
    check_reader(&partial.reader(), &bytes);
    drop(partial);
    complete(&store, &bytes);
}

#[test]
fn a_file_that_was_cut_or_is_gone_claims_no_more_than_it_has() {
    for left in [None, Some(0), Some(PIECE - 1), Some(PIECE), Some(2 * PIECE + 5)] {
        let (disk, bytes, digest) = let_go();
        let data = file(&disk, "");
        match left {
            None => disk.remove(&data).unwrap(),
            Some(len) => disk.plant(&data, &bytes[..len]).unwrap(),
        }
        let store = open(&disk);
        if let Some(left) = left {
            let partial = begin(&store, &bytes);
            check_all(&partial);
            let whole = if left >= PIECE { vec![0] } else { vec![] };
            assert_eq!(have(&partial), whole, "{left} bytes are left");
        } else {
            check_gone(&disk, &store, &digest);
        }
        complete(&store, &bytes);
    }
}

#[test]
fn a_torn_sector_costs_a_look_at_every_piece() {
    let (disk, bytes, _) = let_go();
    let map = file(&disk, ".map");
    let mut torn = disk.peek(&map).unwrap();
    torn[50] ^= 1;
    disk.plant(&map, &torn).unwrap();
    let store = open(&disk);
    let partial = begin(&store, &bytes);
    assert!(partial.claimed().is_full());
    assert_eq!(check_all(&partial), [1, 3]);
    assert_eq!(have(&partial), [0, 2]);
    drop(partial);
    complete(&store, &bytes);
}

#[test]
fn a_damaged_sidecar_is_thrown_away_with_the_data() {
    let (disk, bytes, digest) = let_go();
    let whole = disk.peek(&file(&disk, ".map")).unwrap();
    let mut flipped = whole.clone();
    flipped[SECTOR + 100] ^= 1;
    for bad in [&b""[..], &whole[..40], &whole[..SECTOR], &flipped, &[0xff; 200_000]] {
        let (disk, ..) = let_go();
        disk.plant(&file(&disk, ".map"), bad).unwrap();
        let store = open(&disk);
        check_gone(&disk, &store, &digest);
        check_sound(&store, &disk, "after a damaged sidecar");
        complete(&store, &bytes);
    }
    // Damaged while the store is open: noticed when it is taken up.
    let store = open(&disk);
    disk.plant(&file(&disk, ".map"), &flipped).unwrap();
    assert!(store.resume_partial(&digest).unwrap().is_none());
    check_gone(&disk, &store, &digest);
    complete(&store, &bytes);
}

#[test]
fn leftovers_go_and_unknown_names_are_put_aside() {
    let (disk, bytes, digest) = let_go();
    let id = "0123456789abcdef0123456789abcdef";
    let data = file(&disk, "");
    for name in [id.to_owned(), format!("{id}.chain"), format!("{id}.map.new")] {
        disk.plant(&path("partial").join(name), b"left").unwrap();
    }
    let own = data.with_extension("map.new");
    disk.plant(&own, b"half").unwrap();
    // A second one of the same digest: a removal that did not succeed.
    let twin = path("partial").join("f".repeat(32));
    disk.plant(&twin, &disk.peek(&data).unwrap()).unwrap();
    disk.plant(&twin.with_extension("map"), &disk.peek(&file(&disk, ".map")).unwrap()).unwrap();
    let store = open(&disk);
    assert_eq!(store.idle_partials().len(), 1);
    complete(&store, &bytes);
    check_gone(&disk, &store, &digest);
    check_sound(&store, &disk, "all names were known");
    drop(store);
    disk.plant(&path("partial").join("notes.txt"), b"mine").unwrap();
    let store = open(&disk);
    check_gone(&disk, &store, &digest);
    assert_eq!(names(&disk, "quarantine").len(), 1);
}

/// Says in its sidecar that it was used at this time.
fn used_at(disk: &FaultyDisk, used_ms: u64) {
    let map = file(disk, ".map");
    let mut bytes = disk.peek(&map).unwrap();
    bytes[32..40].copy_from_slice(&used_ms.to_be_bytes());
    let check = Digest::sha256(&bytes[32..SECTOR]);
    bytes[..32].copy_from_slice(check.as_bytes());
    disk.plant(&map, &bytes).unwrap();
}

#[test]
fn what_was_not_used_for_seven_days_goes_and_a_wrong_clock_removes_nothing() {
    let day = 24 * 60 * 60 * 1000;
    for (used_ms, stays) in [
        (now_ms() - PARTIAL_IDLE_MS + day, true),
        (now_ms() - PARTIAL_IDLE_MS - day, false),
        (now_ms() + 100 * day, true),
        (u64::MAX, true),
        (0, false),
    ] {
        let (disk, _, digest) = let_go();
        used_at(&disk, used_ms);
        let store = open(&disk);
        assert_eq!(store.idle_partials().len(), usize::from(stays), "used at {used_ms}");
        if stays {
            assert!(store.idle_partials()[0].used_ms <= now_ms());
        } else {
            check_gone(&disk, &store, &digest);
        }
    }
}

#[test]
fn beyond_a_total_the_one_unused_longest_goes_first() {
    let (disk, oldest, _) = let_go();
    used_at(&disk, now_ms() - 60_000);
    let store = open(&disk);
    let newer = content(9, LEN);
    let_go_of(&store, &newer);
    let owned = begin(&store, &content(10, LEN));
    write(&owned, &content(10, LEN), [0]);
    let digests =
        |store: &Store| store.idle_partials().iter().map(|p| p.digest).collect::<Vec<_>>();
    assert_eq!(digests(&store), [Digest::sha256(&newer), Digest::sha256(&oldest)]);
    assert_eq!(store.drop_idle_partials(4 * PIECE as u64), 0);
    assert_eq!(store.drop_idle_partials(4 * PIECE as u64 - 1), 1);
    assert_eq!(digests(&store), [Digest::sha256(&newer)]);
    assert_eq!(store.drop_idle_partials(0), 1);
    assert_eq!(have(&owned), [0], "one that is being written to stays");
    assert_eq!(names(&disk, "partial").len(), 2, "its data and its sidecar");
}

#[test]
fn a_collection_removes_those_of_blobs_that_are_here() {
    let (disk, bytes, digest) = let_go();
    let store = open(&disk);
    push(&store, &repository("app"), &bytes).unwrap();
    store.gc(GcOptions { now_ms: now_ms(), dry_run: true, ..GcOptions::default() }).run().unwrap();
    assert_eq!(store.idle_partials().len(), 1);
    let options = GcOptions { now_ms: now_ms(), grace_ms: 60_000, ..GcOptions::default() };
    store.gc(options).run().unwrap();
    check_gone(&disk, &store, &digest);
    assert_eq!(blob(&store, &digest), Some(bytes));
}
