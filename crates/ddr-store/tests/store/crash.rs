//! Power cuts and kills at every operation of a realistic sequence. After each, the store must
//! open, hold all that was acknowledged, and serve nothing that is not whole.

use crate::support::{
    blob, check_served, check_sound, content, fetch, manifest, names, open, path, push, repository,
    tag, try_open,
};
use ddr_oci::{Digest, RepositoryName};
use ddr_store::disk::{FaultyDisk, Operation};
use ddr_store::{IndexError, Store, UploadError};

/// Power cuts per operation: nothing kept, everything kept, and parts.
const SEEDS: u64 = 4;

/// One thing that a client waits for.
type Step = (&'static str, fn(&Store) -> Result<(), Failed>);
/// What must hold once a step is acknowledged, until `until` other steps are.
type Fact = fn(&Store) -> bool;

#[derive(Debug)]
struct Failed;

impl From<UploadError> for Failed {
    fn from(_: UploadError) -> Self {
        Self
    }
}

impl From<IndexError> for Failed {
    fn from(_: IndexError) -> Self {
        Self
    }
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
    content(3, 200_000)
}

fn image() -> ddr_store::ManifestEntry {
    manifest(b"{\"image\":1}", &[Digest::sha256(&layer()), Digest::sha256(&config())], None)
}

fn signature() -> ddr_store::ManifestEntry {
    manifest(b"{\"signature\":1}", &[], Some(image().digest))
}

fn steps() -> Vec<Step> {
    vec![
        ("push layer", |s| Ok(push(s, &app(), &layer()).map(drop)?)),
        ("push config", |s| Ok(push(s, &app(), &config()).map(drop)?)),
        ("put manifest", |s| Ok(s.put_manifest(&app(), &image(), &[tag("1.0")])?)),
        ("put referrer", |s| Ok(s.put_manifest(&app(), &signature(), &[])?)),
        ("fetch", |s| Ok(fetch(s, &fetched()).map(drop)?)),
        ("link", |s| Ok(s.link(&app(), &Digest::sha256(&fetched()))?)),
        ("name", |s| Ok(s.put_name([7; 32], 9, b"record").map(drop)?)),
        ("setting", |s| Ok(s.set_setting("peers", b"saved")?)),
        ("push layer elsewhere", |s| Ok(push(s, &repository("other"), &layer()).map(drop)?)),
        ("wrong digest", |s| {
            let id = s.begin_upload(&app())?;
            let mut upload = s.upload(&app(), &id)?;
            upload.append(b"other bytes")?;
            match upload.commit(&Digest::sha256(b"bytes")) {
                Err(UploadError::DigestMismatch) => Ok(()),
                _ => Err(Failed),
            }
        }),
        ("delete config", |s| {
            s.delete_blob(&app(), &Digest::sha256(&config())).map(drop)?;
            Ok(())
        }),
        ("another setting", |s| Ok(s.set_setting("revoked", b"none")?)),
        ("push config again", |s| Ok(push(s, &app(), &config()).map(drop)?)),
        ("delete fetched", |s| {
            s.delete_blob(&app(), &Digest::sha256(&fetched())).map(drop)?;
            Ok(())
        }),
    ]
}

/// (name, true from this many steps on, until this many steps, what)
fn facts() -> Vec<(&'static str, usize, usize, Fact)> {
    vec![
        ("layer", 1, 99, |s| serves(s, "team/app", &layer())),
        ("config", 2, 10, |s| serves(s, "team/app", &config())),
        ("image", 3, 99, |s| {
            let stored = s.manifest(&app(), &image().digest).unwrap();
            stored.is_some_and(|m| m.bytes == image().bytes && m.media_type == image().media_type)
        }),
        ("tag", 3, 99, |s| s.tag(&app(), &tag("1.0")).unwrap() == Some(image().digest)),
        ("referrer", 4, 99, |s| {
            s.referrers(&app(), &image().digest).unwrap()
                == [signature().subject.map(|(_, json)| json).unwrap_or_default()]
        }),
        ("fetched", 5, 13, |s| blob(s, &Digest::sha256(&fetched())) == Some(fetched())),
        ("link", 6, 13, |s| s.is_linked(&app(), &Digest::sha256(&fetched())).unwrap()),
        ("name", 7, 99, |s| s.name([7; 32]).unwrap().as_deref() == Some(b"record")),
        ("setting", 8, 99, |s| s.get_setting("peers").unwrap().as_deref() == Some(b"saved")),
        ("elsewhere", 9, 99, |s| serves(s, "other", &layer())),
        ("no wrong blob", 0, 99, |s| blob(s, &Digest::sha256(b"bytes")).is_none()),
        ("config deleted", 11, 12, |s| gone(s, &config())),
        ("config again", 13, 99, |s| serves(s, "team/app", &config())),
        ("fetched deleted", 14, 99, |s| gone(s, &fetched())),
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

/// Runs the steps until one fails; how many were acknowledged.
fn run(store: &Store) -> usize {
    steps().iter().take_while(|(_, step)| step(store).is_ok()).count()
}

fn check(store: &Store, disk: &FaultyDisk, acknowledged: usize, context: &str) {
    for (name, from, until, fact) in facts() {
        // The step that was cut off may have happened or not.
        if (from..until).contains(&acknowledged) {
            assert!(fact(store), "{context}: {name} is not as acknowledged");
        }
    }
    check_sound(store, disk, context);
    assert!(names(disk, "fetch").is_empty(), "{context}: a fetch was left behind");
}

/// Goes down after `crash_at` operations; the number of acknowledged steps, or `None` if the
/// sequence ended before.
fn crash(disk: &FaultyDisk, crash_at: u64) -> Option<usize> {
    disk.crash_after(crash_at);
    let acknowledged = try_open(disk).map_or(0, |store| run(&store));
    disk.is_down().then_some(acknowledged)
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged() {
    let mut crash_at = 0;
    loop {
        for seed in 0..SEEDS {
            let disk = FaultyDisk::new();
            let Some(acknowledged) = crash(&disk, crash_at) else {
                assert!(crash_at > 200, "the sequence is shorter than it should be");
                return;
            };
            let context = format!("operation {crash_at}, seed {seed}, {acknowledged} steps");
            disk.power_cut(seed.wrapping_add(if seed < 2 { 0 } else { crash_at * SEEDS }));
            let store = try_open(&disk).unwrap_or_else(|e| panic!("{context}: {e}"));
            check(&store, &disk, acknowledged, &context);
        }
        crash_at += 1;
    }
}

#[test]
fn a_kill_at_any_operation_loses_nothing_acknowledged() {
    let mut crash_at = 0;
    loop {
        let disk = FaultyDisk::new();
        let Some(acknowledged) = crash(&disk, crash_at) else { return };
        let context = format!("kill at operation {crash_at}, {acknowledged} steps");
        disk.restart();
        let store = try_open(&disk).unwrap_or_else(|e| panic!("{context}: {e}"));
        check(&store, &disk, acknowledged, &context);
        crash_at += 1;
    }
}

#[test]
fn a_power_cut_while_cleaning_up_after_a_power_cut() {
    for crash_at in (0..).step_by(7) {
        let disk = FaultyDisk::new();
        let Some(acknowledged) = crash(&disk, crash_at) else { return };
        disk.power_cut(1 + crash_at);
        let again = crash_at % 61;
        disk.crash_after(again);
        let _ = try_open(&disk);
        disk.power_cut(2 + crash_at);
        let context = format!("operation {crash_at}, then {again}, {acknowledged} steps");
        let store = try_open(&disk).unwrap_or_else(|e| panic!("{context}: {e}"));
        check(&store, &disk, acknowledged, &context);
    }
}

#[test]
fn the_session_of_a_killed_process_goes_on_where_it_was() {
    let disk = FaultyDisk::new();
    let bytes = content(4, 300_000);
    let id = {
        let store = open(&disk);
        let id = store.begin_upload(&app()).unwrap();
        let mut upload = store.upload(&app(), &id).unwrap();
        upload.append(&bytes[..130_000]).unwrap();
        disk.restart();
        id
    };
    let store = open(&disk);
    let mut upload = store.upload(&app(), &id).unwrap();
    assert_eq!(upload.offset(), 130_000);
    upload.append(&bytes[130_000..]).unwrap();
    let committed = upload.commit(&Digest::sha256(&bytes)).unwrap();
    assert_eq!(committed.size, 300_000);
    assert_eq!(blob(&store, &committed.digest), Some(bytes));
    check_sound(&store, &disk, "after the restart");
    assert!(names(&disk, "uploads").is_empty());
}

#[test]
fn bytes_of_a_session_that_a_power_cut_took_are_noticed() {
    for seed in 0..40 {
        let disk = FaultyDisk::new();
        let bytes = content(5, 200_000);
        let digest = Digest::sha256(&bytes);
        let store = open(&disk);
        let id = store.begin_upload(&app()).unwrap();
        store.upload(&app(), &id).unwrap().append(&bytes).unwrap();
        disk.power_cut(seed);
        let store = open(&disk);
        if let Ok(upload) = store.upload(&app(), &id) {
            match upload.commit(&digest) {
                Ok(_) => assert_eq!(blob(&store, &digest).as_ref(), Some(&bytes), "seed {seed}"),
                Err(UploadError::DigestMismatch) => {}
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
        push(&store, &app(), &bytes).unwrap();
        check_sound(&store, &disk, &format!("seed {seed}"));
        assert!(names(&disk, "uploads").is_empty(), "seed {seed}");
    }
}

/// A store with one blob whose file has lost a bit: the right bytes, and the wrong ones.
fn rotten_layer(disk: &FaultyDisk) -> (Store, Vec<u8>, Vec<u8>) {
    let store = open(disk);
    let (right, mut wrong) = (layer(), layer());
    let digest = push(&store, &app(), &right).unwrap();
    wrong[70_000] ^= 1;
    let file = path("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    disk.plant(&file, &wrong).unwrap();
    assert_eq!(blob(&store, &digest).as_ref(), Some(&wrong));
    (store, right, wrong)
}

#[test]
fn a_crash_at_any_operation_of_healing_leaves_the_blob_absent_or_as_it_was_or_right() {
    for crash_at in 0.. {
        for seed in 0..SEEDS {
            let disk = FaultyDisk::new();
            let (store, right, wrong) = rotten_layer(&disk);
            disk.crash_after(crash_at);
            let acknowledged = push(&store, &repository("other"), &right).is_ok();
            if !disk.is_down() {
                assert!(crash_at > 30, "the healing is shorter than it should be");
                return;
            }
            disk.power_cut(seed.wrapping_add(if seed < 2 { 0 } else { crash_at * SEEDS }));
            let context = format!("operation {crash_at}, seed {seed}");
            let store = open(&disk);
            match blob(&store, &Digest::sha256(&right)) {
                Some(bytes) if bytes == right => assert!(serves(&store, "team/app", &right)),
                found => {
                    assert!(!acknowledged, "{context}: it was acknowledged");
                    assert!(found.is_none_or(|bytes| bytes == wrong), "{context}: other bytes");
                }
            }
            push(&store, &app(), &right).unwrap_or_else(|e| panic!("{context}: {e}"));
            check_served(&store, &context);
        }
    }
}

#[test]
fn one_failed_operation_in_healing_leaves_a_session_or_nothing_and_never_other_bytes() {
    for after in 0.. {
        let disk = FaultyDisk::new();
        let (store, right, wrong) = rotten_layer(&disk);
        let digest = Digest::sha256(&right);
        let id = store.begin_upload(&app()).unwrap();
        let mut upload = store.upload(&app(), &id).unwrap();
        upload.append(&right).unwrap();
        let start = disk.operations();
        disk.fail_after(Some(after));
        let result = upload.commit(&digest);
        let ended = disk.operations() - start <= after;
        let context = format!("operation {after}: {result:?}");
        // A second failure, near where the first was, must not do more harm.
        for again in [after, 3, 1, 0] {
            disk.fail_after(Some(again));
            if let Ok(upload) = store.upload(&app(), &id) {
                let _ = upload.commit(&digest);
            }
            disk.fail_after(None);
            let found = blob(&store, &digest);
            assert!(found.is_none_or(|b| b == right || b == wrong), "{context}, {again}");
        }
        push(&store, &app(), &right).unwrap_or_else(|e| panic!("{context}: {e}"));
        check_served(&store, &context);
        if ended {
            return;
        }
    }
}

#[test]
fn a_commit_syncs_the_file_then_renames_then_syncs_the_directory_then_writes_the_row() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = layer();
    let digest = Digest::sha256(&bytes);
    let id = store.begin_upload(&app()).unwrap();
    let mut upload = store.upload(&app(), &id).unwrap();
    upload.append(&bytes).unwrap();
    disk.record();
    upload.commit(&digest).unwrap();
    let recorded = disk.recorded();

    let hex = digest.hex();
    let session = path("uploads").join(&id);
    let shard = path("blobs/sha256").join(&hex[..2]);
    let (data, chain) = (session.join("data"), session.join("chain"));
    let expected = [
        Operation::Sync(data.clone()),
        Operation::Write(chain.clone()),
        Operation::SyncDir(path("blobs/sha256")),
        Operation::Rename(chain, shard.join(format!("{hex}.chain"))),
        Operation::Rename(data, shard.join(&hex)),
        Operation::SyncDir(shard),
        Operation::Sync(path("index.redb")),
        Operation::Remove(session),
    ];
    let mut rest = recorded.iter();
    for operation in &expected {
        assert!(rest.any(|r| r == operation), "{operation:?} is not in its place in {recorded:#?}");
    }
    let row = recorded.iter().position(|r| *r == Operation::Write(path("index.redb")));
    let synced = recorded.iter().position(|r| *r == expected[5]);
    assert!(row > synced, "the index was written before the names were durable");
}

#[test]
fn a_deletion_writes_the_index_before_it_removes_the_file() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digest = push(&store, &app(), &layer()).unwrap();
    disk.record();
    assert!(store.delete_blob(&app(), &digest).unwrap());
    let recorded = disk.recorded();
    let file = path("blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    let removed = recorded.iter().position(|r| *r == Operation::Remove(file.clone())).unwrap();
    let synced = recorded.iter().rposition(|r| *r == Operation::Sync(path("index.redb"))).unwrap();
    assert!(synced < removed, "{recorded:#?}");
}
