//! Damaged, foreign and unreadable data directories at start: a clear error, or the damage is
//! put aside. Nothing damaged is ever served.

use crate::support::{ROOT, blob, content, names, open, path, push, repository, try_open};
use ddr_oci::Digest;
use ddr_store::disk::{Disk, FaultyDisk};
use ddr_store::{OpenError, Store, StoreConfig, UploadError};
use std::path::PathBuf;
use tempfile::TempDir;

fn file_of(digest: &Digest) -> PathBuf {
    path("blobs").join(digest.algorithm().name()).join(&digest.hex()[..2]).join(digest.hex())
}

fn chain_of(digest: &Digest) -> PathBuf {
    file_of(digest).with_extension("chain")
}

/// A store with one blob of several pieces, closed.
fn one_blob() -> (FaultyDisk, Digest, Vec<u8>) {
    let disk = FaultyDisk::new();
    let bytes = content(1, 150_000);
    let digest = push(&open(&disk), &repository("app"), &bytes).unwrap();
    (disk, digest, bytes)
}

/// The blob is not served, its file is in quarantine, and it can be pushed again.
fn check_put_aside(disk: &FaultyDisk, digest: &Digest, bytes: &[u8]) {
    let store = open(disk);
    assert!(store.blobs().unwrap().is_empty(), "noticed at start, not at the first read");
    check_put_aside_in(&store, disk, digest, bytes);
}

fn check_put_aside_in(store: &Store, disk: &FaultyDisk, digest: &Digest, bytes: &[u8]) {
    assert!(store.blob(digest).unwrap().is_none());
    assert!(store.piece_chain(digest).unwrap().is_none());
    assert!(store.blobs().unwrap().is_empty());
    assert_eq!(names(disk, "quarantine").len(), 1);
    push(store, &repository("app"), bytes).unwrap();
    assert_eq!(blob(store, digest).as_deref(), Some(bytes));
}

#[test]
fn a_truncated_blob_is_put_aside() {
    let (disk, digest, bytes) = one_blob();
    disk.plant(&file_of(&digest), &bytes[..70_000]).unwrap();
    check_put_aside(&disk, &digest, &bytes);
}

#[test]
fn a_blob_that_is_truncated_while_the_store_is_open_is_put_aside() {
    let (disk, digest, bytes) = one_blob();
    let store = open(&disk);
    disk.plant(&file_of(&digest), &[]).unwrap();
    check_put_aside_in(&store, &disk, &digest, &bytes);
}

#[test]
fn a_blob_file_that_is_missing_is_an_absent_blob() {
    for while_open in [false, true] {
        let (disk, digest, bytes) = one_blob();
        let store = while_open.then(|| open(&disk));
        disk.remove(&file_of(&digest)).unwrap();
        let store = store.unwrap_or_else(|| open(&disk));
        assert!(store.blob(&digest).unwrap().is_none());
        assert!(store.blobs().unwrap().is_empty());
        push(&store, &repository("app"), &bytes).unwrap();
        assert_eq!(blob(&store, &digest), Some(bytes));
    }
}

#[test]
fn half_a_blob_under_a_name_that_the_index_does_not_know_is_put_aside() {
    let (disk, known, _) = one_blob();
    let bytes = content(2, 9000);
    let digest = Digest::sha256(&bytes);
    disk.create_dir(file_of(&digest).parent().unwrap()).unwrap();
    disk.plant(&file_of(&digest), &bytes[..4096]).unwrap();
    let store = open(&disk);
    assert!(store.blob(&digest).unwrap().is_none());
    assert!(store.blob(&known).unwrap().is_some());
    assert_eq!(names(&disk, "quarantine").len(), 1);
}

#[test]
fn a_whole_blob_that_the_index_does_not_know_is_taken_up_but_linked_nowhere() {
    let (disk, _, _) = one_blob();
    let bytes = content(3, 9000);
    let digest = Digest::sha256(&bytes);
    disk.create_dir(file_of(&digest).parent().unwrap()).unwrap();
    disk.plant(&file_of(&digest), &bytes).unwrap();
    let store = open(&disk);
    assert_eq!(blob(&store, &digest), Some(bytes));
    assert!(!store.is_linked(&repository("app"), &digest).unwrap());
}

