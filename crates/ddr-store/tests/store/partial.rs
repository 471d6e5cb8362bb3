//! Partial blobs: pieces in any order, wrong pieces, false chains, readers, restarts.

mod faults;
mod model;
mod restart;

use crate::support::{blob, check_sound, content, names, open, path, push, repository};
use ddr_oci::piece_chain::{ChainHasher, PieceChain};
use ddr_oci::{Algorithm, Digest};
use ddr_store::disk::{FaultyDisk, RealDisk};
use ddr_store::{
    PartialBlob, PartialError, PartialReader, PieceError, Store, StoreConfig, UploadError, Written,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Length of a piece of all blobs here, bytes.
const PIECE: usize = 65_536;
/// Length of most blobs here: four pieces, the last one short.
const LEN: usize = 3 * PIECE + 100;

fn chain_of(algorithm: Algorithm, bytes: &[u8]) -> (Digest, PieceChain) {
    let mut hasher = ChainHasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

fn sha256_chain(bytes: &[u8]) -> (Digest, PieceChain) {
    chain_of(Algorithm::Sha256, bytes)
}

/// The bytes of a piece.
fn piece(bytes: &[u8], index: usize) -> &[u8] {
    &bytes[index * PIECE..bytes.len().min((index + 1) * PIECE)]
}

pub(crate) fn begin(store: &Store, bytes: &[u8]) -> PartialBlob {
    let (digest, chain) = sha256_chain(bytes);
    store.begin_partial(&digest, chain).unwrap()
}

pub(crate) fn write(partial: &PartialBlob, bytes: &[u8], indices: impl IntoIterator<Item = usize>) {
    for index in indices {
        partial.write_piece(index, piece(bytes, index)).unwrap();
    }
}

/// Looks at all that is claimed; the pieces that turned out wrong.
pub(crate) fn check_all(partial: &PartialBlob) -> Vec<usize> {
    let mut dropped = Vec::new();
    while let Some(checked) = partial.check_next().unwrap() {
        assert_eq!(checked.is_present, partial.reader().have().contains(checked.index));
        dropped.extend((!checked.is_present).then_some(checked.index));
    }
    assert!(partial.claimed().is_empty());
    dropped
}

fn have(partial: &PartialBlob) -> Vec<usize> {
    partial.reader().have().iter().collect()
}

/// Every piece that the reader says it has is that of `bytes`; no other can be read.
pub(crate) fn check_reader(reader: &PartialReader, bytes: &[u8]) {
    let have = reader.have();
    let mut buffer = vec![0; bytes.len() + 1];
    for index in 0..have.len() {
        let start = index * PIECE;
        let end = usize::try_from(reader.readable_from(start as u64)).unwrap();
        if !have.contains(index) {
            assert_eq!((end, reader.read_at(start as u64, &mut buffer).unwrap()), (start, 0));
            continue;
        }
        assert!(end == bytes.len() || end.is_multiple_of(PIECE) && !have.contains(end / PIECE));
        let read = reader.read_at(start as u64, &mut buffer).unwrap();
        assert!(buffer[..read] == bytes[start..end], "piece {index}");
    }
}

/// Nothing of a partial blob is on the disk.
fn check_gone(disk: &FaultyDisk, store: &Store, digest: &Digest) {
    assert!(names(disk, "partial").is_empty(), "{:?}", names(disk, "partial"));
    assert!(store.partial(digest).is_none() && store.idle_partials().is_empty());
}

#[test]
fn pieces_in_any_order_from_many_threads_make_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig::new(dir.path())).unwrap();
    for (algorithm, len) in [
        (Algorithm::Sha256, 20 * PIECE + 7),
        (Algorithm::Sha512, 20 * PIECE),
        (Algorithm::Sha256, 100),
        (Algorithm::Sha512, 0),
    ] {
        let bytes = content(len as u64, len);
        let (digest, chain) = chain_of(algorithm, &bytes);
        let partial = store.begin_partial(&digest, chain.clone()).unwrap();
        let new = std::thread::scope(|scope| {
            let threads = [3, 7, 11].map(|step| {
                let (partial, bytes, pieces) = (&partial, &bytes, chain.pieces());
                scope.spawn(move || {
                    let order = (0..pieces).map(|n| (n * step + step) % pieces);
                    let written = order.map(|i| partial.write_piece(i, piece(bytes, i)).unwrap());
                    written.filter(|written| *written == Written::New).count()
                })
            });
            threads.map(|thread| thread.join().unwrap()).into_iter().sum::<usize>()
        });
        assert_eq!(new, chain.pieces(), "each piece is new once");
        assert!(partial.reader().is_complete());
        let committed = partial.commit().unwrap();
        assert_eq!((committed.digest, committed.size), (digest, len as u64));
        assert_eq!(partial.commit().unwrap(), committed, "a second commit says the same");
        assert!(store.partial(&digest).is_none());
        check_reader(&partial.reader(), &bytes);
        drop(partial);
        assert_eq!(blob(&store, &digest).as_ref(), Some(&bytes));
        assert_eq!(store.piece_chain(&digest).unwrap(), Some(chain));
        assert!(std::fs::read_dir(dir.path().join("partial")).unwrap().next().is_none());
    }
}

