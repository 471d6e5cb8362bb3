//! Many who read blobs: who is served, who waits, who is sent away, and what all of them cost.

use std::sync::Arc;
use std::time::Duration;

use ddr_registry::Limits;
use ddr_store::disk::FaultyDisk;
use tokio::net::TcpStream;

use crate::client::{Connection, DEADLINE, eventually};
use crate::node::TestNode;
use crate::server::{Noise, Server, noise};

/// More than the buffers of both ends of a connection hold together.
const BIG: usize = 48 * 1024 * 1024;
/// Short enough to wait for, long enough for a busy machine to serve an honest client in.
const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(3600);

/// A client that has the header of its answer and takes nothing more.
async fn stalled(server: &Server, target: &str) -> Connection {
    let mut reader = Connection::open(server.addr).await;
    reader.send_head(&format!("GET {target}"), &[]).await;
    reader.read_head().await.expect(200);
    reader
}

#[tokio::test]
async fn too_many_blob_streams_are_503_and_small_requests_go_on() {
    let limits =
        Limits { blob_streams: 1, blob_queue: 1, blob_queue_wait: LONG, ..Limits::default() };
    let server = Server::start_with(limits).await;
    let target = format!("/v2/a/blobs/{}", server.push_blob("a", &noise(BIG)).await);
    let image = server.image("b", "one").await;
    // Nobody was pulled from yet, so the first of these has the place.
    let holder = stalled(&server, &target).await;
    let mut waiting = Connection::open(server.addr).await;
    waiting.send_head(&format!("GET {target}"), &[]).await;
    let mut refused = None;
    eventually("the queue is full", async || {
        let mut third = Connection::open(server.addr).await;
        third.send_head(&format!("GET {target}"), &[]).await;
        let head = tokio::time::timeout(SHORT, third.read_head()).await;
        refused = head.ok();
        refused.is_some()
    })
    .await;
    let refused = refused.unwrap();
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);

    server.get("/v2/").await.expect(200);
    server.head(&target).await.expect(200);
    server.put_manifest("b", "latest", &image).await.expect(201);
    server.get("/v2/b/manifests/latest").await.expect(200);

    drop(holder);
    waiting.read_head().await.expect(200);
}

