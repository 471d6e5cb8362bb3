//! What is pushed lies on more than one disk when the push is answered, and stays so.

use std::time::Duration;

use bytes::Bytes;
use ddr_node::{CopySettings, Durability, JobKind, Node, PutManifestError};
use ddr_oci::{Digest, Reference, media_type};
use ddr_proto::id::NodeId;
use ddr_proto::wire::{
    Contact, MAX_REPLICA_HOLDERS, PlacedPart, Placement, Request, RequestEnvelope,
};

use crate::bed::{
    Bed, Image, Machine, by_tag, content, ended, eventually, image, pull, push_blob, push_image,
    repository, resolve, within,
};

const NAME: &str = "team/app";

/// Three copies, two at the push; a lost node is replaced soon.
const THREE: CopySettings = CopySettings {
    copies: 3,
    copies_for: Vec::new(),
    durability: Durability::Two,
    grace: Duration::from_millis(1_500),
    rate: None,
};

/// `count` nodes that keep copies.
async fn swarm(bed: &Bed, count: u8, settings: CopySettings) -> Vec<(Machine, Node)> {
    let mut nodes: Vec<(Machine, Node)> = Vec::new();
    for number in 1..=count {
        let machine = bed.machine(number).keeping(settings.clone());
        let others: Vec<&Machine> = nodes.iter().take(2).map(|(other, _)| other).collect();
        let node = bed.start(&machine, &others).await;
        nodes.push((machine, node));
    }
    for (_, node) in &nodes {
        let wanted = usize::from(count) - 1;
        eventually("all know each other", async || node.peers().await.len() >= wanted).await;
    }
    nodes
}

/// How many of `nodes` have the whole image on their disks and a row for it.
async fn keepers(nodes: &[(Machine, Node)], image: &Image) -> usize {
    let mut keepers = 0;
    for (_, node) in nodes {
        let status = node.status().await;
        keepers += usize::from(status.copies.images > 0 && status.blobs >= image.blobs.len());
    }
    keepers
}

/// Blobs on all disks.
async fn files(nodes: &[(Machine, Node)]) -> usize {
    let mut files = 0;
    for (_, node) in nodes {
        files += node.status().await.blobs;
    }
    files
}

/// Parts that are kept, over all nodes.
async fn kept(nodes: &[(Machine, Node)]) -> usize {
    let mut parts = 0;
    for (_, node) in nodes {
        parts += node.status().await.copies.parts;
    }
    parts
}

/// Stops a node as a power cut would: nobody is told.
fn kill(bed: &Bed, (machine, _): &(Machine, Node)) {
    bed.network.kill(machine.addr);
}