#[test]
fn a_wrong_piece_is_refused_and_changes_nothing() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(1, LEN);
    let partial = begin(&store, &bytes);
    write(&partial, &bytes, [1]);
    let (used, version) = (disk.used_bytes(), partial.reader().version());
    let mut flipped = piece(&bytes, 0).to_vec();
    flipped[9] ^= 1;
    let long = [piece(&bytes, 3), &[0]].concat();
    for (index, wrong) in [
        (0, &flipped[..]),
        (0, piece(&bytes, 2)),
        (2, &piece(&bytes, 2)[1..]),
        (3, &long),
        (3, &[7; 100]),
        (3, b""),
        (4, piece(&bytes, 3)),
        (usize::MAX, b""),
    ] {
        let refused = partial.write_piece(index, wrong);
        assert!(matches!(refused, Err(PieceError::Wrong)), "piece {index}: {refused:?}");
    }
    assert_eq!((disk.used_bytes(), partial.reader().version()), (used, version));
    assert_eq!(have(&partial), [1]);
    assert!(matches!(partial.commit(), Err(PartialError::Incomplete)));
    write(&partial, &bytes, [0, 2, 3]);
    partial.commit().unwrap();
    assert_eq!(blob(&store, &Digest::sha256(&bytes)), Some(bytes));
}

#[test]
fn a_piece_that_comes_twice_is_harmless_whatever_comes() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(2, LEN);
    let partial = begin(&store, &bytes);
    write(&partial, &bytes, 0..4);
    let version = partial.reader().version();
    for (index, again) in [(0, piece(&bytes, 0)), (2, &[7; PIECE]), (3, b"")] {
        assert_eq!(partial.write_piece(index, again).unwrap(), Written::Duplicate);
    }
    assert_eq!(partial.reader().version(), version);
    check_reader(&partial.reader(), &bytes);
    partial.rechain(false_chain(&bytes, 1).1).unwrap();
    assert!(partial.reader().is_complete(), "a proven chain was changed");
    partial.commit().unwrap();
    assert_eq!(partial.write_piece(2, &[7; PIECE]).unwrap(), Written::Duplicate);
    assert_eq!(blob(&store, &Digest::sha256(&bytes)), Some(bytes));
}

#[test]
fn readers_see_verified_pieces_only_and_are_told_of_change() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(3, LEN);
    let partial = begin(&store, &bytes);
    let reader = partial.reader();
    let mut seen = BTreeSet::from([reader.version()]);
    for index in [1, 3, 0, 2] {
        check_reader(&reader, &bytes);
        write(&partial, &bytes, [index]);
        assert!(seen.insert(reader.version()), "no change was told");
    }
    check_reader(&reader, &bytes);
    assert_eq!((reader.size(), reader.readable_from(5)), (LEN as u64, LEN as u64));
    assert_eq!(reader.readable_from(u64::MAX), u64::MAX, "there is nothing");
    let mut buffer = [0; 10];
    assert_eq!(reader.read_at(PIECE as u64 - 4, &mut buffer).unwrap(), 10, "over a border");
    assert_eq!(buffer, bytes[PIECE - 4..PIECE + 6]);
    assert_eq!(reader.read_at(LEN as u64 - 3, &mut buffer).unwrap(), 3);
    assert_eq!(reader.read_at(LEN as u64, &mut buffer).unwrap(), 0);
    assert_eq!(reader.read_at(u64::MAX, &mut buffer).unwrap(), 0);

    let peer = store.partial(partial.digest()).unwrap();
    partial.discard();
    check_gone(&disk, &store, reader.digest());
    drop(partial);
    check_reader(&reader, &bytes);
    check_reader(&peer, &bytes);
    // What was discarded is a new beginning.
    assert!(have(&begin(&store, &bytes)).is_empty());
}

