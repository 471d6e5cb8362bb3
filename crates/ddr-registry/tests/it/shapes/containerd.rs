//! containerd 2.1 and later, and docker with its image store, nerdctl, BuildKit.

use ddr_oci::digest::Digest;
use metrics_exporter_prometheus::PrometheusBuilder;

use super::{encoded, location, say};
use crate::client::{Connection, eventually};
use crate::server::{Server, noise};

/// One range of the pull that follows: `concurrent_layer_fetch_buffer`.
const CHUNK: usize = 8 * 1024 * 1024;

#[tokio::test]
async fn lesson_09_open_ended_range_and_hang_up() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let server = Server::start().await;
    let content = noise(6 * CHUNK);
    let digest = server.push_blob("team/app", &content).await;
    let mut connections = Vec::new();
    for at in (0..content.len()).step_by(CHUNK) {
        let mut connection = Connection::open(server.addr).await;
        let head = super::head(&format!(
            "GET /v2/team/app/blobs/{digest}?ns=127.0.0.1:5000 HTTP/1.1
             Host: 127.0.0.1:5000
             User-Agent: containerd/v2.1.4
             Accept: application/vnd.oci.image.layer.v1.tar+gzip, */*
             Range: bytes={at}-
             Accept-Encoding: zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"
        ));
        connection.send(head.as_bytes()).await;
        connections.push((at, connection));
    }
    for (at, connection) in &mut connections {
        let answer = connection.read_head().await;
        assert_eq!(answer.status, 206);
        let covered = format!("bytes {at}-{}/{}", content.len() - 1, content.len());
        assert_eq!(answer.header("content-range"), Some(covered.as_str()));
        let rest = (content.len() - *at).to_string();
        assert_eq!(answer.header("content-length"), Some(rest.as_str()));
        assert_eq!(answer.header("content-encoding"), None);
        let chunk = connection.read_bytes(CHUNK).await;
        assert!(chunk == content[*at..*at + CHUNK]);
    }
    // It hangs up after its chunk: what it did not take must not be read for it.
    drop(connections);
    eventually("every response has ended", async || {
        handle.render().contains("ddr_registry_requests_in_flight 0\n")
    })
    .await;
    let text = handle.render();
    let sent = text.lines().find_map(|line| line.strip_prefix("ddr_registry_sent_bytes_total "));
    let sent: usize = sent.unwrap().parse().unwrap();
    let asked: usize = (1..=6).map(|chunks| chunks * CHUNK).sum();
    assert!(sent < asked * 3 / 4, "{sent} of {asked} bytes were sent");
}

#[tokio::test]
async fn lesson_09_a_manifest_is_asked_for_by_an_open_range() {
    let server = Server::start().await;
    let image = server.image("team/app", "x").await;
    server.put_manifest("team/app", "1.0", &image).await.expect(201);
    let mut connection = Connection::open(server.addr).await;
    let fields = "Host: 127.0.0.1:5000
        User-Agent: containerd/v2.1.4
        Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";
    let line = "HEAD /v2/team/app/manifests/1.0?ns=127.0.0.1:5000 HTTP/1.1";
    let answer = say(&mut connection, &format!("{line}\n{fields}"), b"").await.expect(200);
    let digest = answer.header("docker-content-digest").unwrap();
    assert_eq!(digest, image.digest().to_string());
    let line = format!("GET /v2/team/app/manifests/{digest}?ns=127.0.0.1:5000 HTTP/1.1");
    let answer = say(&mut connection, &format!("{line}\n{fields}\nRange: bytes=0-"), b"").await;
    assert_eq!(answer.expect(206).body, image.bytes);
}

#[tokio::test]
async fn push_by_one_put_with_the_whole_body() {
    let server = Server::start().await;
    let image = server.image("other/app", "x").await;
    let content = noise(1_000_000);
    let digest = Digest::sha256(&content);
    let mut connection = Connection::open(server.addr).await;
    let fields = "Host: localhost:5000\nUser-Agent: containerd/v2.1.4";
    let line = format!("HEAD /v2/team/app/blobs/{digest} HTTP/1.1");
    let accept = "Accept: application/vnd.oci.image.layer.v1.tar+gzip, */*";
    let missing = say(&mut connection, &format!("{line}\n{fields}\n{accept}"), b"").await;
    missing.expect(404);
    let mount = encoded(&digest);
    let line = format!("POST /v2/team/app/blobs/uploads/?mount={mount}&from=other%2Fapp HTTP/1.1");
    let zero = "Content-Length: 0";
    let answer = say(&mut connection, &format!("{line}\n{fields}\n{zero}"), b"").await.expect(202);
    let line = format!("PUT {}?digest={mount} HTTP/1.1", location(&answer));
    let with = format!(
        "{line}\n{fields}\nContent-Length: 1000000\nContent-Type: application/octet-stream\n\
         Accept-Encoding: gzip"
    );
    let answer = say(&mut connection, &with, &content).await.expect(201);
    assert_eq!(answer.header("docker-content-digest"), Some(&*digest.to_string()));

    // Every blob of the manifest is mounted from where it is known to be.
    let manifest: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
    for blob in [&manifest["config"]["digest"], &manifest["layers"][0]["digest"]] {
        let mount = blob.as_str().unwrap().replace(':', "%3A");
        let line =
            format!("POST /v2/team/app/blobs/uploads/?mount={mount}&from=other%2Fapp HTTP/1.1");
        say(&mut connection, &format!("{line}\n{fields}\n{zero}"), b"").await.expect(201);
    }
    let len = image.bytes.len();
    let with = format!(
        "PUT /v2/team/app/manifests/1.0 HTTP/1.1\n{fields}\nContent-Length: {len}\n\
         Content-Type: {}\nAccept-Encoding: gzip",
        image.media_type
    );
    let answer = say(&mut connection, &with, &image.bytes).await.expect(201);
    assert_eq!(answer.header("warning"), None);
}
