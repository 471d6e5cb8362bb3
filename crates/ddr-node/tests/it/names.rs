//! Tags: seen everywhere, newest wins, no answer without a majority.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use ddr_net::{Identity, Swarm};
use ddr_node::{DeleteError, Limits, Node, NodeConfig, PutManifestError, ReadError};
use ddr_oci::{Digest, media_type};
use ddr_store::disk::FaultyDisk;
use ddr_store::{Store, StoreConfig};

use crate::bed::{
    Bed, Machine, by_tag, eventually, image, push_blob, push_image, repository, resolve, tag,
    within,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_seen_everywhere_at_once() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("team/app");
    let first = push_image(&nodes[0].1, &name, "latest", (1, 1000)).await;
    for (_, node) in &nodes {
        assert_eq!(resolve(node, &name, "latest").await, Some(first.manifest));
    }
    let second = push_image(&nodes[1].1, &name, "latest", (2, 1000)).await;
    assert_ne!(first.manifest, second.manifest);
    for (_, node) in &nodes {
        assert_eq!(resolve(node, &name, "latest").await, Some(second.manifest));
        let images = node.images().await.expect("listed");
        assert_eq!(images[0].tags[0].digest, second.manifest.to_string(), "the local list follows");
    }
    assert_eq!(resolve(&nodes[2].1, &name, "other").await, None, "an unknown tag");
}