#[test]
fn strange_files_among_the_blobs_are_put_aside() {
    let (disk, digest, bytes) = one_blob();
    disk.plant(&path("blobs/sha256/notes.txt"), b"x").unwrap();
    disk.create_dir(&path("blobs/sha256/zz")).unwrap();
    disk.create_dir(&path("blobs/sha256/00").join("0".repeat(64))).unwrap();
    disk.plant(&path("blobs/sha256/00/core"), b"x").unwrap();
    disk.plant(&path("blobs/sha256/00/core.chain"), b"x").unwrap();
    let store = open(&disk);
    assert_eq!(names(&disk, "quarantine").len(), 5);
    assert_eq!(blob(&store, &digest), Some(bytes));
    assert_eq!(store.blobs().unwrap().len(), 1);
}

#[test]
fn a_torn_or_missing_chain_file_is_computed_again() {
    let (disk, digest, bytes) = one_blob();
    let whole = disk.peek(&chain_of(&digest)).unwrap();
    let mut flipped = whole.clone();
    flipped[30] ^= 1;
    let garbage = [&b""[..], b"garbage", &whole[..40], &flipped, &vec![0xff; 100_000]];
    for bad in garbage.into_iter().map(Some).chain([None]) {
        match bad {
            Some(bad) => disk.plant(&chain_of(&digest), bad).unwrap(),
            None => disk.remove(&chain_of(&digest)).unwrap(),
        }
        let store = open(&disk);
        let chain = store.piece_chain(&digest).unwrap().unwrap();
        assert!(chain.verify_piece(1, &bytes[65_536..131_072]));
        assert!(names(&disk, "quarantine").is_empty(), "nothing is lost with a chain");
        assert_eq!(disk.peek(&chain_of(&digest)).unwrap(), whole, "it is kept again");
    }
}

#[test]
fn flipped_bits_in_a_blob_are_found_when_its_chain_is_computed() {
    let (disk, digest, mut bytes) = one_blob();
    bytes[100_000] ^= 1;
    disk.plant(&file_of(&digest), &bytes).unwrap();
    disk.remove(&chain_of(&digest)).unwrap();
    let store = open(&disk);
    assert!(store.piece_chain(&digest).unwrap().is_none());
    assert!(store.blob(&digest).unwrap().is_none());
    assert_eq!(names(&disk, "quarantine").len(), 1);
}

#[test]
fn a_chain_without_a_blob_is_removed() {
    let (disk, digest, _) = one_blob();
    let lonely = chain_of(&Digest::sha256(b"lonely"));
    disk.create_dir(lonely.parent().unwrap()).unwrap();
    disk.plant(&lonely, b"x").unwrap();
    let store = open(&disk);
    assert!(disk.peek(&lonely).is_err());
    assert!(store.blob(&digest).unwrap().is_some());
}

#[test]
fn garbage_in_uploads_is_put_aside_and_incomplete_sessions_are_removed() {
    let (disk, digest, _) = one_blob();
    let app = repository("app");
    let store = open(&disk);
    let id = store.begin_upload(&app).unwrap();
    store.upload(&app, &id).unwrap().append(b"half").unwrap();
    drop(store);
    let session = |digit: &str, name: &str| path("uploads").join(digit.repeat(32)).join(name);
    for digit in ["0", "1", "2", "3", "4"] {
        disk.create_dir(session(digit, "").as_path()).unwrap();
    }
    disk.plant(&path("uploads/garbage"), b"x").unwrap();
    disk.create_dir(&path("uploads/directory")).unwrap();
    disk.plant(&session("0", "data"), b"data without a session").unwrap();
    disk.plant(&session("1", "session.json"), b"{\"version\":1").unwrap();
    disk.plant(&session("1", "data"), b"half a session file").unwrap();
    let newer = b"{\"version\":9,\"repository\":\"app\",\"started_unix_ms\":99999999999999}";
    disk.plant(&session("2", "session.json"), newer).unwrap();
    disk.plant(&session("2", "data"), b"of a newer version").unwrap();
    let old = b"{\"version\":1,\"repository\":\"app\",\"started_unix_ms\":1}";
    disk.plant(&session("3", "session.json"), old).unwrap();
    disk.plant(&session("3", "data"), b"abandoned").unwrap();
    disk.plant(&session("4", "stranger"), b"x").unwrap();
    let store = open(&disk);
    for digit in ["0", "1", "2", "3", "4"] {
        let result = store.upload(&app, &digit.repeat(32));
        assert!(matches!(result, Err(UploadError::Unknown)), "{digit}");
    }
    assert_eq!(names(&disk, "quarantine").len(), 3, "garbage, directory, stranger");
    assert_eq!(names(&disk, "uploads"), [id.as_str()]);
    assert_eq!(store.upload(&app, &id).unwrap().offset(), 4);
    assert!(store.blob(&digest).unwrap().is_some());
}

