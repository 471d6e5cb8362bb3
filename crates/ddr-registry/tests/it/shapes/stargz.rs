//! stargz, SOCI and nydus snapshotters: a layer is read in parts while it is used.

use super::say;
use crate::client::Connection;
use crate::parts::read_parts;
use crate::server::{Server, noise};

const FIELDS: &str = "Host: localhost:5000\nUser-Agent: Go-http-client/1.1";

#[tokio::test]
async fn probe_then_several_ranges_then_one() {
    let server = Server::start().await;
    let content = noise(1_000_000);
    let digest = server.push_blob("team/app", &content).await;
    let mut connection = Connection::open(server.addr).await;
    let line = format!("/v2/team/app/blobs/{digest}?ns=localhost%3A5000 HTTP/1.1\n{FIELDS}");
    let probe = format!("GET {line}\nRange: bytes=0-1\nAccept-Encoding: identity");
    let answer = say(&mut connection, &probe, b"").await.expect(206);
    assert_eq!(answer.header("content-range"), Some("bytes 0-1/1000000"));
    let answer = say(&mut connection, &format!("HEAD {line}"), b"").await.expect(200);
    assert_eq!(answer.header("content-length"), Some("1000000"));

    // Two chunks apart, and the table of contents at the end.
    let several = "bytes=50000-99999,200000-249999,999000-999999";
    let get = format!("GET {line}\nAccept-Encoding: identity\nRange: {several}");
    let answer = say(&mut connection, &get, b"").await.expect(206);
    let parts = read_parts(answer.header("content-type").unwrap(), &answer.body);
    let read: Vec<&[u8]> = parts.iter().map(|(_, bytes)| *bytes).collect();
    let expected = [&content[50_000..100_000], &content[200_000..250_000], &content[999_000..]];
    assert!(read == expected);

    // The fallback of registries that know one range only.
    let one = format!("GET {line}\nAccept-Encoding: identity\nRange: bytes=50000-999999");
    assert!(say(&mut connection, &one, b"").await.expect(206).body == content[50_000..]);
}

#[tokio::test]
async fn parallel_pull_of_large_ranges() {
    let server = Server::start().await;
    let content = noise(10 * 1024 * 1024);
    let digest = server.push_blob("team/app", &content).await;
    let mut tasks = Vec::new();
    for part in 0..20 {
        let addr = server.addr;
        tasks.push(tokio::spawn(async move {
            let (first, last) = (part * 512 * 1024, (part + 1) * 512 * 1024 - 1);
            let mut connection = Connection::open(addr).await;
            let get = format!(
                "GET /v2/team/app/blobs/{digest} HTTP/1.1\n{FIELDS}\nRange: bytes={first}-{last}"
            );
            say(&mut connection, &get, b"").await.expect(206).body
        }));
    }
    let mut whole = Vec::new();
    for task in tasks {
        whole.extend(task.await.unwrap());
    }
    assert!(whole == content);
}
