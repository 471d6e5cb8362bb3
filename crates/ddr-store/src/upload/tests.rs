#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

use super::*;
use crate::disk::{Disk, FaultyDisk};
use crate::store::StoreConfig;
use std::path::Path;
use std::sync::Arc;

fn app() -> RepositoryName {
    "team/app".parse().unwrap()
}

fn store() -> (FaultyDisk, Store) {
    let disk = FaultyDisk::new();
    let config = StoreConfig { root: "/ddr".into(), disk: Arc::new(disk.clone()) };
    let store = Store::open(config).unwrap();
    (disk, store)
}

fn session(touched_ms: u64, busy: bool) -> Session {
    Session { repository: app(), touched_ms, busy, has_bytes: true, warm: None }
}

#[test]
fn a_full_table_ends_the_session_that_was_idle_longest_and_none_that_is_in_use() {
    let ids = std::array::from_fn::<_, 6, _>(|_| RandomId::generate().unwrap());
    let mut sessions = BTreeMap::new();
    for (id, touched_ms, busy) in [(0, 1, true), (1, 20, false), (2, 10, false)] {
        let ended = admit(&mut sessions, 3, &ids[id], session(touched_ms, busy)).unwrap();
        assert_eq!(ended, None, "there is room");
    }
    let mut admit_at = |id: usize, now| admit(&mut sessions, 3, &ids[id], session(now, false));
    let early = admit_at(3, 10 + UPLOAD_IDLE_MS - 1);
    assert!(matches!(early, Err(UploadError::TooManyUploads)), "{early:?}");
    assert_eq!(admit_at(3, 10 + UPLOAD_IDLE_MS).unwrap().as_ref(), Some(&ids[2]));
    assert_eq!(admit_at(4, 20 + UPLOAD_IDLE_MS).unwrap().as_ref(), Some(&ids[1]));
    let full = admit_at(5, 20 + UPLOAD_IDLE_MS);
    assert!(matches!(full, Err(UploadError::TooManyUploads)), "{full:?}");
    assert_eq!(sessions.len(), 3);
    assert!(sessions.contains_key(&ids[0]), "it is in use");
}

/// A session with a byte.
fn begun(store: &Store) -> String {
    let id = store.begin_upload(&app()).unwrap();
    store.upload(&app(), &id).unwrap().append(b"x").unwrap();
    id
}

fn uploads(disk: &FaultyDisk) -> usize {
    disk.list(Path::new("/ddr/uploads")).unwrap().len()
}

#[test]
fn a_session_without_a_byte_leaves_nothing_and_makes_room_soon() {
    let (disk, store) = store();
    let ids = (0..MAX_UPLOADS).map(|_| store.begin_upload(&app()).unwrap()).collect::<Vec<_>>();
    assert!(matches!(store.begin_upload(&app()), Err(UploadError::TooManyUploads)));
    drop(store.upload(&app(), &ids[3]).unwrap());
    assert_eq!(uploads(&disk), 0);
    let empty = RandomId::parse(&ids[7]).unwrap();
    lock(&store.inner.sessions).get_mut(&empty).unwrap().touched_ms -= EMPTY_UPLOAD_IDLE_MS;
    store.begin_upload(&app()).unwrap();
    assert!(matches!(store.upload(&app(), &ids[7]), Err(UploadError::Unknown)));
}

#[test]
fn a_session_that_nobody_knows_ends_with_its_handle() {
    let (disk, store) = store();
    let id = store.begin_upload(&app()).unwrap();
    let mut upload = store.upload(&app(), &id).unwrap();
    upload.keep_unnamed();
    upload.append(&vec![7; NOTE_BYTES as usize + 1]).unwrap();
    drop(upload);
    assert_eq!(uploads(&disk), 0);
    assert!(matches!(store.upload(&app(), &id), Err(UploadError::Unknown)));
}

#[test]
fn a_session_is_noted_before_its_bytes_are_acknowledged_and_while_many_come() {
    let (disk, store) = store();
    let noted = |id: &str| disk.list(&Path::new("/ddr/uploads").join(id)).unwrap().len() == 2;
    let id = store.begin_upload(&app()).unwrap();
    let mut upload = store.upload(&app(), &id).unwrap();
    upload.append(b"x").unwrap();
    assert!(!noted(&id));
    upload.note().unwrap();
    assert!(noted(&id));
    let other = store.begin_upload(&app()).unwrap();
    let mut upload = store.upload(&app(), &other).unwrap();
    upload.append(&vec![7; NOTE_BYTES as usize]).unwrap();
    assert!(noted(&other));
}

#[test]
fn bytes_of_a_write_that_failed_prove_nothing() {
    let (disk, store) = store();
    let (right, wrong) = (vec![1; 300_000], vec![2; 300_000]);
    let id = store.begin_upload(&app()).unwrap();
    let mut upload = store.upload(&app(), &id).unwrap();
    let hashing = upload.hashing().unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    assert!(upload.write(&right).is_err());
    hashing.update(0, &right);
    disk.set_capacity(None);
    // The client sends something else of the same length, and claims the first.
    upload.write(&wrong).unwrap();
    upload.hashing().unwrap().update(0, &wrong);
    let committed = upload.commit(&Digest::sha256(&right));
    assert!(matches!(committed, Err(UploadError::DigestMismatch)), "{committed:?}");
}

#[test]
fn an_idle_session_makes_room_and_leaves_nothing() {
    let (disk, store) = store();
    let ids = (0..MAX_UPLOADS).map(|_| begun(&store)).collect::<Vec<_>>();
    assert!(matches!(store.begin_upload(&app()), Err(UploadError::TooManyUploads)));
    let idle = RandomId::parse(&ids[7]).unwrap();
    lock(&store.inner.sessions).get_mut(&idle).unwrap().touched_ms -= UPLOAD_IDLE_MS;
    store.begin_upload(&app()).unwrap();
    assert!(matches!(store.upload(&app(), &ids[7]), Err(UploadError::Unknown)));
    let names = disk.list(Path::new("/ddr/uploads")).unwrap();
    assert_eq!(names.len(), MAX_UPLOADS - 1, "the new one has no byte yet");
    assert!(names.iter().all(|entry| entry.name != ids[7]));
}

#[test]
fn stale_sessions_are_dropped_and_those_in_use_are_not() {
    let (disk, store) = store();
    let (stale, used) = (begun(&store), begun(&store));
    let upload = store.upload(&app(), &used).unwrap();
    assert_eq!(store.drop_stale_uploads(), 0);
    assert_eq!(store.inner.drop_stale_uploads(now_ms() + UPLOAD_TTL_MS + 1), 1);
    assert!(matches!(store.upload(&app(), &stale), Err(UploadError::Unknown)));
    drop(upload);
    store.upload(&app(), &used).unwrap();
    assert_eq!(disk.list(Path::new("/ddr/uploads")).unwrap().len(), 1);
}
