//! Blobs that lie outside the store.

use crate::support::{content, manifest, push, read, repository};
use ddr_oci::Digest;
use ddr_store::disk::{Disk, DiskFile, OpenMode, RealDisk};
use ddr_store::{EvictOptions, Outside, OutsideBlob, Store, StoreConfig, now_ms};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// A directory with one file for each blob.
#[derive(Debug)]
struct Place(PathBuf);

impl Outside for Place {
    fn open(&self, blob: &OutsideBlob) -> io::Result<Option<Arc<dyn DiskFile>>> {
        match RealDisk.open(&self.0.join(blob.digest.hex()), OpenMode::Read) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

struct Bed {
    dir: TempDir,
    store: Store,
}

impl Bed {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        let store = Store::open(StoreConfig::new(dir.path().join("store"))).unwrap();
        store.set_outside(Arc::new(Place(dir.path().join("outside"))));
        Self { dir, store }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.path().join("outside").join(digest.hex())
    }

    fn place(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256(bytes);
        std::fs::write(self.path(&digest), bytes).unwrap();
        digest
    }

    /// Takes a blob in, linked by `team/app`.
    fn take(&self, bytes: &[u8], is_kept: bool) -> Digest {
        let digest = self.place(bytes);
        assert!(self.store.take_outside(&blob(digest, bytes.len(), is_kept), || false).unwrap());
        self.store.link(&repository("team/app"), &digest).unwrap();
        digest
    }
}

fn blob(digest: Digest, size: usize, is_kept: bool) -> OutsideBlob {
    OutsideBlob { digest, size: size as u64, repository: repository("team/app"), is_kept }
}

/// Everything may go that is only a cache.
fn everything() -> EvictOptions {
    EvictOptions { now_ms: now_ms() + 1, bytes: u64::MAX, ..EvictOptions::default() }
}

#[test]
fn a_blob_outside_is_read_like_one_that_is_here_and_takes_no_room() {
    let bed = Bed::new();
    let bytes = content(3, 700_001);
    let digest = bed.take(&bytes, false);
    let reader = bed.store.blob(&digest).unwrap().unwrap();
    assert_eq!(read(&reader), bytes);
    assert_eq!(bed.store.blob_size(&digest).unwrap(), Some(700_001));
    let chain = bed.store.piece_chain(&digest).unwrap().unwrap();
    assert!(chain.verify_piece(1, &bytes[65_536..131_072]));
    assert_eq!(bed.store.blobs().unwrap(), []);
    assert_eq!(bed.store.blob_bytes().unwrap(), 0);
    assert_eq!(bed.store.outside_after(None, 10).unwrap(), [blob(digest, 700_001, false)]);
    assert_eq!(bed.store.outside_after(Some(&digest), 10).unwrap(), []);
}

#[test]
fn what_is_not_what_it_is_said_to_be_is_not_taken() {
    let bed = Bed::new();
    let digest = Digest::sha256(b"right");
    std::fs::write(bed.path(&digest), b"wrong").unwrap();
    assert!(!bed.store.take_outside(&blob(digest, 5, true), || false).unwrap());
    let digest = bed.place(b"longer than it is said to be");
    assert!(!bed.store.take_outside(&blob(digest, 5, true), || false).unwrap());
    assert!(!bed.store.take_outside(&blob(Digest::sha256(b"absent"), 6, true), || false).unwrap());
    assert_eq!(bed.store.outside_after(None, 10).unwrap(), []);
}

#[test]
fn one_that_is_gone_is_absent_and_its_row_goes() {
    let bed = Bed::new();
    let digest = bed.take(b"here today", true);
    std::fs::remove_file(bed.path(&digest)).unwrap();
    assert!(bed.store.blob(&digest).unwrap().is_none());
    assert_eq!(bed.store.blob_size(&digest).unwrap(), None);
    assert!(!bed.store.keeps(&digest).unwrap());
}

#[test]
fn a_manifest_needs_its_blobs_kept_and_a_cache_outside_keeps_nothing() {
    let bed = Bed::new();
    let app = repository("team/app");
    let (kept, cache) = (bed.take(b"kept", true), bed.take(b"cache", false));
    let entry = manifest(b"{}", &[kept, cache], None);
    let gone = bed.store.put_manifest_over(&app, &entry, &[], &[kept, cache]).unwrap();
    assert_eq!(gone, [cache]);
    assert_eq!(bed.store.put_manifest_over(&app, &entry, &[], &[kept]).unwrap(), []);
    assert!(bed.store.link_present(&repository("other"), &kept).unwrap());
    assert!(!bed.store.link_present(&repository("other"), &cache).unwrap());
    assert!(bed.store.keeps(&kept).unwrap());
    assert!(!bed.store.keeps(&cache).unwrap());
}

#[test]
fn the_own_copy_goes_where_the_place_outside_keeps_it_or_it_is_only_a_cache() {
    let bed = Bed::new();
    let app = repository("team/app");
    for (is_kept, bytes) in [(true, b"kept outside"), (false, b"cached there")] {
        let digest = push(&bed.store, &app, bytes).unwrap();
        assert!(!bed.store.leave_outside(&digest, everything()).unwrap(), "it is not there yet");
        bed.take(bytes, is_kept);
        let young = EvictOptions { loose_age_ms: 60_000, min_age_ms: 60_000, ..everything() };
        assert_eq!(bed.store.leave_outside(&digest, young).unwrap(), is_kept);
        assert_eq!(bed.store.leave_outside(&digest, everything()).unwrap(), !is_kept);
        assert_eq!(bed.store.blobs().unwrap(), []);
        assert_eq!(read(&bed.store.blob(&digest).unwrap().unwrap()), bytes);
    }
}

#[test]
fn what_makes_room_leaves_who_may_read_it_outside() {
    let bed = Bed::new();
    let app = repository("team/app");
    let digest = push(&bed.store, &app, b"twice here").unwrap();
    bed.take(b"twice here", false);
    let report = bed.store.evict(everything()).run().unwrap();
    assert_eq!(report.blobs_removed, 1);
    assert!(bed.store.is_linked(&app, &digest).unwrap());
    assert_eq!(read(&bed.store.blob(&digest).unwrap().unwrap()), b"twice here");
}

#[test]
fn the_row_goes_with_the_last_link_and_outlives_a_restart() {
    let bed = Bed::new();
    let app = repository("team/app");
    let digest = bed.take(b"linked once", true);
    let Bed { dir, store } = bed;
    drop(store);
    let store = Store::open(StoreConfig::new(dir.path().join("store"))).unwrap();
    assert!(store.blob(&digest).unwrap().is_none(), "no place outside is set");
    store.set_outside(Arc::new(Place(dir.path().join("outside"))));
    assert_eq!(read(&store.blob(&digest).unwrap().unwrap()), b"linked once");
    assert!(store.delete_blob(&app, &digest).unwrap());
    assert!(store.blob(&digest).unwrap().is_none());
    assert_eq!(store.outside_after(None, 1).unwrap(), []);
}
