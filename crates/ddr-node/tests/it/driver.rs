//! What lies beside a node's own store.

use std::sync::Arc;

use bytes::Bytes;
use ddr_node::{DriverStatus, Node, PutManifestError};
use ddr_oci::{Digest, Reference, RepositoryName, media_type};

use crate::bed::{
    Bed, Machine, announced, by_tag, content, drain, eventually, image, pull, push_blob,
    push_image, repository, resolve, tag, within,
};
use crate::place::Place;

/// Large enough for many pieces.
const LAYER: usize = 700_000;

fn app() -> RepositoryName {
    repository("team/app")
}

/// The first of two nodes has `place` beside it.
async fn two(bed: &Bed, place: &Arc<Place>) -> Vec<(Machine, Node)> {
    let mut nodes = Vec::new();
    for number in 1..=2 {
        let mut machine = bed.machine(number);
        if number == 1 {
            machine.limits = place.beside(machine.limits);
        }
        let others: Vec<&Machine> = nodes.iter().map(|(other, _)| other).collect();
        let node = bed.start(&machine, &others).await;
        nodes.push((machine, node));
    }
    for (_, node) in &nodes {
        eventually("they know each other", async || !node.peers().await.is_empty()).await;
    }
    nodes
}

async fn beside(node: &Node) -> DriverStatus {
    node.status().await.driver.expect("something lies beside")
}

