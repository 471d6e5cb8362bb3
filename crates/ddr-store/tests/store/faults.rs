//! A full disk, and a disk that fails one operation. The process lives on.

use crate::support::{
    blob, check_sound, content, fetch, manifest, names, open, path, push, repository, tag,
};
use ddr_oci::{Algorithm, Digest};
use ddr_store::disk::FaultyDisk;
use ddr_store::{IndexError, UploadError};

#[test]
fn a_disk_that_fills_in_an_upload_leaves_the_session_intact() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let app = repository("app");
    let kept = push(&store, &app, b"kept").unwrap();
    let bytes = content(1, 200_000);
    let id = store.begin_upload(&app).unwrap();
    let mut upload = store.upload(&app, &id).unwrap();
    upload.append(&bytes[..50_000]).unwrap();
    disk.set_capacity(Some(disk.used_bytes() + 10_000));
    assert!(matches!(upload.append(&bytes[50_000..]), Err(UploadError::NoSpace)));
    assert_eq!(upload.offset(), 50_000);
    assert_eq!(blob(&store, &kept).unwrap(), b"kept");
    drop(upload);

    disk.set_capacity(None);
    let mut upload = store.upload(&app, &id).unwrap();
    assert_eq!(upload.offset(), 50_000);
    upload.append(&bytes[50_000..]).unwrap();
    upload.commit(&Digest::sha256(&bytes)).unwrap();
    assert_eq!(blob(&store, &Digest::sha256(&bytes)), Some(bytes));
    check_sound(&store, &disk, "after the disk was full");
}

#[test]
fn a_cancel_and_a_dropped_fetch_give_the_space_back() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let app = repository("app");
    let before = disk.used_bytes();
    disk.set_capacity(Some(before + 100_000));
    for round in 0..5 {
        let id = store.begin_upload(&app).unwrap();
        let mut upload = store.upload(&app, &id).unwrap();
        let result = upload.append(&content(round, 200_000));
        assert!(matches!(result, Err(UploadError::NoSpace)));
        upload.cancel();
        assert_eq!(disk.used_bytes(), before, "round {round}");
        let result = fetch(&store, &content(round, 200_000));
        assert!(matches!(result, Err(UploadError::NoSpace)));
        assert_eq!(disk.used_bytes(), before, "round {round}");
    }
}

#[test]
fn a_full_disk_at_every_size_loses_nothing_and_goes_on_when_there_is_room() {
    let app = repository("app");
    let (first, second) = (content(1, 80_000), content(2, 150_000));
    let image = manifest(b"{\"i\":1}", &[Digest::sha256(&second)], None);
    for room in (0..400_000).step_by(3_001) {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let kept = push(&store, &app, &first).unwrap();
        disk.set_capacity(Some(disk.used_bytes() + room));
        let context = format!("room for {room} bytes");
        let pushed = push(&store, &app, &second);
        let tagged = store.put_manifest(&app, &image, &[tag("t")]);
        for error in [
            pushed.as_ref().err().map(|e| matches!(e, UploadError::NoSpace)),
            tagged.as_ref().err().map(|e| matches!(e, IndexError::NoSpace)),
        ]
        .into_iter()
        .flatten()
        {
            assert!(error, "{context}: {pushed:?} {tagged:?}");
        }
        let check = |store: &ddr_store::Store| {
            assert_eq!(blob(store, &kept).as_ref(), Some(&first), "{context}");
            if let Ok(digest) = &pushed {
                assert_eq!(blob(store, digest).as_ref(), Some(&second), "{context}");
            }
            let found = store.tag(&app, &tag("t")).unwrap();
            assert_eq!(found, tagged.is_ok().then_some(image.digest), "{context}");
        };
        check(&store);
        // The disk is still full: the store must open and serve all the same.
        drop(store);
        let store = open(&disk);
        check(&store);
        disk.set_capacity(None);
        push(&store, &app, &second).unwrap();
        store.put_manifest(&app, &image, &[tag("t")]).unwrap();
        check_sound(&store, &disk, &context);
    }
}

#[test]
fn one_failed_operation_anywhere_loses_nothing_and_the_store_goes_on() {
    let app = repository("app");
    let (first, second) = (content(1, 1000), content(2, 150_000));
    let image = manifest(b"{\"i\":1}", &[Digest::sha256(&second)], None);
    for after in 0.. {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let kept = push(&store, &app, &first).unwrap();
        let start = disk.operations();
        disk.fail_after(Some(after));
        let pushed = push(&store, &app, &second);
        let tagged = store.put_manifest(&app, &image, &[tag("t")]);
        let deleted = store.delete_blob(&app, &kept);
        let context = format!("operation {after}: {pushed:?} {tagged:?} {deleted:?}");
        let ended = disk.operations() - start <= after;
        disk.fail_after(None);
        for restart in [false, true] {
            let store = if restart { open(&disk) } else { store.clone() };
            if pushed.is_ok() {
                let found = blob(&store, &Digest::sha256(&second));
                assert_eq!(found.as_ref(), Some(&second), "{context}");
            }
            if tagged.is_ok() {
                assert_eq!(store.tag(&app, &tag("t")).unwrap(), Some(image.digest), "{context}");
            }
            if deleted.is_ok() {
                assert!(store.blob(&kept).unwrap().is_none(), "{context}");
            }
            push(&store, &app, &second).unwrap_or_else(|e| panic!("{context}: {e}"));
            push(&store, &app, &first).unwrap_or_else(|e| panic!("{context}: {e}"));
            store.put_manifest(&app, &image, &[tag("t")]).unwrap();
            store.delete_blob(&app, &kept).unwrap();
            check_sound(&store, &disk, &context);
            if !restart {
                drop(store);
                disk.restart();
            }
        }
        assert!(names(&disk, "fetch").is_empty(), "{context}");
        if ended {
            assert!(after > 40, "the sequence is shorter than it should be");
            return;
        }
    }
}

