//! Pulled content makes room and comes again; what is kept for the swarm or pinned stays.

use std::time::Duration;

use ddr_node::{
    CopySettings, Durability, JobKind, JobState, Node, PinError, PullNodes, PullRequest,
    VerifyRequest,
};
use ddr_oci::ImageReference;

use crate::bed::{
    Bed, Image, Machine, announced, by_tag, ended, eventually, pull, push_image, repository, within,
};

const NAME: &str = "team/app";

/// Pulls all of the image, until it lies on the disk.
async fn pull_all(node: &Node, image: &Image) {
    let name = repository(NAME);
    assert!(node.manifest(&name, &by_tag("1.0")).await.expect("read").is_some());
    for (digest, bytes) in &image.blobs {
        assert!(pull(node, &name, digest).await == *bytes);
    }
    // Clients have all bytes before the disk has.
    eventually("it is stored", async || node.status().await.blobs >= image.blobs.len()).await;
}

/// Stops the node, and starts it again with room for so many bytes: what it pulled is not in use any more.
async fn again(
    bed: &Bed,
    (machine, node): (Machine, Node),
    other: &Machine,
    bytes: u64,
) -> (Machine, Node) {
    within(node.shutdown()).await;
    bed.network.kill(machine.addr);
    drop(node);
    let machine = machine.caching(bytes);
    let node = bed.start(&machine, &[other]).await;
    (machine, node)
}

fn reference(tag: &str) -> ImageReference {
    format!("{NAME}:{tag}").parse().expect("an image")
}

#[tokio::test(flavor = "multi_thread")]
async fn pulled_content_makes_room_and_is_pulled_again() {
    let bed = Bed::new();
    let mut nodes = bed.swarm(2).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 400_000)).await;
    pull_all(&nodes[1].1, &image).await;
    let (layer, _) = &image.blobs[1];
    announced(&nodes[0].1, layer, 1).await;
    let second = nodes.remove(1);
    let (machine, node) = again(&bed, second, &nodes[0].0, 1000).await;
    let all = image.blobs.len() as u64;
    eventually("it makes room", async || node.status().await.cache.evicted_blobs == all).await;
    let status = node.status().await;
    assert_eq!((status.blobs, status.cache.over_because), (0, None));
    eventually("it is no longer named", async || {
        let found = nodes[0].1.find(&layer.to_string()).await.expect("a report");
        !found.holders.iter().any(|holder| holder.node_id == machine.id())
    })
    .await;
    let before = node.status().await.traffic.fetched_bytes;
    pull_all(&node, &image).await;
    assert!(node.status().await.traffic.fetched_bytes > before, "from a peer");
    node.start_verify(VerifyRequest::default()).await.expect("no other run");
    let job = ended(&node, JobKind::Verify).await;
    assert!(!job.damage && job.report["lost"] == serde_json::json!([]), "{job:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_copy_does_not_make_room_and_the_operator_is_told() {
    let bed = Bed::new();
    let settings = CopySettings {
        copies: 2,
        copies_for: Vec::new(),
        durability: Durability::Two,
        grace: Duration::from_secs(60),
        rate: None,
    };
    let first = bed.machine(1).keeping(settings.clone());
    let node = bed.start(&first, &[]).await;
    let second = bed.machine(2).keeping(settings);
    let keeper = bed.start(&second, &[&first]).await;
    eventually("they know each other", async || node.peers().await.len() == 1).await;
    let image = push_image(&node, &repository(NAME), "1.0", (1, 400_000)).await;
    eventually("all of it is kept", async || keeper.status().await.copies.parts == 3).await;
    let (_second, keeper) = again(&bed, (second, keeper), &first, 1000).await;
    // At first the reason may be that no other node has answered yet.
    eventually("it is over its mark with what it keeps", async || {
        let because = keeper.status().await.cache.over_because;
        because.is_some_and(|because| because.contains("kept for the swarm"))
    })
    .await;
    let status = keeper.status().await;
    assert!(status.cache.over_bytes > 0);
    assert_eq!(status.blobs, image.blobs.len(), "nothing has gone");
    assert_eq!(status.cache.evicted_blobs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_image_stays_until_it_is_unpinned() {
    let bed = Bed::new();
    let mut nodes = bed.swarm(2).await;
    push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 200_000)).await;
    let (machine, node) = nodes.remove(1);
    assert!(matches!(node.pin(&reference("2.0")).await, Err(PinError::Unknown(_))));
    let missing = node.pin(&reference("1.0")).await;
    assert!(matches!(missing, Err(PinError::NotHere { count: 2, .. })), "{missing:?}");
    let order =
        PullRequest { image: reference("1.0"), platform: None, nodes: PullNodes::default() };
    node.start_pull(order).await.expect("no other run");
    assert_eq!(ended(&node, JobKind::Pull).await.state, JobState::Done);
    let pin = node.pin(&reference("1.0")).await.expect("it is here");
    assert_eq!(pin.parts, 3);
    let (_machine, node) = again(&bed, (machine, node), &nodes[0].0, 1000).await;
    assert_eq!(node.pins().await.expect("read"), std::slice::from_ref(&pin));
    eventually("it is over its mark", async || node.status().await.cache.over_bytes > 0).await;
    assert_eq!(node.status().await.blobs, 2);
    assert_eq!(node.unpin(reference("1.0")).await.expect("written"), [pin]);
    assert!(node.unpin(reference("1.0")).await.expect("written").is_empty());
    eventually("it makes room", async || node.status().await.blobs == 0).await;
}
