//! Images are brought to disks before anybody reads them, here and on other nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ddr_net::{Client, ClientLimits, Identity, Standing};
use ddr_node::{JobKind, JobState, JobStatus, Node, PullNodes, PullRequest};
use ddr_oci::{Digest, RepositoryName, media_type};
use ddr_proto::wire::{
    Contact, PreheatOrder, PreheatStage, PreheatState, RefuseReason, Request, RequestEnvelope,
    Response,
};

use crate::bed::{
    Bed, Image, announced, by_tag, content, ended, eventually, image, push_blob, push_image,
    repository, within,
};
use crate::stranger::Stranger;

/// Pulls at `node` and waits for the end.
async fn preheat(node: &Node, reference: &str, nodes: &str) -> JobStatus {
    begin(node, reference, nodes, None).await;
    ended(node, JobKind::Pull).await
}

async fn begin(node: &Node, reference: &str, nodes: &str, platform: Option<&str>) {
    let nodes = if nodes.is_empty() { PullNodes::None } else { nodes.parse().expect("a choice") };
    let image = reference.parse().expect("a reference");
    let platform = platform.map(|text| text.parse().expect("a platform"));
    node.start_pull(PullRequest { image, platform, nodes }).await.expect("no other run");
}

/// How each part stands, by digest.
fn part(job: &JobStatus, digest: &Digest) -> (String, String) {
    let parts = job.report["parts"].as_array().expect("a report");
    let part = parts.iter().find(|part| part["digest"] == digest.to_string()).expect("a part");
    let text = |name: &str| part[name].as_str().expect("a text").to_owned();
    (text("state"), text("error"))
}

