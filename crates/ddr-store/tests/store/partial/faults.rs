//! A disk that fills or fails, and power cuts and kills at every operation.

use super::{LEN, PIECE, begin, check_all, check_gone, check_reader, have, piece, write};
use crate::support::{blob, check_sound, content, names, open, path, try_open};
use ddr_oci::Digest;
use ddr_store::disk::{FaultyDisk, Operation};
use ddr_store::{PartialBlob, PartialError, PieceError, Store};

/// Power cuts per operation: nothing kept, everything kept, and parts.
const SEEDS: u64 = 4;

#[test]
fn a_disk_that_fills_in_mid_fetch_keeps_what_is_here() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(1, LEN);
    let partial = begin(&store, &bytes);
    write(&partial, &bytes, [0, 1]);
    disk.set_capacity(Some(disk.used_bytes() + 1000));
    let full = partial.write_piece(2, piece(&bytes, 2));
    assert!(matches!(full, Err(PieceError::NoSpace)), "{full:?}");
    assert_eq!(have(&partial), [0, 1]);
    check_reader(&partial.reader(), &bytes);
    // Also over a restart: the sidecar came with the first piece.
    drop(partial);
    drop(store);
    let store = open(&disk);
    let partial = begin(&store, &bytes);
    assert!(check_all(&partial).is_empty());
    assert_eq!(have(&partial), [0, 1]);
    disk.set_capacity(None);
    write(&partial, &bytes, [2, 3]);
    partial.commit().unwrap();
    assert_eq!(blob(&store, &Digest::sha256(&bytes)), Some(bytes));
    check_sound(&store, &disk, "after the disk was full");
}

#[test]
fn where_not_even_the_sidecar_fits_the_space_is_given_back() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(2, LEN);
    let before = disk.used_bytes();
    let partial = begin(&store, &bytes);
    disk.set_capacity(Some(disk.used_bytes() + PIECE as u64));
    write(&partial, &bytes, [0]);
    assert_eq!(have(&partial), [0], "what cannot be noted is here all the same");
    drop(partial);
    assert_eq!(disk.used_bytes(), before);
    check_gone(&disk, &store, &Digest::sha256(&bytes));
}

#[test]
fn a_disk_that_fills_in_a_commit_keeps_the_pieces() {
    let bytes = content(3, LEN);
    let digest = Digest::sha256(&bytes);
    let mut failed = 0;
    for filling in (0..120_000).step_by(1999) {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        store.set_setting("filling", &vec![0; filling]).unwrap();
        let partial = begin(&store, &bytes);
        write(&partial, &bytes, 0..4);
        // Room for the chain file and nothing more.
        disk.set_capacity(Some(disk.used_bytes() + 21 + 3 * 32 + 32));
        match partial.commit() {
            Ok(_) => continue,
            Err(PartialError::NoSpace) => failed += 1,
            Err(other) => panic!("filling {filling}: {other}"),
        }
        check_reader(&partial.reader(), &bytes);
        disk.set_capacity(None);
        assert!(store.blob(&digest).unwrap().is_none(), "filling {filling}");
        partial.commit().unwrap_or_else(|e| panic!("filling {filling}: {e}"));
        drop(partial);
        assert_eq!(blob(&store, &digest).as_ref(), Some(&bytes), "filling {filling}");
        check_gone(&disk, &store, &digest);
        check_sound(&store, &disk, &format!("filling {filling}"));
    }
    assert!(failed > 0, "no commit failed");
}

/// One life of a partial blob: half of it, let go, taken up, the other half, commit. What fails
/// is tried again by the next step or not at all, as a driver does.
fn live(store: &Store, bytes: &[u8]) -> Result<(), PartialError> {
    let digest = Digest::sha256(bytes);
    let (_, chain) = super::sha256_chain(bytes);
    let partial = store.begin_partial(&digest, chain.clone())?;
    let _ = partial.write_piece(3, piece(bytes, 3));
    let _ = partial.write_piece(1, piece(bytes, 1));
    check_reader_if_up(&partial, bytes);
    drop(partial);
    let partial = store.begin_partial(&digest, chain)?;
    while partial.check_next().is_ok_and(|checked| checked.is_some()) {}
    for index in 0..4 {
        let _ = partial.write_piece(index, piece(bytes, index));
    }
    check_reader_if_up(&partial, bytes);
    partial.commit()?;
    Ok(())
}

/// What can be read is right; a read may fail.
fn check_reader_if_up(partial: &PartialBlob, bytes: &[u8]) {
    let (reader, mut buffer) = (partial.reader(), vec![0; bytes.len()]);
    for index in reader.have().iter() {
        let start = index * PIECE;
        if let Ok(read) = reader.read_at(start as u64, &mut buffer) {
            assert!(read > 0 && buffer[..read] == bytes[start..start + read], "piece {index}");
        }
    }
}

