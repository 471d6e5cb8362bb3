//! Every kind of damage is found, named, and nothing sound is touched.

use crate::support::{blob, check_served, content, fetch, names, open, path, push, repository};
use ddr_oci::{Algorithm, Digest};
use ddr_store::disk::{Disk, FaultyDisk};
use ddr_store::{Store, VerifyOptions, VerifyReport};

fn verify(store: &Store) -> VerifyReport {
    store.verify(VerifyOptions::default()).run().unwrap()
}

fn verify_fast(store: &Store) -> VerifyReport {
    store.verify(VerifyOptions { fast: true, after: None }).run().unwrap()
}

fn file_of(digest: &Digest) -> String {
    let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
    format!("blobs/{algorithm}/{}/{hex}", &hex[..2])
}

fn flip(disk: &FaultyDisk, name: &str) {
    let mut bytes = disk.peek(&path(name)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    disk.plant(&path(name), &bytes).unwrap();
}

#[test]
fn a_sound_store_is_sound() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    for seed in 0..5 {
        push(&store, &repository("app"), &content(seed, 40_000 * seed as usize)).unwrap();
    }
    let entry = crate::support::manifest(b"{}", &[Digest::sha256(&content(4, 160_000))], None);
    store.put_manifest(&repository("app"), &entry, &[]).unwrap();
    let report = verify(&store);
    assert_eq!((report.blobs, report.manifests), (5, 1));
    assert_eq!(report.bytes, 400_000 + 2);
    let clean = VerifyReport { blobs: 5, manifests: 1, bytes: 400_002, ..Default::default() };
    assert_eq!(report, clean);
    let report = verify_fast(&store);
    assert_eq!(report, VerifyReport { fast: true, bytes: 2, ..clean });
}

#[test]
fn a_flipped_bit_is_quarantined_and_comes_back_with_the_content() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let bytes = content(7, 3_000_000);
        let digest = Digest::of(algorithm, &bytes);
        let commit = || {
            let id = store.begin_upload(&repository("app")).unwrap();
            let mut upload = store.upload(&repository("app"), &id).unwrap();
            upload.append(&bytes).unwrap();
            upload.commit(&digest).unwrap();
        };
        commit();
        let other = push(&store, &repository("app"), &content(8, 100_000)).unwrap();
        flip(&disk, &file_of(&digest));
        assert_eq!(verify_fast(&store).corrupt, 0, "a fast run does not read");
        let report = verify(&store);
        assert_eq!((report.corrupt, &report.corrupt_digests[..]), (1, &[digest][..]));
        assert_eq!(report.lost, [digest]);
        assert_eq!(report.dangling, [(repository("app"), digest)]);
        assert_eq!((report.quarantined_files, report.quarantined_bytes), (1, 3_000_000));
        assert_eq!(blob(&store, &digest), None);
        assert!(blob(&store, &other).is_some());
        assert_eq!(store.lost(9).unwrap(), [digest]);
        assert_eq!(store.linking(&digest, 9).unwrap(), [repository("app")]);
        commit();
        assert_eq!(verify(&store).lost, []);
        assert_eq!(blob(&store, &digest), Some(bytes.clone()));
        check_served(&store, "healed");
    }
}

#[test]
fn a_cut_or_missing_file_and_a_bad_chain_are_found() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digests: Vec<_> = (0..4)
        .map(|seed| push(&store, &repository("app"), &content(seed, 200_000)).unwrap())
        .collect();
    disk.plant(&path(&file_of(&digests[0])), b"short").unwrap();
    disk.remove(&path(&file_of(&digests[1]))).unwrap();
    flip(&disk, &(file_of(&digests[2]) + ".chain"));
    disk.remove(&path(&(file_of(&digests[3]) + ".chain"))).unwrap();
    let report = verify(&store);
    let mut wrong = digests[..2].to_vec();
    wrong.sort();
    assert_eq!(report.corrupt_digests, wrong);
    assert_eq!((report.corrupt, report.chains_repaired), (2, 2));
    assert_eq!(verify(&store).chains_repaired, 0);
    check_served(&store, "the rest");
}

#[test]
fn a_file_that_cannot_be_opened_is_reported_and_the_run_goes_on() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digests: Vec<_> = (0..4)
        .map(|seed| push(&store, &repository("app"), &content(seed, 70_000)).unwrap())
        .collect();
    disk.deny(&path(&file_of(&digests[1])));
    flip(&disk, &file_of(&digests[2]));
    for _ in 0..2 {
        let report = verify(&store);
        assert_eq!((report.unreadable, &report.unreadable_digests[..]), (1, &digests[1..2]));
        assert_eq!(report.lost, [digests[2]]);
    }
}

#[test]
fn orphans_and_files_that_nobody_knows_are_reported_and_left() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    fetch(&store, &content(1, 1234)).unwrap();
    let stranger = Digest::sha256(b"stranger");
    let digest = push(&store, &repository("app"), b"here").unwrap();
    let shard = &file_of(&digest)[..15];
    disk.plant(&path(&format!("{shard}/notes.txt")), b"x").unwrap();
    disk.create_dir(path(&file_of(&stranger)).parent().unwrap()).unwrap();
    disk.plant(&path(&file_of(&stranger)), b"stranger").unwrap();
    let report = verify(&store);
    assert_eq!((report.orphans, report.orphan_bytes), (1, 1234));
    assert_eq!((report.unknown_files, report.corrupt), (2, 0));
    assert!(names(&disk, shard).contains(&"notes.txt".to_owned()));
    assert_eq!(blob(&store, &stranger), None, "without a row it is not served");
}

#[test]
fn one_failed_operation_is_no_damage() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    for seed in 0..3 {
        push(&store, &repository("app"), &content(seed, 150_000)).unwrap();
    }
    for after in 0..60 {
        disk.fail_after(Some(after));
        // The run may fail; it must not call a sound blob damaged.
        let report = store.verify(VerifyOptions::default()).run();
        disk.fail_after(None);
        assert!(
            report.is_ok_and(|report| report.corrupt == 0) || names(&disk, "quarantine").is_empty()
        );
        assert_eq!(verify(&store).corrupt, 0, "operation {after}");
        assert_eq!(verify(&store).blobs, 3, "operation {after}");
    }
}

#[test]
fn a_run_goes_on_where_another_stopped() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    for seed in 0..20 {
        push(&store, &repository("app"), &content(seed, 100)).unwrap();
    }
    let mut first = store.verify(VerifyOptions::default());
    while first.report().blobs < 8 {
        first.step().unwrap();
    }
    let after = first.reached();
    assert!(after.is_some());
    let second = store.verify(VerifyOptions { fast: false, after }).run().unwrap();
    assert_eq!(second.blobs, 12);
}
