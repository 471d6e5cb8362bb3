//! What the collection of garbage takes, and what it must not.

use crate::support::{blob, check_sound, content, fetch, manifest, open, push, repository, tag};
use ddr_oci::{Digest, RepositoryName};
use ddr_store::disk::FaultyDisk;
use ddr_store::{GcOptions, GcReport, ManifestEntry, Store};

const HOUR_MS: u64 = 3_600_000;

fn app() -> RepositoryName {
    repository("team/app")
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// A run `hours` from now, with a grace window of a day.
fn gc_in(store: &Store, hours: u64) -> GcReport {
    let now_ms = now_ms() + hours * HOUR_MS;
    store.gc(GcOptions { now_ms, grace_ms: 24 * HOUR_MS, ..GcOptions::default() }).run().unwrap()
}

/// A run without a grace window.
pub(crate) fn gc_now(store: &Store, untagged: bool) -> GcReport {
    store.gc(GcOptions { now_ms: now_ms() + 1, untagged, ..GcOptions::default() }).run().unwrap()
}

fn image(number: u8, blobs: &[Digest], subject: Option<Digest>) -> ManifestEntry {
    manifest(format!("{{\"image\":{number}}}").as_bytes(), blobs, subject)
}

/// An index over manifests, which it does not link.
fn index(members: &[&ManifestEntry]) -> ManifestEntry {
    let members = members.iter().map(|member| {
        format!(
            r#"{{"mediaType":"{}","digest":"{}","size":{}}}"#,
            member.media_type,
            member.digest,
            member.bytes.len()
        )
    });
    let members = members.collect::<Vec<_>>().join(",");
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{members}]}}"#
    );
    let mut entry = manifest(text.as_bytes(), &[], None);
    entry.media_type = "application/vnd.oci.image.index.v1+json".into();
    entry
}

#[test]
fn a_blob_without_a_manifest_goes_after_its_grace_window() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let (kept, loose) = (content(1, 100_000), content(2, 70_000));
    let (kept_digest, loose_digest) =
        (push(&store, &app(), &kept).unwrap(), push(&store, &app(), &loose).unwrap());
    store.put_manifest(&app(), &image(1, &[kept_digest], None), &[]).unwrap();
    let report = gc_in(&store, 23);
    assert_eq!((report.links_removed, report.kept_by_grace), (0, 1));
    assert_eq!(blob(&store, &loose_digest), Some(loose));
    let report = gc_in(&store, 25);
    assert_eq!((report.links_removed, report.blobs_removed, report.bytes_freed), (1, 1, 70_000));
    assert_eq!(report.kept_by_grace, 0);
    assert_eq!(blob(&store, &loose_digest), None);
    assert!(!store.is_linked(&app(), &loose_digest).unwrap());
    assert_eq!(blob(&store, &kept_digest), Some(kept));
    check_sound(&store, &disk, "after the run");
    drop(store);
    check_sound(&open(&disk), &disk, "after a restart");
}

#[test]
fn every_use_begins_the_window_anew() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digest = push(&store, &app(), b"mounted").unwrap();
    let late = now_ms() + 100 * HOUR_MS;
    let run = |grace_ms| {
        store.gc(GcOptions { now_ms: late, grace_ms, ..GcOptions::default() }).run().unwrap()
    };
    // A use that is only in memory counts, as does the same one once it is written.
    store.touch(&app(), &digest);
    assert_eq!(run(101 * HOUR_MS).links_removed, 0);
    assert!(store.link_present(&app(), &digest).unwrap());
    assert_eq!(run(101 * HOUR_MS).kept_by_grace, 1);
    assert_eq!(run(99 * HOUR_MS).links_removed, 1);
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digest = push(&store, &app(), &content(1, 5000)).unwrap();
    push(&store, &repository("other"), &content(1, 5000)).unwrap();
    fetch(&store, b"an orphan").unwrap();
    let options = GcOptions { now_ms: now_ms() + 1, dry_run: true, ..GcOptions::default() };
    let report = store.gc(options.clone()).run().unwrap();
    assert_eq!((report.links_removed, report.blobs_removed, report.bytes_freed), (2, 2, 5009));
    assert!(store.is_linked(&app(), &digest).unwrap());
    let real = store.gc(GcOptions { dry_run: false, ..options }).run().unwrap();
    assert_eq!(
        (real.links_removed, real.blobs_removed, real.bytes_freed),
        (report.links_removed, report.blobs_removed, report.bytes_freed)
    );
    assert!(store.blobs().unwrap().is_empty());
}

