//! Content of other registries: asked for once by all nodes together, proven, and there when they are not.

use std::time::Duration;

use bytes::Bytes;
use ddr_node::{JobKind, JobState, Limits, ListedBy, Node, PullNodes, PullRequest, ReadError};
use ddr_oci::{Descriptor, Digest, Reference, RepositoryName, media_type};
use futures_util::future::join_all;

use crate::bed::{
    Bed, Machine, by_tag, drain, ended, eventually, pull, repository, resolve, within,
};
use crate::registry::{Mood, Registry};

/// Long enough that nothing is asked for twice in a test.
const FRESH: Duration = Duration::from_secs(600);

async fn swarm(count: u8, registry: &Registry, fresh: Duration) -> Vec<(Machine, Node)> {
    let limits = Limits { mirror: registry.mirrored(fresh), ..Limits::default() };
    Bed::new().swarm_with(count, limits).await
}

fn app() -> RepositoryName {
    repository("up.test/app")
}

/// Pulls `app:tag` as a client does: the manifest by tag, then what it names.
async fn pull_image(node: &Node, tag: &str, blobs: &[(Digest, Bytes)]) -> Option<Digest> {
    let name = app();
    let digest = resolve(node, &name, tag).await?;
    for (blob, bytes) in blobs {
        assert!(pull(node, &name, blob).await == bytes[..], "{blob}");
    }
    Some(digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_nodes_ask_a_registry_once() {
    let registry = Registry::start().await;
    let (manifest, blobs) = registry.image("1", (1, 3_000_000));
    let nodes = swarm(12, &registry, FRESH).await;
    let pulls = nodes.iter().map(|(_, node)| within(pull_image(node, "1", &blobs)));
    for pulled in join_all(pulls).await {
        assert_eq!(pulled, Some(manifest));
    }
    assert_eq!(registry.asked("/v2/app/blobs/"), blobs.len());
    assert_eq!(registry.asked(&format!("/v2/app/manifests/{manifest}")), 1);
    assert_eq!(registry.asked("/v2/app/manifests/1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_reach_every_client_before_the_registry_has_sent_the_last() {
    let registry = Registry::start().await;
    let (_, blobs) = registry.image("1", (1, 3_000_000));
    let nodes = swarm(4, &registry, FRESH).await;
    registry.gate(1_000_000);
    let (layer, bytes) = &blobs[1];
    for (_, node) in &nodes {
        let name = app();
        let blob = within(node.open_blob(&name, layer)).await.expect("read").expect("there");
        assert_eq!(blob.size(), bytes.len() as u64);
        let (first, error) = within(drain_part(&blob, 500_000)).await;
        assert!(error.is_none() && first == bytes[..500_000]);
    }
    registry.gate(usize::MAX);
    for (_, node) in &nodes {
        assert!(pull(node, &app(), layer).await == bytes[..]);
    }
    assert_eq!(registry.asked(&format!("/v2/app/blobs/{layer}")), 1);
}

async fn drain_part(blob: &ddr_node::Blob, len: u64) -> (Vec<u8>, Option<std::io::Error>) {
    use futures_util::StreamExt;
    let mut stream = blob.stream(0..blob.size());
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        match stream.next().await {
            Some(Ok(more)) => bytes.extend_from_slice(&more),
            Some(Err(error)) => return (bytes, Some(error)),
            None => break,
        }
    }
    bytes.truncate(len as usize);
    (bytes, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_breaks_off_goes_on_where_it_was() {
    let registry = Registry::start().await;
    let (_, blobs) = registry.image("1", (1, 2_000_000));
    let nodes = swarm(1, &registry, FRESH).await;
    let (layer, bytes) = &blobs[1];
    registry.set(Mood::Short);
    let blob = within(nodes[0].1.open_blob(&app(), layer)).await.expect("read").expect("there");
    let (read, error) = within(drain(&blob)).await;
    assert!(error.is_none() && read == bytes[..], "{error:?}");
    assert_eq!(registry.asked(&format!("/v2/app/blobs/{layer}")), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_lies_completes_nothing() {
    let registry = Registry::start().await;
    let (_, blobs) = registry.image("1", (1, 1_000_000));
    registry.set(Mood::Lying);
    let nodes = swarm(3, &registry, FRESH).await;
    let (layer, bytes) = &blobs[1];
    for (_, node) in &nodes {
        if let Ok(Some(blob)) = within(node.open_blob(&app(), layer)).await {
            let (read, error) = within(drain(&blob)).await;
            assert!(error.is_some() && read.len() < bytes.len());
        }
        assert_eq!(node.status().await.struck, 0, "no node is to blame");
    }
    registry.set(Mood::Right);
    for (_, node) in &nodes {
        assert!(pull(node, &app(), layer).await == bytes[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_asked_for_again_when_the_answer_is_old() {
    let registry = Registry::start().await;
    let (old, _) = registry.image("1", (1, 1000));
    let fresh = Duration::from_millis(300);
    let nodes = swarm(3, &registry, fresh).await;
    assert_eq!(resolve(&nodes[0].1, &app(), "1").await, Some(old));
    let (new, _) = registry.image("1", (5, 1000));
    for (_, node) in &nodes {
        eventually("the new image is seen", async || resolve(node, &app(), "1").await == Some(new))
            .await;
    }
    registry.remove("/v2/app/manifests/1");
    for (_, node) in &nodes {
        eventually("the tag is gone", async || resolve(node, &app(), "1").await.is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_nodes_that_poll_a_tag_make_one_request_in_the_time_an_answer_holds() {
    let registry = Registry::start().await;
    let (manifest, _) = registry.image("1", (1, 1000));
    let nodes = swarm(12, &registry, FRESH).await;
    for _ in 0..5 {
        let polls =
            nodes.iter().map(|(_, node)| within(async { resolve(node, &app(), "1").await }));
        assert!(join_all(polls).await.into_iter().all(|seen| seen == Some(manifest)));
    }
    assert_eq!(registry.asked("/v2/app/manifests/1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_is_served_while_the_registry_is_dead() {
    let registry = Registry::start().await;
    let (manifest, blobs) = registry.image("1", (1, 200_000));
    let nodes = swarm(3, &registry, Duration::ZERO).await;
    assert_eq!(pull_image(&nodes[0].1, "1", &blobs).await, Some(manifest));
    eventually("the swarm remembers the tag", async || {
        let (name, tag) = (app(), "1".parse().expect("a tag"));
        let histories = nodes.iter().map(|(_, node)| node.tag_history(&name, &tag));
        let histories = join_all(histories).await;
        histories.into_iter().all(|history| history.is_ok_and(|history| !history.is_empty()))
    })
    .await;
    for mood in [Mood::Dead, Mood::Limited] {
        registry.set(mood);
        for (_, node) in &nodes {
            let found = within(node.manifest(&app(), &by_tag("1"))).await.expect("read");
            let found = found.expect("known");
            assert!(found.is_stale && found.digest == manifest, "{mood:?}");
            for (blob, bytes) in &blobs {
                assert!(pull(node, &app(), blob).await == bytes[..]);
            }
            let unknown = within(node.manifest(&app(), &by_tag("2"))).await;
            assert!(matches!(unknown, Err(ReadError::Unavailable(_))), "{mood:?} {unknown:?}");
        }
    }
}

async fn listed(node: &Node, last: Option<&str>, limit: usize) -> (Vec<String>, bool) {
    let list = within(node.tags(&app(), last, limit)).await.expect("listed").expect("known");
    (list.tags.iter().map(ToString::to_string).collect(), list.is_stale)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_tags_is_the_registrys_and_what_is_known_while_it_is_dead() {
    let registry = Registry::start().await;
    let (manifest, blobs) = registry.image("1", (1, 1000));
    let tags = Bytes::from(r#"{"name":"app","tags":["2","1","10"]}"#);
    registry.put("/v2/app/tags/list", media_type::JSON, &tags);
    let nodes = swarm(3, &registry, FRESH).await;
    let node = &nodes[0].1;
    assert_eq!(listed(node, None, 2).await, (vec!["1".into(), "10".into()], false));
    assert_eq!(listed(node, Some("10"), 2).await, (vec!["2".into()], false));
    assert_eq!(registry.asked("/v2/app/tags/list"), 1, "one list for both pages");
    let unknown = within(node.tags(&repository("up.test/none"), None, 9)).await;
    assert!(matches!(unknown, Ok(None)), "{unknown:?}");

    assert_eq!(pull_image(node, "1", &blobs).await, Some(manifest));
    registry.set(Mood::Dead);
    eventually("what the swarm has seen is listed", async || {
        let list = within(nodes[1].1.tags(&app(), None, 9)).await;
        list.is_ok_and(|list| list.is_some_and(|list| list.is_stale && list.tags.len() == 1))
    })
    .await;
    let unknown = within(nodes[1].1.tags(&repository("up.test/other"), None, 9)).await;
    assert!(matches!(unknown, Err(ReadError::Unavailable(_))), "{unknown:?}");
    registry.set(Mood::Closed);
    let closed = within(nodes[2].1.tags(&app(), None, 9)).await;
    assert!(matches!(closed, Err(ReadError::Denied(_))), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn referrers_are_those_that_the_registry_lists() {
    let registry = Registry::start().await;
    let (manifest, _) = registry.image("1", (1, 1000));
    let signature = Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(b"signature"), 9);
    let path = format!("/v2/app/referrers/{manifest}");
    let index = Bytes::from(ddr_oci::referrers::index(std::slice::from_ref(&signature)));
    registry.put(&path, media_type::OCI_INDEX, &index);
    let nodes = swarm(3, &registry, FRESH).await;
    for (_, node) in &nodes {
        let found = within(node.referrers(&app(), &manifest)).await.expect("listed");
        assert!(matches!(found.by, ListedBy::Registry), "{found:?}");
        assert_eq!(found.descriptors, std::slice::from_ref(&signature));
    }
    registry.remove(&path);
    let found = within(nodes[0].1.referrers(&app(), &manifest)).await.expect("listed");
    assert!(matches!(found.by, ListedBy::Swarm), "it does not know that question: {found:?}");
    registry.set(Mood::Dead);
    let found = within(nodes[0].1.referrers(&app(), &manifest)).await.expect("listed");
    assert!(matches!(found.by, ListedBy::Memory(ReadError::Unavailable(_))), "{found:?}");
    registry.set(Mood::Closed);
    let closed = within(nodes[0].1.referrers(&app(), &manifest)).await;
    assert!(matches!(closed, Err(ReadError::Denied(_))), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_asked_too_often_is_left_alone_by_all() {
    let registry = Registry::start().await;
    let nodes = swarm(5, &registry, Duration::ZERO).await;
    registry.set(Mood::Limited);
    let read = within(nodes[0].1.manifest(&app(), &by_tag("0"))).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    // The word of the pause takes a moment to get around.
    let before = std::cell::Cell::new(0);
    eventually("nobody asks any more", async || {
        before.set(registry.asked("/"));
        for (number, (_, node)) in nodes.iter().enumerate() {
            let tag = format!("t{number}-{}", before.get());
            let read = within(node.manifest(&app(), &by_tag(&tag))).await;
            assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
        }
        registry.asked("/") == before.get()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_refuses_or_lacks_is_said_so() {
    let registry = Registry::start().await;
    let nodes = swarm(3, &registry, Duration::ZERO).await;
    let nowhere = Digest::sha256(b"nowhere");
    for (_, node) in &nodes {
        assert_eq!(resolve(node, &app(), "none").await, None);
        assert!(within(node.open_blob(&app(), &nowhere)).await.expect("read").is_none());
        assert_eq!(within(node.stat_blob(&app(), &nowhere)).await.expect("read"), None);
        let by_digest = Reference::Digest(nowhere);
        assert!(within(node.manifest(&app(), &by_digest)).await.expect("read").is_none());
        // Of a registry that is not mirrored nobody is asked.
        assert_eq!(resolve(node, &repository("other.test/app"), "1").await, None);
    }
    registry.set(Mood::Closed);
    for (_, node) in &nodes {
        let read = within(node.manifest(&app(), &by_tag("1"))).await;
        assert!(matches!(read, Err(ReadError::Denied(_))), "{read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_no_licence_to_read_it_from_another_repository() {
    let registry = Registry::start().await;
    let (_, blobs) = registry.image("1", (1, 200_000));
    let nodes = swarm(2, &registry, FRESH).await;
    let (layer, bytes) = &blobs[1];
    for (_, node) in &nodes {
        assert!(pull(node, &app(), layer).await == bytes[..]);
    }
    for (_, node) in &nodes {
        for other in ["up.test/other", "team/app"] {
            let read = within(node.open_blob(&repository(other), layer)).await.expect("read");
            assert!(read.is_none(), "{other}");
        }
    }
    // Where the registry has it in the other repository as well, it may be read there.
    registry.put(&format!("/v2/other/blobs/{layer}"), "application/octet-stream", bytes);
    for (_, node) in &nodes {
        assert!(pull(node, &repository("up.test/other"), layer).await == bytes[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_name_images_as_everybody_does() {
    let registry = Registry::start().await;
    let (manifest, blobs) = registry.image("1", (1, 100_000));
    let nodes = swarm(2, &registry, FRESH).await;
    let node = &nodes[0].1;
    let image: ddr_oci::ImageReference = "up.test/app:1".parse().expect("an image");
    let (platform, nodes_too) = (None, PullNodes::None);
    let request = PullRequest { image: image.clone(), platform, nodes: nodes_too };
    node.start_pull(request).await.expect("begun");
    let run = ended(node, JobKind::Pull).await;
    assert_eq!(run.state, JobState::Done, "{run:?}");
    assert_eq!(node.pin(&image).await.expect("pinned").digest, manifest.to_string());
    let found = node.find("up.test/app:1").await.expect("found");
    assert_eq!((found.digest, found.local), (Some(manifest.to_string()), true));
    for (blob, bytes) in &blobs {
        assert!(pull(&nodes[1].1, &app(), blob).await == bytes[..]);
    }
    assert_eq!(registry.asked("/v2/app/blobs/"), blobs.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_warden_costs_another_request_and_no_failure() {
    let registry = Registry::start().await;
    let (manifest, blobs) = registry.image("1", (1, 500_000));
    let limits = Limits { mirror: registry.mirrored(FRESH), ..Limits::default() };
    let bed = Bed::new();
    let nodes = bed.swarm_with(6, limits).await;
    for (machine, _) in &nodes[1..] {
        bed.network.kill(machine.addr);
    }
    assert_eq!(within(pull_image(&nodes[0].1, "1", &blobs)).await, Some(manifest));
}