#[tokio::test]
async fn whoever_waits_too_long_is_503() {
    let limits =
        Limits { blob_streams: 1, blob_queue: 9, blob_queue_wait: SHORT, ..Limits::default() };
    let server = Server::start_with(limits).await;
    let target = format!("/v2/a/blobs/{}", server.push_blob("a", &noise(BIG)).await);
    let _holder = stalled(&server, &target).await;
    let answer = server.get(&target).await;
    answer.expect_error(503, "UNAVAILABLE");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn a_reader_that_takes_nothing_makes_room_in_time() {
    let limits = Limits {
        blob_streams: 1,
        blob_queue_wait: LONG,
        write_progress_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::start_with(limits).await;
    let content = noise(BIG);
    let target = format!("/v2/a/blobs/{}", server.push_blob("a", &content).await);
    let _holder = stalled(&server, &target).await;
    assert!(server.get(&target).await.expect(200).body == content);
}

#[tokio::test]
async fn many_streams_at_once_are_whole() {
    let server = Server::start().await;
    let content = noise(3 * 1024 * 1024 + 7);
    let target = format!("/v2/a/blobs/{}", server.push_blob("a", &content).await);
    let streams = (0..40).map(|_| async { server.get(&target).await.expect(200).body == content });
    let whole = futures_util::future::join_all(streams).await;
    assert!(whole.into_iter().all(|whole| whole));
}

#[tokio::test]
async fn two_answers_on_one_connection_keep_their_order() {
    let server = Server::start().await;
    let (one, two) = (noise(900_001), noise(700_003));
    let first = server.push_blob("a", &one).await;
    let second = server.push_blob("a", &two).await;
    let mut connection = Connection::open(server.addr).await;
    for digest in [first, second, first] {
        connection.send_head(&format!("GET /v2/a/blobs/{digest}"), &[]).await;
    }
    assert!(connection.read_answer(false).await.body == one);
    assert!(connection.read_answer(false).await.body == two);
    assert!(connection.read_answer(false).await.body == one);
}

#[tokio::test]
async fn a_connection_that_rested_goes_on() {
    let limits = Limits { rest: Duration::from_millis(20), ..Limits::default() };
    let server = Server::start_with(limits).await;
    let mut connection = Connection::open(server.addr).await;
    for _ in 0..5 {
        connection.send_request("GET /v2/", &[], b"").await;
        connection.read_answer(false).await.expect(200);
        // Long enough to be put to rest, and it matters little if not.
        tokio::time::sleep(Duration::from_millis(80)).await;
        connection.send(b"GET /v2/ HT").await;
        tokio::time::sleep(Duration::from_millis(80)).await;
        connection.send(b"TP/1.1\r\nhost: a\r\n\r\n").await;
        connection.read_answer(false).await.expect(200);
    }
}

/// Takes the body of [`BIG`] bytes and the end after it. What both ends cannot hold is left for
/// longer than a connection may rest.
async fn taken_slowly(mut reader: Connection) {
    reader.read_bytes(BIG - (8 << 20)).await;
    for _ in 0..8 {
        // Long enough to be taken for at rest, and it matters little if not.
        tokio::time::sleep(Duration::from_millis(80)).await;
        reader.read_bytes(1 << 20).await;
    }
    assert_eq!(reader.read_to_end().await, b"");
}

#[tokio::test]
async fn the_last_bytes_before_a_close_wait_for_a_slow_client() {
    let limits = Limits { rest: Duration::from_millis(20), ..Limits::default() };
    // Of its files every byte goes through hyper's queue.
    let disk = Arc::new(FaultyDisk::new());
    let server = Server::around(TestNode::start_on(disk).await, limits).await;
    let target = format!("/v2/a/blobs/{}", server.push_blob("a", &noise(BIG)).await);
    let mut reader = Connection::open(server.addr).await;
    reader.send_head(&format!("GET {target}"), &[("connection", "close")]).await;
    reader.read_head().await.expect(200);
    taken_slowly(reader).await;
}

#[tokio::test]
async fn shutdown_waits_for_an_answer_before_a_close() {
    let mut server = Server::start().await;
    let target = format!("/v2/a/blobs/{}", server.push_blob("a", &noise(BIG)).await);
    let mut reader = Connection::open(server.addr).await;
    reader.send_head(&format!("GET {target}"), &[("connection", "close")]).await;
    reader.read_head().await.expect(200);
    server.stop();
    eventually("the port is closed", async || TcpStream::connect(server.addr).await.is_err()).await;
    taken_slowly(reader).await;
    tokio::time::timeout(DEADLINE, server.ended()).await.expect("nothing is left to wait for");
}

/// Aborts of every kind, at random places, and then all memory is free again.
#[tokio::test]
async fn the_budget_is_whole_after_aborts() {
    // Its files are no files of the system, so every byte goes through the budget.
    let disk = Arc::new(FaultyDisk::new());
    let server = Server::around(TestNode::start_on(disk).await, Limits::default()).await;
    let content = noise(8 * 1024 * 1024);
    let target = format!("/v2/a/blobs/{}", server.push_blob("a", &content).await);
    let seed = std::env::var("DDR_SEED").map_or(7, |seed| seed.parse().unwrap());
    println!("DDR_SEED={seed}");
    let mut random = Noise(seed);
    let mut open = Vec::new();
    for _ in 0..120 {
        let mut connection = Connection::open(server.addr).await;
        match random.next().unwrap() % 3 {
            0 => connection.send_head(&format!("GET {target}"), &[]).await,
            1 => {
                connection.send_head(&format!("GET {target}"), &[]).await;
                connection.read_head().await.expect(200);
            }
            _ => {
                let location = server.begin("a").await;
                let fields = [("content-length", "5000000")];
                connection.send_head(&format!("PATCH {location}"), &fields).await;
                connection.send(&content[..usize::from(random.next().unwrap()) * 1000]).await;
            }
        }
        if random.next().unwrap().is_multiple_of(2) {
            open.push(connection);
        }
    }
    assert!(server.get(&target).await.body == content, "others are served meanwhile");
    drop(open);
    let buffers = server.buffers();
    eventually("all memory is free", async || buffers.free() == buffers.total()).await;
}
