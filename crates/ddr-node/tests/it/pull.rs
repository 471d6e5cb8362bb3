//! Push on one node, pull on another.

use std::ops::Range;

use ddr_oci::{Digest, Reference};

use crate::bed::{
    Bed, announced, content, eventually, pull, push_blob, push_image, repository, resolve, within,
};

/// What a fetch of so many bytes moves: each once, and on a slow machine a late piece a second time.
fn one_copy(bytes: u64) -> Range<u64> {
    bytes..bytes + bytes / 4
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_pushed_on_one_node_is_pulled_on_another() {
    let nodes = Bed::new().swarm(3).await;
    let (a, c) = (&nodes[0].1, &nodes[2].1);
    let name = repository("team/app");
    let image = push_image(a, &name, "1.0", (1, 3_000_000)).await;

    assert_eq!(resolve(c, &name, "1.0").await, Some(image.manifest));
    for (digest, bytes) in &image.blobs {
        assert_eq!(c.stat_blob(&name, digest).await.expect("asked"), Some(bytes.len() as u64));
        assert!(pull(c, &name, digest).await == *bytes, "{digest}: the same bytes");
    }
    let status = c.status().await;
    let pulled: u64 = image.blobs.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let manifest = c.manifest(&name, &Reference::Digest(image.manifest)).await;
    let manifest = manifest.expect("read").expect("stored here now").bytes.len() as u64;
    let fetched = status.traffic.fetched_bytes;
    assert!(one_copy(pulled + manifest).contains(&fetched), "{fetched} of {pulled} + {manifest}");
    assert_eq!(status.sources.len(), 1);
    assert_eq!(status.sources[0].node_id, nodes[0].0.id());
    assert_eq!(status.sources[0].bytes, fetched);
    assert_eq!(status.images[0].repository, "team/app");

    // What C fetched it keeps, tells, and gives without A.
    announced(&nodes[1].1, &image.blobs[1].0, 2).await;
    assert_eq!(c.tags(&name, None, 10).await.expect("listed").expect("known").tags.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_all_sizes_arrive() {
    let nodes = Bed::new().swarm(2).await;
    let name = repository("sizes");
    let hold_back = 64 * 1024;
    for (seed, len) in [0, 1, hold_back - 1, hold_back, hold_back + 1, 3 * hold_back, 5_000_001]
        .into_iter()
        .enumerate()
    {
        let bytes = content(seed as u64 + 1, len);
        let digest = push_blob(&nodes[0].1, &name, &bytes).await;
        announced(&nodes[1].1, &digest, 1).await;
        assert!(pull(&nodes[1].1, &name, &digest).await == bytes, "{len} bytes");
        assert!(pull(&nodes[1].1, &name, &digest).await == bytes, "{len} bytes, from its own disk");
    }
    assert_eq!(nodes[1].1.status().await.traffic.fetches, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_an_arriving_blob_is_that_range() {
    let nodes = Bed::new().swarm(2).await;
    let name = repository("ranges");
    let bytes = content(9, 2_000_000);
    let digest = push_blob(&nodes[0].1, &name, &bytes).await;
    announced(&nodes[1].1, &digest, 1).await;
    let blob = within(nodes[1].1.open_blob(&name, &digest)).await.expect("read").expect("there");
    for range in [0..1, 1_999_999..2_000_000, 500_000..1_500_000, 7..7, 1_999_990..9_000_000] {
        let mut stream = blob.stream(range.clone());
        let mut got = Vec::new();
        while let Some(chunk) = within(futures_util::StreamExt::next(&mut stream)).await {
            got.extend_from_slice(&chunk.expect("bytes"));
        }
        let end = (range.end as usize).min(bytes.len());
        assert!(got == bytes[range.start as usize..end], "{range:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_readers_make_one_fetch() {
    let nodes = Bed::new().swarm(2).await;
    let name = repository("many");
    let bytes = content(3, 1_500_000);
    let digest = push_blob(&nodes[0].1, &name, &bytes).await;
    announced(&nodes[1].1, &digest, 1).await;
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let (node, name) = (nodes[1].1.clone(), name.clone());
            tokio::spawn(async move { pull(&node, &name, &digest).await })
        })
        .collect();
    for reader in readers {
        assert!(reader.await.expect("no panic") == bytes);
    }
    let status = nodes[1].1.status().await;
    assert_eq!(status.traffic.fetches, 1);
    let fetched = status.traffic.fetched_bytes;
    assert!(one_copy(bytes.len() as u64).contains(&fetched), "{fetched} bytes");
    let served = nodes[0].1.status().await.traffic.served_bytes;
    assert!(served < 2 * bytes.len() as u64, "the holder gave one copy and a chain");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_a_no_everywhere() {
    let nodes = Bed::new().swarm(16).await;
    let name = repository("nothing");
    let mut slowest = std::time::Duration::ZERO;
    for (seed, (_, node)) in nodes.iter().enumerate() {
        let digest = Digest::sha256(&content(seed as u64, 10));
        let started = std::time::Instant::now();
        assert!(node.open_blob(&name, &digest).await.expect("asked").is_none());
        assert!(node.stat_blob(&name, &digest).await.expect("asked").is_none());
        let manifest = node.manifest(&name, &Reference::Digest(digest)).await;
        assert!(manifest.expect("asked").is_none());
        slowest = slowest.max(started.elapsed());
    }
    println!("the slowest no took {slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_is_no_licence_to_read() {
    let nodes = Bed::new().swarm(2).await;
    let (a, b) = (&nodes[0].1, &nodes[1].1);
    let (secret, other) = (repository("secret"), repository("other"));
    let image = push_image(a, &secret, "1", (5, 200_000)).await;
    let layer = image.blobs[1].0;
    announced(b, &layer, 1).await;
    let by_digest = Reference::Digest(image.manifest);
    for node in [a, b] {
        assert!(node.open_blob(&other, &layer).await.expect("asked").is_none());
        assert!(node.stat_blob(&other, &layer).await.expect("asked").is_none());
        assert!(node.manifest(&other, &by_digest).await.expect("asked").is_none());
        assert!(!node.mount(&other, &layer, Some(&other)).await.expect("asked"));
    }
    assert!(a.mount(&other, &layer, Some(&secret)).await.expect("linked"));
    assert!(a.open_blob(&other, &layer).await.expect("asked").is_some());
    // Without a repository every one that the caller may read counts, but only what is here.
    assert!(!b.mount(&other, &layer, None).await.expect("asked"));
    assert!(a.mount(&repository("third"), &layer, None).await.expect("linked"));

    // B has it for `secret` only; that A links it in `other` is what lets B read it there too.
    pull(b, &secret, &layer).await;
    let before = b.status().await.traffic.fetches;
    assert!(pull(b, &other, &layer).await == image.blobs[1].1);
    assert_eq!(b.status().await.traffic.fetches, before, "linked, not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_to_another_repository_is_found_at_once_where_old_holders_are_remembered() {
    let nodes = Bed::new().swarm(3).await;
    let [(_, a), (_, b), (_, c)] = &nodes[..] else { panic!("three nodes") };
    let (first, second) = (repository("first"), repository("second"));
    let image = push_image(a, &first, "1", (8, 100_000)).await;
    pull(c, &first, &image.blobs[1].0).await;
    resolve(c, &first, "1").await.expect("c reads the manifest, and remembers who holds it");
    let again = push_image(b, &second, "1", (8, 100_000)).await;
    assert_eq!(again.manifest, image.manifest);
    assert_eq!(resolve(c, &second, "1").await, Some(image.manifest));
    assert!(pull(c, &second, &image.blobs[1].0).await == image.blobs[1].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_arriving_blob_is_read_only_where_a_holder_links_it() {
    let nodes = Bed::new().swarm(2).await;
    let (a, b) = (&nodes[0].1, &nodes[1].1);
    let (secret, shared, other) = (repository("secret"), repository("shared"), repository("other"));
    let bytes = content(6, 2_000_000);
    let digest = push_blob(a, &secret, &bytes).await;
    assert!(a.mount(&shared, &digest, Some(&secret)).await.expect("linked"));
    announced(b, &digest, 1).await;
    nodes[0].0.gate.close_after(700_000);
    let blob = within(b.open_blob(&secret, &digest)).await.expect("read").expect("there");
    within(nodes[0].0.gate.reached()).await;
    let asked = tokio::spawn({
        let (b, other) = (b.clone(), other.clone());
        async move { b.open_blob(&other, &digest).await.expect("asked").is_none() }
    });
    let joined = tokio::spawn({
        let (b, shared) = (b.clone(), shared.clone());
        async move { pull(&b, &shared, &digest).await }
    });
    nodes[0].0.gate.open();
    assert!(within(asked).await.expect("no panic"), "not in another repository");
    assert!(within(joined).await.expect("no panic") == bytes, "but in one that has it");
    assert!(crate::bed::drain(&blob).await.0 == bytes);
    eventually("the fetch has ended", async || b.status().await.fetches_running == 0).await;
    assert!(b.open_blob(&other, &digest).await.expect("asked").is_none());
    assert!(pull(b, &shared, &digest).await == bytes);
    assert_eq!(b.status().await.traffic.fetches, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_about_an_arriving_blob_that_is_linked_here() {
    let nodes = Bed::new().swarm(2).await;
    let (a, b) = (&nodes[0].1, &nodes[1].1);
    let (first, second) = (repository("first"), repository("second"));
    let image = push_image(a, &first, "1", (12, 2_000_000)).await;
    push_image(a, &second, "1", (12, 2_000_000)).await;
    let (layer, bytes) = &image.blobs[1];
    announced(b, layer, 1).await;
    resolve(b, &second, "1").await.expect("B has the manifest, and so links the layer");
    nodes[0].0.gate.close_after(700_000);
    let one = within(b.open_blob(&first, layer)).await.expect("read").expect("there");
    within(nodes[0].0.gate.reached()).await;
    // A could not answer a question now.
    let two = within(b.open_blob(&second, layer)).await.expect("read").expect("there");
    nodes[0].0.gate.open();
    for blob in [one, two] {
        let (got, error) = crate::bed::drain(&blob).await;
        assert!(error.is_none() && got == *bytes, "{error:?}");
    }
    assert_eq!(b.status().await.traffic.fetches, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_have_it_elsewhere_do_not_hide_the_one_who_has_it_here() {
    let bed = Bed::new();
    let mut machines: Vec<_> = (1..=15).map(|number| bed.machine(number)).collect();
    // Peers of the own zone are asked first, so the one that has it is the last.
    machines.iter_mut().skip(1).for_each(|machine| machine.zone = "here".into());
    let (elsewhere, here) = (repository("elsewhere"), repository("here"));
    let mut nodes = Vec::new();
    for machine in &machines {
        let others = if nodes.is_empty() { vec![] } else { vec![&machines[0]] };
        nodes.push(bed.start(machine, &others).await);
    }
    let image = push_image(&nodes[0], &here, "1", (13, 1_000)).await;
    for node in &nodes[1..14] {
        push_image(node, &elsewhere, "1", (13, 1_000)).await;
    }
    let reader = &nodes[14];
    let (layer, bytes) = &image.blobs[1];
    announced(reader, layer, 14).await;
    assert_eq!(reader.stat_blob(&here, layer).await.expect("asked"), Some(bytes.len() as u64));
    announced(reader, &image.manifest, 14).await;
    let manifest = reader.manifest(&here, &Reference::Digest(image.manifest)).await;
    assert!(manifest.expect("asked").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn find_says_who_holds_it() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("team/app");
    let image = push_image(&nodes[0].1, &name, "1.0", (7, 1000)).await;
    let report = nodes[2].1.find("team/app:1.0").await.expect("a report");
    assert_eq!(report.digest, Some(image.manifest.to_string()));
    assert!(!report.local);
    assert_eq!(report.holders.len(), 1);
    assert_eq!(report.holders[0].node_id, nodes[0].0.id());
    let report = nodes[0].1.find("team/app:1.0").await.expect("a report");
    assert!(report.local);
    assert!(nodes[0].1.find("no such THING").await.is_err());
    let report = nodes[1].1.find("team/app:none").await.expect("a report");
    assert_eq!(report.digest, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let bed = Bed::new();
    let (one, two) = (bed.machine(1), bed.machine(2));
    let a = bed.start(&one, &[]).await;
    let b = bed.start(&two, &[&one]).await;
    let name = repository("kept");
    let image = push_image(&a, &name, "v1", (11, 500_000)).await;
    within(a.shutdown()).await;
    within(b.shutdown()).await;
    drop((a, b));

    // Nobody is told an address: the saved peers lead back.
    let a = bed.start_alone(&one, &[]).await;
    let b = bed.start_alone(&two, &[]).await;
    within(async { tokio::join!(a.wait_ready(), b.wait_ready()) }).await;
    assert_eq!(resolve(&b, &name, "v1").await, Some(image.manifest));
    announced(&b, &image.blobs[1].0, 1).await;
    for (digest, bytes) in &image.blobs {
        assert!(pull(&a, &name, digest).await == *bytes);
        assert!(pull(&b, &name, digest).await == *bytes);
    }
    let images = a.images().await.expect("listed");
    assert_eq!((images.len(), images[0].tags.len(), images[0].manifests), (1, 1, 1));
    assert_eq!(images[0].tags[0].digest, image.manifest.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_leaves_takes_its_announcements_back() {
    let nodes = Bed::new().swarm(3).await;
    let name = repository("leaving");
    let bytes = content(21, 1000);
    let digest = push_blob(&nodes[1].1, &name, &bytes).await;
    announced(&nodes[2].1, &digest, 1).await;
    within(nodes[1].1.shutdown()).await;
    within(nodes[1].1.shutdown()).await;
    eventually("nobody is said to hold it", async || {
        nodes[2].1.find(&digest.to_string()).await.expect("a report").holders.is_empty()
    })
    .await;
}

/// Records of who holds what outlive the machines of the holders by a day.
#[tokio::test(flavor = "multi_thread")]
async fn the_living_holder_is_found_among_many_that_are_dead() {
    let bed = Bed::new();
    let mut nodes = bed.swarm(16).await;
    let name = repository("churn");
    let mut blobs = Vec::new();
    for seed in 0..8 {
        let bytes = content(seed, 2_000);
        let digest = push_blob(&nodes[0].1, &name, &bytes).await;
        announced(&nodes[1].1, &digest, 1).await;
        for (_, node) in &nodes[1..15] {
            assert!(pull(node, &name, &digest).await == bytes);
        }
        announced(&nodes[15].1, &digest, 15).await;
        blobs.push((digest, bytes));
    }
    for (machine, node) in nodes.drain(..14) {
        bed.network.kill(machine.addr);
        drop(node);
    }
    let machine = bed.machine(99);
    let newcomer = bed.start(&machine, &[&nodes[0].0, &nodes[1].0]).await;
    for (digest, bytes) in &blobs {
        let size = within(newcomer.stat_blob(&name, digest)).await.expect("asked");
        assert_eq!(size, Some(bytes.len() as u64));
        assert!(pull(&newcomer, &name, digest).await == *bytes);
    }
}
