//! Garbage is collected and the store verified while clients push, pull and delete.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ddr_node::{GcRequest, JobKind, JobState, JobStatus, Node, PutManifestError, VerifyRequest};
use ddr_oci::{Digest, Reference, RepositoryName, media_type};

use crate::bed::{
    Bed, announced, by_tag, content, ended, eventually, image, pull, push_blob, push_image,
    repository, within,
};

const NOW: GcRequest = GcRequest { grace: Duration::ZERO, untagged: false, dry_run: false };

async fn gc(node: &Node, request: GcRequest) -> JobStatus {
    node.start_gc(request).await.expect("no other run");
    ended(node, JobKind::Gc).await
}

async fn verify(node: &Node) -> JobStatus {
    node.start_verify(VerifyRequest::default()).await.expect("no other run");
    ended(node, JobKind::Verify).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_blob_is_quarantined_and_comes_back_from_a_peer() {
    let nodes = Bed::new().swarm(2).await;
    let ((_, a), (machine_b, b)) = (&nodes[0], &nodes[1]);
    let name = repository("team/app");
    let pushed = push_image(a, &name, "1.0", (1, 2_000_000)).await;
    assert!(b.manifest(&name, &by_tag("1.0")).await.expect("read").is_some());
    for (digest, bytes) in &pushed.blobs {
        assert!(pull(b, &name, digest).await == *bytes);
    }
    let (layer, bytes) = &pushed.blobs[1];
    // Clients have all bytes before the disk has.
    eventually("it is stored", async || b.status().await.blobs == pushed.blobs.len()).await;
    machine_b.corrupt(layer);
    let job = verify(b).await;
    assert_eq!((job.state, job.damage), (JobState::Done, false), "{job:?}");
    let report = &job.report;
    assert_eq!((report["corrupt"].as_u64(), report["repaired"].as_u64()), (Some(1), Some(1)));
    assert_eq!(report["quarantined_files"], 1);
    assert_eq!(report["not_repaired"], serde_json::json!([]));
    let again = verify(b).await;
    assert_eq!(again.report["corrupt"], 0);
    let before = b.status().await.traffic.fetched_bytes;
    assert!(pull(b, &name, layer).await == *bytes, "sound, and from its own disk");
    assert_eq!(b.status().await.traffic.fetched_bytes, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_stays_lost_until_it_is_pushed_again() {
    let bed = Bed::new();
    let machine = bed.machine(1);
    let node = bed.start(&machine, &[]).await;
    let name = repository("team/app");
    let pushed = push_image(&node, &name, "1.0", (1, 300_000)).await;
    let (layer, bytes) = &pushed.blobs[1];
    machine.corrupt(layer);
    let job = verify(&node).await;
    assert!(job.damage, "{job:?}");
    assert_eq!(job.report["not_repaired"], serde_json::json!([layer]));
    assert!(verify(&node).await.damage, "it is not forgotten");
    push_blob(&node, &name, bytes).await;
    assert!(!verify(&node).await.damage);
}

#[tokio::test(flavor = "multi_thread")]
async fn collected_content_is_gone_and_no_longer_announced() {
    let nodes = Bed::new().swarm(2).await;
    let (a, b) = (&nodes[0].1, &nodes[1].1);
    let name = repository("team/app");
    let pushed = push_image(a, &name, "1.0", (1, 100_000)).await;
    let loose = push_blob(a, &name, &content(9, 50_000)).await;
    announced(b, &loose, 1).await;
    let day = GcRequest { grace: Duration::from_secs(86_400), ..NOW };
    let job = gc(a, day).await;
    assert_eq!((job.report["blobs_removed"].as_u64(), job.state), (Some(0), JobState::Done));
    assert_eq!(job.report["kept_by_grace"], 1);
    let dry = gc(a, GcRequest { dry_run: true, ..NOW }).await;
    assert_eq!(dry.report["bytes_freed"], 50_000);
    let job = gc(a, NOW).await;
    assert_eq!(job.report["bytes_freed"], 50_000);
    assert_eq!(a.stat_blob(&name, &loose).await.expect("asked"), None);
    eventually("nobody is said to hold it", async || {
        b.find(&loose.to_string()).await.expect("a report").holders.is_empty()
    })
    .await;
    for (digest, bytes) in &pushed.blobs {
        assert!(pull(b, &name, digest).await == *bytes);
    }
}

/// The pusher's blob is seen here; while another child is looked for at a slow peer, the
/// collector takes it. A 201 would name what is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_collected_during_the_push_of_its_manifest_is_missed() {
    let nodes = Bed::new().swarm(2).await;
    let ((_, a), (machine_b, b)) = (&nodes[0], &nodes[1]);
    let name = repository("team/app");
    let (here, elsewhere) = (content(1, 1000), content(2, 1000));
    let far = push_blob(b, &name, &elsewhere).await;
    announced(a, &far, 1).await;
    let near = push_blob(a, &name, &here).await;
    announced(b, &near, 1).await;
    let manifest = image(&[(near, 1000), (far, 1000)]);
    let put = |node: Node, name: RepositoryName, manifest| async move {
        let media_type = Some(media_type::OCI_MANIFEST);
        node.put_manifest(&name, &by_tag("1.0"), &[], media_type, manifest).await
    };
    machine_b.gate.close_after(0);
    let pushing = tokio::spawn(put(a.clone(), name.clone(), manifest.clone()));
    within(machine_b.gate.reached()).await;
    a.start_gc(NOW).await.expect("no other run");
    eventually("the blob is collected", async || a.job(JobKind::Gc).report["blobs_removed"] == 1)
        .await;
    machine_b.gate.open();
    match within(pushing).await.expect("no panic") {
        Err(PutManifestError::BlobsUnknown(missing)) => assert_eq!(missing, [near]),
        other => panic!("{other:?}"),
    }
    ended(a, JobKind::Gc).await;
    let digest = Digest::sha256(&manifest);
    let stored = a.manifest(&name, &Reference::Digest(digest)).await.expect("read");
    assert!(stored.is_none());
    push_blob(a, &name, &here).await;
    within(put(a.clone(), name.clone(), manifest)).await.expect("now it is complete");
    gc(a, NOW).await;
    assert!(pull(a, &name, &near).await == here);
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_pulls_and_deletes_go_on_while_everything_is_collected_and_verified() {
    let nodes = Bed::new().swarm(2).await;
    let (a, b) = (&nodes[0].1, &nodes[1].1);
    let done = Arc::new(AtomicBool::new(false));
    let upkeep = tokio::spawn({
        let (a, b, done) = (a.clone(), b.clone(), Arc::clone(&done));
        async move {
            let mut runs = 0;
            while !done.load(Ordering::SeqCst) {
                for node in [&a, &b] {
                    gc(node, GcRequest { untagged: runs % 2 == 1, ..NOW }).await;
                    let job = verify(node).await;
                    assert_eq!(job.report["corrupt"], 0, "{job:?}");
                }
                runs += 1;
            }
            runs
        }
    });
    let pushes = (0..4_u64).map(|client| {
        let (a, b) = (a.clone(), b.clone());
        tokio::spawn(async move {
            let name = repository(&format!("app/{client}"));
            for round in 0..6_u64 {
                let node = if round % 2 == 0 { &a } else { &b };
                push_until_taken(node, &name, client * 100 + round * 2, round).await;
            }
        })
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await.expect("every push is taken");
    }
    done.store(true, Ordering::SeqCst);
    assert!(upkeep.await.expect("no run fails") > 0);
    for node in [a, b] {
        let job = verify(node).await;
        assert!(!job.damage && job.report["corrupt"] == 0, "{job:?}");
    }
}

/// Pushes an image as a client does that begins again when it is told that a blob is unknown.
/// What was taken must be whole at the node that took it.
async fn push_until_taken(node: &Node, name: &RepositoryName, seed: u64, round: u64) {
    let blobs = [content(seed, 700), content(seed + 1, 90_000)];
    let sizes: Vec<_> = blobs.iter().map(|b| (Digest::sha256(b), b.len() as u64)).collect();
    let manifest = image(&sizes);
    let reference = by_tag(&format!("r{round}"));
    let media_type = Some(media_type::OCI_MANIFEST);
    for attempt in 0.. {
        for bytes in &blobs {
            push_blob(node, name, bytes).await;
        }
        match node.put_manifest(name, &reference, &[], media_type, manifest.clone()).await {
            Ok(taken) if taken.unknown_blobs.is_empty() => break,
            // A run without grace took a blob before the manifest came, and the answer says so.
            Ok(_) | Err(PutManifestError::BlobsUnknown(_)) => {
                assert!(attempt < 1000, "the collector never lets a push through");
            }
            Err(other) => panic!("{other}"),
        }
    }
    for (bytes, (digest, _)) in blobs.iter().zip(&sizes) {
        assert!(pull(node, name, digest).await == *bytes, "taken means whole");
    }
    if round % 3 == 2 {
        assert!(node.delete_manifest(name, &reference).await.expect("deleted"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_be_stopped_and_another_waits_for_its_end() {
    let bed = Bed::new();
    let machine = bed.machine(1);
    let node = bed.start(&machine, &[]).await;
    push_blob(&node, &repository("app"), &content(1, 3_000_000)).await;
    let slow = VerifyRequest { fast: false, limit: Some(1) };
    let job = node.start_verify(slow).await.expect("the background makes room");
    assert_eq!((job.state, job.background), (JobState::Running, false));
    assert!(node.start_verify(slow).await.is_err());
    assert!(node.stop_job(JobKind::Verify));
    let job = ended(&node, JobKind::Verify).await;
    assert_eq!(job.state, JobState::Stopped);
    assert!(!node.stop_job(JobKind::Verify));
    assert_eq!(node.job(JobKind::Gc).state, JobState::Never);
}
