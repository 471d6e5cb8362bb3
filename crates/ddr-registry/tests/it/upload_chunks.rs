//! end-5, end-6, end-13: chunks, their order, and clients that go away.

use ddr_oci::digest::Digest;

use crate::client::{Connection, eventually};
use crate::server::{Server, noise};

#[tokio::test]
async fn streamed_patches_without_length_append() {
    // As docker's graph-driver store pushes: chunked transfer coding, no Content-Range.
    let server = Server::start().await;
    let content = noise(3_500_000);
    let location = server.begin("stream").await;
    let mut connection = Connection::open(server.addr).await;
    let mut sent = 0;
    for half in content.chunks(content.len() / 2 + 1) {
        let line = format!("PATCH {location}");
        connection.send_head(&line, &[("transfer-encoding", "chunked")]).await;
        for piece in half.chunks(70_001) {
            connection.send_chunk(piece).await;
        }
        connection.send(b"0\r\n\r\n").await;
        sent += half.len();
        let answer = connection.read_answer(false).await.expect(202);
        assert_eq!(answer.header("range"), Some(format!("0-{}", sent - 1).as_str()));
        assert_eq!(answer.header("location"), Some(location.as_str()));
        assert!(location.ends_with(answer.header("docker-upload-uuid").unwrap()));
    }
    let digest = Digest::sha256(&content);
    server.put(&format!("{location}?digest={digest}"), b"").await.expect(201);
    assert!(server.get(&format!("/v2/stream/blobs/{digest}")).await.body == content);
}

#[tokio::test]
async fn chunks_in_order_and_the_last_one_in_the_put() {
    let server = Server::start().await;
    let content = noise(300);
    let location = server.begin("chunks").await;
    for (range, part) in [("0-99", 0..100), ("100-199", 100..200)] {
        let answer = server.patch(&location, range, &content[part.clone()]).await.expect(202);
        assert_eq!(answer.header("range"), Some(format!("0-{}", part.end - 1).as_str()));
    }
    let digest = Digest::sha256(&content);
    let line = format!("PUT {location}?digest={digest}");
    let answer = server.send(&line, &[("content-range", "200-299")], &content[200..]).await;
    assert_eq!(answer.expect(201).header("location"), Some(&*format!("/v2/chunks/blobs/{digest}")));
    assert_eq!(server.get(&format!("/v2/chunks/blobs/{digest}")).await.body, content);
}