/// Whatever came before, the blob can be had, and nothing else is left.
fn check_after(store: &Store, disk: &FaultyDisk, bytes: &[u8], is_stored: bool, context: &str) {
    let digest = Digest::sha256(bytes);
    if is_stored {
        assert_eq!(blob(store, &digest).as_deref(), Some(bytes), "{context}: it was acknowledged");
        assert!(store.idle_partials().is_empty(), "{context}");
    } else {
        live(store, bytes).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(blob(store, &digest).as_deref(), Some(bytes), "{context}");
    }
    check_sound(store, disk, context);
    assert!(store.partial(&digest).is_none(), "{context}");
}

#[test]
fn one_failed_operation_anywhere_loses_nothing_acknowledged_and_leaks_nothing() {
    let bytes = content(4, LEN);
    for after in 0.. {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let start = disk.operations();
        disk.fail_after(Some(after));
        let result = live(&store, &bytes);
        let ended = disk.operations() - start <= after;
        let context = format!("operation {after}: {result:?}");
        disk.fail_after(None);
        check_after(&store, &disk, &bytes, result.is_ok(), &context);
        drop(store);
        disk.restart();
        let store = open(&disk);
        check_after(&store, &disk, &bytes, true, &context);
        assert!(names(&disk, "partial").is_empty(), "{context}");
        if ended {
            assert!(after > 30, "the sequence is shorter than it should be");
            return;
        }
    }
}

#[test]
fn a_power_cut_or_a_kill_at_any_operation_loses_nothing_acknowledged_and_serves_nothing_wrong() {
    let bytes = content(5, LEN);
    for crash_at in 0.. {
        for seed in 0..=SEEDS {
            let disk = FaultyDisk::new();
            disk.crash_after(crash_at);
            let stored = try_open(&disk).is_ok_and(|store| live(&store, &bytes).is_ok());
            if !disk.is_down() {
                assert!(crash_at > 60, "the sequence is shorter than it should be");
                return;
            }
            let context = format!("operation {crash_at}, seed {seed}, stored: {stored}");
            match seed {
                SEEDS => disk.restart(),
                0 | 1 => disk.power_cut(seed),
                _ => disk.power_cut(seed + crash_at * SEEDS),
            }
            let store = try_open(&disk).unwrap_or_else(|e| panic!("{context}: {e}"));
            check_after(&store, &disk, &bytes, stored, &context);
            assert!(names(&disk, "partial").is_empty(), "{context}");
        }
    }
}

#[test]
fn a_failed_sync_throws_the_bytes_away() {
    let bytes = content(6, LEN);
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let partial = begin(&store, &bytes);
    write(&partial, &bytes, 0..4);
    // The look at the index, the length of the file, the sync.
    let gone = (0..4).find(|after| {
        disk.fail_after(Some(*after));
        let result = partial.commit();
        disk.fail_after(None);
        matches!(result, Err(PartialError::Gone(_)))
    });
    assert!(gone.is_some(), "no failed operation threw the bytes away");
    check_gone(&disk, &store, &Digest::sha256(&bytes));
    assert!(matches!(partial.commit(), Err(PartialError::Gone(_))));
    let again = begin(&store, &bytes);
    assert!(have(&again).is_empty());
    drop(partial);
    write(&again, &bytes, 0..4);
    again.commit().unwrap();
    assert_eq!(blob(&store, &Digest::sha256(&bytes)), Some(bytes));
}

/// The operations of one whole life without an end in between, and how many its commit took.
fn operations(pieces: usize) -> (Vec<Operation>, u64) {
    let bytes = content(7, (pieces - 1) * PIECE + 100);
    let disk = FaultyDisk::new();
    let store = open(&disk);
    disk.record();
    let partial = begin(&store, &bytes);
    write(&partial, &bytes, (0..pieces).rev());
    let before = disk.operations();
    partial.commit().unwrap();
    let committed = disk.operations() - before;
    drop(partial);
    (disk.recorded(), committed)
}

#[test]
fn a_whole_life_costs_the_syncs_of_a_push_and_no_byte_is_read() {
    let (recorded, of_commit) = operations(4);
    let is_sync = |o: &&Operation| matches!(o, Operation::Sync(_) | Operation::SyncDir(_));
    let syncs: Vec<_> = recorded.iter().filter(is_sync).collect();
    assert_eq!(syncs.len(), 4, "bytes, a new shard, names, the index: {syncs:#?}");
    let data = recorded.iter().find_map(|operation| match operation {
        Operation::Create(data) if data.starts_with(path("partial")) => Some(data),
        _ => None,
    });
    let of_data = |o: &&Operation| matches!(o, Operation::Write(written) if Some(written) == data);
    assert_eq!(recorded.iter().filter(of_data).count(), 4, "each piece once: {recorded:#?}");
    assert_eq!(operations(40).1, of_commit, "the commit grows with the pieces");

    let (recorded, _) = operations(1);
    let of_map = |o: &&Operation| matches!(o, Operation::Create(p) if p.ends_with(".map.new"));
    assert_eq!(recorded.iter().filter(of_map).count(), 0, "one piece has a sidecar");
}
