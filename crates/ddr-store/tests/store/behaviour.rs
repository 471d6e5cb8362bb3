//! What callers may rely on, on the real disk.

use crate::support::{blob, content, fetch, manifest, push, read, repository, tag};
use ddr_oci::{Algorithm, Digest, Hasher};
use ddr_store::{
    IndexError, MAX_FETCHES, MAX_NAME_RECORD_BYTES, MAX_SETTING_BYTES, MAX_SETTING_KEY_BYTES,
    MAX_UPLOADS, MAX_WARM_UPLOADS, Store, StoreConfig, UploadError,
};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(StoreConfig::new(dir.path().join("a/b"))).unwrap();
    (dir, store)
}

#[test]
fn a_pushed_blob_is_read_back_whole_and_in_parts() {
    let (_dir, store) = store();
    let (app, bytes) = (repository("team/app"), content(1, 1_000_001));
    let digest = push(&store, &app, &bytes).unwrap();
    let reader = store.blob(&digest).unwrap().unwrap();
    assert_eq!(reader.size(), 1_000_001);
    assert_eq!(read(&reader.clone()), bytes);
    let mut part = [0; 100];
    assert_eq!(reader.read_at(1_000_000, &mut part).unwrap(), 1);
    assert_eq!(reader.read_at(500, &mut part).unwrap(), 100);
    assert_eq!(part, bytes[500..600]);
    assert_eq!(store.blob_size(&digest).unwrap(), Some(1_000_001));
    assert_eq!(store.blobs().unwrap(), [(digest, 1_000_001)]);
    assert!(store.is_linked(&app, &digest).unwrap());
    assert!(!store.is_linked(&repository("team/ap"), &digest).unwrap());
    assert!(store.blob(&Digest::sha256(b"absent")).unwrap().is_none());
}

#[test]
fn the_recorded_chain_is_the_one_of_the_bytes_and_ends_in_the_plain_digest() {
    let (_dir, store) = store();
    for len in [0, 1, 65_535, 65_536, 65_537, 131_072, 700_001] {
        let bytes = content(7, len);
        let digest = push(&store, &repository("app"), &bytes).unwrap();
        let mut plain = Hasher::new(Algorithm::Sha256);
        plain.update(&bytes);
        assert_eq!(plain.finish(), digest);
        let chain = store.piece_chain(&digest).unwrap().unwrap();
        assert_eq!(chain.pieces(), len.div_ceil(65_536).max(1), "{len} bytes");
        let last = chain.pieces() - 1;
        for piece in 0..last {
            assert!(chain.verify_piece(piece, &bytes[piece * 65_536..(piece + 1) * 65_536]));
        }
        assert!(chain.proves(&digest, &bytes[last * 65_536..]), "{len} bytes");
    }
    assert!(store.piece_chain(&Digest::sha256(b"absent")).unwrap().is_none());
}

#[test]
fn sha512_is_verified_at_commit() {
    let (_dir, store) = store();
    let (app, bytes) = (repository("app"), content(2, 300_000));
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    for wrong in [true, false] {
        let id = store.begin_upload(&app).unwrap();
        let mut upload = store.upload(&app, &id).unwrap();
        upload.append(&bytes[..200_000]).unwrap();
        upload.append(&bytes[200_000..]).unwrap();
        if wrong {
            upload.append(b"!").unwrap();
            assert!(matches!(upload.commit(&digest), Err(UploadError::DigestMismatch)));
        } else {
            assert_eq!(upload.commit(&digest).unwrap().size, 300_000);
        }
    }
    assert_eq!(blob(&store, &digest).as_ref(), Some(&bytes));
    let chain = store.piece_chain(&digest).unwrap().unwrap();
    assert_eq!((chain.algorithm(), chain.pieces()), (Algorithm::Sha512, 5));
    assert!(chain.verify_piece(1, &bytes[65_536..131_072]));
    assert!(chain.proves(&digest, &bytes[4 * 65_536..]));
}