#[test]
fn what_unfinished_fetches_left_is_removed() {
    let (disk, _, _) = one_blob();
    let id = "a".repeat(32);
    disk.plant(&path("fetch").join(&id), &[0; 5000]).unwrap();
    disk.plant(&path("fetch").join(id + ".chain"), &[0; 50]).unwrap();
    open(&disk);
    assert!(names(&disk, "fetch").is_empty());
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let disk = FaultyDisk::new();
    disk.create_dir(&path("")).unwrap();
    disk.plant(&path("holiday.jpg"), b"x").unwrap();
    let error = try_open(&disk).unwrap_err();
    assert!(matches!(&error, OpenError::Foreign { found, .. } if found == "holiday.jpg"));
    assert!(error.to_string().contains("choose an empty directory"), "{error}");
    assert_eq!(names(&disk, ""), ["holiday.jpg"]);
}

#[test]
fn the_other_files_of_the_daemon_are_no_foreign_files() {
    let disk = FaultyDisk::new();
    disk.create_dir(&path("lost+found")).unwrap();
    for name in ["node.key", "swarm.pem", "swarm.key", "member.pem", "join-token", "config.toml"] {
        disk.plant(&path(name), b"x").unwrap();
    }
    drop(open(&disk));
    disk.plant(&path("anything"), b"x").unwrap();
    drop(open(&disk));
    assert_eq!(disk.peek(&path("node.key")).unwrap(), b"x");
}

#[test]
fn a_newer_format_is_refused() {
    let (disk, _, _) = one_blob();
    disk.plant(&path("format"), b"ddr-store 2\n").unwrap();
    let error = try_open(&disk).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1, .. }));
}

#[test]
fn a_damaged_or_lost_format_file_is_refused_where_there_are_blobs() {
    for garbage in
        [&b""[..], b"\xff\xfe", b"ddr-store", b"ddr-store x", b"ddr-store -1", b"ddr-store 0"]
    {
        let (disk, digest, bytes) = one_blob();
        disk.plant(&path("format"), garbage).unwrap();
        assert!(matches!(try_open(&disk), Err(OpenError::BadFormat { .. })), "{garbage:?}");
        disk.remove(&path("format")).unwrap();
        assert!(matches!(try_open(&disk), Err(OpenError::BadFormat { .. })), "{garbage:?}");
        disk.plant(&path("format"), b"ddr-store 1").unwrap();
        assert_eq!(blob(&open(&disk), &digest), Some(bytes), "the advice of the error works");
    }
}

#[test]
fn a_lost_or_empty_index_is_refused() {
    let (disk, _, _) = one_blob();
    disk.plant(&path("index.redb"), b"").unwrap();
    assert!(matches!(try_open(&disk), Err(OpenError::IndexDamaged { .. })));
    disk.remove(&path("index.redb")).unwrap();
    assert!(matches!(try_open(&disk), Err(OpenError::IndexMissing { .. })));
}

