//! Uploads by clients that lie about lengths, stop half-way, or come all at once.

use std::sync::Arc;

use ddr_oci::digest::Digest;
use tokio::sync::Barrier;

use crate::client::{Connection, eventually, request};
use crate::server::{Server, noise};

/// Clients that write into one session at the same time.
const RIVALS: usize = 100;
/// Bytes that each of them sends.
const BLOCK_BYTES: usize = 5000;

#[tokio::test]
async fn a_body_shorter_than_promised_is_no_blob() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"12345");
    let location = server.begin("short").await;
    let post = format!("POST /v2/short/blobs/uploads/?digest={digest}");
    for line in [format!("PUT {location}?digest={digest}"), post] {
        let mut connection = Connection::open(server.addr).await;
        connection.send_head(&line, &[("content-length", "10")]).await;
        connection.send(b"12345").await;
        connection.half_close().await;
        let answer = connection.read_to_end().await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{:?}", String::from_utf8_lossy(&answer));
        server.get(&format!("/v2/short/blobs/{digest}")).await.expect(404);
    }
    // The session has what came, and can be ended with it.
    eventually("the bytes are in the session", async || {
        server.get(&location).await.header("range") == Some("0-4")
    })
    .await;
    server.put(&format!("{location}?digest={digest}"), b"").await.expect(201);
}

#[tokio::test]
async fn a_body_longer_than_promised_is_cut_and_the_rest_is_no_request() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"12345");
    let mut connection = Connection::open(server.addr).await;
    let post = format!("POST /v2/long/blobs/uploads/?digest={digest}");
    connection.send_head(&post, &[("content-length", "5")]).await;
    connection.try_send(b"1234567890").await;
    connection.read_answer(false).await.expect(201);
    connection.half_close().await;
    let rest = connection.read_to_end().await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{rest:?}");
    assert_eq!(server.get(&format!("/v2/long/blobs/{digest}")).await.expect(200).body, b"12345");
}

#[tokio::test]
async fn a_body_with_two_lengths_smuggles_no_request() {
    let server = Server::start().await;
    let target = server.push_blob("victim", b"content").await;
    let smuggled = format!("DELETE /v2/victim/blobs/{target} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let len = (smuggled.len() + 5).to_string();
    for fields in [
        vec![("content-length", len.as_str()), ("transfer-encoding", "chunked")],
        vec![("transfer-encoding", "chunked"), ("content-length", len.as_str())],
        vec![("transfer-encoding", "identity, chunked"), ("content-length", len.as_str())],
        vec![("content-length", "0"), ("content-length", len.as_str())],
    ] {
        let mut connection = Connection::open(server.addr).await;
        connection.send_head("POST /v2/a/blobs/uploads/", &fields).await;
        connection.try_send(format!("0\r\n\r\n{smuggled}").as_bytes()).await;
        connection.half_close().await;
        let answers = String::from_utf8(connection.read_to_end().await).unwrap();
        // RFC 9112, section 6.3: refused, or the length is not believed and the connection ends.
        let count = answers.matches("HTTP/1.1 ").count();
        assert!(count <= 1, "{fields:?}: {answers}");
        server.get(&format!("/v2/victim/blobs/{target}")).await.expect(200);
    }
}

#[tokio::test]
async fn a_byte_at_a_time_is_an_upload_too() {
    let server = Server::start().await;
    let content = noise(300);
    let digest = Digest::sha256(&content);
    let head = format!(
        "POST /v2/slow/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: localhost:5000\r\n\
         Content-Length: 300\r\n\r\n"
    );
    let mut connection = Connection::open(server.addr).await;
    for byte in head.as_bytes().iter().chain(&content) {
        connection.send(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    connection.read_answer(false).await.expect(201);

    // The same in chunks of one byte, which is the smallest that a client may send.
    let location = server.begin("slow").await;
    for (at, byte) in content.iter().enumerate() {
        let answer = server.patch(&location, &format!("{at}-{at}"), &[*byte]).await.expect(202);
        assert_eq!(answer.header("oci-chunk-min-length"), None, "there is no least length");
    }
    server.put(&format!("{location}?digest={digest}"), b"").await.expect(201);
}

#[tokio::test]
async fn a_socket_closed_on_one_side_is_let_go() {
    let server = Server::start().await;
    let location = server.begin("half").await;
    for head in [
        "GET /v2/ HTTP/1.1\r\nhost: loc".to_owned(),
        "GET /v2/ HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
        format!("PATCH {location} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nabc"),
        format!(
            "PATCH {location} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"
        ),
        String::new(),
    ] {
        let mut connection = Connection::open(server.addr).await;
        connection.send(head.as_bytes()).await;
        connection.half_close().await;
        // It ends, which is what this waits for.
        connection.read_to_end().await;
    }
    eventually("the session is free", async || server.get(&location).await.status == 204).await;
    server.get("/v2/").await.expect(200);
}

/// Each rival sends its block at once; the answers as status and `Range`.
async fn rivals(server: &Server, location: &str, place: Option<&str>) -> Vec<(u16, String)> {
    let start = Arc::new(Barrier::new(RIVALS));
    let mut tasks = Vec::new();
    for number in 0..RIVALS {
        let (start, addr, line) = (Arc::clone(&start), server.addr, format!("PATCH {location}"));
        let place = place.map(str::to_owned);
        tasks.push(tokio::spawn(async move {
            let fields: Vec<_> = place.iter().map(|at| ("content-range", at.as_str())).collect();
            start.wait().await;
            let answer = request(addr, &line, &fields, &[number as u8; BLOCK_BYTES]).await;
            match answer.status {
                202 => {}
                416 => drop(answer.expect_error(416, "BLOB_UPLOAD_INVALID")),
                _ => drop(answer.expect_error(409, "BLOB_UPLOAD_INVALID")),
            }
            (answer.status, answer.header("range").unwrap_or_default().to_owned())
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_clients_for_one_place_exactly_one_is_taken() {
    let server = Server::start().await;
    let location = server.begin("rivals").await;
    let place = format!("0-{}", BLOCK_BYTES - 1);
    let answers = rivals(&server, &location, Some(&place)).await;
    let won: Vec<usize> = (0..RIVALS).filter(|number| answers[*number].0 == 202).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert_eq!(server.get(&location).await.expect(204).header("range"), Some(place.as_str()));
    let digest = Digest::sha256(&[won[0] as u8; BLOCK_BYTES]);
    server.put(&format!("{location}?digest={digest}"), b"").await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_a_hundred_clients_are_never_mixed() {
    let server = Server::start().await;
    let location = server.begin("rivals").await;
    let answers = rivals(&server, &location, None).await;
    let mut taken: Vec<(usize, usize)> = Vec::new();
    for (number, (status, range)) in answers.iter().enumerate() {
        if *status == 202 {
            let last: usize = range.strip_prefix("0-").unwrap().parse().unwrap();
            taken.push((last + 1, number));
        }
    }
    taken.sort_unstable();
    assert!(!taken.is_empty());
    let mut content = Vec::new();
    for (end, number) in taken {
        content.extend([number as u8; BLOCK_BYTES]);
        assert_eq!(content.len(), end, "the answer says where the block ends: {answers:?}");
    }
    let digest = Digest::sha256(&content);
    server.put(&format!("{location}?digest={digest}"), b"").await.expect(201);
    assert!(server.get(&format!("/v2/rivals/blobs/{digest}")).await.body == content);
}