#[test]
fn an_upload_belongs_to_one_repository_and_one_request_at_a_time() {
    let (_dir, store) = store();
    let app = repository("app");
    let id = store.begin_upload(&app).unwrap();
    let unknown = |result| matches!(result, Err(UploadError::Unknown));
    assert!(unknown(store.upload(&repository("other"), &id)));
    for id in ["", "..", "../../format", "0123", &"0".repeat(32), &id.to_uppercase()] {
        assert!(unknown(store.upload(&app, id)), "{id}");
    }
    let mut upload = store.upload(&app, &id).unwrap();
    assert!(matches!(store.upload(&app, &id), Err(UploadError::Busy)));
    upload.append(b"hello ").unwrap();
    drop(upload);
    let mut upload = store.upload(&app, &id).unwrap();
    assert_eq!(upload.offset(), 6);
    assert!(matches!(upload.expect_offset(0), Err(UploadError::OutOfOrder { offset: 6 })));
    upload.expect_offset(6).unwrap();
    upload.append(b"world").unwrap();
    let digest = upload.commit(&Digest::sha256(b"hello world")).unwrap().digest;
    assert_eq!(blob(&store, &digest).unwrap(), b"hello world");
    assert!(unknown(store.upload(&app, &id)), "a committed session is over");
}

#[test]
fn a_wrong_digest_or_a_cancel_ends_the_session_and_leaves_nothing() {
    let (dir, store) = store();
    let app = repository("app");
    for wrong in [true, false] {
        let id = store.begin_upload(&app).unwrap();
        let mut upload = store.upload(&app, &id).unwrap();
        upload.append(b"bytes").unwrap();
        if wrong {
            let result = upload.commit(&Digest::sha256(b"others"));
            assert!(matches!(result, Err(UploadError::DigestMismatch)));
        } else {
            upload.cancel();
        }
        assert!(matches!(store.upload(&app, &id), Err(UploadError::Unknown)));
    }
    assert!(store.blobs().unwrap().is_empty());
    let uploads = dir.path().join("a/b/uploads");
    assert_eq!(std::fs::read_dir(uploads).unwrap().count(), 0);
}

#[test]
fn sessions_survive_a_restart_and_so_does_everything_else() {
    let (dir, store) = store();
    let app = repository("app");
    let bytes = content(3, 400_000);
    let kept = push(&store, &app, b"kept").unwrap();
    let id = store.begin_upload(&app).unwrap();
    store.upload(&app, &id).unwrap().append(&bytes[..123_456]).unwrap();
    drop(store);
    let store = Store::open(StoreConfig::new(dir.path().join("a/b"))).unwrap();
    assert_eq!(blob(&store, &kept).unwrap(), b"kept");
    assert!(matches!(store.upload(&repository("other"), &id), Err(UploadError::Unknown)));
    let mut upload = store.upload(&app, &id).unwrap();
    assert_eq!(upload.offset(), 123_456);
    upload.append(&bytes[123_456..]).unwrap();
    upload.commit(&Digest::sha256(&bytes)).unwrap();
    assert_eq!(blob(&store, &Digest::sha256(&bytes)), Some(bytes));
}

#[test]
fn sessions_that_are_not_in_memory_are_hashed_again() {
    let (_dir, store) = store();
    let app = repository("app");
    let ids =
        (0..MAX_WARM_UPLOADS + 5).map(|_| store.begin_upload(&app).unwrap()).collect::<Vec<_>>();
    for (i, id) in ids.iter().enumerate() {
        store.upload(&app, id).unwrap().append(&content(i as u64, 1000)).unwrap();
    }
    for (i, id) in ids.iter().enumerate() {
        let upload = store.upload(&app, id).unwrap();
        assert_eq!(upload.offset(), 1000);
        upload.commit(&Digest::sha256(&content(i as u64, 1000))).unwrap();
    }
}

