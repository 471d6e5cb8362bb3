//! oras: one PUT, and seeking in a blob by ranges.

use ddr_oci::digest::Digest;

use super::{encoded, location, say};
use crate::client::Connection;
use crate::server::{Server, noise};

const FIELDS: &str = "Host: localhost:5000\nUser-Agent: oras/1.3.0";

#[tokio::test]
async fn post_and_put_then_seek() {
    let server = Server::start().await;
    let content = noise(200_000);
    let digest = Digest::sha256(&content);
    let mut connection = Connection::open(server.addr).await;
    let post = format!("POST /v2/team/art/blobs/uploads/ HTTP/1.1\n{FIELDS}\nContent-Length: 0");
    let session = location(&say(&mut connection, &post, b"").await.expect(202));
    let put = format!(
        "PUT {session}?digest={} HTTP/1.1\n{FIELDS}\nContent-Length: 200000\n\
         Content-Type: application/octet-stream\nAccept-Encoding: gzip",
        encoded(&digest)
    );
    say(&mut connection, &put, &content).await.expect(201);
    let line = format!("GET /v2/team/art/blobs/{digest} HTTP/1.1\n{FIELDS}");
    let answer = say(&mut connection, &line, b"").await.expect(200);
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    let seek = format!("{line}\nRange: bytes=150000-199999");
    let answer = say(&mut connection, &seek, b"").await.expect(206);
    assert!(answer.body == content[150_000..]);
}
