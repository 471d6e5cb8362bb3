//! What makes room when the disk is full, and what must not; what an operator has pinned.

use crate::gc::gc_now;
use crate::support::{check_sound, content, fetch, manifest, names, open, push, repository, tag};
use ddr_oci::{Digest, RepositoryName};
use ddr_store::disk::FaultyDisk;
use ddr_store::{
    EvictOptions, EvictReport, IndexError, ManifestEntry, PinnedImage, ReplicaRecord, Store, now_ms,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

const YEAR_MS: u64 = 365 * 24 * 3_600_000;
/// How long a blob stays at least in the model.
const AGE_MS: u64 = 3_600_000;

fn app() -> RepositoryName {
    repository("team/app")
}

/// An image of one blob.
fn image(blob: Digest) -> ManifestEntry {
    manifest(format!("{{\"image\":\"{blob}\"}}").as_bytes(), &[blob], None)
}

/// Until the clock shows another millisecond: uses have an order then.
fn next_ms() -> u64 {
    let before = now_ms();
    loop {
        let now = now_ms();
        if now > before {
            return now;
        }
        std::hint::spin_loop();
    }
}

fn pushed(store: &Store, seed: u64, len: usize) -> Digest {
    let digest = push(store, &app(), &content(seed, len)).unwrap();
    store.put_manifest(&app(), &image(digest), &[]).unwrap();
    digest
}

fn keep(store: &Store, blob: Digest) {
    let entry = image(blob);
    let record =
        ReplicaRecord { repository: app(), manifest: entry.digest, record: b"row".to_vec() };
    assert!(store.keep_replica(&record, &[entry.digest, blob]).unwrap());
}

fn pin(store: &Store, blob: Digest) -> Vec<Digest> {
    let manifest = image(blob).digest;
    let image = PinnedImage {
        repository: app(),
        manifest,
        label: "team/app:1.0".into(),
        parts: vec![manifest, blob],
    };
    store.pin_image(&image).unwrap()
}

/// A run for so many bytes, for which everything is old.
fn evict(store: &Store, bytes: u64) -> EvictReport {
    let options = EvictOptions { now_ms: now_ms() + 1, bytes, ..EvictOptions::default() };
    store.evict(options).run().unwrap()
}

fn here(store: &Store) -> BTreeSet<Digest> {
    store.blobs().unwrap().into_iter().map(|(digest, _)| digest).collect()
}

/// What keeps a blob of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    None,
    Replica,
    Lease,
    PinnedImage,
    MemoryPin,
    /// No manifest refers to it.
    Loose,
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        6 => Just(Reason::None),
        1 => Just(Reason::Replica),
        1 => Just(Reason::Lease),
        1 => Just(Reason::PinnedImage),
        1 => Just(Reason::MemoryPin),
        1 => Just(Reason::Loose),
    ]
}