#[test]
fn a_fetch_reader_outlives_a_failed_fetch() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let mut fetch = store.begin_fetch(&Digest::sha256(b"whole")).unwrap();
    fetch.append(b"who").unwrap();
    let reader = fetch.reader();
    drop(fetch);
    let mut buffer = [0; 8];
    assert_eq!(reader.read_at(0, &mut buffer).unwrap(), 3);
}

#[test]
fn a_disk_that_fills_in_a_commit_leaves_the_session_intact() {
    let app = repository("app");
    let bytes = content(3, 150_000);
    let digest = Digest::sha256(&bytes);
    // Room for the chain file (two borders) and nothing more: then it is the index that does not
    // fit, after the rename, where the settings left no free page in its file.
    let room = 21 + 2 * 32 + 32;
    let mut failed = 0;
    for filling in (0..120_000).step_by(1999) {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        store.set_setting("filling", &vec![0; filling]).unwrap();
        let id = store.begin_upload(&app).unwrap();
        let mut upload = store.upload(&app, &id).unwrap();
        upload.append(&bytes).unwrap();
        disk.set_capacity(Some(disk.used_bytes() + room));
        match upload.commit(&digest) {
            Ok(_) => continue,
            Err(UploadError::NoSpace) => failed += 1,
            Err(other) => panic!("filling {filling}: {other}"),
        }
        assert!(store.blob(&digest).unwrap().is_none(), "filling {filling}");
        disk.set_capacity(None);
        let upload = store.upload(&app, &id).unwrap_or_else(|e| panic!("filling {filling}: {e}"));
        assert_eq!(upload.offset(), 150_000);
        upload.commit(&digest).unwrap();
        assert_eq!(blob(&store, &digest).as_ref(), Some(&bytes), "filling {filling}");
        check_sound(&store, &disk, &format!("filling {filling}"));
    }
    assert!(failed > 0, "no commit failed after its rename");
}

#[test]
fn one_failed_operation_in_a_commit_leaves_the_session_or_nothing() {
    let app = repository("app");
    let bytes = content(4, 150_000);
    let digest = Digest::sha256(&bytes);
    let mut intact = 0;
    for after in 0.. {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let id = store.begin_upload(&app).unwrap();
        let mut upload = store.upload(&app, &id).unwrap();
        upload.append(&bytes).unwrap();
        let start = disk.operations();
        disk.fail_after(Some(after));
        let result = upload.commit(&digest);
        let ended = disk.operations() - start <= after;
        disk.fail_after(None);
        match (result, store.upload(&app, &id)) {
            (Ok(_), Err(UploadError::Unknown)) => {}
            (Err(_), Ok(upload)) => {
                intact += 1;
                upload.commit(&digest).unwrap_or_else(|e| panic!("operation {after}: {e}"));
            }
            (Err(_), Err(UploadError::Unknown)) => {
                push(&store, &app, &bytes).unwrap();
            }
            (result, upload) => panic!("operation {after}: {result:?}, {upload:?}"),
        }
        assert_eq!(blob(&store, &digest).as_ref(), Some(&bytes), "operation {after}");
        check_sound(&store, &disk, &format!("operation {after}"));
        if ended {
            assert!(intact > 10, "only {intact} sessions were left intact");
            return;
        }
    }
}

#[test]
fn bytes_of_a_failed_append_that_could_not_be_cut_off_are_in_no_blob() {
    for sha512 in [false, true] {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let app = repository("app");
        let bytes = content(6, 150_000);
        let id = store.begin_upload(&app).unwrap();
        let mut upload = store.upload(&app, &id).unwrap();
        upload.append(&bytes[..50_000]).unwrap();
        disk.set_capacity(Some(disk.used_bytes() + 10_000));
        // The write fills the disk, and then the cut fails.
        disk.fail_after(Some(1));
        assert!(matches!(upload.append(&bytes[50_000..]), Err(UploadError::NoSpace)));
        disk.set_capacity(None);
        let file = disk.peek(&path("uploads").join(&id).join("data")).unwrap();
        assert_eq!(file.len(), 60_000, "the fault did not come where it should");
        let algorithm = if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 };
        let digest = Digest::of(algorithm, &bytes[..50_000]);
        assert_eq!(upload.commit(&digest).unwrap().size, 50_000);
        assert_eq!(blob(&store, &digest).as_deref(), Some(&bytes[..50_000]));
    }
}

#[test]
fn a_hash_that_ran_ahead_of_a_failed_write_is_made_right() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let app = repository("app");
        let bytes = content(7, 150_000);
        let digest = Digest::of(algorithm, &bytes[..100_000]);
        let id = store.begin_upload(&app).unwrap();
        let mut upload = store.upload(&app, &id).unwrap();
        upload.expect_digest(&digest);
        let hashing = upload.hashing().unwrap();
        hashing.update(0, &bytes[..50_000]);
        upload.write(&bytes[..50_000]).unwrap();
        disk.set_capacity(Some(disk.used_bytes() + 10_000));
        hashing.update(50_000, &bytes[50_000..]);
        assert!(matches!(upload.write(&bytes[50_000..]), Err(UploadError::NoSpace)));
        assert_eq!(upload.offset(), 50_000);
        disk.set_capacity(None);
        drop(upload);

        let mut upload = store.upload(&app, &id).unwrap();
        upload.write(&bytes[50_000..100_000]).unwrap();
        assert_eq!(upload.commit(&digest).unwrap().size, 100_000);
        assert_eq!(blob(&store, &digest).as_deref(), Some(&bytes[..100_000]));
        check_sound(&store, &disk, "after a hash that was ahead");
    }
}