#[test]
fn a_digest_is_fetched_once_at_a_time() {
    let store = open(&FaultyDisk::new());
    let bytes = content(4, LEN);
    let (digest, chain) = sha256_chain(&bytes);
    let partial = begin(&store, &bytes);
    let again = store.begin_partial(&digest, chain.clone());
    assert!(matches!(again, Err(PartialError::Busy)));
    assert!(matches!(store.resume_partial(&digest), Err(PartialError::Busy)));
    assert!(matches!(store.begin_fetch(&digest), Err(UploadError::Busy)));
    drop(partial);
    let fetch = store.begin_fetch(&digest).unwrap();
    assert!(matches!(store.begin_partial(&digest, chain.clone()), Err(PartialError::Busy)));
    drop(fetch);
    assert!(store.resume_partial(&digest).unwrap().is_none(), "it had nothing");
    let other = Digest::of(Algorithm::Sha512, &bytes);
    assert!(matches!(
        store.begin_partial(&other, chain.clone()),
        Err(PartialError::OtherAlgorithm)
    ));
    let partial = store.begin_partial(&digest, chain).unwrap();
    let (_, sha512) = chain_of(Algorithm::Sha512, &bytes);
    assert!(matches!(partial.rechain(sha512), Err(PartialError::OtherAlgorithm)));
}

/// The chain of content that differs in one piece: it accepts wrong bytes, but never closes.
fn false_chain(bytes: &[u8], wrong: usize) -> (Vec<u8>, PieceChain) {
    let mut forged = bytes.to_vec();
    forged[wrong * PIECE + 5] ^= 1;
    let (_, chain) = sha256_chain(&forged);
    (forged, chain)
}

#[test]
fn a_false_chain_never_closes_and_another_keeps_what_is_right() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(5, LEN);
    let (digest, chain) = sha256_chain(&bytes);
    for wrong in 0..3 {
        let (forged, claim) = false_chain(&bytes, wrong);
        let partial = store.begin_partial(&digest, claim).unwrap();
        write(&partial, &forged, 0..3);
        for tail in [piece(&bytes, 3), piece(&forged, 3)] {
            assert!(matches!(partial.write_piece(3, tail), Err(PieceError::Wrong)));
        }
        partial.rechain(chain.clone()).unwrap();
        // Before the forged piece both chains have the same states.
        assert_eq!(have(&partial), (0..wrong).collect::<Vec<_>>());
        assert_eq!(partial.claimed().iter().collect::<Vec<_>>(), (wrong..3).collect::<Vec<_>>());
        check_reader(&partial.reader(), &bytes);
        assert_eq!(check_all(&partial), [wrong]);
        check_reader(&partial.reader(), &bytes);
        write(&partial, &bytes, [3, wrong]);
        partial.commit().unwrap();
        drop(partial);
        assert_eq!(blob(&store, &digest).as_ref(), Some(&bytes));
        push(&store, &repository("app"), &bytes).unwrap();
        assert!(store.delete_blob(&repository("app"), &digest).unwrap());
    }
}

