//! Garbage is collected and everything verified while threads push, read and delete.

use crate::gc::gc_now;
use crate::support::{blob, check_sound, content, fetch, manifest, open, push, repository, tag};
use ddr_oci::Digest;
use ddr_store::disk::FaultyDisk;
use ddr_store::{Store, VerifyOptions};
use std::sync::atomic::{AtomicUsize, Ordering};

const CLIENTS: u64 = 4;
const ROUNDS: u64 = 12;

/// Pushes one image until it is taken, as a client does that is told that a blob is unknown; what
/// was taken must be whole until it is deleted.
fn client(store: &Store, client: u64, round: u64) {
    let name = repository(&format!("app/{}", client % 2));
    // A layer of its own, and one that all share.
    let layers = [content(client * 1000 + round, 80_000), content(7, 70_000)];
    let digests = layers.each_ref().map(|bytes| Digest::sha256(bytes));
    let entry = manifest(format!("{{\"{client}\":{round}}}").as_bytes(), &digests, None);
    let tags = [tag(&format!("c{client}"))];
    loop {
        for bytes in &layers {
            push(store, &name, bytes).unwrap();
        }
        if store.put_manifest_over(&name, &entry, &tags, &digests).unwrap().is_empty() {
            break;
        }
    }
    for (digest, bytes) in digests.iter().zip(&layers) {
        assert!(store.is_linked(&name, digest).unwrap(), "round {round} of {client}");
        assert!(blob(store, digest).as_ref() == Some(bytes), "round {round} of {client}");
    }
    if round.is_multiple_of(3) {
        assert!(store.delete_manifest(&name, &entry.digest).unwrap().is_some());
        // Another client may need the shared layer, so only this one's goes.
        store.delete_blob(&name, &digests[0]).unwrap();
    }
    // A fetch is an orphan until it is linked; the pin keeps it.
    let fetched = content(client * 1000 + 500 + round, 3000);
    let digest = Digest::sha256(&fetched);
    let pin = store.pin(&digest, 0);
    fetch(store, &fetched).unwrap();
    store.link(&name, &digest).unwrap();
    assert_eq!(blob(store, &digest), Some(fetched));
    drop(pin);
}

/// Tells the others that a client has ended, however that was.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn everything_taken_is_whole_while_garbage_is_collected_and_blobs_are_verified() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let left = AtomicUsize::new(usize::try_from(CLIENTS).unwrap());
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (store, left) = (&store, &left);
            scope.spawn(move || {
                let _leaving = Leaving(left);
                (0..ROUNDS).for_each(|round| client(store, number, round));
            });
        }
        scope.spawn(|| {
            while left.load(Ordering::SeqCst) > 0 {
                gc_now(&store, false);
            }
        });
        scope.spawn(|| {
            while left.load(Ordering::SeqCst) > 0 {
                let report = store.verify(VerifyOptions::default()).run().unwrap();
                assert_eq!((report.corrupt, report.rows_repaired), (0, 0), "{report:?}");
            }
        });
    });
    gc_now(&store, true);
    check_sound(&store, &disk, "at the end");
    let report = store.verify(VerifyOptions::default()).run().unwrap();
    assert_eq!((report.orphans, report.links_without_content), (0, 0), "{report:?}");
    // Of each client the last image that was not deleted is tagged: its layer and the shared one.
    assert_eq!(report.blobs, CLIENTS + 1);
}