#[tokio::test(flavor = "multi_thread")]
async fn moving_a_tag_back_counts() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("team/app");
    let first = push_image(&nodes[0].1, &name, "a", (1, 1000)).await;
    let second = push_image(&nodes[1].1, &name, "b", (2, 1000)).await;
    for round in 0..6 {
        let writer = &nodes[round % 3].1;
        let wanted = if round % 2 == 0 { &first } else { &second };
        let bytes = writer
            .manifest(&name, &ddr_oci::Reference::Digest(wanted.manifest))
            .await
            .expect("read")
            .expect("there")
            .bytes;
        writer
            .put_manifest(&name, &by_tag("moving"), &[], Some(media_type::OCI_MANIFEST), bytes)
            .await
            .expect("taken");
        for (_, node) in &nodes {
            assert_eq!(resolve(node, &name, "moving").await, Some(wanted.manifest), "{round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_write_is_seen_by_every_later_read() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("busy");
    push_image(&nodes[0].1, &name, "v1", (1, 100)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = nodes
        .iter()
        .flat_map(|(_, node)| [node.clone(), node.clone()])
        .map(|node| {
            let (name, stop) = (name.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    assert!(resolve(&node, &name, "v1").await.is_some());
                }
            })
        })
        .collect();
    for round in 0..20_u64 {
        let writer = &nodes[round as usize % 3].1;
        let image = push_image(writer, &name, "v1", (10 + 2 * round, 100)).await;
        let seen = nodes.iter().map(|(_, node)| resolve(node, &name, "v1"));
        let seen = within(futures_util::future::join_all(seen)).await;
        assert_eq!(seen, [Some(image.manifest); 3], "round {round}");
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        within(reader).await.expect("every read succeeds");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writes_converge() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("race");
    for round in 0..5_u64 {
        let pushes = nodes.iter().enumerate().map(|(index, (_, node))| {
            let seed = 100 * (round + 1) + 10 * index as u64;
            let name = &name;
            async move { push_image(node, name, "contested", (seed, 500)).await.manifest }
        });
        let pushed = within(futures_util::future::join_all(pushes)).await;
        let mut seen: Vec<Option<Digest>> = Vec::new();
        for (_, node) in &nodes {
            seen.push(resolve(node, &name, "contested").await);
        }
        assert!(seen.iter().all(|digest| *digest == seen[0]), "{round}: all see the same");
        assert!(pushed.contains(&seen[0].expect("a winner")), "{round}: one of those pushed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_there_is_a_clear_error() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let name = repository("lonely");
    let image = push_image(&nodes[0].1, &name, "v1", (1, 1000)).await;
    bed.network.kill(nodes[1].0.addr);
    bed.network.kill(nodes[2].0.addr);
    let a = &nodes[0].1;
    let read = within(a.manifest(&name, &by_tag("v1"))).await;
    let says = |why: &str, what: &str| {
        why.starts_with("1 of 3 nodes that keep this") && why.contains(what)
    };
    assert!(
        matches!(&read, Err(ReadError::Unavailable(why)) if says(why, "tag answered, 2 are needed")),
        "{read:?}"
    );
    let unknown = within(a.manifest(&name, &by_tag("v2"))).await;
    assert!(
        matches!(unknown, Err(ReadError::Unavailable(_))),
        "no \"unknown\" either: {unknown:?}"
    );
    let listed = within(a.tags(&name, None, 10)).await;
    let no_list = |listed: &ReadError| matches!(listed, ReadError::Unavailable(why) if says(why, "list answered, 2 are needed"));
    assert!(listed.as_ref().is_err_and(no_list), "{listed:?}");
    let repositories = within(a.repositories(None, 10)).await;
    assert!(repositories.as_ref().is_err_and(no_list), "{repositories:?}");
    let by_digest = ddr_oci::Reference::Digest(image.manifest);
    for reference in [by_tag("v1"), by_digest.clone()] {
        let deleted = within(a.delete_manifest(&name, &reference)).await;
        assert!(
            matches!(&deleted, Err(DeleteError::Unavailable(why)) if why.starts_with("1 of 3 nodes")),
            "{deleted:?}"
        );
    }
    let bytes =
        a.manifest(&name, &by_digest).await.expect("by digest it is here").expect("here").bytes;
    let v1 = by_tag("v1");
    let written = within(a.put_manifest(&name, &v1, &[], None, bytes)).await;
    assert!(
        matches!(&written, Err(PutManifestError::Unavailable(why)) if why.starts_with("1 of 3 nodes")),
        "{written:?}"
    );
}

/// A write that reached half of four nodes: neither half may say what the other half contradicts.
#[tokio::test(flavor = "multi_thread")]
async fn the_halves_of_four_nodes_do_not_contradict_each_other() {
    let bed = Bed::new();
    let nodes = bed.swarm(4).await;
    let name = repository("halves");
    let old = push_image(&nodes[0].1, &name, "v1", (1, 1000)).await;
    let new = push_image(&nodes[0].1, &name, "other", (2, 1000)).await;
    for (_, node) in &nodes {
        assert_eq!(resolve(node, &name, "v1").await, Some(old.manifest));
        assert_eq!(resolve(node, &name, "other").await, Some(new.manifest));
    }
    let [a, b, c, d] = [0, 1, 2, 3].map(|number: usize| nodes[number].0.addr);
    bed.network.partition(&[&[a, b], &[c, d]]);
    let one = &nodes[0].1;
    let by_digest = ddr_oci::Reference::Digest(new.manifest);
    let bytes = one.manifest(&name, &by_digest).await.expect("read").expect("here").bytes;
    let v1 = by_tag("v1");
    let written = within(one.put_manifest(&name, &v1, &[], None, bytes)).await;
    assert!(matches!(written, Err(PutManifestError::Unavailable(_))), "{written:?}");
    for (_, node) in &nodes {
        let read = within(node.manifest(&name, &v1)).await;
        assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
        let listed = within(node.tags(&name, None, 10)).await;
        assert!(listed.is_err(), "{listed:?}");
    }
    bed.network.heal();
    eventually("both halves say the same", async || {
        let mut seen = Vec::new();
        for (_, node) in &nodes {
            let read = within(node.manifest(&name, &v1)).await;
            seen.push(read.ok().flatten().map(|manifest| manifest.digest));
        }
        seen.iter().all(|digest| digest.is_some() && *digest == seen[0])
    })
    .await;
}

/// A node that joins one side of a cut knows only that side. It hears from it who else counts; else it would
/// take the smaller side for the swarm, and read what was before.
#[tokio::test(flavor = "multi_thread")]
async fn who_joins_while_the_swarm_is_cut_counts_those_beyond_the_cut() {
    let bed = Bed::new();
    let nodes = bed.swarm(5).await;
    let name = repository("cut");
    let old = push_image(&nodes[0].1, &name, "v1", (1, 1000)).await;
    let new = push_image(&nodes[4].1, &name, "other", (2, 1000)).await;
    let by_digest = ddr_oci::Reference::Digest(new.manifest);
    let bytes = nodes[4].1.manifest(&name, &by_digest).await.expect("read").expect("here").bytes;
    let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|number: usize| nodes[number].0.addr);
    let late = bed.machine(77);
    bed.network.partition(&[&[a, b, late.addr], &[c, d, e]]);
    eventually("the larger side goes on", async || {
        let v1 = by_tag("v1");
        let put = nodes[4].1.put_manifest(&name, &v1, &[], None, bytes.clone());
        within(put).await.is_ok()
    })
    .await;
    let node = bed.start_alone(&late, &[&nodes[0].0]).await;
    within(node.wait_ready()).await;
    let read = within(node.manifest(&name, &by_tag("v1"))).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}, not {}", old.manifest);
    bed.network.heal();
    eventually("the new one is read", async || {
        let read = within(node.manifest(&name, &by_tag("v1"))).await;
        read.ok().flatten().is_some_and(|manifest| manifest.digest == new.manifest)
    })
    .await;
}

/// A record that no other voter took is not kept by its writer either: else it would be the newest to
/// every reader, also where no other node may take it, as for a stamp of the future.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_no_other_voter_took_leaves_nothing() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let name = repository("refused");
    let old = push_image(&nodes[0].1, &name, "v1", (1, 1000)).await;
    let new = push_image(&nodes[0].1, &name, "other", (2, 1000)).await;
    let [a, b, c] = [0, 1, 2].map(|number: usize| nodes[number].0.addr);
    bed.network.partition(&[&[a], &[b, c]]);
    let one = &nodes[0].1;
    let by_digest = ddr_oci::Reference::Digest(new.manifest);
    let bytes = one.manifest(&name, &by_digest).await.expect("read").expect("here").bytes;
    let written = within(one.put_manifest(&name, &by_tag("v1"), &[], None, bytes)).await;
    assert!(matches!(written, Err(PutManifestError::Unavailable(_))), "{written:?}");
    bed.network.heal();
    eventually("the cut off node is back", async || {
        within(one.manifest(&name, &by_tag("v1"))).await.is_ok()
    })
    .await;
    for (_, node) in &nodes {
        assert_eq!(resolve(node, &name, "v1").await, Some(old.manifest));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_may_fail() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let name = repository("tolerant");
    let first = push_image(&nodes[0].1, &name, "v1", (1, 1000)).await;
    // A majority may be the writer and the node that fails; the third has it a moment later.
    eventually("the others keep the tag", async || {
        nodes[0].1.status().await.names == 1 && nodes[1].1.status().await.names == 1
    })
    .await;
    bed.network.kill(nodes[2].0.addr);
    assert_eq!(resolve(&nodes[1].1, &name, "v1").await, Some(first.manifest));
    let second = push_image(&nodes[1].1, &name, "v1", (2, 1000)).await;
    assert_eq!(resolve(&nodes[0].1, &name, "v1").await, Some(second.manifest));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_said_goodbye_are_not_missed() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("leaving");
    let image = push_image(&nodes[0].1, &name, "v1", (1, 1000)).await;
    // They have something to withdraw, which must not count as a sign of life after the goodbye.
    push_image(&nodes[1].1, &name, "v2", (2, 1000)).await;
    push_image(&nodes[2].1, &name, "v3", (3, 1000)).await;
    within(nodes[1].1.shutdown()).await;
    within(nodes[2].1.shutdown()).await;
    eventually("the rest is a swarm of its own", async || {
        matches!(nodes[0].1.manifest(&name, &by_tag("v1")).await,
            Ok(Some(found)) if found.digest == image.manifest)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_tag_is_gone_everywhere() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("gone");
    let image = push_image(&nodes[0].1, &name, "v1", (1, 1000)).await;
    assert_eq!(resolve(&nodes[2].1, &name, "v1").await, Some(image.manifest));
    assert!(nodes[1].1.delete_manifest(&name, &by_tag("v1")).await.expect("deleted"));
    for (_, node) in &nodes {
        assert_eq!(resolve(node, &name, "v1").await, None);
    }
    assert!(!nodes[2].1.delete_manifest(&name, &by_tag("v1")).await.expect("asked"));
    let again = push_image(&nodes[2].1, &name, "v1", (2, 1000)).await;
    for (_, node) in &nodes {
        assert_eq!(resolve(node, &name, "v1").await, Some(again.manifest), "a new push counts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_reads_and_keeps_old_names() {
    let bed = Bed::new();
    let mut nodes = bed.swarm(2).await;
    let name = repository("old");
    let image = push_image(&nodes[0].1, &name, "v1", (1, 1000)).await;
    let late = bed.machine(9);
    let node = bed.start_alone(&late, &[&nodes[0].0]).await;
    // It may say "not yet", but never "unknown".
    eventually("the tag is read", async || match node.manifest(&name, &by_tag("v1")).await {
        Ok(Some(found)) => found.digest == image.manifest,
        Ok(None) => panic!("a new node said that an old tag is unknown"),
        Err(ReadError::Unavailable(_)) => false,
        Err(error) => panic!("{error}"),
    })
    .await;
    eventually("it keeps the name too", async || node.status().await.names == 1).await;
    nodes.push((late, node));
    bed.network.kill(nodes[1].0.addr);
    assert_eq!(resolve(&nodes[2].1, &name, "v1").await, Some(image.manifest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_is_given_what_it_is_to_keep() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let name = repository("old");
    for label in ["v1", "v2", "v3"] {
        push_image(&nodes[0].1, &name, label, (1, 1000)).await;
    }
    let late = bed.machine(9);
    let node = bed.start(&late, &[&nodes[0].0]).await;
    // Nobody reads a name: what it learns it is told.
    eventually("it keeps the names", async || node.status().await.names == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_reach_its_swarm_knows_nothing_of_names() {
    let bed = Bed::new();
    let (one, nobody) = (bed.machine(1), bed.machine(2));
    let node = bed.start_alone(&one, &[&nobody]).await;
    assert!(!node.ready());
    let read = node.manifest(&repository("any"), &by_tag("v1")).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_names_in_a_larger_swarm() {
    let nodes = Bed::new().swarm(8).await;
    let name = repository("many");
    for number in 0..16_u64 {
        let writer = &nodes[number as usize % 8].1;
        let label = format!("v{number}");
        let image = push_image(writer, &name, &label, (1000 + 2 * number, 100)).await;
        let reader = &nodes[(number as usize + 3) % 8].1;
        assert_eq!(resolve(reader, &name, &label).await, Some(image.manifest));
    }
    let tags = nodes[0].1.tags(&name, None, 100).await.expect("listed").expect("known");
    assert!(tags.tags.contains(&tag("v0")));
}

/// A node on `disk` that has joined `other`.
async fn start_on(bed: &Bed, disk: &FaultyDisk, other: &Machine) -> Node {
    let dir = tempfile::tempdir().expect("a directory");
    let identity = Arc::new(Identity::load_or_create(dir.path()).expect("a key"));
    let swarm = Swarm::create(dir.path(), &identity).expect("a swarm");
    let addr = std::net::SocketAddr::from(([10, 0, 0, 200], 5001));
    let store = StoreConfig { root: "/store".into(), disk: Arc::new(disk.clone()) };
    let config = NodeConfig {
        store: Store::open(store).expect("a store"),
        carrier: Arc::new(bed.network.carrier(addr, identity.node_id())),
        identity,
        swarm,
        advertise: vec![addr],
        zone: String::new(),
        bootstrap: vec![other.addr],
        now: std::time::SystemTime::now(),
        limits: Limits::default(),
    };
    let node = Node::start(config).await.expect("the node starts");
    within(node.wait_ready()).await;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_does_not_withhold_an_image_of_others() {
    let bed = Bed::new();
    let nodes = bed.swarm(1).await;
    let (a, name) = (&nodes[0].1, repository("full"));
    let disk = FaultyDisk::new();
    let full = start_on(&bed, &disk, &nodes[0].0).await;
    let config = push_blob(a, &name, &Bytes::from_static(b"{}")).await;
    // Larger than what the index has left of the room it took.
    let mut bytes = image(&[(config, 2)]).to_vec();
    bytes.resize(3_500_000, b' ');
    let digest = Digest::sha256(&bytes);
    a.put_manifest(&name, &by_tag("v1"), &[], None, bytes.into()).await.expect("taken");

    disk.set_capacity(Some(disk.used_bytes()));
    assert_eq!(resolve(&full, &name, "v1").await, Some(digest));
    assert_eq!(full.status().await.manifests, 0, "there was no room for it");
    let listed = full.tags(&name, None, 10).await.expect("listed").expect("known");
    assert_eq!(listed.tags, [tag("v1")], "the list is the swarm's");
    disk.set_capacity(None);
    assert_eq!(resolve(&full, &name, "v1").await, Some(digest));
    assert_eq!(full.status().await.manifests, 1);
}