#[test]
fn leases_and_pins_hold_links_and_orphans() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let leased = push(&store, &app(), b"leased").unwrap();
    let pinned = push(&store, &app(), b"pinned").unwrap();
    let orphan = fetch(&store, b"orphan").unwrap();
    store.lease(&leased, now_ms() + HOUR_MS).unwrap();
    let pins = [store.pin(&pinned, 0), store.pin(&orphan, 0)];
    let report = gc_now(&store, false);
    assert_eq!((report.blobs_removed, report.kept_by_lease), (0, 3));
    drop(pins);
    assert_eq!(gc_now(&store, false).blobs_removed, 2);
    assert!(blob(&store, &leased).is_some());
    drop(store.pin(&leased, HOUR_MS));
    let later = GcOptions { now_ms: now_ms() + HOUR_MS / 2, ..GcOptions::default() };
    assert_eq!(store.gc(later).run().unwrap().blobs_removed, 0, "it lingers");
    let end = GcOptions { now_ms: now_ms() + 2 * HOUR_MS, ..GcOptions::default() };
    assert_eq!(store.gc(end).run().unwrap().blobs_removed, 1);
}

/// The race: the pusher has seen its blob here, the collector takes it, the manifest comes.
#[test]
fn a_manifest_does_not_stand_on_what_was_collected_after_the_look() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digest = push(&store, &app(), b"layer").unwrap();
    assert!(store.is_linked(&app(), &digest).unwrap() && blob(&store, &digest).is_some());
    assert_eq!(gc_now(&store, false).blobs_removed, 1);
    let image = image(1, &[digest], None);
    let gone = store.put_manifest_over(&app(), &image, &[tag("1.0")], &[digest]).unwrap();
    assert_eq!(gone, [digest]);
    assert_eq!(store.manifest(&app(), &image.digest).unwrap(), None, "nothing is stored");
    assert_eq!(store.tag(&app(), &tag("1.0")).unwrap(), None);
    push(&store, &app(), b"layer").unwrap();
    let gone = store.put_manifest_over(&app(), &image, &[tag("1.0")], &[digest]).unwrap();
    assert!(gone.is_empty());
    assert_eq!(gc_now(&store, true).blobs_removed, 0);
    assert!(blob(&store, &digest).is_some());
}

#[test]
fn without_being_asked_untagged_manifests_stay() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let digest = push(&store, &app(), b"layer").unwrap();
    let entry = image(1, &[digest], None);
    store.put_manifest(&app(), &entry, &[]).unwrap();
    assert_eq!(gc_now(&store, false).manifests_removed, 0);
    let report = gc_now(&store, true);
    assert_eq!((report.manifests_removed, report.blobs_removed), (1, 1));
    assert_eq!(store.manifest(&app(), &entry.digest).unwrap(), None);
    assert_eq!(store.repositories(None, 9).unwrap(), []);
}

#[test]
fn members_of_an_index_stay_with_it_and_go_after_it() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let members = [image(1, &[], None), image(2, &[], None)];
    let inner = index(&[&members[0]]);
    let outer = index(&[&inner, &members[1]]);
    for entry in members.iter().chain([&inner, &outer]) {
        store.put_manifest(&app(), entry, &[]).unwrap();
    }
    store.set_tag(&app(), &tag("1.0"), &outer.digest).unwrap();
    assert_eq!(gc_now(&store, true).manifests_removed, 0);
    store.delete_tag(&app(), &tag("1.0")).unwrap();
    // Each step leaves no index without its members.
    let mut gc = store.gc(GcOptions { now_ms: now_ms() + 1, untagged: true, ..Default::default() });
    while !gc.step().unwrap().done {
        let has = |entry: &ManifestEntry| store.manifest(&app(), &entry.digest).unwrap().is_some();
        assert!(!has(&outer) || (has(&inner) && has(&members[1])));
        assert!(!has(&inner) || has(&members[0]));
    }
    assert_eq!(gc.report().manifests_removed, 4);
}