struct Modelled {
    digest: Digest,
    bytes: u64,
    reason: Reason,
    used_ms: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The oldest go, no more than are needed, and never what something keeps.
    #[test]
    fn eviction_is_as_the_model_says(
        blobs in prop::collection::vec((1..3000_usize, reason(), any::<[bool; 2]>()), 1..14),
        uses in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..20),
        cut in any::<prop::sample::Index>(),
        wanted in 0..20_000_u64,
    ) {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let (own, other) = (app(), repository("other"));
        let (mut model, mut pins, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for (seed, (len, reason, [is_shared, is_fetched])) in blobs.into_iter().enumerate() {
            let bytes = content(seed as u64, len);
            let digest = if is_fetched {
                let digest = fetch(&store, &bytes).unwrap();
                store.link(&own, &digest).unwrap();
                digest
            } else {
                push(&store, &own, &bytes).unwrap()
            };
            let is_loose = reason == Reason::Loose;
            if !is_loose {
                store.put_manifest(&app(), &image(digest), &[]).unwrap();
            }
            if is_shared {
                store.put_manifest(&other, &image(digest), &[]).unwrap();
            }
            match reason {
                Reason::None | Reason::Loose => {}
                Reason::Replica => keep(&store, digest),
                Reason::Lease => store.lease(&digest, now_ms() + YEAR_MS).unwrap(),
                Reason::PinnedImage => prop_assert!(pin(&store, digest).is_empty()),
                Reason::MemoryPin => pins.push(store.pin(&digest, 0)),
            }
            let used_ms = next_ms();
            store.touch(&app(), &digest);
            let used_ms = used_ms.max(now_ms());
            model.push(Modelled { digest, bytes: len as u64, reason, used_ms });
            times.push(next_ms());
        }
        for (which, elsewhere) in uses {
            let which = which.index(model.len());
            let blob = &mut model[which];
            next_ms();
            store.touch(if elsewhere { &other } else { &own }, &blob.digest);
            // A use of a repository that does not link it says nothing about it.
            if !elsewhere || store.is_linked(&other, &blob.digest).unwrap() {
                blob.used_ms = now_ms();
            }
            times.push(next_ms());
        }
        // What was used after the cut is young.
        let cut_ms = times[cut.index(times.len())];
        let mut may_go: Vec<_> =
            model.iter().filter(|b| b.reason == Reason::None && b.used_ms <= cut_ms).collect();
        may_go.sort_by_key(|blob| blob.used_ms);
        let (mut freed, mut goes) = (0, BTreeSet::new());
        for blob in may_go {
            if freed < wanted {
                freed += blob.bytes;
                goes.insert(blob.digest);
            }
        }
        let before = store.blob_bytes().unwrap();
        let options = EvictOptions {
            now_ms: cut_ms + AGE_MS,
            bytes: wanted,
            min_age_ms: AGE_MS,
            loose_age_ms: 2 * YEAR_MS,
        };
        let report = store.evict(options).run().unwrap();
        let stays: BTreeSet<_> =
            model.iter().map(|blob| blob.digest).filter(|d| !goes.contains(d)).collect();
        prop_assert_eq!(here(&store), stays);
        prop_assert_eq!((report.bytes_freed, report.blobs_removed), (freed, goes.len() as u64));
        prop_assert_eq!(store.blob_bytes().unwrap(), before - freed);
        let kept = report.duty_bytes + report.held_bytes + report.young_bytes + report.spared_bytes;
        prop_assert_eq!(kept + freed, before, "every byte is accounted for");
        for digest in &goes {
            prop_assert!(!store.is_linked(&app(), digest).unwrap());
            prop_assert!(!store.is_linked(&other, digest).unwrap());
            prop_assert!(store.manifest(&app(), &image(*digest).digest).unwrap().is_some());
        }
        drop((pins, store));
        check_sound(&open(&disk), &disk, "after a restart");
    }
}

#[test]
fn what_was_evicted_is_not_lost_and_can_come_back() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digest = pushed(&store, 1, 70_000);
    assert_eq!(evict(&store, 1).blobs_removed, 1);
    assert!(store.lost(9).unwrap().is_empty());
    let report = {
        let mut verify = store.verify(ddr_store::VerifyOptions::default());
        while !verify.step().unwrap().done {}
        verify.report().clone()
    };
    assert!(report.lost.is_empty() && report.dangling.is_empty(), "{report:?}");
    assert_eq!((report.corrupt, report.rows_repaired), (0, 0));
    push(&store, &app(), &content(1, 70_000)).unwrap();
    assert!(store.is_linked(&app(), &digest).unwrap());
    check_sound(&store, &disk, "it is back");
}

#[test]
fn a_clock_that_was_wrong_keeps_nothing_for_ever() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    pushed(&store, 1, 1000);
    let long_ago = EvictOptions { now_ms: now_ms() - YEAR_MS, bytes: 1, ..Default::default() };
    assert_eq!(store.evict(long_ago).run().unwrap().blobs_removed, 1);
}

