//! podman, CRI-O, buildah, skopeo (containers/image).

use ddr_oci::digest::Digest;

use super::{encoded, location, say};
use crate::client::Connection;
use crate::parts::read_parts;
use crate::server::{Server, noise};

const FIELDS: &str = "Host: localhost:5000
    User-Agent: skopeo/1.9.3
    Docker-Distribution-Api-Version: registry/2.0";

#[tokio::test]
async fn lesson_16_encoded_mount_and_the_cancel_of_a_failed_one() {
    let server = Server::start().await;
    let content = noise(400_000);
    let digest = server.push_blob("a/one", &content).await;
    let absent = Digest::sha256(b"absent");
    let mut connection = Connection::open(server.addr).await;
    say(&mut connection, &format!("GET /v2/ HTTP/1.1\n{FIELDS}"), b"").await.expect(200);
    let head = format!("HEAD /v2/a/one/blobs/{digest} HTTP/1.1\n{FIELDS}");
    say(&mut connection, &head, b"").await.expect(200);
    let post = |digest: &Digest| {
        format!(
            "POST /v2/a/two/blobs/uploads/?from=a%2Fone&mount={} HTTP/1.1\n{FIELDS}\n\
             Content-Length: 0",
            encoded(digest)
        )
    };
    let answer = say(&mut connection, &post(&digest), b"").await.expect(201);
    assert_eq!(answer.header("location"), Some(&*format!("/v2/a/two/blobs/{digest}")));
    let session = location(&say(&mut connection, &post(&absent), b"").await.expect(202));
    let cancel = format!("DELETE {session} HTTP/1.1\n{FIELDS}");
    say(&mut connection, &cancel, b"").await.expect(204);
}

#[tokio::test]
async fn push_asks_twice_and_appends_the_digest_to_the_location() {
    let server = Server::start().await;
    let content = noise(400_000);
    let digest = Digest::sha256(&content);
    let mut connection = Connection::open(server.addr).await;
    let head = format!("HEAD /v2/a/one/blobs/{digest} HTTP/1.1\n{FIELDS}");
    for _ in 0..2 {
        say(&mut connection, &head, b"").await.expect(404);
    }
    let post = format!("POST /v2/a/one/blobs/uploads/ HTTP/1.1\n{FIELDS}\nContent-Length: 0");
    let session = location(&say(&mut connection, &post, b"").await.expect(202));
    let patch = format!(
        "PATCH {session} HTTP/1.1\n{FIELDS}\nContent-Length: 400000\n\
         Content-Type: application/octet-stream"
    );
    let session = location(&say(&mut connection, &patch, &content).await.expect(202));
    let put = format!(
        "PUT {session}?digest={} HTTP/1.1\n{FIELDS}\nContent-Length: 0\n\
         Content-Type: application/octet-stream",
        encoded(&digest)
    );
    say(&mut connection, &put, b"").await.expect(201);
}

#[tokio::test]
async fn zstd_chunked_takes_one_part_for_each_range_in_order() {
    let server = Server::start().await;
    let content = noise(3_000_000);
    let digest = server.push_blob("a/one", &content).await;
    // Chunks of files that follow each other, and gaps where files are known already.
    let mut chunks = Vec::new();
    let mut at = 0;
    for number in 0..800 {
        let len = 1000 + number % 7 * 300;
        chunks.push(at..at + len);
        at += if number % 3 == 0 { len + 500 } else { len };
    }
    let ranges: Vec<_> = chunks.iter().map(|c| format!("{}-{}", c.start, c.end - 1)).collect();
    let mut connection = Connection::open(server.addr).await;
    let get = format!(
        "GET /v2/a/one/blobs/{digest} HTTP/1.1\n{FIELDS}\nRange: bytes={}",
        ranges.join(",")
    );
    let answer = say(&mut connection, &get, b"").await.expect(206);
    let parts = read_parts(answer.header("content-type").unwrap(), &answer.body);
    assert_eq!(parts.len(), chunks.len());
    for ((place, bytes), chunk) in parts.iter().zip(chunks) {
        assert_eq!(*place, format!("bytes {}-{}/3000000", chunk.start, chunk.end - 1));
        assert!(*bytes == &content[chunk]);
    }
}