#[test]
fn referrers_live_and_go_with_their_subject() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let subject = image(1, &[], None);
    let signature = image(2, &[], Some(subject.digest));
    let of_signature = image(3, &[], Some(signature.digest));
    // Of a subject that never came here: another node may have it.
    let lonely = image(4, &[], Some(Digest::sha256(b"never pushed")));
    for entry in [&subject, &signature, &of_signature, &lonely] {
        store.put_manifest(&app(), entry, &[]).unwrap();
    }
    store.set_tag(&app(), &tag("1.0"), &subject.digest).unwrap();
    assert_eq!(gc_now(&store, true).manifests_removed, 0);
    assert!(store.manifest(&app(), &lonely.digest).unwrap().is_some());
    assert_eq!(store.referrers(&app(), &subject.digest).unwrap().len(), 1);
    store.delete_tag(&app(), &tag("1.0")).unwrap();
    assert_eq!(gc_now(&store, true).manifests_removed, 3);
    assert!(store.referrers(&app(), &subject.digest).unwrap().is_empty());
}

/// An index that is a referrer of its own member: each is the other's reason, and no tag is.
#[test]
fn manifests_that_keep_each_other_go_together() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let member = image(1, &[], None);
    let mut referrer = index(&[&member]);
    referrer.subject = Some((member.digest, b"{}".to_vec()));
    store.put_manifest(&app(), &member, &[]).unwrap();
    store.put_manifest(&app(), &referrer, &[tag("1.0")]).unwrap();
    assert_eq!(gc_now(&store, true).manifests_removed, 0);
    store.delete_tag(&app(), &tag("1.0")).unwrap();
    assert_eq!(gc_now(&store, true).manifests_removed, 2);
}

#[test]
fn a_referrer_of_what_another_node_has_stays_and_goes_with_a_subject_that_is_here() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let subject = image(1, &[], None);
    let mut referrer = image(2, &[], None);
    referrer.subject = Some((subject.digest, b"{}".to_vec()));
    store.put_manifest(&app(), &referrer, &[]).unwrap();
    assert_eq!(gc_now(&store, true).manifests_removed, 0);
    store.put_manifest(&app(), &subject, &[]).unwrap();
    assert_eq!(gc_now(&store, true).manifests_removed, 2);
}

#[test]
fn tags_that_only_others_know_keep_their_manifests() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let entry = image(1, &[], None);
    store.put_manifest(&app(), &entry, &[]).unwrap();
    let tagged = [(app(), entry.digest)].into();
    let options = GcOptions { now_ms: now_ms() + 1, untagged: true, tagged, ..Default::default() };
    assert_eq!(store.gc(options).run().unwrap().manifests_removed, 0);
}

#[test]
fn a_young_untagged_index_keeps_its_old_members() {
    let disk = FaultyDisk::new();
    let store = open(&disk);
    let member = image(1, &[], None);
    store.put_manifest(&app(), &member, &[]).unwrap();
    let parent = index(&[&member]);
    store.put_manifest(&app(), &parent, &[]).unwrap();
    store.touch(&app(), &parent.digest);
    let now = now_ms() + 1;
    let options =
        GcOptions { now_ms: now, grace_ms: HOUR_MS, untagged: true, ..Default::default() };
    assert_eq!(store.gc(options).run().unwrap().manifests_removed, 0);
}

#[test]
fn a_power_cut_at_any_operation_of_a_run_loses_nothing_that_is_needed() {
    for crash_at in 0.. {
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let kept = content(1, 70_000);
        let kept_digest = push(&store, &app(), &kept).unwrap();
        store.put_manifest(&app(), &image(1, &[kept_digest], None), &[tag("1.0")]).unwrap();
        let loose: Vec<_> =
            (2..6).map(|seed| push(&store, &app(), &content(seed, 66_000)).unwrap()).collect();
        store.put_manifest(&app(), &image(2, &[loose[0]], None), &[]).unwrap();
        disk.crash_after(crash_at);
        let options = GcOptions { now_ms: now_ms() + 1, untagged: true, ..Default::default() };
        let done = store.gc(options).run().is_ok() && !disk.is_down();
        drop(store);
        disk.power_cut(crash_at);
        let store = open(&disk);
        let context = format!("operation {crash_at}, seed {crash_at}");
        check_sound(&store, &disk, &context);
        assert_eq!(blob(&store, &kept_digest), Some(kept), "{context}");
        gc_now(&store, true);
        assert_eq!(store.blobs().unwrap().len(), 1, "{context}: a later run takes up the rest");
        if done {
            assert!(crash_at > 10, "the run is shorter than it should be");
            return;
        }
    }
}