#[test]
fn a_right_copy_heals_a_blob_whose_bits_have_flipped() {
    let (dir, store) = store();
    let (app, other) = (repository("app"), repository("other"));
    for (algorithm, by_fetch) in
        [(Algorithm::Sha256, false), (Algorithm::Sha256, true), (Algorithm::Sha512, false)]
    {
        let bytes = content(11 + u64::from(by_fetch), 200_000);
        let digest = Digest::of(algorithm, &bytes);
        let push_it = |repository| {
            let id = store.begin_upload(repository).unwrap();
            let mut upload = store.upload(repository, &id).unwrap();
            upload.append(&bytes).unwrap();
            assert_eq!(upload.commit(&digest).unwrap().size, 200_000);
        };
        push_it(&app);
        let shard = dir.path().join("a/b/blobs").join(algorithm.name()).join(&digest.hex()[..2]);
        let file = shard.join(digest.hex());
        let mut wrong = bytes.clone();
        wrong[100_000] ^= 0x10;
        std::fs::write(&file, &wrong).unwrap();
        let reader = store.blob(&digest).unwrap().unwrap();
        if by_fetch {
            fetch(&store, &bytes).unwrap();
        } else {
            push_it(&other);
            assert!(store.is_linked(&other, &digest).unwrap());
        }
        assert_eq!(blob(&store, &digest).as_ref(), Some(&bytes), "{digest}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        assert!(store.is_linked(&app, &digest).unwrap(), "the links stay");
        assert_eq!(read(&reader), wrong, "who has it open reads on");
    }
    let quarantined = std::fs::read_dir(dir.path().join("a/b/quarantine")).unwrap().count();
    assert_eq!(quarantined, 3);
}

#[test]
fn a_sound_blob_stays_as_it_is_when_it_is_pushed_again() {
    use std::os::unix::fs::MetadataExt;
    let (dir, store) = store();
    let digest = push(&store, &repository("app"), b"sound").unwrap();
    let file = dir.path().join("a/b/blobs/sha256").join(&digest.hex()[..2]).join(digest.hex());
    let inode = std::fs::metadata(&file).unwrap().ino();
    push(&store, &repository("other"), b"sound").unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().ino(), inode);
    assert_eq!(std::fs::read_dir(dir.path().join("a/b/quarantine")).unwrap().count(), 0);
}

#[test]
fn open_sessions_and_fetches_are_limited() {
    let (_dir, store) = store();
    let app = repository("app");
    let first = store.begin_upload(&app).unwrap();
    for _ in 1..MAX_UPLOADS {
        store.begin_upload(&app).unwrap();
    }
    assert!(matches!(store.begin_upload(&app), Err(UploadError::TooManyUploads)));
    store.upload(&app, &first).unwrap().cancel();
    store.begin_upload(&app).unwrap();

    let mut fetches = (0..MAX_FETCHES)
        .map(|i| store.begin_fetch(&Digest::sha256(&i.to_be_bytes())).unwrap())
        .collect::<Vec<_>>();
    let more = Digest::sha256(b"more");
    assert!(matches!(store.begin_fetch(&more), Err(UploadError::TooManyUploads)));
    fetches.pop();
    store.begin_fetch(&more).unwrap();
}

#[test]
fn a_fetch_is_read_while_it_grows_and_after_it_is_committed() {
    let (dir, store) = store();
    let bytes = content(4, 100_000);
    let digest = Digest::sha256(&bytes);
    let mut fetch = store.begin_fetch(&digest).unwrap();
    assert!(matches!(store.begin_fetch(&digest), Err(UploadError::Busy)));
    let reader = fetch.reader();
    let mut buffer = vec![0; 200_000];
    assert_eq!(reader.read_at(0, &mut buffer).unwrap(), 0);
    fetch.append(&bytes[..60_000]).unwrap();
    assert_eq!((fetch.offset(), reader.available()), (60_000, 60_000));
    assert_eq!(reader.read_at(0, &mut buffer).unwrap(), 60_000);
    assert_eq!(buffer[..60_000], bytes[..60_000]);
    assert!(!fetch.is_whole().unwrap());
    assert!(store.blob(&digest).unwrap().is_none(), "a fetch is no blob before its commit");
    fetch.append(&bytes[60_000..]).unwrap();
    assert!(fetch.is_whole().unwrap());
    assert_eq!(fetch.commit().unwrap().size, 100_000);
    assert_eq!(reader.read_at(99_999, &mut buffer).unwrap(), 1);
    assert_eq!(blob(&store, &digest), Some(bytes));
    assert_eq!(std::fs::read_dir(dir.path().join("a/b/fetch")).unwrap().count(), 0);
}

#[test]
fn a_fetch_of_wrong_bytes_or_without_commit_leaves_nothing() {
    let (dir, store) = store();
    let digest = Digest::sha256(b"right");
    let mut fetch = store.begin_fetch(&digest).unwrap();
    fetch.append(b"wrong").unwrap();
    assert!(matches!(fetch.commit(), Err(UploadError::DigestMismatch)));
    let mut fetch = store.begin_fetch(&digest).unwrap();
    fetch.append(b"ri").unwrap();
    drop(fetch);
    assert!(store.blob(&digest).unwrap().is_none());
    assert_eq!(std::fs::read_dir(dir.path().join("a/b/fetch")).unwrap().count(), 0);
}

