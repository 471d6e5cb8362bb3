//! Rules of tags: what is read without a majority, what may not move, what was before.

use std::time::{Duration, SystemTime};

use ddr_node::{
    DeleteError, Limits, Node, PutManifestError, ReadError, TagReads, TagRules, TagVersion,
};
use ddr_oci::{Digest, Reference, RepositoryName, media_type};
use ddr_proto::names::STAMP_COUNTER_BITS;
use ddr_proto::wire::{Request, Response};

use crate::bed::{
    Bed, Machine, by_tag, eventually, image, push_blob, push_image, repository, resolve, tag,
    within,
};
use crate::stranger::{Stranger, now_ms};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

fn with(rules: TagRules) -> Limits {
    Limits { tags: rules, ..Limits::default() }
}

fn immutable(pattern: &str) -> Limits {
    let immutable = vec![pattern.parse().expect("a pattern")];
    with(TagRules { immutable, ..TagRules::default() })
}

fn stale_ok() -> Limits {
    with(TagRules { reads: TagReads::StaleOk, ..TagRules::default() })
}

/// Pushes a manifest over a blob of its own; its digest.
async fn push(
    node: &Node,
    name: &RepositoryName,
    label: &str,
    seed: u64,
) -> Result<Digest, PutManifestError> {
    let content = bytes::Bytes::from(format!("{{\"seed\":{seed}}}"));
    let config = push_blob(node, name, &content).await;
    let bytes = image(&[(config, content.len() as u64)]);
    let (label, kind) = (by_tag(label), Some(media_type::OCI_MANIFEST));
    let put = node.put_manifest(name, &label, &[], kind, bytes);
    within(put).await.map(|put| put.digest)
}

