//! Lists and deletes of the whole swarm: what one node was told, every node shows at once.

use std::cell::RefCell;

use bytes::Bytes;
use ddr_node::{Node, ReadError};
use ddr_oci::{Digest, Reference, RepositoryName, media_type};
use ddr_proto::wire::{
    ContentKind, Fact, FactRecord, MAX_VALUE_BYTES, NameRecord, RefuseReason, Request, Response,
    SetEntry,
};

use crate::bed::{
    Bed, by_tag, content, eventually, pull, push_blob, push_image, repository, resolve, tag, within,
};
use crate::stranger::{Stranger, now_ms};

async fn tags(node: &Node, name: &RepositoryName) -> Vec<String> {
    let tags = within(node.tags(name, None, 1000)).await.expect("listed");
    tags.unwrap_or_default().tags.iter().map(ToString::to_string).collect()
}

async fn catalogue(node: &Node) -> Vec<String> {
    let names = within(node.repositories(None, 1000)).await.expect("listed");
    names.iter().map(ToString::to_string).collect()
}

/// A manifest that refers to `subject`; `number` makes it another one.
async fn refer(node: &Node, name: &RepositoryName, subject: &Digest, number: usize) -> Digest {
    let config = push_blob(node, name, &Bytes::from_static(b"{}")).await;
    let artifact = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": "application/vnd.example.sbom",
        "config": { "mediaType": media_type::EMPTY_JSON, "digest": config, "size": 2 },
        "layers": [],
        "subject": { "mediaType": media_type::OCI_MANIFEST, "digest": subject, "size": 1 },
        "annotations": { "number": number.to_string() },
    });
    let bytes = Bytes::from(artifact.to_string());
    let reference = Reference::Digest(Digest::sha256(&bytes));
    node.put_manifest(name, &reference, &[], None, bytes).await.expect("taken").digest
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_follow_every_write_on_every_node_at_once() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("team/app");
    let image = push_image(&nodes[0].1, &name, "v0", (1, 100)).await;
    let bytes = nodes[0].1.manifest(&name, &by_tag("v0")).await.expect("read").expect("there");
    for number in 1..12 {
        let (writer, reader) = (&nodes[number % 3].1, &nodes[(number + 1) % 3].1);
        let reference = by_tag(&format!("v{number}"));
        writer
            .put_manifest(&name, &reference, &[], None, bytes.bytes.clone())
            .await
            .expect("taken");
        assert!(tags(reader, &name).await.contains(&format!("v{number}")), "{number}");
        if number % 3 == 0 {
            assert!(reader.delete_manifest(&name, &reference).await.expect("deleted"));
            for (_, node) in &nodes {
                assert!(!tags(node, &name).await.contains(&format!("v{number}")), "{number}");
            }
        }
    }
    let page = nodes[2].1.tags(&name, Some("v10"), 2).await.expect("listed").expect("known");
    assert_eq!(page.tags, [tag("v11"), tag("v2")], "a page after another, in the order of bytes");
    assert_eq!(catalogue(&nodes[1].1).await, ["team/app"]);

    let mut referrers = Vec::new();
    for number in 0..4 {
        referrers.push(refer(&nodes[number % 3].1, &name, &image.manifest, number).await);
        referrers.sort_unstable();
        for (_, node) in &nodes {
            let listed = node.referrers(&name, &image.manifest).await.expect("listed").descriptors;
            let listed: Vec<Digest> = listed.iter().map(|descriptor| descriptor.digest).collect();
            assert_eq!(listed, referrers, "complete, in the order of digests");
        }
    }
    let gone = Reference::Digest(referrers.remove(1));
    assert!(nodes[1].1.delete_manifest(&name, &gone).await.expect("deleted"));
    for (_, node) in &nodes {
        let listed = node.referrers(&name, &image.manifest).await.expect("listed");
        assert_eq!(listed.descriptors.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_that_two_nodes_push_at_once_are_both_listed() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("race");
    for round in 0..4_u64 {
        let pushes =
            nodes.iter().enumerate().map(|(index, (_, node))| {
                let (name, label) = (&name, format!("r{round}n{index}"));
                async move {
                    push_image(node, name, &label, (100 * round + 10 * index as u64, 50)).await
                }
            });
        within(futures_util::future::join_all(pushes)).await;
        for (_, node) in &nodes {
            assert_eq!(tags(node, &name).await.len(), 3 * (round as usize + 1));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_is_seen_everywhere_and_a_later_push_too() {
    let nodes = Bed::new().swarm(3).await;
    let (a, c) = (&nodes[0].1, &nodes[2].1);
    let name = repository("cycle");
    let image = push_image(a, &name, "v1", (7, 4000)).await;
    let by_digest = Reference::Digest(image.manifest);
    let manifest = a.manifest(&name, &by_digest).await.expect("read").expect("there").bytes;
    let (layer, bytes) = &image.blobs[1];
    for round in 0..3 {
        for (_, node) in &nodes {
            assert_eq!(resolve(node, &name, "v1").await, Some(image.manifest), "{round}");
            assert!(pull(node, &name, layer).await == *bytes);
        }
        let deleter = &nodes[round].1;
        assert!(deleter.delete_manifest(&name, &by_digest).await.expect("deleted"));
        assert!(deleter.delete_blob(&name, layer).await.expect("deleted"));
        for (_, node) in &nodes {
            assert_eq!(resolve(node, &name, "v1").await, None, "{round}");
            assert!(node.manifest(&name, &by_digest).await.expect("asked").is_none());
            assert!(node.open_blob(&name, layer).await.expect("asked").is_none());
            assert_eq!(node.stat_blob(&name, layer).await.expect("asked"), None);
            assert!(tags(node, &name).await.is_empty() && catalogue(node).await.is_empty());
        }
        assert_eq!(push_blob(c, &name, bytes).await, *layer);
        let v1 = by_tag("v1");
        c.put_manifest(&name, &v1, &[], None, manifest.clone()).await.expect("taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_hears_of_a_delete_when_it_returns() {
    let bed = Bed::new();
    let mut nodes = bed.swarm(3).await;
    let name = repository("away");
    let image = push_image(&nodes[0].1, &name, "v1", (3, 2000)).await;
    let (layer, _) = &image.blobs[1];
    pull(&nodes[2].1, &name, layer).await;
    let (machine, node) = nodes.pop().expect("three nodes");
    within(node.shutdown()).await;
    drop(node);
    assert!(nodes[0].1.delete_blob(&name, layer).await.expect("deleted"));
    let back = bed.start(&machine, &[&nodes[0].0, &nodes[1].0]).await;
    eventually("it forgets the blob", async || {
        within(back.open_blob(&name, layer)).await.is_ok_and(|blob| blob.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_lists_and_less_says_so() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let name = repository("lossy");
    push_image(&nodes[0].1, &name, "v1", (1, 100)).await;
    bed.network.kill(nodes[2].0.addr);
    // A node that joined lately has no say, so this needs patience only where two are young.
    eventually("two of three list", async || {
        matches!(within(nodes[0].1.tags(&name, None, 10)).await,
            Ok(Some(listed)) if listed.tags == [tag("v1")])
            || matches!(within(nodes[0].1.tags(&name, None, 10)).await,
            Err(ReadError::Unavailable(why)) if why.contains("of 3"))
    })
    .await;
    bed.network.kill(nodes[1].0.addr);
    let listed = within(nodes[0].1.tags(&name, None, 10)).await;
    assert!(
        matches!(&listed, Err(ReadError::Unavailable(why)) if why.contains("of 3")),
        "{listed:?}"
    );
    let names = within(nodes[0].1.repositories(None, 10)).await;
    assert!(matches!(names, Err(ReadError::Unavailable(_))), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_lists_what_the_swarm_lists() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let name = repository("old");
    for label in ["v1", "v2", "v3"] {
        push_image(&nodes[0].1, &name, label, (1, 1000)).await;
    }
    let late = bed.machine(9);
    let node = bed.start(&late, &[&nodes[0].0]).await;
    assert_eq!(tags(&node, &name).await, ["v1", "v2", "v3"], "never a part of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_lists_what_it_was_told_and_still_does_after_a_restart() {
    let bed = Bed::new();
    let machine = bed.machine(1);
    let node = bed.start(&machine, &[]).await;
    let name = repository("lone");
    let image = push_image(&node, &name, "v1", (1, 100)).await;
    refer(&node, &name, &image.manifest, 0).await;
    within(node.shutdown()).await;
    drop(node);
    let node = bed.start(&machine, &[]).await;
    assert_eq!(tags(&node, &name).await, ["v1"]);
    let listed = node.referrers(&name, &image.manifest).await.expect("listed");
    assert_eq!(listed.descriptors.len(), 1);
    assert!(node.delete_manifest(&name, &by_tag("v1")).await.expect("deleted"));
    assert!(tags(&node, &name).await.is_empty());
    let again = push_image(&node, &name, "v1", (5, 100)).await;
    assert_eq!(resolve(&node, &name, "v1").await, Some(again.manifest), "memory follows the disk");
    assert_eq!(tags(&node, &name).await, ["v1"]);
}

fn deleted(name: &RepositoryName, digest: &Digest) -> Fact {
    Fact::Deleted { repository: name.clone(), digest: *digest, kind: ContentKind::Blob }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_entries_change_nothing() {
    let bed = Bed::new();
    let nodes = bed.swarm(1).await;
    let (machine, node) = &nodes[0];
    let name = repository("target");
    let image = push_image(node, &name, "v1", (1, 100)).await;
    let (layer, bytes) = &image.blobs[1];
    let stranger = Stranger::new(&bed, 77);
    let now_ms = now_ms();
    let stamp = (now_ms + 1000) << 16;
    let refused = |reason| Some(Response::Refused { reason });
    let put = |entry| stranger.say(machine, Request::PutEntry { entry });
    // Who forges is struck, so each does it once.
    let strangers = RefCell::new(vec![stranger.own.id]);
    let forger = |number, entry| {
        let forger = Stranger::new(&bed, number);
        strangers.borrow_mut().push(forger.own.id);
        async move { forger.say(machine, Request::PutEntry { entry }).await }
    };

    // Signed for another repository, then renamed.
    let foreign = deleted(&repository("other"), layer);
    let mut record = FactRecord::sign(&stranger.signer, foreign, Some(Vec::new()), stamp);
    record.fact = deleted(&name, layer);
    let answer = forger(78, SetEntry::Fact(record.clone())).await;
    assert_eq!(answer, refused(RefuseReason::BadSignature));
    record.signature = [7; 64];
    let answer = forger(79, SetEntry::Fact(record)).await;
    assert_eq!(answer, refused(RefuseReason::BadSignature));

    // From the future.
    let ahead = (now_ms + 3_600_000) << 16;
    let record = FactRecord::sign(&stranger.signer, deleted(&name, layer), Some(Vec::new()), ahead);
    assert_eq!(put(SetEntry::Fact(record)).await, refused(RefuseReason::ClockAhead));

    // Larger than any entry may be: not even read.
    let fact = Fact::Referrer { repository: name.clone(), subject: *layer, referrer: *layer };
    let large = Some(vec![0; MAX_VALUE_BYTES + 1]);
    let record = FactRecord::sign(&stranger.signer, fact, large, stamp);
    let answer = forger(80, SetEntry::Fact(record)).await;
    assert!(!matches!(answer, Some(Response::EntryStored { .. })), "{answer:?}");

    // A delete from before the push, said again after it: a tag of old, too.
    let old = (now_ms - 60_000) << 16;
    let name_record = NameRecord::sign(&stranger.signer, name.clone(), tag("v1"), None, old);
    let answer = put(SetEntry::Tag(name_record)).await;
    assert!(matches!(answer, Some(Response::EntryStored { stored: false, newest: Some(_) })));
    // They count as members that are silent now, and would take the majority away.
    for stranger in strangers.take() {
        assert!(node.declare_gone(stranger).await);
    }
    assert!(pull(node, &name, layer).await == *bytes);
    assert_eq!(tags(node, &name).await, ["v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_said_again_does_not_undo_a_later_push() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let (a, b, name) = (&nodes[0].1, &nodes[1].1, repository("replay"));
    let bytes = content(4, 500);
    let digest = push_blob(a, &name, &bytes).await;
    assert!(a.delete_blob(&name, &digest).await.expect("deleted"));
    let stranger = Stranger::new(&bed, 77);
    let (set, member) = (deleted(&name, &digest).set(), deleted(&name, &digest).member());
    let ask = Request::GetSet { key: set.key(), from: member, limit: 1 };
    let Some(Response::Set { entries, .. }) = stranger.say(&nodes[1].0, ask).await else {
        panic!("a page of one");
    };
    let told = entries.first().expect("the word of the delete").clone();
    assert!(told.is_present());
    push_blob(b, &name, &bytes).await;
    for (machine, node) in &nodes {
        let answer = stranger.say(machine, Request::PutEntry { entry: told.clone() }).await;
        assert!(matches!(answer, Some(Response::EntryStored { stored: false, .. })), "{answer:?}");
        assert!(pull(node, &name, &digest).await == bytes, "the push came later");
    }
}