#[test]
fn a_blob_goes_with_its_last_link_unless_a_lease_holds_it() {
    let (_dir, store) = store();
    let (a, b) = (repository("a"), repository("b"));
    let digest = push(&store, &a, b"shared").unwrap();
    assert!(store.link_present(&b, &digest).unwrap());
    assert!(!store.link_present(&b, &Digest::sha256(b"absent")).unwrap());
    let reader = store.blob(&digest).unwrap().unwrap();
    assert!(store.delete_blob(&a, &digest).unwrap());
    assert!(!store.delete_blob(&a, &digest).unwrap());
    assert!(store.blob(&digest).unwrap().is_some(), "b links it");
    store.lease(&digest, u64::MAX).unwrap();
    store.lease(&digest, 5).unwrap();
    assert!(store.leased(&digest, u64::MAX - 1).unwrap(), "a lease is never made shorter");
    assert!(store.delete_blob(&b, &digest).unwrap());
    assert!(store.blob(&digest).unwrap().is_some(), "a lease holds it");
    assert_eq!(store.drop_expired_leases(u64::MAX).unwrap(), 1);
    assert!(!store.leased(&digest, 0).unwrap());
    store.link(&a, &digest).unwrap();
    assert!(store.delete_blob(&a, &digest).unwrap());
    assert!(store.blob(&digest).unwrap().is_none());
    assert_eq!(read(&reader), b"shared", "who has it open reads on");
    fetch(&store, b"shared").unwrap();
    assert_eq!(blob(&store, &digest).unwrap(), b"shared");
}

#[test]
fn a_manifest_is_stored_with_its_tags_children_and_subject() {
    let (_dir, store) = store();
    let (app, other) = (repository("app"), repository("other"));
    let child = Digest::sha256(b"layer");
    let image = manifest(b"{\"a\":1}", &[child], None);
    let signature = manifest(b"{\"s\":1}", &[], Some(image.digest));
    store.put_manifest(&app, &image, &[tag("1"), tag("latest")]).unwrap();
    store.put_manifest(&app, &signature, &[]).unwrap();
    store.put_manifest(&other, &image, &[]).unwrap();
    assert!(store.is_linked(&app, &child).unwrap());
    assert_eq!(store.manifest(&app, &image.digest).unwrap().unwrap().bytes, image.bytes);
    assert!(store.manifest(&other, &signature.digest).unwrap().is_none());
    assert!(store.any_manifest(&signature.digest).unwrap().is_some());
    assert_eq!(
        store.referrers(&app, &image.digest).unwrap(),
        [signature.subject.clone().unwrap().1]
    );
    assert!(store.referrers(&other, &image.digest).unwrap().is_empty());
    assert_eq!(store.manifests().unwrap().len(), 3);

    assert_eq!(
        store.delete_manifest(&app, &image.digest).unwrap(),
        Some(vec![tag("1"), tag("latest")])
    );
    assert_eq!(store.delete_manifest(&app, &image.digest).unwrap(), None);
    assert_eq!(store.tag(&app, &tag("1")).unwrap(), None);
    assert!(store.any_manifest(&image.digest).unwrap().is_some(), "the other has it");
    assert_eq!(store.delete_manifest(&other, &image.digest).unwrap(), Some(vec![]));
    assert!(store.any_manifest(&image.digest).unwrap().is_none());
    store.delete_manifest(&app, &signature.digest).unwrap();
    assert!(store.referrers(&app, &image.digest).unwrap().is_empty());
    assert!(store.repositories(None, 10).unwrap().is_empty());
}

#[test]
fn lists_come_in_byte_order_and_in_pages() {
    let (_dir, store) = store();
    let digest = Digest::sha256(b"manifest");
    let app = repository("app");
    for name in ["b", "A", "a", "1", "latest"] {
        store.set_tag(&app, &tag(name), &digest).unwrap();
    }
    store.set_tag(&repository("app/sub"), &tag("x"), &digest).unwrap();
    store.set_tag(&repository("aaa"), &tag("y"), &digest).unwrap();
    let page = |last, limit| {
        let tags = store.tags(&app, last, limit).unwrap().unwrap();
        tags.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 10), ["1", "A", "a", "b", "latest"]);
    assert_eq!(page(None, 2), ["1", "A"]);
    assert_eq!(page(Some("A"), 2), ["a", "b"]);
    assert_eq!(page(Some("between"), 9), ["latest"], "the last need not exist");
    assert_eq!(page(Some("latest"), 9), [""; 0]);
    assert_eq!(page(None, 0), [""; 0]);
    assert!(store.tags(&repository("unknown"), None, 10).unwrap().is_none());
    let repositories = |last, limit| {
        let names = store.repositories(last, limit).unwrap();
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(repositories(None, 10), ["aaa", "app", "app/sub"]);
    assert_eq!(repositories(Some("aaa"), 1), ["app"]);
    assert!(store.delete_tag(&repository("aaa"), &tag("y")).unwrap());
    assert!(!store.delete_tag(&repository("aaa"), &tag("y")).unwrap());
    assert_eq!(repositories(None, 10), ["app", "app/sub"]);
}

