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
    Session { repository: app(), touched_ms, busy, warm: None }
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

#[test]
fn an_idle_session_makes_room_and_leaves_nothing() {
    let (disk, store) = store();
    let ids = (0..MAX_UPLOADS).map(|_| store.begin_upload(&app()).unwrap()).collect::<Vec<_>>();
    assert!(matches!(store.begin_upload(&app()), Err(UploadError::TooManyUploads)));
    let idle = RandomId::parse(&ids[7]).unwrap();
    lock(&store.inner.sessions).get_mut(&idle).unwrap().touched_ms -= UPLOAD_IDLE_MS;
    store.begin_upload(&app()).unwrap();
    assert!(matches!(store.upload(&app(), &ids[7]), Err(UploadError::Unknown)));
    let names = disk.list(Path::new("/ddr/uploads")).unwrap();
    assert_eq!(names.len(), MAX_UPLOADS);
    assert!(names.iter().all(|entry| entry.name != ids[7]));
}

#[test]
fn stale_sessions_are_dropped_and_those_in_use_are_not() {
    let (disk, store) = store();
    let stale = store.begin_upload(&app()).unwrap();
    let used = store.begin_upload(&app()).unwrap();
    let upload = store.upload(&app(), &used).unwrap();
    assert_eq!(store.drop_stale_uploads(), 0);
    assert_eq!(store.inner.drop_stale_uploads(now_ms() + UPLOAD_TTL_MS + 1), 1);
    assert!(matches!(store.upload(&app(), &stale), Err(UploadError::Unknown)));
    drop(upload);
    store.upload(&app(), &used).unwrap();
    assert_eq!(disk.list(Path::new("/ddr/uploads")).unwrap().len(), 1);
}
