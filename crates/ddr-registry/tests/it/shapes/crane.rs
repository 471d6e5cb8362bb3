//! crane and cosign (go-containerregistry).

use ddr_oci::digest::Digest;

use super::{encoded, location, say};
use crate::client::Connection;
use crate::server::{Server, noise};

const FIELDS: &str = "Host: localhost:5000\nUser-Agent: crane/0.20.6 go-containerregistry/0.20.6";

#[tokio::test]
async fn mount_with_from_and_origin_then_patch_and_put() {
    let server = Server::start().await;
    let content = noise(700_000);
    let digest = Digest::sha256(&content);
    let mut connection = Connection::open(server.addr).await;
    let head = format!("HEAD /v2/team/app/blobs/{digest} HTTP/1.1\n{FIELDS}");
    say(&mut connection, &head, b"").await.expect(404);
    let line = format!(
        "POST /v2/team/app/blobs/uploads/?from=base%2Fimage&mount={}&origin=registry.example HTTP/1.1",
        encoded(&digest)
    );
    let post = format!("{line}\n{FIELDS}\nContent-Length: 0\nContent-Type: application/json");
    let session = location(&say(&mut connection, &post, b"").await.expect(202));
    let patch = format!(
        "PATCH {session} HTTP/1.1\n{FIELDS}\nContent-Length: 700000\n\
         Content-Type: application/octet-stream\nAccept-Encoding: gzip"
    );
    let answer = say(&mut connection, &patch, &content).await.expect(202);
    let put = format!(
        "PUT {}?digest={} HTTP/1.1\n{FIELDS}\nContent-Length: 0",
        location(&answer),
        encoded(&digest)
    );
    say(&mut connection, &put, b"").await.expect(201);
    let answer = say(&mut connection, &head, b"").await.expect(200);
    assert_eq!(answer.header("content-length"), Some("700000"));

    // The same of a blob that is where it says.
    let line = format!(
        "POST /v2/team/two/blobs/uploads/?from=team%2Fapp&mount={}&origin=localhost%3A5000 HTTP/1.1",
        encoded(&digest)
    );
    let post = format!("{line}\n{FIELDS}\nContent-Length: 0\nContent-Type: application/json");
    say(&mut connection, &post, b"").await.expect(201);
}
