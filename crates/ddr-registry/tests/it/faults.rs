//! The node's disk fails. The client gets a clear answer and loses nothing that was acknowledged.

use std::sync::Arc;

use ddr_oci::digest::Digest;
use ddr_registry::Limits;
use ddr_store::disk::FaultyDisk;

use crate::client::Answer;
use crate::node::TestNode;
use crate::server::{Server, noise};

async fn start_on(disk: &FaultyDisk) -> Server {
    Server::around(TestNode::start_on(Arc::new(disk.clone())).await, Limits::default()).await
}

#[tokio::test]
async fn a_full_disk_is_507_and_the_upload_goes_on_when_there_is_room() {
    let disk = FaultyDisk::new();
    let server = start_on(&disk).await;
    let content = noise(3_000_000);
    let digest = Digest::sha256(&content);
    let location = server.begin("full").await;
    server.patch(&location, "0-999999", &content[..1_000_000]).await.expect(202);

    disk.set_capacity(Some(disk.used_bytes() + 500_000));
    let rest = &content[1_000_000..];
    let answer = server.patch(&location, "1000000-2999999", rest).await;
    answer.expect_error(507, "UNAVAILABLE");
    let status = server.get(&location).await.expect(204);
    let kept = kept(&status);
    assert!((1_000_000..3_000_000).contains(&kept), "what was acknowledged is kept: {kept}");

    disk.set_capacity(None);
    let range = format!("{kept}-2999999");
    server.patch(&location, &range, &content[kept..]).await.expect(202);
    server.put(&format!("{location}?digest={digest}"), b"").await.expect(201);
    assert!(server.get(&format!("/v2/full/blobs/{digest}")).await.body == content);
}

#[tokio::test]
async fn a_full_disk_in_a_single_post_leaves_no_session_behind() {
    let disk = FaultyDisk::new();
    let server = start_on(&disk).await;
    let before = disk.used_bytes();
    let content = noise(3_000_000);
    let target = format!("/v2/full/blobs/uploads/?digest={}", Digest::sha256(&content));
    disk.set_capacity(Some(before + 1_500_000));
    server.post(&target, &content).await.expect_error(507, "UNAVAILABLE");
    let thrown_away = async {
        while disk.used_bytes() >= before + 1_000_000 {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, thrown_away).await.expect("the bytes are thrown away");
    disk.set_capacity(None);
    server.post(&target, &content).await.expect(201);
}

#[tokio::test]
async fn a_full_disk_is_507_for_a_manifest_and_it_can_be_pushed_later() {
    let disk = FaultyDisk::new();
    let server = start_on(&disk).await;
    let mut image = server.image("full", "x").await;
    // Larger than what the index has left of the room it took.
    image.bytes.resize(3_500_000, b' ');
    disk.set_capacity(Some(disk.used_bytes()));
    server.put_manifest("full", "v1", &image).await.expect_error(507, "UNAVAILABLE");
    server.get("/v2/full/manifests/v1").await.expect_error(404, "MANIFEST_UNKNOWN");
    disk.set_capacity(None);
    server.put_manifest("full", "v1", &image).await.expect(201);
    assert!(server.get("/v2/full/manifests/v1").await.expect(200).body == image.bytes);
}

#[tokio::test]
async fn a_broken_disk_is_500_and_tells_nothing_about_the_machine() {
    let disk = FaultyDisk::new();
    let server = start_on(&disk).await;
    let location = server.begin("broken").await;
    disk.crash_after(0);
    for line in [
        format!("POST /v2/broken/blobs/uploads/?digest={}", Digest::sha256(b"content")),
        format!("PATCH {location}"),
        format!("PUT {location}?digest={}", Digest::sha256(b"content")),
    ] {
        let answer = server.send(&line, &[], b"content").await;
        let error = answer.expect_error(500, "UNKNOWN");
        let text = error["message"].as_str().unwrap();
        assert!(!text.contains('/') && !text.contains("os error"), "{text}");
    }
    server.get("/v2/").await.expect(200);
}

/// Bytes in the session by its status.
fn kept(status: &Answer) -> usize {
    let range = status.header("range").unwrap();
    range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1
}