/// Waits for the next whole look, which begins after this was called.
async fn looked(place: &Place) {
    let before = place.looks();
    place.tell();
    eventually("it looks", async || place.looks() > before).await;
    let before = place.looks();
    place.tell();
    eventually("the look before has ended", async || place.looks() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_registry_is_given_to_all_and_takes_no_room() {
    let place = Place::new(true);
    let (manifest, blobs) = place.put_image(&app(), &tag("1"), (1, LAYER));
    let bed = Bed::new();
    let nodes = two(&bed, &place).await;
    let [(_, a), (_, b)] = &nodes[..] else { unreachable!() };
    eventually("B knows the tag", async || resolve(b, &app(), "1").await == Some(manifest)).await;
    for (digest, bytes) in &blobs {
        announced(b, digest, 1).await;
        assert!(pull(b, &app(), digest).await == bytes[..]);
        assert!(pull(a, &app(), digest).await == bytes[..]);
    }
    assert_eq!(a.status().await.blobs, 0);
    let status = beside(a).await;
    assert_eq!((status.blobs, status.images, status.left), (2, 1, 0));
    assert_eq!(b.tags(&app(), None, 10).await.expect("a list").expect("known").tags, [tag("1")]);
    let other = repository("other/app");
    assert!(within(b.open_blob(&other, &blobs[1].0)).await.expect("read").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_lands_in_the_registry_and_only_there() {
    let place = Place::new(true);
    let bed = Bed::new();
    let nodes = two(&bed, &place).await;
    let [(_, a), (_, b)] = &nodes[..] else { unreachable!() };
    let pushed = push_image(a, &app(), "1", (1, LAYER)).await;
    assert_eq!(place.tag(&app(), &tag("1")), Some(pushed.manifest));
    for (digest, bytes) in &pushed.blobs {
        assert!(place.has_blob(digest));
        announced(b, digest, 1).await;
        assert!(pull(b, &app(), digest).await == bytes[..]);
    }
    assert_eq!(a.status().await.blobs, 0);
    looked(&place).await;
    assert_eq!(beside(a).await.taken, 0, "what was put there is no news");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_cannot_land_is_not_named() {
    let place = Place::new(true);
    let bed = Bed::new();
    let nodes = two(&bed, &place).await;
    let [(_, a), (_, b)] = &nodes[..] else { unreachable!() };
    place.is_dead(true);
    let bytes = content(1, 300);
    let digest = push_blob(a, &app(), &bytes).await;
    let manifest = image(&[(digest, 300)]);
    let (name, reference, kind) = (app(), by_tag("1"), Some(media_type::OCI_MANIFEST));
    let put = || a.put_manifest(&name, &reference, &[], kind, manifest.clone());
    let refused = within(put()).await;
    assert!(matches!(refused, Err(PutManifestError::Unavailable(_))), "{refused:?}");
    assert_eq!(resolve(b, &app(), "1").await, None);
    place.is_dead(false);
    within(put()).await.expect("it lands");
    assert_eq!(resolve(b, &app(), "1").await, Some(Digest::sha256(&manifest)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_the_registry_never_takes_says_so() {
    let place = Place::new(true);
    let bed = Bed::new();
    let nodes = two(&bed, &place).await;
    let [(_, a), (_, b)] = &nodes[..] else { unreachable!() };
    place.takes_nothing();
    let bytes = content(1, 300);
    let digest = push_blob(a, &app(), &bytes).await;
    let manifest = image(&[(digest, 300)]);
    let (name, reference, kind) = (app(), by_tag("1"), Some(media_type::OCI_MANIFEST));
    let put = within(a.put_manifest(&name, &reference, &[], kind, manifest)).await;
    assert!(matches!(put, Err(PutManifestError::Refused(_))), "{put:?}");
    assert_eq!(resolve(b, &app(), "1").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_without_a_tag_is_noticed_when_it_is_told_of() {
    let place = Place::new(true);
    let (subject, blobs) = place.put_image(&app(), &tag("1"), (1, 300));
    let bed = Bed::new();
    let nodes = two(&bed, &place).await;
    let [(_, a), (_, b)] = &nodes[..] else { unreachable!() };
    eventually("it has looked", async || beside(a).await.looked_s_ago.is_some()).await;
    let referrer = place.put_referrer(&app(), &subject, &blobs[0].0);
    assert!(a.look_beside(app(), Reference::Digest(referrer)));
    eventually("B lists it", async || {
        let listed = b.referrers(&app(), &subject).await.expect("listed").descriptors;
        listed.iter().any(|descriptor| descriptor.digest == referrer)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_what_the_registry_did_not_tell_of() {
    let place = Place::new(true);
    let bed = Bed::new();
    let nodes = two(&bed, &place).await;
    let (_, a) = &nodes[0];
    eventually("it has looked", async || beside(a).await.looked_s_ago.is_some()).await;
    let (manifest, blobs) = place.put_image(&app(), &tag("1"), (1, LAYER));
    assert_eq!(resolve(a, &app(), "1").await, Some(manifest));
    assert!(pull(a, &app(), &blobs[1].0).await == blobs[1].1[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_tells_too_early_is_looked_at_again() {
    let place = Place::new(true);
    let bed = Bed::new();
    let nodes = two(&bed, &place).await;
    let [(_, a), (_, b)] = &nodes[..] else { unreachable!() };
    eventually("it has looked", async || beside(a).await.looked_s_ago.is_some()).await;
    assert!(a.look_beside(app(), by_tag("1")));
    eventually("it looks", async || place.asked() > 0).await;
    let (manifest, _) = place.put_image(&app(), &tag("1"), (1, 300));
    eventually("B knows it", async || resolve(b, &app(), "1").await == Some(manifest)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_undoes_neither_a_delete_nor_a_push_and_a_move_there_counts() {
    let place = Place::new(true);
    let bed = Bed::new();
    let (first, _) = place.put_image(&app(), &tag("deleted"), (1, 300));
    place.point(&app(), &tag("pushed"), first);
    let nodes = two(&bed, &place).await;
    let [(_, a), (_, b)] = &nodes[..] else { unreachable!() };
    for name in ["deleted", "pushed"] {
        eventually("B knows it", async || resolve(b, &app(), name).await == Some(first)).await;
    }
    assert!(b.delete_manifest(&app(), &by_tag("deleted")).await.expect("deleted"));
    let pushed = push_image(b, &app(), "pushed", (10, 300)).await;
    looked(&place).await;
    assert_eq!(resolve(a, &app(), "deleted").await, None);
    assert_eq!(resolve(a, &app(), "pushed").await, Some(pushed.manifest));
    let (second, _) = place.put_image(&app(), &tag("deleted"), (20, 300));
    place.point(&app(), &tag("pushed"), second);
    looked(&place).await;
    for name in ["deleted", "pushed"] {
        assert_eq!(resolve(b, &app(), name).await, Some(second), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_down_does_not_undo_what_the_swarm_did_meanwhile() {
    let place = Place::new(true);
    let bed = Bed::new();
    let (first, _) = place.put_image(&app(), &tag("1"), (1, 300));
    let mut nodes = two(&bed, &place).await;
    eventually("B knows it", async || resolve(&nodes[1].1, &app(), "1").await == Some(first)).await;
    let (machine, a) = nodes.remove(0);
    let third = bed.machine(3);
    let third = (bed.start(&third, &[&machine, &nodes[0].0]).await, third);
    let (other, b) = &nodes[0];
    eventually("B knows the third", async || b.peers().await.len() == 2).await;
    a.shutdown().await;
    drop(a);
    let pushed = push_image(b, &app(), "1", (10, 300)).await;
    let a = bed.start(&machine, &[other]).await;
    eventually("it has looked", async || beside(&a).await.looked_s_ago.is_some()).await;
    assert_eq!(resolve(&a, &app(), "1").await, Some(pushed.manifest));
    drop(third);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_or_rotten_there_is_no_content() {
    let place = Place::new(true);
    let (_, gone) = place.put_image(&app(), &tag("gone"), (1, 300));
    let (_, rotten) = place.put_image(&app(), &tag("rotten"), (10, LAYER));
    place.replace_blob(&rotten[1].0, Bytes::from_static(b"not that"));
    let bed = Bed::new();
    let nodes = two(&bed, &place).await;
    let [(_, a), (_, b)] = &nodes[..] else { unreachable!() };
    eventually("it has looked", async || beside(a).await.looked_s_ago.is_some()).await;
    assert_eq!(beside(a).await.left, 1);
    assert_eq!(resolve(b, &app(), "rotten").await, None);
    assert!(pull(b, &app(), &gone[0].0).await == gone[0].1[..]);
    place.remove_blob(&gone[1].0);
    assert!(within(a.open_blob(&app(), &gone[1].0)).await.expect("read").is_none());
    looked(&place).await;
    assert_eq!(beside(a).await.left, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_beside_gives_content_of_other_registries_and_nothing_else() {
    let place = Place::new(false);
    let (hub, own) = (repository("up.test/app"), repository("team/app"));
    let (manifest, blobs) = place.put_image(&hub, &tag("1"), (1, LAYER));
    let bed = Bed::new();
    let nodes = two(&bed, &place).await;
    let [(_, a), (_, b)] = &nodes[..] else { unreachable!() };
    for (digest, bytes) in &blobs {
        announced(b, digest, 1).await;
        eventually("it is linked", async || {
            b.stat_blob(&hub, digest).await.expect("a size").is_some()
        })
        .await;
        assert!(pull(b, &hub, digest).await == bytes[..]);
    }
    let by_digest = Reference::Digest(manifest);
    assert!(b.manifest(&hub, &by_digest).await.expect("read").is_some());
    assert_eq!(a.status().await.blobs, 0);
    // A push needs its blobs here: what the cache has may go at any time.
    assert!(!a.mount(&own, &blobs[1].0, Some(&hub)).await.expect("an answer"));
    let pushed = push_image(a, &own, "1", (10, 300)).await;
    assert!(!place.has_blob(&pushed.blobs[0].0));
    for (digest, _) in &blobs {
        place.remove_blob(digest);
    }
    looked(&place).await;
    eventually("the rows are gone", async || beside(a).await.blobs == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_driver_nothing_of_it_is_left() {
    let place = Place::new(true);
    let (_, blobs) = place.put_image(&app(), &tag("1"), (1, 300));
    let bed = Bed::new();
    let mut machine = bed.machine(1);
    machine.limits = place.beside(machine.limits);
    let node = bed.start(&machine, &[]).await;
    eventually("it has it", async || resolve(&node, &app(), "1").await.is_some()).await;
    node.shutdown().await;
    drop(node);
    machine.limits.driver = None;
    let node = bed.start(&machine, &[]).await;
    assert!(node.status().await.driver.is_none());
    assert!(within(node.open_blob(&app(), &blobs[0].0)).await.expect("read").is_none());
    let blob = push_blob(&node, &app(), &blobs[0].1).await;
    let blob = node.open_blob(&app(), &blob).await.expect("read").expect("there");
    assert!(drain(&blob).await.0 == blobs[0].1[..]);
}