async fn serves_all(node: &Node, image: &Image) {
    let name = repository(NAME);
    assert_eq!(resolve(node, &name, "1.0").await, Some(image.manifest));
    for (digest, bytes) in &image.blobs {
        assert_eq!(pull(node, &name, digest).await, bytes[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_answered_outlives_the_node_that_took_it_in() {
    let bed = Bed::new();
    let mut nodes = swarm(&bed, 3, THREE).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 3_000_000)).await;
    let first = nodes.remove(0);
    kill(&bed, &first);
    for (_, node) in &nodes {
        eventually("the tag can be read", async || {
            node.manifest(&repository(NAME), &by_tag("1.0"))
                .await
                .is_ok_and(|found| found.is_some())
        })
        .await;
        serves_all(node, &image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_copy_follows_and_no_fourth() {
    let bed = Bed::new();
    let nodes = swarm(&bed, 5, THREE).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 1_000_000)).await;
    // The manifest is where its blobs are, so it may have more.
    let blobs = image.blobs.len();
    eventually("three copies of each", async || kept(&nodes).await >= 3 * blobs + 3).await;
    eventually("nothing is short", async || {
        let mut short = 0;
        for (_, node) in &nodes {
            short += node.status().await.copies.short_parts;
        }
        short == 0
    })
    .await;
    assert_eq!(files(&nodes).await, 3 * blobs, "as many files as copies");
}

#[tokio::test(flavor = "multi_thread")]
async fn repositories_may_want_other_numbers_of_copies() {
    let bed = Bed::new();
    let pattern = |text: &str| text.parse().expect("a pattern");
    let copies_for = vec![(pattern("ci/**"), 1), (pattern("prod/*"), 4)];
    let nodes = swarm(&bed, 5, CopySettings { copies_for, ..THREE }).await;
    let pushed = async |name: &str, seed: u64| {
        push_image(&nodes[0].1, &repository(name), "1.0", (seed, 300_000)).await.blobs.len() + 1
    };
    let (one, four) = (pushed("ci/a/b", 1).await, pushed("prod/app", 2).await);
    let three = pushed(NAME, 3).await;
    let all = one + 4 * four + 3 * three;
    let whole = async || {
        let mut short = 0;
        for (_, node) in &nodes {
            let copies = node.status().await.copies;
            short += copies.short_parts + copies.waiting_images + usize::from(!copies.surveyed);
        }
        short == 0 && kept(&nodes).await >= all
    };
    eventually("each has its copies", whole).await;
    // A holder of a blob keeps the manifest, too; blobs are counted without those.
    let kept_blobs = files(&nodes).await;
    assert_eq!(kept_blobs, (one - 1) + 4 * (four - 1) + 3 * (three - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_holder_is_replaced_after_its_grace() {
    let bed = Bed::new();
    let mut nodes = swarm(&bed, 5, THREE).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 1_000_000)).await;
    let blobs = image.blobs.len();
    eventually("three copies of each", async || kept(&nodes).await >= 3 * (blobs + 1)).await;
    let first = nodes.remove(0);
    let lost = first.1.status().await.blobs;
    kill(&bed, &first);
    assert!(lost > 0);
    eventually("three copies again, of each on those that are left", async || {
        files(&nodes).await >= 3 * blobs
    })
    .await;
    eventually("the rows say so", async || {
        let mut short = 0;
        for (_, node) in &nodes {
            short += node.status().await.copies.short_parts;
        }
        short == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_takes_pushes_and_copies_are_made_when_nodes_come() {
    let bed = Bed::new();
    let alone = bed.machine(1).keeping(THREE);
    let node = bed.start(&alone, &[]).await;
    let image = push_image(&node, &repository(NAME), "1.0", (1, 500_000)).await;
    eventually("it has the only copy", async || node.status().await.copies.sole_parts == 3).await;
    assert_eq!(node.status().await.copies.short_parts, 0, "as many as there are nodes");
    let second = bed.machine(2).keeping(THREE);
    let other = bed.start(&second, &[&alone]).await;
    let both = [(alone, node), (second, other)];
    eventually("both keep it", async || keepers(&both, &image).await == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_moves_nothing() {
    let bed = Bed::new();
    let mut nodes = swarm(&bed, 3, THREE).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 500_000)).await;
    eventually("all three keep it", async || keepers(&nodes, &image).await == 3).await;
    let machine = bed.machine(4).keeping(THREE);
    let node = bed.start(&machine, &[&nodes[0].0]).await;
    nodes.push((machine, node));
    for (_, node) in &nodes {
        eventually("all know each other", async || node.peers().await.len() >= 3).await;
    }
    // A later push has its three copies by the same walks over the rows, with the newcomer in them.
    let later = push_image(&nodes[0].1, &repository(NAME), "2.0", (9, 500_000)).await;
    let parts = image.blobs.len() + later.blobs.len() + 2;
    eventually("all of both is kept", async || kept(&nodes).await >= 3 * parts).await;
    for (_, node) in &nodes {
        let quiet = async || {
            let copies = node.status().await.copies;
            copies.surveyed && copies.waiting_images == 0
        };
        eventually("every row was gone through, and nothing waits", quiet).await;
    }
    let newcomer = &nodes[3].1;
    let (blobs, parts) = (later.blobs.len(), later.blobs.len() + 1);
    let status = newcomer.status().await;
    assert!(status.blobs <= blobs && status.copies.parts <= parts, "{:?}", status.copies);
    for (digest, _) in &image.blobs {
        let found = newcomer.find(&digest.to_string()).await.expect("a report");
        assert!(!found.local, "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_over_what_only_it_has() {
    let bed = Bed::new();
    // Nothing waits for a copy, and there shall be one: the second is made at the stop.
    let one = CopySettings { copies: 1, durability: Durability::Local, ..THREE };
    let nodes = swarm(&bed, 3, one).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 2_000_000)).await;
    eventually("its row is known", async || nodes[0].1.status().await.copies.sole_parts == 3).await;
    within(nodes[0].1.shutdown()).await;
    bed.network.kill(nodes[0].0.addr);
    for (_, node) in &nodes[1..] {
        serves_all(node, &image).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_lost_its_disk_is_found_and_has_it_again() {
    let bed = Bed::new();
    let mut nodes = swarm(&bed, 3, THREE).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 500_000)).await;
    eventually("all three keep it", async || keepers(&nodes, &image).await == 3).await;
    let (machine, node) = nodes.remove(1);
    bed.network.kill(machine.addr);
    drop(node);
    std::fs::remove_dir_all(machine.dir.path().join("store")).expect("the store goes");
    let node = bed.start(&machine, &[&nodes[0].0]).await;
    nodes.push((machine, node));
    eventually("all three keep it again", async || keepers(&nodes, &image).await == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_kept_by_nobody_and_nobody_mends_it() {
    let bed = Bed::new();
    let nodes = swarm(&bed, 3, THREE).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 500_000)).await;
    eventually("all three keep it", async || keepers(&nodes, &image).await == 3).await;
    let reference = Reference::Digest(image.manifest);
    assert!(nodes[1].1.delete_manifest(&repository(NAME), &reference).await.expect("deleted"));
    eventually("nobody keeps it", async || kept(&nodes).await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_cannot_have_its_copies_is_refused_and_can_be_said_again() {
    let bed = Bed::new();
    let nodes = swarm(&bed, 2, THREE).await;
    let name = repository(NAME);
    let config = content(1, 300);
    let digest = push_blob(&nodes[0].1, &name, &config).await;
    // The other is alive and takes nothing: it leaves.
    nodes[1].1.start_drain().await.expect("no other run");
    ended(&nodes[1].1, JobKind::Drain).await;
    let bytes = image(&[(digest, config.len() as u64)]);
    let put = async |bytes: Bytes| {
        let kind = Some(media_type::OCI_MANIFEST);
        within(nodes[0].1.put_manifest(&name, &by_tag("1.0"), &[], kind, bytes)).await
    };
    match put(bytes.clone()).await {
        Err(PutManifestError::Unavailable(why)) => {
            assert!(why.contains("1 of 2 copies") && why.contains("leaves"), "{why}");
        }
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(resolve(&nodes[0].1, &name, "1.0").await, None, "nothing is named that is not safe");
    assert!(nodes[1].1.stop_job(JobKind::Drain), "it takes duties again");
    assert_eq!(put(bytes.clone()).await.expect("taken").digest, Digest::sha256(&bytes));
}

/// A node that does not know all who keep what it keeps hears of the others, and makes no copy for want of them.
#[tokio::test(flavor = "multi_thread")]
async fn who_else_keeps_a_part_is_told_to_a_node_that_missed_it() {
    one_misses_another(0).await;
}

/// The same where its rows have no room for more names: those of the dead make room.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_dead_do_not_push_out_those_of_the_living() {
    one_misses_another(MAX_REPLICA_HOLDERS - 2).await;
}

/// Of three that keep six images one does not know another, but so many that are dead.
async fn one_misses_another(dead: usize) {
    let bed = Bed::new();
    let mut nodes = swarm(&bed, 3, THREE).await;
    let mut parts = 0;
    for seed in 1..=6 {
        let tag = format!("{seed}.0");
        parts +=
            push_image(&nodes[0].1, &repository(NAME), &tag, (seed, 20_000)).await.blobs.len() + 1;
    }
    eventually("all three keep all", async || kept(&nodes).await == 3 * parts).await;
    let (machine, node) = nodes.remove(1);
    within(node.shutdown()).await;
    drop(node);
    let store = machine.store();
    for mut row in store.replicas(None, 100).expect("read") {
        let mut placement = Placement::decode(&row.record).expect("a row");
        for part in placement.parts_mut() {
            part.holders = vec![machine.node_id(), nodes[0].0.node_id()];
            part.holders.extend((0..dead).map(|number| NodeId([number as u8; 32])));
        }
        let kept: Vec<Digest> = placement.parts().map(|part| part.digest).collect();
        row.record = placement.encode();
        assert!(store.keep_replica(&row, &kept).expect("written"));
    }
    drop(store);
    let node = bed.start(&machine, &[&nodes[0].0]).await;
    eventually("the dead are missed", async || {
        dead == 0 || node.status().await.copies.lost_nodes > 0
    })
    .await;
    eventually("it knows all three again, and nobody else", async || {
        let copies = node.status().await.copies;
        let is_whole = copies.parts == parts && copies.short_parts == 0;
        copies.surveyed && is_whole && copies.lost_nodes == 0
    })
    .await;
}

/// Two of three can keep it, and both know that the third does not: nobody takes for a holder who was asked only.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_asked_and_refused_counts_for_nobody() {
    let bed = Bed::new();
    let nodes = swarm(&bed, 3, THREE).await;
    nodes[2].1.start_drain().await.expect("no other run");
    ended(&nodes[2].1, JobKind::Drain).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 500_000)).await;
    let parts = image.blobs.len() + 1;
    for (_, node) in &nodes[..2] {
        eventually("the third copy is missed", async || {
            let copies = node.status().await.copies;
            let is_known = copies.surveyed && copies.waiting_images == 0;
            is_known && (copies.parts, copies.short_parts) == (parts, parts)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_named_by_another_is_not_believed() {
    let bed = Bed::new();
    let nodes = swarm(&bed, 3, THREE).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 100_000)).await;
    eventually("all three keep it", async || keepers(&nodes, &image).await == 3).await;
    // A member names nodes that do not exist as holders of what the first one keeps.
    let liar = bed.machine(9);
    let stranger = bed.client_of(&liar);
    let ghost = |n: u8| NodeId([n; 32]);
    let part =
        |digest: Digest| PlacedPart { digest, size: 1, holders: (1..=8).map(ghost).collect() };
    let placement = Placement {
        repository: repository(NAME),
        manifest: part(image.manifest),
        blobs: image.blobs.iter().map(|(digest, _)| part(*digest)).collect(),
    };
    let envelope = RequestEnvelope {
        sender: Contact { id: liar.node_id(), addrs: vec![liar.addr], zone: String::new() },
        puzzle: [0; 32],
        body: Request::Keep { take: false, placement },
    };
    let told = stranger.call(nodes[0].0.addr, None, &envelope, Duration::from_secs(5)).await;
    assert!(told.is_ok(), "{told:?}");
    // The ghosts are silent: they are lost, and the rows count three who are not.
    eventually("nothing is short", async || nodes[0].1.status().await.copies.short_parts == 0)
        .await;
    kill(&bed, &nodes[1]);
    eventually("the loss is seen all the same", async || {
        nodes[0].1.status().await.copies.lost_nodes > 0
    })
    .await;
    // By digest: the stranger counts as a member that is silent, so tags have no majority now.
    for (digest, bytes) in &image.blobs {
        assert_eq!(pull(&nodes[0].1, &repository(NAME), digest).await, bytes[..]);
    }
}

/// Content bytes that came to the nodes through the swarm.
async fn fetched(nodes: &[(Machine, Node)]) -> u64 {
    let mut bytes = 0;
    for (_, node) in nodes {
        bytes += node.status().await.traffic.fetched_bytes;
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_copy_is_written_while_the_first_is() {
    let bed = Bed::new();
    let nodes = swarm(&bed, 3, CopySettings { copies: 2, ..THREE }).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 8_000_000)).await;
    assert_eq!(
        files(&nodes).await,
        2 * image.blobs.len(),
        "two copies, and the push has been answered"
    );
    let fetched = fetched(&nodes).await;
    assert!(fetched < 100_000, "the layer was not fetched after its upload: {fetched}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_of_many_requests_has_its_second_copy_too() {
    let bed = Bed::new();
    let nodes = swarm(&bed, 2, CopySettings { copies: 2, ..THREE }).await;
    let (name, bytes) = (repository(NAME), content(5, 6_000_000));
    let id = nodes[0].1.begin_upload(&name).await.expect("a session");
    for chunk in bytes.chunks(500_000) {
        let mut upload = nodes[0].1.upload(&name, &id).await.expect("the session");
        upload.append(Bytes::copy_from_slice(chunk)).await.expect("taken");
        upload.flush().await.expect("written");
    }
    let digest = Digest::sha256(&bytes);
    let upload = nodes[0].1.upload(&name, &id).await.expect("the session");
    upload.commit(&digest).await.expect("committed");
    let manifest = image(&[(digest, bytes.len() as u64)]);
    let kind = Some(media_type::OCI_MANIFEST);
    nodes[0].1.put_manifest(&name, &by_tag("1.0"), &[], kind, manifest).await.expect("taken");
    assert_eq!(nodes[1].1.status().await.blobs, 1);
    assert!(fetched(&nodes).await < 100_000, "it was not fetched after its upload");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_that_dies_in_the_middle_costs_nothing_but_its_copy() {
    let bed = Bed::new();
    let nodes = swarm(&bed, 3, CopySettings { copies: 2, ..THREE }).await;
    let (name, bytes) = (repository(NAME), content(6, 6_000_000));
    let id = nodes[0].1.begin_upload(&name).await.expect("a session");
    let mut upload = nodes[0].1.upload(&name, &id).await.expect("the session");
    for (number, chunk) in bytes.chunks(200_000).enumerate() {
        within(upload.append(Bytes::copy_from_slice(chunk))).await.expect("taken");
        if number == 15 {
            // Whichever of the two it is, one of three answers.
            kill(&bed, &nodes[2]);
        }
    }
    let digest = Digest::sha256(&bytes);
    within(upload.commit(&digest)).await.expect("committed");
    let manifest = image(&[(digest, bytes.len() as u64)]);
    // By digest: nodes this young have no say about a new tag while one is away.
    let reference = Reference::Digest(Digest::sha256(&manifest));
    let kind = Some(media_type::OCI_MANIFEST);
    within(nodes[0].1.put_manifest(&name, &reference, &[], kind, manifest)).await.expect("taken");
    assert_eq!(nodes[1].1.status().await.blobs, 1, "the copy is on the one that lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_said_to_be_gone_is_replaced_at_once_and_does_not_count() {
    let bed = Bed::new();
    let long = CopySettings { grace: Duration::from_secs(3600), ..THREE };
    let mut nodes = swarm(&bed, 4, long).await;
    let image = push_image(&nodes[0].1, &repository(NAME), "1.0", (1, 400_000)).await;
    let blobs = image.blobs.len();
    eventually("three copies of each", async || kept(&nodes).await >= 3 * (blobs + 1)).await;
    let (machine, node) = nodes.remove(0);
    bed.network.kill(machine.addr);
    assert!(nodes[0].1.declare_gone(machine.node_id()).await);
    drop(node);
    eventually("three copies of each on the rest", async || files(&nodes).await >= 3 * blobs).await;
}