async fn history(node: &Node, name: &RepositoryName, label: &str) -> Vec<TagVersion> {
    within(node.tag_history(name, &tag(label))).await.expect("a history")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_the_last_that_is_known_is_read_where_that_is_allowed() {
    let bed = Bed::new();
    let nodes = bed.swarm_with(3, stale_ok()).await;
    let (a, name) = (&nodes[0].1, repository("team/app"));
    let first = push_image(a, &name, "v1", (1, 100)).await;
    push_image(a, &name, "gone", (3, 100)).await;
    assert!(a.delete_manifest(&name, &by_tag("gone")).await.expect("deleted"));
    let fresh = a.manifest(&name, &by_tag("v1")).await.expect("read").expect("there");
    assert!(!fresh.is_stale);
    eventually("this node keeps both", async || a.status().await.names == 2).await;

    bed.network.kill(nodes[1].0.addr);
    bed.network.kill(nodes[2].0.addr);
    let found = within(a.manifest(&name, &by_tag("v1"))).await.expect("read").expect("there");
    assert_eq!((found.digest, found.is_stale), (first.manifest, true));
    let gone = within(a.manifest(&name, &by_tag("gone"))).await.expect("read");
    assert_eq!(gone, None, "as far as is known it is deleted");
    let unknown = within(a.manifest(&name, &by_tag("other"))).await;
    assert!(matches!(unknown, Err(ReadError::Unavailable(_))), "{unknown:?}");
    let listed = within(a.tags(&name, None, 10)).await.expect("listed").expect("known");
    assert_eq!((listed.tags, listed.is_stale), (vec![tag("v1")], true));
    let other = within(a.tags(&repository("other"), None, 10)).await;
    assert!(matches!(other, Err(ReadError::Unavailable(_))), "{other:?}");

    let written = push(a, &name, "v1", 9).await;
    assert!(matches!(written, Err(PutManifestError::Unavailable(_))), "{written:?}");
    let deleted = within(a.delete_manifest(&name, &by_tag("v1"))).await;
    assert!(matches!(deleted, Err(DeleteError::Unavailable(_))), "{deleted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_minority_says_is_newer_than_the_local_list() {
    let bed = Bed::new();
    let nodes = bed.swarm_with(4, stale_ok()).await;
    let name = repository("app");
    push_image(&nodes[3].1, &name, "v1", (1, 100)).await;
    assert!(resolve(&nodes[0].1, &name, "v1").await.is_some(), "it is in the list of this node");
    let second = push_image(&nodes[1].1, &name, "v1", (3, 100)).await;
    eventually("a minority keeps it", async || {
        let kept = history(&nodes[1].1, &name, "v1").await;
        kept.first().is_some_and(|newest| newest.digest == Some(second.manifest.to_string()))
            && nodes[1].1.status().await.names == 1
    })
    .await;
    bed.network.kill(nodes[2].0.addr);
    bed.network.kill(nodes[3].0.addr);
    // Two of four are a read quorum, but not when one of them abstains or is slow; both answers are
    // the newest one.
    let found = within(nodes[0].1.manifest(&name, &by_tag("v1"))).await.expect("read");
    assert_eq!(found.expect("there").digest, second.manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_tag_is_neither_moved_nor_deleted() {
    for count in [1, 3] {
        let nodes = Bed::new().swarm_with(count, immutable("team/*:v*")).await;
        let (a, b) = (&nodes[0].1, &nodes[usize::from(count) - 1].1);
        let name = repository("team/app");
        let first = push(a, &name, "v1", 1).await.expect("taken");
        assert_eq!(push(b, &name, "v1", 1).await.expect("the same again"), first);
        let moved = push(b, &name, "v1", 2).await;
        assert!(
            matches!(&moved, Err(PutManifestError::TagImmutable { digest, .. }) if **digest == first),
            "{moved:?}"
        );
        for reference in [by_tag("v1"), Reference::Digest(first)] {
            let deleted = within(b.delete_manifest(&name, &reference)).await;
            assert!(matches!(deleted, Err(DeleteError::TagImmutable { .. })), "{deleted:?}");
        }
        for (_, node) in &nodes {
            assert_eq!(resolve(node, &name, "v1").await, Some(first), "{count} nodes");
            let listed = within(node.tags(&name, None, 9)).await.expect("listed").expect("known");
            assert_eq!(listed.tags, [tag("v1")]);
        }
        // Others move as ever.
        push(a, &name, "latest", 1).await.expect("taken");
        let latest = push(b, &name, "latest", 2).await.expect("moved");
        assert_eq!(resolve(a, &name, "latest").await, Some(latest));
        assert!(within(a.delete_manifest(&name, &by_tag("latest"))).await.expect("deleted"));
        assert!(!within(a.delete_manifest(&name, &by_tag("v9"))).await.expect("asked"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_first_pushes_at_once_one_has_the_tag_and_keeps_it() {
    let nodes = Bed::new().swarm_with(3, immutable("v*")).await;
    let name = repository("race");
    for round in 0..8_u64 {
        let label = format!("v{round}");
        let pushes = nodes.iter().enumerate().map(|(index, (_, node))| {
            let (name, label, seed) = (&name, label.clone(), 100 * (round + 1) + index as u64);
            async move { push(node, name, &label, seed).await }
        });
        let pushed = within(futures_util::future::join_all(pushes)).await;
        let taken: Vec<Digest> =
            pushed.iter().filter_map(|one| one.as_ref().ok()).copied().collect();
        assert!(taken.len() <= 1, "round {round}: {pushed:?}");
        for refused in pushed.iter().filter_map(|one| one.as_ref().err()) {
            assert!(
                matches!(
                    refused,
                    PutManifestError::TagImmutable { .. } | PutManifestError::Unavailable(_)
                ),
                "{refused:?}"
            );
        }
        let mut seen = Vec::new();
        for (_, node) in &nodes {
            seen.push(resolve(node, &name, &label).await);
        }
        assert!(seen.iter().all(|one| *one == seen[0]), "round {round}: all see the same");
        if let Some(winner) = taken.first() {
            assert_eq!(seen[0], Some(*winner), "round {round}: what was acknowledged stands");
        }
    }
}

/// A node without the pattern pushes and deletes tags: of one that nobody ever knew young voters say nothing.
async fn tombstones(
    bed: &Bed,
    other: &Machine,
    name: &RepositoryName,
    labels: &[&str],
) -> (Machine, Node) {
    let machine = bed.machine(200);
    let node = bed.start(&machine, &[other]).await;
    for label in labels {
        push(&node, name, label, 9).await.expect("taken");
        assert!(within(node.delete_manifest(name, &by_tag(label))).await.expect("deleted"));
    }
    (machine, node)
}

/// Whoever writes, stamps are such that most others take them.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_a_year_off_writes_tags_and_new_repositories() {
    let bed = Bed::new();
    let mut nodes = bed.swarm(2).await;
    for (number, now) in
        [(3, (|| SystemTime::now() + YEAR) as fn() -> SystemTime), (4, || SystemTime::now() - YEAR)]
    {
        let mut machine = bed.machine(number);
        machine.now = now;
        let node = bed.start(&machine, &[&nodes[0].0, &nodes[1].0]).await;
        nodes.push((machine, node));
    }
    // What the tag points to; content is not found by a clock that takes all records for old or of the future.
    let newest = async |node: &Node, name: &RepositoryName| {
        history(node, name, "latest").await.remove(0).digest
    };
    for (number, (_, writer)) in nodes.iter().enumerate() {
        let name = repository(&format!("team/app{number}"));
        let pushed = push(writer, &name, "latest", 1).await.expect("taken");
        for (_, node) in &nodes {
            assert_eq!(newest(node, &name).await, Some(pushed.to_string()), "{number}");
        }
        // The next one moves what the other wrote.
        let (_, other) = &nodes[(number + 1) % nodes.len()];
        let moved = push(other, &name, "latest", 2).await.expect("moved");
        assert_eq!(newest(writer, &name).await, Some(moved.to_string()), "{number}");
        assert!(within(writer.delete_manifest(&name, &by_tag("latest"))).await.expect("deleted"));
        for (_, node) in &nodes {
            let listed = within(node.tags(&name, None, 9)).await.expect("listed");
            assert!(listed.is_none_or(|listed| listed.tags.is_empty()), "{number}");
        }
    }
}

/// A voter whose clock is a year ahead has promised what no other may accept: the others go on without it.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_outbids_with_stamps_of_the_future_holds_up_no_immutable_tag() {
    let bed = Bed::new();
    let nodes = bed.swarm_with(2, immutable("v*")).await;
    let name = repository("team/app");
    let _mover = tombstones(&bed, &nodes[0].0, &name, &["v0", "v1"]).await;
    let stranger = Stranger::new(&bed, 100);
    stranger.listen(|request| match request {
        Request::PrepareName { .. } => {
            let later_ms = now_ms() + YEAR.as_millis() as u64;
            let outbid_by = Some(later_ms << STAMP_COUNTER_BITS);
            Some(Response::Promise { outbid_by, record: None, young: false })
        }
        Request::AcceptName { .. } => Some(Response::NameStored { stored: false, newest: None }),
        _ => None,
    });
    for (machine, node) in &nodes {
        stranger.say(machine, Request::Ping).await.expect("answered");
        eventually("it is known", async || node.peers().await.len() == 3).await;
    }
    for (number, (_, node)) in nodes.iter().enumerate() {
        let label = format!("v{number}");
        let pushed = push(node, &name, &label, 1).await.expect("taken by a majority");
        assert_eq!(resolve(&nodes[0].1, &name, &label).await, Some(pushed));
    }
}

/// The voters have started lately: what they may have promised before is later than any stamp of a slow clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_a_year_behind_pushes_immutable_tags() {
    let bed = Bed::new();
    let nodes = bed.swarm_with(2, immutable("v*")).await;
    let mut machine = bed.machine(3);
    (machine.limits, machine.now) = (nodes[0].0.limits.clone(), || SystemTime::now() - YEAR);
    let slow = bed.start(&machine, &[&nodes[0].0, &nodes[1].0]).await;
    let name = repository("team/app");
    let _mover = tombstones(&bed, &nodes[0].0, &name, &["v1"]).await;
    let first = push(&slow, &name, "v1", 1).await.expect("taken");
    assert_eq!(push(&slow, &name, "v1", 1).await.expect("the same again"), first);
    let moved = push(&nodes[0].1, &name, "v1", 2).await;
    assert!(matches!(moved, Err(PutManifestError::TagImmutable { .. })), "{moved:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_first_pushes_to_one_node_at_once_one_has_the_tag() {
    let nodes = Bed::new().swarm_with(3, immutable("v*")).await;
    let (node, name) = (&nodes[0].1, repository("race"));
    for round in 0..8_u64 {
        let label = format!("v{round}");
        let pushes = (0..4).map(|number| push(node, &name, &label, 100 * (round + 1) + number));
        let pushed = within(futures_util::future::join_all(pushes)).await;
        let taken: Vec<&Digest> = pushed.iter().filter_map(|one| one.as_ref().ok()).collect();
        assert!(taken.len() <= 1, "round {round}: {pushed:?}");
        if let Some(winner) = taken.first() {
            assert_eq!(resolve(&nodes[2].1, &name, &label).await, Some(**winner), "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_tag_is_what_it_pointed_to() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("app");
    assert_eq!(history(&nodes[0].1, &name, "v1").await, []);
    let mut wanted: Vec<Option<String>> = Vec::new();
    for round in 0..4_u64 {
        let digest = push(&nodes[round as usize % 3].1, &name, "v1", round).await.expect("taken");
        wanted.insert(0, Some(digest.to_string()));
    }
    assert!(nodes[0].1.delete_manifest(&name, &by_tag("v1")).await.expect("deleted"));
    wanted.insert(0, None);
    for (_, node) in &nodes {
        let versions = history(node, &name, "v1").await;
        let digests: Vec<_> = versions.iter().map(|version| version.digest.clone()).collect();
        assert_eq!(digests, wanted);
        assert!(versions.windows(2).all(|pair| pair[0].at_ms >= pair[1].at_ms));
        assert_eq!(versions[0].writer, nodes[0].0.id());
        assert_eq!(versions[1].writer, nodes[0].0.id(), "the fourth push");
        assert_eq!(versions[2].writer, nodes[2].0.id(), "the third push");
    }
    for round in 10..30_u64 {
        push(&nodes[0].1, &name, "v1", round).await.expect("taken");
    }
    let versions = history(&nodes[1].1, &name, "v1").await;
    assert_eq!(versions.len(), ddr_proto::wire::MAX_HISTORY);
}