async fn has_all(node: &Node, image: &Image) -> bool {
    node.status().await.blobs >= image.blobs.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_comes_whole_without_a_reader_and_outlives_its_source() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let name = repository("team/app");
    let pushed = push_image(&nodes[0].1, &name, "1.0", (1, 2_000_000)).await;
    let node = &nodes[1].1;
    let job = preheat(node, "team/app:1.0", "").await;
    assert_eq!((job.state, job.damage, job.done), (JobState::Done, false, job.total), "{job:?}");
    assert_eq!(job.report["digest"], pushed.manifest.to_string());
    for (digest, bytes) in &pushed.blobs {
        assert_eq!(part(&job, digest).0, "done");
        let size = node.stat_blob(&name, digest).await.expect("asked").expect("here");
        assert_eq!(size, bytes.len() as u64);
    }
    bed.network.kill(nodes[0].0.addr);
    let before = node.status().await.traffic.fetched_bytes;
    for (digest, bytes) in &pushed.blobs {
        assert!(crate::bed::pull(node, &name, digest).await == *bytes);
    }
    assert_eq!(node.status().await.traffic.fetched_bytes, before, "from its own disk");
    assert!(node.swarms().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_on_its_way_is_told_with_its_pieces_and_sources() {
    let nodes = Bed::new().swarm(2).await;
    let ((holder, source), (_, node)) = (&nodes[0], &nodes[1]);
    let name = repository("team/app");
    let pushed = push_image(source, &name, "1.0", (1, 8 << 20)).await;
    let (layer, bytes) = &pushed.blobs[1];
    holder.gate.close_after(4 << 20);
    begin(node, "team/app:1.0", "", None).await;
    within(holder.gate.reached()).await;
    eventually("it is told", async || {
        let swarms = node.swarms();
        let swarm = swarms.iter().find(|swarm| swarm.digest == layer.to_string());
        swarm.is_some_and(|swarm| {
            let first = swarm.sources.first();
            swarm.settled
                && swarm.pieces_here > 0
                && swarm.bytes_here > 0
                && swarm.neighbours == 1
                && first.is_some_and(|first| first.node_id == holder.id() && first.bytes > 0)
        })
    })
    .await;
    let swarm = node.status().await.swarms.pop().expect("part of the status");
    assert_eq!(swarm.repositories, [name.to_string()]);
    assert_eq!(swarm.size, Some(bytes.len() as u64));
    assert!(swarm.pieces_here < swarm.pieces && swarm.readers == 1, "{swarm:?}");
    assert!(node.job(JobKind::Pull).done < bytes.len() as u64);
    holder.gate.open();
    let job = ended(node, JobKind::Pull).await;
    assert_eq!((job.state, job.damage), (JobState::Done, false), "{job:?}");
    assert!(node.swarms().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_other_nodes_get_it_as_were_asked_for() {
    let nodes = Bed::new().swarm(5).await;
    let name = repository("team/app");
    let pushed = push_image(&nodes[0].1, &name, "1.0", (1, 500_000)).await;
    let job = preheat(&nodes[0].1, "team/app:1.0", "3").await;
    assert_eq!((job.state, job.damage), (JobState::Done, false), "{job:?}");
    let rows = job.report["nodes"].as_array().expect("a report");
    assert_eq!(rows.len(), 3, "{job:?}");
    for (machine, node) in &nodes[1..] {
        let row = rows.iter().find(|row| row["node_id"] == machine.id());
        assert_eq!(has_all(node, &pushed).await, row.is_some(), "{}", machine.addr);
        if let Some(row) = row {
            assert_eq!((&row["state"], &row["parts_done"]), (&"done".into(), &3.into()), "{row}");
            assert_eq!(row["bytes_done"], row["bytes"], "{row}");
        }
    }
    let job = preheat(&nodes[0].1, "team/app:1.0", "5").await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.error.contains("knows 4 others, not 5"), "{}", job.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_gets_it_and_a_zone_without_nodes_is_an_error() {
    let bed = Bed::new();
    let mut nodes = Vec::new();
    for number in 1..=3 {
        let mut machine = bed.machine(number);
        machine.zone = if number == 3 { "far".into() } else { "near".into() };
        let others: Vec<_> = nodes.first().map(|(first, _)| first).into_iter().collect();
        let node = bed.start(&machine, &others).await;
        nodes.push((machine, node));
    }
    let node = &nodes[0].1;
    eventually("they know each other", async || node.peers().await.len() == 2).await;
    let pushed = push_image(node, &repository("app"), "1", (1, 100_000)).await;
    let job = preheat(node, "app:1", "zone=far").await;
    assert_eq!((job.state, job.damage), (JobState::Done, false), "{job:?}");
    assert_eq!(job.report["nodes"].as_array().map(Vec::len), Some(1));
    assert!(has_all(&nodes[2].1, &pushed).await && !has_all(&nodes[1].1, &pushed).await);
    let job = preheat(node, "app:1", "zone=moon").await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.error.contains("\"moon\""), "{}", job.error);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_tag_fails_with_its_name() {
    let nodes = Bed::new().swarm(2).await;
    let job = preheat(&nodes[1].1, "team/app:9", "all").await;
    assert_eq!((job.state, job.error.as_str()), (JobState::Failed, "nobody holds team/app:9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_named_and_the_others_get_it() {
    let bed = Bed::new();
    let nodes = bed.swarm(4).await;
    let name = repository("team/app");
    let pushed = push_image(&nodes[0].1, &name, "1.0", (1, 200_000)).await;
    bed.network.kill(nodes[3].0.addr);
    let job = preheat(&nodes[0].1, "team/app:1.0", "all").await;
    assert_eq!((job.state, job.damage), (JobState::Done, true), "{job:?}");
    let rows = job.report["nodes"].as_array().expect("a report");
    let row =
        |at: usize| rows.iter().find(|row| row["node_id"] == nodes[at].0.id()).expect("a row");
    assert_eq!(row(3)["error"], "it cannot be reached");
    for at in [1, 2] {
        assert_eq!(row(at)["state"], "done");
        assert!(has_all(&nodes[at].1, &pushed).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_nobody_has_is_named_and_the_rest_comes() {
    let nodes = Bed::new().swarm(3).await;
    let (a, b) = (&nodes[0].1, &nodes[1].1);
    let name = repository("team/app");
    let config = push_blob(a, &name, &content(1, 1000)).await;
    let nowhere = Digest::sha256(b"nowhere");
    let manifest = image(&[(config, 1000), (nowhere, 7)]);
    let tag = by_tag("1");
    let put = a.put_manifest(&name, &tag, &[], Some(media_type::OCI_MANIFEST), manifest);
    assert_eq!(within(put).await.expect("taken").unknown_blobs, [nowhere]);
    announced(b, &config, 1).await;
    let job = preheat(b, "team/app:1", "1").await;
    assert_eq!((job.state, job.damage), (JobState::Done, true), "{job:?}");
    assert_eq!(part(&job, &config).0, "done");
    let (state, why) = part(&job, &nowhere);
    assert_eq!(
        (state.as_str(), why.as_str()),
        ("failed", "no node that can be reached has this blob")
    );
    let row = &job.report["nodes"][0];
    let why = row["error"].as_str().expect("a text");
    assert!(row["state"] == "failed" && why.contains(&nowhere.to_string()), "{row}");
}

/// Pushes an index of two images for two platforms; the images.
async fn push_index(node: &Node, name: &RepositoryName) -> [Image; 2] {
    let arm = push_image(node, name, "arm", (1, 100_000)).await;
    let amd = push_image(node, name, "amd", (5, 200_000)).await;
    let member = |image: &Image, architecture: &str| {
        serde_json::json!({
            "mediaType": media_type::OCI_MANIFEST, "digest": image.manifest, "size": 1,
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [member(&arm, "arm64"), member(&amd, "amd64")],
    });
    let bytes = Bytes::from(index.to_string());
    let tag = by_tag("1");
    let put = node.put_manifest(name, &tag, &[], Some(media_type::OCI_INDEX), bytes);
    within(put).await.expect("taken");
    [arm, amd]
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_the_platform_comes_or_all() {
    let nodes = Bed::new().swarm(2).await;
    let (a, b) = (&nodes[0].1, &nodes[1].1);
    let [arm, amd] = push_index(a, &repository("app")).await;
    begin(b, "app:1", "", Some("linux/arm64")).await;
    let job = ended(b, JobKind::Pull).await;
    assert_eq!((job.state, job.damage), (JobState::Done, false), "{job:?}");
    assert_eq!(b.status().await.blobs, arm.blobs.len());
    begin(b, "app:1", "", Some("linux/riscv64")).await;
    let job = ended(b, JobKind::Pull).await;
    assert!(job.damage && job.report.to_string().contains("for linux/riscv64"), "{job:?}");
    let job = preheat(b, "app:1", "").await;
    assert_eq!((job.state, job.damage), (JobState::Done, false), "{job:?}");
    assert_eq!(b.status().await.blobs, arm.blobs.len() + amd.blobs.len());
    assert_eq!(job.report["parts"].as_array().map(Vec::len), Some(3 + 4));
}

fn order(run: u8, manifest: Digest, platform: &str) -> PreheatOrder {
    let repository = repository("team/app");
    PreheatOrder { run: [run; 16], repository, manifest, platform: platform.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_begins_once_and_a_few_run_at_once() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let (holder, source) = &nodes[0];
    let (machine, node) = &nodes[1];
    let pushed = push_image(source, &repository("team/app"), "1.0", (1, 4 << 20)).await;
    let stranger = Stranger::new(&bed, 9);
    let ask = async |run| {
        let asked = Request::Preheat(order(run, pushed.manifest, ""));
        stranger.say(machine, asked).await.expect("an answer")
    };
    holder.gate.close_after(1 << 20);
    for run in 0..4 {
        assert_eq!(ask(run).await, Response::Preheat(PreheatState::default()), "run {run}");
    }
    let busy = Response::Refused { reason: RefuseReason::Busy };
    assert_eq!(ask(4).await, busy, "four run");
    assert!(matches!(ask(3).await, Response::Preheat(_)), "known, so only told");
    within(holder.gate.reached()).await;
    holder.gate.open();
    let mut last = None;
    eventually("the first has ended", async || {
        last = Some(ask(0).await);
        matches!(&last, Some(Response::Preheat(state)) if state.stage != PreheatStage::Running)
    })
    .await;
    let Some(Response::Preheat(state)) = last else { panic!("{last:?}") };
    assert_eq!((state.stage, state.parts_done, state.parts), (PreheatStage::Done, 3, 3));
    assert_eq!(state.bytes_done, state.bytes);
    assert!(has_all(node, &pushed).await);
    eventually("there is room again", async || ask(4).await != busy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_none_is_refused() {
    let bed = Bed::new();
    let machine = bed.machine(1);
    let node = bed.start(&machine, &[]).await;
    let stranger = Stranger::new(&bed, 9);
    let ask = async |platform: &str| {
        let asked = Request::Preheat(order(1, Digest::sha256(b"x"), platform));
        stranger.say(&machine, asked).await
    };
    let malformed = Some(Response::Refused { reason: RefuseReason::Malformed });
    assert_eq!(ask("no platform").await, malformed);
    assert!(node.peers().await.iter().all(|peer| peer.strikes == 0), "a mistake");
    // Longer than any platform: no node of any version sends that.
    ask(&"p".repeat(65)).await;
    eventually("it is struck", async || node.peers().await.iter().any(|peer| peer.refused)).await;
    let struck = Some(Response::Refused { reason: RefuseReason::Struck });
    assert_eq!(ask("linux/amd64").await, struck);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_no_member_orders_nothing() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let (machine, node) = &nodes[1];
    let pushed = push_image(&nodes[0].1, &repository("team/app"), "1.0", (1, 100_000)).await;
    let ask = async |number: u8, standing: Standing| {
        let identity = Identity::generate().expect("a key");
        let addr = std::net::SocketAddr::from(([10, 0, 0, number], 5001));
        let carrier = bed.network.attach(addr, identity.node_id(), standing);
        let client = Client::new(Arc::new(carrier), ClientLimits::default());
        let sender = Contact { id: identity.node_id(), addrs: vec![addr], zone: String::new() };
        let body = Request::Preheat(order(1, pushed.manifest, ""));
        let envelope = RequestEnvelope { sender, puzzle: [0; 32], body };
        let answer = client.call(machine.addr, None, &envelope, Duration::from_secs(5)).await;
        answer.ok().map(|(_, response)| response)
    };
    let answer = ask(8, Standing::Joiner { serial: [1; 16] }).await;
    assert!(!matches!(answer, Some(Response::Preheat(_))), "{answer:?}");
    assert_eq!(node.status().await.traffic.fetches, 0);
    let answer = ask(9, Standing::Member).await;
    assert!(matches!(answer, Some(Response::Preheat(_))), "a member is answered: {answer:?}");
    eventually("and gets its way", async || has_all(node, &pushed).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_leaves_what_came_for_the_next() {
    let nodes = Bed::new().swarm(2).await;
    let ((holder, source), (_, node)) = (&nodes[0], &nodes[1]);
    push_image(source, &repository("app"), "1", (1, 4 << 20)).await;
    holder.gate.close_after(2 << 20);
    begin(node, "app:1", "", None).await;
    within(holder.gate.reached()).await;
    let request = PullRequest {
        image: "app:1".parse().expect("a reference"),
        platform: None,
        nodes: PullNodes::None,
    };
    assert!(node.start_pull(request).await.is_err(), "one at a time");
    assert!(node.stop_job(JobKind::Pull));
    assert_eq!(ended(node, JobKind::Pull).await.state, JobState::Stopped);
    eventually("the fetch goes on without a reader", async || {
        node.swarms().iter().all(|swarm| swarm.readers == 0) && !node.swarms().is_empty()
    })
    .await;
    holder.gate.open();
    let job = preheat(node, "app:1", "").await;
    assert_eq!((job.state, job.damage), (JobState::Done, false), "{job:?}");
    let fetched = node.status().await.traffic.fetched_bytes as f64 / f64::from(4 << 20);
    println!("{fetched:.3} of the image came in all");
    assert!(fetched < 1.5, "{fetched}");
}