#[test]
fn a_chain_may_be_false_in_the_size_too() {
    for claimed in [2 * PIECE + 9, 2 * PIECE, LEN - 1, LEN + 1, 9 * PIECE] {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let bytes = content(6, LEN);
        let (digest, chain) = sha256_chain(&bytes);
        let mut other = bytes.clone();
        other.resize(claimed, 7);
        let partial = store.begin_partial(&digest, sha256_chain(&other).1).unwrap();
        for index in 0..claimed.div_ceil(PIECE) - 1 {
            partial.write_piece(index, piece(&other, index)).unwrap();
        }
        partial.rechain(chain).unwrap();
        assert_eq!(partial.reader().size(), LEN as u64);
        check_reader(&partial.reader(), &bytes);
        check_all(&partial);
        check_reader(&partial.reader(), &bytes);
        assert!(partial.reader().have().count() >= 1, "a size of {claimed}: all was thrown away");
        write(&partial, &bytes, 0..4);
        partial.commit().unwrap();
        assert_eq!(blob(&store, &digest), Some(bytes), "a size of {claimed}");
        check_sound(&store, &disk, "after a false size");
    }
}

/// Tells the others that the test has ended, however that was.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes the first three pieces of these bytes again and again, whatever the chain is, and looks
/// at what is claimed.
fn write_until(ended: &AtomicBool, partial: &PartialBlob, bytes: &[u8]) {
    let _ending = Ending(ended);
    while !ended.load(Ordering::Relaxed) {
        for index in 0..3 {
            let written = partial.write_piece(index, piece(bytes, index));
            assert!(matches!(written, Ok(_) | Err(PieceError::Wrong)), "{written:?}");
            partial.check_next().unwrap();
        }
    }
}

#[test]
fn what_a_reader_gets_is_never_torn_by_writers_or_by_a_change_of_chain() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk);
    let store = Store::open(StoreConfig { root: dir.path().into(), disk }).unwrap();
    let right = content(7, LEN);
    let (digest, chain) = sha256_chain(&right);
    // Every byte of the forged pieces is another one.
    let mut forged = right.clone();
    forged[..3 * PIECE].iter_mut().for_each(|byte| *byte = !*byte);
    let (_, claim) = sha256_chain(&forged);
    let partial = store.begin_partial(&digest, claim.clone()).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (partial, ended) = (&partial, &ended);
        let ending = Ending(ended);
        for bytes in [&right, &forged] {
            scope.spawn(move || write_until(ended, partial, bytes));
        }
        let (right, forged) = (&right, &forged);
        let reading = scope.spawn(move || {
            let _ending = Ending(ended);
            let (reader, mut buffer) = (partial.reader(), vec![0; PIECE]);
            let mut read = 0;
            while !ended.load(Ordering::Relaxed) {
                for index in 0..3 {
                    let n = reader.read_at((index * PIECE) as u64, &mut buffer).unwrap();
                    let whole =
                        [right, forged].map(|bytes| buffer[..n] == piece(bytes, index)[..n]);
                    assert!(whole.contains(&true), "{n} bytes of piece {index} are of both");
                    read += usize::from(n > 0);
                }
            }
            read
        });
        // Only this thread changes the chain, so it knows whose bytes can be read.
        let (reader, mut buffer) = (partial.reader(), vec![0; PIECE]);
        for round in 0..300 {
            let sides = [(right, &chain), (forged, &claim)];
            let (bytes, chain) = sides[round % 2];
            partial.rechain(chain.clone()).unwrap();
            for index in (0..3).cycle().take(30) {
                let n = reader.read_at((index * PIECE) as u64, &mut buffer).unwrap();
                assert!(buffer[..n] == piece(bytes, index)[..n], "piece {index}, round {round}");
            }
        }
        drop(ending);
        assert!(reading.join().unwrap() > 0, "the reader never had a piece");
    });
    partial.rechain(chain).unwrap();
    check_all(&partial);
    check_reader(&partial.reader(), &right);
    write(&partial, &right, 0..4);
    partial.commit().unwrap();
    assert_eq!(blob(&store, &digest), Some(right));
}

#[test]
fn a_blob_that_came_another_way_meanwhile_is_kept_as_it_is() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(8, LEN);
    let partial = begin(&store, &bytes);
    write(&partial, &bytes, 0..4);
    let digest = push(&store, &repository("app"), &bytes).unwrap();
    assert_eq!(partial.commit().unwrap().size, LEN as u64);
    drop(partial);
    check_gone(&disk, &store, &digest);
    assert_eq!(blob(&store, &digest), Some(bytes));
    check_sound(&store, &disk, "after two ways");
    assert!(disk.peek(&path("format")).is_ok());
}