#[tokio::test]
async fn a_chunk_out_of_order_is_416_and_the_client_can_go_on() {
    let server = Server::start().await;
    let content = noise(300);
    let digest = Digest::sha256(&content);
    let location = server.begin("order").await;
    let early = server.patch(&location, "100-199", &content[100..200]).await;
    early.expect_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(early.header("location"), Some(location.as_str()));
    assert_eq!(early.header("range"), Some("0-0"));

    server.patch(&location, "0-99", &content[..100]).await.expect(202);
    for range in ["0-99", "200-299", "50-149"] {
        let answer = server.patch(&location, range, &content[..100]).await;
        answer.expect_error(416, "BLOB_UPLOAD_INVALID");
        assert_eq!(answer.header("range"), Some("0-99"), "{range}");
    }
    let closing = format!("PUT {location}?digest={digest}");
    let early = server.send(&closing, &[("content-range", "200-299")], &content[200..]).await;
    early.expect_error(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(early.header("location"), Some(location.as_str()));
    assert_eq!(early.header("range"), Some("0-99"));

    assert_eq!(server.get(&location).await.expect(204).header("range"), Some("0-99"));
    server.patch(&location, "100-299", &content[100..]).await.expect(202);
    server.put(&format!("{location}?digest={digest}"), b"").await.expect(201);
}

#[tokio::test]
async fn a_malformed_content_range_is_refused_before_a_byte_is_taken() {
    let server = Server::start().await;
    let location = server.begin("bad").await;
    for range in
        ["", "bytes 0-4", "bytes=0-4", "0-", "-4", "4-0", "a-b", "0-4/5", "0-99999999999999999999"]
    {
        let answer = server.patch(&location, range, b"12345").await;
        answer.expect_error(400, "BLOB_UPLOAD_INVALID");
    }
    for range in ["0-3", "0-5", "0-18446744073709551614"] {
        server.patch(&location, range, b"12345").await.expect_error(400, "SIZE_INVALID");
    }
    assert_eq!(server.get(&location).await.expect(204).header("range"), Some("0-0"));
}

#[tokio::test]
async fn a_streamed_chunk_must_have_the_length_of_its_range() {
    let server = Server::start().await;
    for (range, kept) in [("0-9", "0-4"), ("0-3", "0-0")] {
        let location = server.begin("len").await;
        let mut connection = Connection::open(server.addr).await;
        let fields = [("transfer-encoding", "chunked"), ("content-range", range)];
        connection.send_head(&format!("PATCH {location}"), &fields).await;
        connection.send_chunk(b"12345").await;
        connection.send(b"0\r\n\r\n").await;
        connection.read_answer(false).await.expect_error(400, "SIZE_INVALID");
        assert_eq!(server.get(&location).await.expect(204).header("range"), Some(kept), "{range}");
    }
}

#[tokio::test]
async fn an_empty_patch_changes_nothing() {
    let server = Server::start().await;
    let location = server.begin("none").await;
    let answer = server.send(&format!("PATCH {location}"), &[], b"").await.expect(202);
    assert_eq!(answer.header("range"), Some("0-0"));
}

#[tokio::test]
async fn a_second_request_on_a_session_is_told_so() {
    let server = Server::start().await;
    let location = server.begin("two").await;
    let patch = format!("PATCH {location}");
    let mut first = Connection::open(server.addr).await;
    first.send_head(&patch, &[("transfer-encoding", "chunked")]).await;
    first.send_chunk(b"first").await;
    eventually("the first request holds the session", async || {
        server.get(&location).await.status == 409
    })
    .await;
    let second = server.send(&patch, &[], b"second").await;
    second.expect_error(409, "BLOB_UPLOAD_INVALID");
    let digest = Digest::sha256(b"first");
    let put = server.put(&format!("{location}?digest={digest}"), b"").await;
    put.expect_error(409, "BLOB_UPLOAD_INVALID");
    first.send(b"0\r\n\r\n").await;
    let answer = first.read_answer(false).await.expect(202);
    assert_eq!(answer.header("range"), Some("0-4"));
    server.put(&format!("{location}?digest={digest}"), b"").await.expect(201);
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_its_session() {
    let server = Server::start().await;
    let content = noise(2_500_000);
    let arrived = 1_700_000;
    let location = server.begin("gone").await;
    let mut connection = Connection::open(server.addr).await;
    let len = content.len().to_string();
    connection.send_head(&format!("PATCH {location}"), &[("content-length", &len)]).await;
    connection.send(&content[..arrived]).await;
    drop(connection);
    let everything = format!("0-{}", arrived - 1);
    eventually("what arrived is in the session", async || {
        server.get(&location).await.header("range") == Some(&everything)
    })
    .await;
    let range = format!("{arrived}-{}", content.len() - 1);
    server.patch(&location, &range, &content[arrived..]).await.expect(202);
    let digest = Digest::sha256(&content);
    server.put(&format!("{location}?digest={digest}"), b"").await.expect(201);
    assert!(server.get(&format!("/v2/gone/blobs/{digest}")).await.body == content);
}

#[tokio::test]
async fn a_client_may_wait_to_be_asked_for_the_body() {
    let server = Server::start().await;
    let location = server.begin("expect").await;
    let mut connection = Connection::open(server.addr).await;
    let fields = [("content-length", "5"), ("expect", "100-continue")];
    connection.send_head(&format!("PATCH {location}"), &fields).await;
    assert_eq!(connection.read_head().await.status, 100);
    connection.send(b"12345").await;
    connection.read_answer(false).await.expect(202);

    // Nobody asks for a body that is refused unseen.
    let mut connection = Connection::open(server.addr).await;
    connection.send_head("PATCH /v2/expect/blobs/uploads/unknown", &fields).await;
    connection.read_answer(false).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}
