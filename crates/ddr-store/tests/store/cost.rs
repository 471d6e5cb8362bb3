//! What a push costs the disk. A sync takes milliseconds on a real one, so each is counted.

use crate::support::{content, open, push, repository};
use ddr_oci::{Algorithm, Digest};
use ddr_store::disk::{FaultyDisk, Operation};

/// Syncs of a push: the bytes, the directory with the name, the index.
const MAX_SYNCS: usize = 3;
/// One more for the first blob of a shard, whose directory is new.
const MAX_SYNCS_NEW_SHARD: usize = MAX_SYNCS + 1;
/// All that is written, created, moved and removed, beside the index, for content of one write.
const MAX_OTHERS: usize = 10;
/// Bytes of the push that is counted.
const MIB: usize = 1 << 20;

fn is_sync(operation: &Operation) -> bool {
    matches!(operation, Operation::Sync(_) | Operation::SyncDir(_))
}

fn of_index(operation: &Operation) -> bool {
    matches!(operation, Operation::Write(path) | Operation::SetLen(path) if path.ends_with("index.redb"))
}

/// What POST and PUT of these bytes do.
fn operations(disk: &FaultyDisk, store: &ddr_store::Store, bytes: &[u8]) -> Vec<Operation> {
    let app = repository("team/app");
    disk.record();
    let id = store.begin_upload(&app).unwrap();
    let mut upload = store.upload(&app, &id).unwrap();
    upload.append(bytes).unwrap();
    upload.commit(&Digest::sha256(bytes)).unwrap();
    disk.recorded()
}

#[test]
fn a_push_of_a_mebibyte_costs_three_syncs_and_few_operations() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(1, MIB);
    let recorded = operations(&disk, &store, &bytes);
    let syncs = recorded.iter().filter(|o| is_sync(o)).count();
    assert!(syncs <= MAX_SYNCS_NEW_SHARD, "{syncs} syncs: {recorded:#?}");

    // Again, and its shard is there.
    store.delete_blob(&repository("team/app"), &Digest::sha256(&bytes)).unwrap();
    let recorded = operations(&disk, &store, &bytes);
    let syncs = recorded.iter().filter(|o| is_sync(o)).count();
    assert!(syncs <= MAX_SYNCS, "{syncs} syncs: {recorded:#?}");
    let others = recorded.iter().filter(|o| !is_sync(o) && !of_index(o)).count();
    assert!(others <= MAX_OTHERS, "{others} operations: {recorded:#?}");
}

#[test]
fn a_push_of_what_is_here_costs_one_sync() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let bytes = content(2, MIB);
    push(&store, &repository("other"), &bytes).unwrap();
    let recorded = operations(&disk, &store, &bytes);
    assert_eq!(recorded.iter().filter(|o| is_sync(o)).count(), 1, "{recorded:#?}");
}

#[test]
fn content_whose_digest_was_told_before_is_not_read_again() {
    let reads = |told: bool| {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let app = repository("team/app");
        let bytes = content(3, MIB);
        let digest = Digest::of(Algorithm::Sha512, &bytes);
        let id = store.begin_upload(&app).unwrap();
        let mut upload = store.upload(&app, &id).unwrap();
        if told {
            upload.expect_digest(&digest);
        }
        upload.append(&bytes).unwrap();
        let before = disk.operations();
        upload.commit(&digest).unwrap();
        disk.operations() - before
    };
    let (told, not_told) = (reads(true), reads(false));
    assert!(told + 4 <= not_told, "{told} operations, and {not_told} with a second pass");
}