/// Whatever happens to the index file, opening it gives an error or a store that serves only
/// right bytes.
#[test]
fn a_damaged_index_is_refused_or_harmless() {
    let (disk, digest, bytes) = one_blob();
    let whole = disk.peek(&path("index.redb")).unwrap();
    let mut refused = 0;
    for round in 0..300_u64 {
        let mut bad = whole.clone();
        let random = u64::from_le_bytes(content(round, 8).try_into().unwrap());
        let at = usize::try_from(random).unwrap() % (bad.len() - 4096);
        match round % 4 {
            0 => bad[at % 512] ^= 1 << (round % 8),
            1 => bad[at] ^= 1 << (round % 8),
            2 => bad.truncate(at),
            _ => bad[at..at + 4096].fill(0xa5),
        }
        if bad.is_empty() {
            continue;
        }
        let disk = FaultyDisk::new();
        rebuild(&disk, &digest, &bytes);
        disk.plant(&path("index.redb"), &bad).unwrap();
        match try_open(&disk) {
            Ok(store) => {
                if let Some(found) = blob(&store, &digest) {
                    assert_eq!(found, bytes, "round {round}");
                }
                push(&store, &repository("app"), &bytes).unwrap();
            }
            Err(error) => {
                assert!(matches!(error, OpenError::IndexDamaged { .. }), "round {round}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "only {refused} of the damaged files were refused");
    drop(disk);
}

/// The same store as [`one_blob`], but for its index.
fn rebuild(disk: &FaultyDisk, digest: &Digest, bytes: &[u8]) {
    disk.create_dir(file_of(digest).parent().unwrap()).unwrap();
    disk.plant(&file_of(digest), bytes).unwrap();
    disk.plant(&path("format"), b"ddr-store 1\n").unwrap();
}

#[test]
fn what_cannot_be_read_is_named() {
    for name in ["", "lock", "format", "index.redb", "blobs", "blobs/sha256", "uploads", "fetch"] {
        let (disk, _, _) = one_blob();
        let denied = if name.is_empty() { ROOT.into() } else { path(name) };
        disk.deny(&denied);
        match try_open(&disk) {
            Err(error @ OpenError::Unusable { .. }) => {
                let text = error.to_string();
                assert!(text.contains(denied.to_str().unwrap()), "{name}: {text}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_file_where_a_directory_should_be_is_named() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("file");
    std::fs::write(&root, b"x").unwrap();
    let error = Store::open(StoreConfig::new(&root)).unwrap_err();
    assert!(matches!(&error, OpenError::Unusable { path, .. } if *path == root), "{error}");
    let root = dir.path().join("store");
    drop(Store::open(StoreConfig::new(&root)).unwrap());
    std::fs::remove_dir(root.join("uploads")).unwrap();
    std::fs::write(root.join("uploads"), b"x").unwrap();
    let error = Store::open(StoreConfig::new(&root)).unwrap_err();
    assert!(matches!(error, OpenError::Unusable { .. }), "{error}");
}

#[test]
fn a_symbolic_link_among_the_blobs_is_not_followed() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("store");
    drop(Store::open(StoreConfig::new(&root)).unwrap());
    let secret = dir.path().join("secret");
    std::fs::write(&secret, b"secret").unwrap();
    let digest = Digest::sha256(b"secret");
    let shard = root.join("blobs/sha256").join(&digest.hex()[..2]);
    std::fs::create_dir(&shard).unwrap();
    std::os::unix::fs::symlink(&secret, shard.join(digest.hex())).unwrap();
    let store = Store::open(StoreConfig::new(&root)).unwrap();
    assert!(store.blob(&digest).unwrap().is_none());
    assert_eq!(std::fs::read_dir(root.join("quarantine")).unwrap().count(), 1);
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
}

#[test]
fn a_second_opener_is_refused_until_the_first_has_gone() {
    let dir = TempDir::new().unwrap();
    let config = || StoreConfig::new(dir.path().join("store"));
    let store = Store::open(config()).unwrap();
    let clone = store.clone();
    drop(store);
    assert!(matches!(Store::open(config()), Err(OpenError::Locked { .. })));
    drop(clone);
    Store::open(config()).unwrap();
}
