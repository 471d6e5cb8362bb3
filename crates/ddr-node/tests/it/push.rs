//! Uploads, manifests, deletes, tokens.

use std::time::Duration;

use bytes::Bytes;
use ddr_node::{PutManifestError, TokenError, UploadError};
use ddr_oci::{Digest, Reference, media_type};

use crate::bed::{
    Bed, announced, by_tag, content, eventually, image, pull, push_blob, push_image, repository,
    resolve, within,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_flushed_left_and_taken_up_again() {
    let nodes = Bed::new().swarm(1).await;
    let (node, name) = (&nodes[0].1, repository("parts"));
    let bytes = content(1, 2_500_000);
    let id = node.begin_upload(&name).await.expect("a session");
    let mut upload = node.upload(&name, &id).await.expect("the session");
    upload.append(bytes.slice(..1_000_000)).await.expect("taken");
    assert_eq!(upload.flush().await.expect("written"), 1_000_000);
    assert_eq!(upload.offset(), 1_000_000);
    drop(upload);
    let mut upload = node.upload(&name, &id).await.expect("the session again");
    assert_eq!(upload.offset(), 1_000_000);
    upload.append(bytes.slice(1_000_000..)).await.expect("taken");
    upload.commit(&Digest::sha256(&bytes)).await.expect("committed");
    assert!(pull(node, &name, &Digest::sha256(&bytes)).await == bytes);
    assert!(matches!(node.upload(&name, &id).await, Err(UploadError::Unknown)));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_has_one_writer() {
    let nodes = Bed::new().swarm(1).await;
    let (node, name) = (nodes[0].1.clone(), repository("one"));
    let id = node.begin_upload(&name).await.expect("a session");
    let held = node.upload(&name, &id).await.expect("the session");
    let waiting = tokio::spawn({
        let (node, name, id) = (node.clone(), name.clone(), id.clone());
        async move { node.upload(&name, &id).await.map(|upload| upload.offset()) }
    });
    drop(held);
    assert_eq!(within(waiting).await.expect("no panic").expect("free now"), 0);
    let held = node.upload(&name, &id).await.expect("the session");
    assert!(matches!(node.upload(&name, &id).await, Err(UploadError::Busy)));
    held.cancel().await.expect("cancelled");
    assert!(matches!(node.upload(&name, &id).await, Err(UploadError::Unknown)));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_digests_are_refused() {
    let nodes = Bed::new().swarm(1).await;
    let (node, name) = (&nodes[0].1, repository("wrong"));
    let id = node.begin_upload(&name).await.expect("a session");
    let mut upload = node.upload(&name, &id).await.expect("the session");
    upload.append(Bytes::from_static(b"these bytes")).await.expect("taken");
    let wrong = Digest::sha256(b"other bytes");
    assert!(matches!(upload.commit(&wrong).await, Err(UploadError::DigestMismatch)));
    assert!(node.open_blob(&name, &wrong).await.expect("asked").is_none());

    let blob = push_blob(node, &name, &Bytes::from_static(b"config")).await;
    let manifest = image(&[(blob, 6)]);
    let put =
        node.put_manifest(&name, &Reference::Digest(wrong), &[], None, manifest.clone()).await;
    assert!(matches!(put, Err(PutManifestError::DigestMismatch { .. })), "{put:?}");
    let missing = image(&[(blob, 6), (wrong, 11)]);
    let put = node.put_manifest(&name, &by_tag("sparse"), &[], None, missing).await.expect("taken");
    assert_eq!(put.unknown_blobs, [wrong]);
    assert!(node.stat_blob(&name, &wrong).await.expect("asked").is_none());
    let put = node.put_manifest(&name, &by_tag("v1"), &[], None, Bytes::from_static(b"{}")).await;
    assert!(matches!(put, Err(PutManifestError::Invalid(_))), "{put:?}");
    assert_eq!(resolve(node, &name, "v1").await, None, "nothing was named");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_may_rest_on_blobs_of_another_node() {
    let nodes = Bed::new().swarm(2).await;
    let name = repository("shared");
    let image = push_image(&nodes[0].1, &name, "v1", (1, 100_000)).await;
    announced(&nodes[1].1, &image.blobs[1].0, 1).await;
    announced(&nodes[1].1, &image.blobs[0].0, 1).await;
    let again = crate::bed::image(&[(image.blobs[1].0, 100_000), (image.blobs[0].0, 300)]);
    let put = nodes[1].1.put_manifest(&name, &by_tag("v2"), &[], None, again).await.expect("taken");
    assert_eq!(resolve(&nodes[0].1, &name, "v2").await, Some(put.digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_tags_and_a_subject_come_with_one_put() {
    let nodes = Bed::new().swarm(2).await;
    let (a, name) = (&nodes[0].1, repository("tags"));
    let subject = push_image(a, &name, "v1", (1, 100)).await;
    let config = push_blob(a, &name, &Bytes::from_static(b"{}")).await;
    let artifact = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": "application/vnd.example.sbom",
        "config": { "mediaType": media_type::EMPTY_JSON, "digest": config, "size": 2 },
        "layers": [],
        "subject": { "mediaType": media_type::OCI_MANIFEST, "digest": subject.manifest, "size": 1 },
    });
    let bytes = Bytes::from(artifact.to_string());
    let reference = Reference::Digest(Digest::sha256(&bytes));
    let tags = ["one".parse().expect("a tag"), "two".parse().expect("a tag")];
    let put = a.put_manifest(&name, &reference, &tags, None, bytes).await.expect("taken");
    assert_eq!(put.subject, Some(subject.manifest));
    for tag in ["one", "two"] {
        assert_eq!(resolve(&nodes[1].1, &name, tag).await, Some(put.digest));
    }
    for (_, node) in &nodes {
        let referrers = node.referrers(&name, &subject.manifest).await.expect("listed").descriptors;
        assert_eq!(referrers.len(), 1);
        assert_eq!(referrers[0].digest, put.digest);
        assert_eq!(referrers[0].artifact_type.as_deref(), Some("application/vnd.example.sbom"));
    }
    let names = a.repositories(None, 10).await.expect("listed");
    assert_eq!(names, [name]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_deleted_everywhere() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let (a, name) = (&nodes[0].1, repository("gone"));
    let image = push_image(a, &name, "v1", (1, 1000)).await;
    let (layer, bytes) = &image.blobs[1];
    let by_digest = Reference::Digest(image.manifest);
    assert_eq!(resolve(&nodes[1].1, &name, "v1").await, Some(image.manifest), "B has a copy");
    pull(&nodes[1].1, &name, layer).await;

    assert!(a.delete_manifest(&name, &by_digest).await.expect("deleted"));
    assert!(!a.delete_manifest(&name, &by_digest).await.expect("asked"));
    assert!(a.manifest(&name, &by_digest).await.expect("asked").is_none());
    for (_, node) in &nodes {
        assert_eq!(resolve(node, &name, "v1").await, None, "its tag is gone everywhere");
    }
    assert!(a.delete_blob(&name, layer).await.expect("deleted"));
    assert!(!a.delete_blob(&name, layer).await.expect("asked"));
    for (_, node) in &nodes {
        assert!(node.open_blob(&name, layer).await.expect("asked").is_none(), "nobody has it");
        assert!(node.manifest(&name, &by_digest).await.expect("asked").is_none());
    }
    assert_eq!(push_blob(a, &name, bytes).await, *layer);
    assert!(pull(a, &name, layer).await == *bytes, "a new push counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_at_the_same_time_all_outlive_a_restart() {
    let bed = Bed::new();
    let (machine, other) = (bed.machine(1), bed.machine(2));
    let (a, b) = (bed.start(&machine, &[]).await, bed.start(&other, &[&machine]).await);
    let name = repository("together");
    let mut digests = Vec::new();
    for seed in 1..=16 {
        let bytes = content(seed, 100);
        push_blob(&b, &name, &bytes).await;
        digests.push(push_blob(&a, &name, &bytes).await);
    }
    let deletes = digests.iter().map(|digest| a.delete_blob(&name, digest));
    for deleted in futures_util::future::join_all(deletes).await {
        assert!(deleted.expect("deleted"));
    }
    within(a.shutdown()).await;
    drop(a);
    let a = bed.start(&machine, &[&other]).await;
    for digest in &digests {
        for node in [&a, &b] {
            assert!(node.open_blob(&name, digest).await.expect("asked").is_none());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_does_not_withdraw_what_is_still_held() {
    let nodes = Bed::new().swarm(2).await;
    let (a, name) = (&nodes[0].1, repository("twice"));
    let config = push_blob(a, &name, &Bytes::from_static(b"{}")).await;
    let bytes = image(&[(config, 2)]);
    let by_digest = Reference::Digest(Digest::sha256(&bytes));
    a.put_manifest(&name, &by_digest, &[], None, bytes.clone()).await.expect("taken");
    // The same bytes as a blob: that one stays.
    let digest = push_blob(a, &name, &bytes).await;
    let provided = a.status().await.provided;
    assert!(a.delete_manifest(&name, &by_digest).await.expect("deleted"));
    eventually("it is announced again", async || a.status().await.provided == provided).await;
    announced(&nodes[1].1, &digest, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_during_a_push_leaves_no_tag_without_its_manifest() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let name = repository("race");
    let config = push_blob(&nodes[0].1, &name, &Bytes::from_static(b"{}")).await;
    announced(&nodes[1].1, &config, 1).await;
    let bytes = image(&[(config, 2)]);
    let by_digest = Reference::Digest(Digest::sha256(&bytes));
    for round in 0..12 {
        let (pusher, deleter) = (&nodes[round % 2].1, &nodes[round / 2 % 2].1);
        let v1 = by_tag("v1");
        let push = pusher.put_manifest(&name, &v1, &[], None, bytes.clone());
        let (pushed, deleted) = tokio::join!(push, deleter.delete_manifest(&name, &by_digest));
        pushed.expect("pushed");
        deleted.expect("deleted, or there was none");
        let mut seen = Vec::new();
        for (_, node) in &nodes {
            // A tag whose manifest is nowhere would be an error here.
            seen.push(resolve(node, &name, "v1").await);
            let tags = node.tags(&name, None, 10).await.expect("listed").unwrap_or_default();
            assert_eq!(tags.tags.len(), usize::from(seen[0].is_some()), "{round}: the list agrees");
        }
        assert_eq!(seen[0], seen[1], "{round}: both see the same");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_known_everywhere() {
    let nodes = Bed::new().swarm(2).await;
    let (a, b) = (&nodes[0].1, &nodes[1].1);
    let token = a.create_token(Duration::from_secs(3600)).await.expect("a token");
    let parsed: ddr_net::JoinToken = token.parse().expect("it is a token");
    let known = a.tokens().await.expect("listed");
    assert_eq!(known.len(), 1);
    assert!(!known[0].revoked);
    assert_eq!(parsed.addresses(), [nodes[0].0.addr]);
    assert!(a.revoke_token(&known[0].id).await.expect("revoked"));
    assert!(!a.revoke_token(&known[0].id).await.expect("asked"));
    assert!(matches!(a.revoke_token("nonsense").await, Err(TokenError::BadId)));
    eventually("B knows it too", async || {
        b.tokens()
            .await
            .expect("listed")
            .iter()
            .any(|token| token.id == known[0].id && token.revoked)
    })
    .await;
}
