//! Clients that take too long, or are too many.

use std::time::Duration;

use ddr_registry::Limits;

use crate::client::{Connection, eventually};
use crate::server::{Server, noise};

/// Short enough to wait for, long enough for a busy machine to serve an honest client in.
const SHORT: Duration = Duration::from_millis(400);

#[tokio::test]
async fn half_a_header_is_closed_in_time() {
    let server =
        Server::start_with(Limits { header_read_timeout: SHORT, ..Limits::default() }).await;
    let mut connection = Connection::open(server.addr).await;
    connection.send(b"GET /v2/ HTTP/1.1\r\nhost: loc").await;
    assert_eq!(connection.read_to_end().await, b"");
    // A connection between two requests waits as long.
    let mut connection = Connection::open(server.addr).await;
    connection.send_request("GET /v2/", &[], b"").await;
    connection.read_answer(false).await.expect(200);
    assert_eq!(connection.read_to_end().await, b"");
}

#[tokio::test]
async fn silence_is_closed_in_time() {
    let server = Server::start_with(Limits { idle_timeout: SHORT, ..Limits::default() }).await;
    for first in [&b""[..], b"PRI * HTT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut connection = Connection::open(server.addr).await;
        connection.send(first).await;
        connection.read_to_end().await;
    }
}

#[tokio::test]
async fn a_body_that_stops_is_408_and_the_session_stays() {
    let server =
        Server::start_with(Limits { body_progress_timeout: SHORT, ..Limits::default() }).await;
    let location = server.begin("stall").await;
    let mut connection = Connection::open(server.addr).await;
    connection.send_head(&format!("PATCH {location}"), &[("content-length", "10")]).await;
    connection.send(b"12345").await;
    connection.read_answer(false).await.expect_error(408, "SIZE_INVALID");
    assert_eq!(server.get(&location).await.expect(204).header("range"), Some("0-4"));
    server.patch(&location, "5-9", b"67890").await.expect(202);

    let mut connection = Connection::open(server.addr).await;
    connection.send_head("PUT /v2/stall/manifests/x", &[("content-length", "10")]).await;
    connection.read_answer(false).await.expect_error(408, "SIZE_INVALID");
}

#[tokio::test]
async fn a_connection_above_the_limit_is_503_and_room_is_made_again() {
    let server = Server::start_with(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = Connection::open(server.addr).await;
    first.send_request("GET /v2/", &[], b"").await;
    first.read_answer(false).await.expect(200);

    let mut second = Connection::open(server.addr).await;
    second.send_request("GET /v2/", &[], b"").await;
    let answer = second.read_answer(false).await;
    answer.expect_error(503, "UNAVAILABLE");
    assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(second.read_to_end().await, b"");

    drop(first);
    eventually("there is room", async || server.get("/v2/").await.status == 200).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_place() {
    let limits = Limits { connections: 1, write_progress_timeout: SHORT, ..Limits::default() };
    let server = Server::start_with(limits).await;
    // More than the buffers of both ends hold together.
    let content = noise(48 * 1024 * 1024);
    let digest = eventually_pushed(&server, &content).await;
    let mut greedy = Connection::open(server.addr).await;
    eventually("the blob is asked for", async || {
        greedy = Connection::open(server.addr).await;
        greedy.send_head(&format!("GET /v2/big/blobs/{digest}"), &[]).await;
        greedy.read_head().await.status == 200
    })
    .await;
    eventually("its place is free", async || server.get("/v2/").await.status == 200).await;
    assert!(greedy.read_to_end().await.len() < content.len());
}

/// Pushes when the only place is free.
async fn eventually_pushed(server: &Server, content: &[u8]) -> ddr_oci::digest::Digest {
    eventually("there is room", async || server.get("/v2/").await.status == 200).await;
    let digest = ddr_oci::digest::Digest::sha256(content);
    let target = format!("/v2/big/blobs/uploads/?digest={digest}");
    eventually("the blob is pushed", async || {
        let mut connection = Connection::open(server.addr).await;
        connection.send_request(&format!("POST {target}"), &[], content).await;
        connection.read_head().await.status == 201
    })
    .await;
    digest
}