#[test]
fn a_power_cut_at_any_operation_of_an_eviction_loses_nothing_that_is_kept() {
    for crash_at in 0.. {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let kept = pushed(&store, 1, 70_000);
        keep(&store, kept);
        let cached: Vec<_> = (2..6).map(|seed| pushed(&store, seed, 66_000)).collect();
        disk.crash_after(crash_at);
        let options =
            EvictOptions { now_ms: now_ms() + 1, bytes: u64::MAX, ..EvictOptions::default() };
        let done = store.evict(options).run().is_ok() && !disk.is_down();
        drop(store);
        disk.power_cut(crash_at);
        let store = open(&disk);
        let context = format!("operation {crash_at}, seed {crash_at}");
        check_sound(&store, &disk, &context);
        assert!(here(&store).contains(&kept), "{context}");
        // A blob whose row is gone has no file any more: the start has removed it.
        for digest in cached.iter().filter(|digest| !here(&store).contains(digest)) {
            let shard = format!("blobs/sha256/{}", &digest.hex()[..2]);
            assert!(!names(&disk, &shard).contains(&digest.hex()), "{context}");
        }
        evict(&store, u64::MAX);
        assert_eq!(here(&store), [kept].into(), "{context}: a later run takes up the rest");
        if done {
            assert!(crash_at > 10, "the run is shorter than it should be");
            return;
        }
    }
}

#[test]
fn a_pin_outlives_its_tag_and_a_restart_until_it_is_taken_back() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digest = pushed(&store, 1, 1000);
    store.set_tag(&app(), &tag("1.0"), &image(digest).digest).unwrap();
    assert!(pin(&store, digest).is_empty());
    assert!(pin(&store, digest).is_empty(), "once more is the same");
    store.delete_tag(&app(), &tag("1.0")).unwrap();
    drop(store);
    let store = open(&disk);
    assert_eq!(gc_now(&store, true).manifests_removed, 0);
    assert_eq!(evict(&store, u64::MAX).held_bytes, 1000);
    let pins = store.pinned_images().unwrap();
    assert_eq!((pins.len(), pins[0].label.as_str()), (1, "team/app:1.0"));
    assert!(store.unpin_image(&app(), &image(digest).digest).unwrap());
    assert!(!store.unpin_image(&app(), &image(digest).digest).unwrap());
    assert_eq!(evict(&store, u64::MAX).blobs_removed, 1);
    assert_eq!(gc_now(&store, true).manifests_removed, 1);
}

#[test]
fn what_two_pins_share_stays_until_both_are_gone() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let shared = pushed(&store, 1, 1000);
    let second = manifest(b"{\"image\":2}", &[shared], None);
    store.put_manifest(&app(), &second, &[]).unwrap();
    assert!(pin(&store, shared).is_empty());
    let other = PinnedImage {
        repository: app(),
        manifest: second.digest,
        label: "second".into(),
        parts: vec![second.digest, shared],
    };
    assert!(store.pin_image(&other).unwrap().is_empty());
    store.unpin_image(&app(), &second.digest).unwrap();
    assert_eq!(evict(&store, u64::MAX).blobs_removed, 0);
    // A delete wins over a pin.
    store.delete_manifest(&app(), &image(shared).digest).unwrap();
    assert!(store.pinned_images().unwrap().is_empty());
    assert_eq!(evict(&store, u64::MAX).blobs_removed, 1);
}

#[test]
fn nothing_is_pinned_by_halves_or_without_a_bound() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digest = pushed(&store, 1, 1000);
    let manifest = image(digest).digest;
    let missing = Digest::sha256(b"elsewhere");
    let mut image = PinnedImage {
        repository: app(),
        manifest,
        label: "half".into(),
        parts: vec![manifest, missing, digest],
    };
    assert_eq!(store.pin_image(&image).unwrap(), [missing]);
    assert!(store.pinned_images().unwrap().is_empty());
    image.parts = vec![digest; ddr_store::MAX_PINNED_PARTS + 1];
    assert!(matches!(store.pin_image(&image), Err(IndexError::TooLarge { .. })));
    assert_eq!(evict(&store, u64::MAX).blobs_removed, 1);
}
