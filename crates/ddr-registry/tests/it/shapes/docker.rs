//! docker with its old image store.

use ddr_oci::digest::Digest;

use super::{encoded, head, location, say};
use crate::client::Connection;
use crate::server::{Server, noise};

const FIELDS: &str = "Host: localhost:5000
    User-Agent: docker/20.10.24 go/go1.19.8 kernel/6.1.0 os/linux arch/amd64 UpstreamClient(Docker-Client/20.10.24 \\(linux\\))";

#[tokio::test]
async fn lesson_06_patch_without_length_then_an_empty_put() {
    let server = Server::start().await;
    let content = noise(2_500_000);
    let digest = Digest::sha256(&content);
    let mut connection = Connection::open(server.addr).await;
    let ping = say(&mut connection, &format!("GET /v2/ HTTP/1.1\n{FIELDS}"), b"").await.expect(200);
    assert_eq!(ping.header("docker-distribution-api-version"), Some("registry/2.0"));
    let line = format!("HEAD /v2/team/app/blobs/{digest} HTTP/1.1");
    say(&mut connection, &format!("{line}\n{FIELDS}"), b"").await.expect(404);
    let line = "POST /v2/team/app/blobs/uploads/ HTTP/1.1";
    let post = format!("{line}\n{FIELDS}\nContent-Length: 0\nAccept-Encoding: gzip");
    let answer = say(&mut connection, &post, b"").await.expect(202);
    let session = location(&answer);
    assert!(session.ends_with(answer.header("docker-upload-uuid").unwrap()));

    let patch = format!(
        "PATCH {session} HTTP/1.1\n{FIELDS}\nTransfer-Encoding: chunked\nAccept-Encoding: gzip"
    );
    connection.send(head(&patch).as_bytes()).await;
    for piece in content.chunks(32 * 1024) {
        connection.send_chunk(piece).await;
    }
    connection.send(b"0\r\n\r\n").await;
    let answer = connection.read_answer(false).await.expect(202);
    // It reads `0-%d`, and gives up when the end is before the start.
    assert_eq!(answer.header("range"), Some("0-2499999"));
    assert!(answer.header("docker-upload-uuid").is_some());

    let line = format!("PUT {}?digest={} HTTP/1.1", location(&answer), encoded(&digest));
    let put = format!("{line}\n{FIELDS}\nContent-Length: 0\nAccept-Encoding: gzip");
    say(&mut connection, &put, b"").await.expect(201);
    let line = format!("HEAD /v2/team/app/blobs/{digest} HTTP/1.1");
    let answer = say(&mut connection, &format!("{line}\n{FIELDS}"), b"").await.expect(200);
    assert_eq!(answer.header("content-length"), Some("2500000"));
}

#[tokio::test]
async fn pull_resumes_by_a_range() {
    let server = Server::start().await;
    let content = noise(300_000);
    let digest = server.push_blob("team/app", &content).await;
    let mut connection = Connection::open(server.addr).await;
    let get = format!(
        "GET /v2/team/app/blobs/{digest} HTTP/1.1\n{FIELDS}\nRange: bytes=200000-\n\
         Accept-Encoding: identity\nConnection: close"
    );
    let answer = say(&mut connection, &get, b"").await.expect(206);
    assert_eq!(answer.header("content-range"), Some("bytes 200000-299999/300000"));
    assert!(answer.body == content[200_000..]);
}