#[test]
fn a_name_record_is_never_replaced_by_an_older_one() {
    let (_dir, store) = store();
    assert!(store.put_name([1; 32], 5, b"five").unwrap());
    assert!(!store.put_name([1; 32], 4, b"four").unwrap());
    assert_eq!(store.name([1; 32]).unwrap().unwrap(), b"five");
    assert!(store.put_name([1; 32], u128::MAX, b"last").unwrap());
    assert!(store.put_name([0; 32], 0, b"zero").unwrap());
    assert!(store.put_name([2; 32], 0, b"two").unwrap());
    let all = store.names(10, None).unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(store.names(1, Some([0; 32])).unwrap(), [([1; 32], b"last".to_vec())]);
    assert_eq!(store.names(9, Some([2; 32])).unwrap(), []);
}

#[test]
fn values_have_limits() {
    let (_dir, store) = store();
    let too_large =
        |result: Result<(), IndexError>| matches!(result, Err(IndexError::TooLarge { .. }));
    let record = vec![0; MAX_NAME_RECORD_BYTES + 1];
    assert!(too_large(store.put_name([0; 32], 1, &record).map(drop)));
    assert!(too_large(store.set_setting("k", &vec![0; MAX_SETTING_BYTES + 1])));
    assert!(too_large(store.set_setting(&"k".repeat(MAX_SETTING_KEY_BYTES + 1), b"")));
    let app = repository("app");
    let huge = manifest(&vec![b' '; ddr_oci::MAX_MANIFEST_BYTES + 1], &[], None);
    assert!(too_large(store.put_manifest(&app, &huge, &[])));
    let mut wrong = manifest(b"{}", &[], None);
    wrong.bytes = b"{} ".into();
    let result = store.put_manifest(&app, &wrong, &[tag("t")]);
    assert!(matches!(result, Err(IndexError::DigestMismatch)));
    assert!(store.repositories(None, 10).unwrap().is_empty());
    store.set_setting("k", b"v").unwrap();
    assert_eq!(store.get_setting("k").unwrap().unwrap(), b"v");
    assert_eq!(store.get_setting("other").unwrap(), None);
}

#[test]
fn the_same_blob_pushed_from_many_threads_is_stored_once() {
    let (_dir, store) = store();
    let bytes = content(9, 200_000);
    let digest = Digest::sha256(&bytes);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (store, bytes) = (store.clone(), &bytes);
            scope.spawn(move || {
                let app = repository(&format!("app{thread}"));
                for _ in 0..5 {
                    push(&store, &app, bytes).unwrap();
                    assert_eq!(blob(&store, &digest).as_ref(), Some(bytes));
                }
            });
        }
    });
    assert_eq!(store.blobs().unwrap(), [(digest, 200_000)]);
}

#[test]
fn pushes_and_deletes_of_one_blob_never_show_it_by_half() {
    let (_dir, store) = store();
    let bytes = content(10, 70_000);
    let digest = Digest::sha256(&bytes);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, bytes) = (store.clone(), &bytes);
            scope.spawn(move || {
                let app = repository(&format!("app{thread}"));
                for _ in 0..25 {
                    push(&store, &app, bytes).unwrap();
                    assert!(store.is_linked(&app, &digest).unwrap());
                    assert_eq!(blob(&store, &digest).as_ref(), Some(bytes), "it is linked");
                    assert!(store.delete_blob(&app, &digest).unwrap());
                }
            });
        }
    });
    assert!(store.blob(&digest).unwrap().is_none());
}

#[test]
fn the_data_directory_is_for_its_owner_only() {
    let (dir, store) = store();
    push(&store, &repository("app"), b"secret").unwrap();
    let mode = |path: &str| {
        std::fs::metadata(dir.path().join("a/b").join(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("index.redb"), 0o600);
    let digest = Digest::sha256(b"secret").hex();
    assert_eq!(mode(&format!("blobs/sha256/{}/{digest}", &digest[..2])), 0o600);
}
