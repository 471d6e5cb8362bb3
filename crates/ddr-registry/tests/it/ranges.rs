//! Several ranges of a blob in one request, and what depends on the copy that a client has.

use ddr_oci::digest::Digest;
use ddr_registry::Limits;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::client::{Answer, Connection, eventually};
use crate::node::TestNode;
use crate::parts::read_parts;
use crate::server::{Server, noise};

/// Asks for `ranges` and gives the parts of the answer as `(content range, bytes)`.
async fn parts(server: &Server, target: &str, ranges: &str) -> Vec<(String, Vec<u8>)> {
    let answer = server.send(&format!("GET {target}"), &[("range", ranges)], b"").await;
    let answer = answer.expect(206);
    assert_eq!(answer.header("content-range"), None, "{answer:?}");
    assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    let content_type = answer.header("content-type").unwrap();
    let read = read_parts(content_type, &answer.body);
    read.into_iter().map(|(place, bytes)| (place, bytes.to_vec())).collect()
}

#[tokio::test]
async fn each_range_is_a_part_in_the_order_of_the_request() {
    let server = Server::start().await;
    let content = noise(1_000_000);
    let digest = server.push_blob("m", &content).await;
    let target = format!("/v2/m/blobs/{digest}");
    for (ranges, expected) in [
        ("bytes=0-1,10-19", vec![0..2, 10..20]),
        ("bytes=999999-, 0-0", vec![999_999..1_000_000, 0..1]),
        ("bytes=-5,300000-899999,7-7", vec![999_995..1_000_000, 300_000..900_000, 7..8]),
        // Neighbours stay apart; what overlaps does not.
        ("bytes=0-9,10-19", vec![0..10, 10..20]),
        ("bytes=100-199,0-9,150-249", vec![100..250, 0..10]),
        ("bytes=0-9,2000000-,20-29", vec![0..10, 20..30]),
    ] {
        let found = parts(&server, &target, ranges).await;
        let wanted: Vec<_> = expected
            .into_iter()
            .map(|part| {
                let place = format!("bytes {}-{}/1000000", part.start, part.end - 1);
                (place, content[part].to_vec())
            })
            .collect();
        assert!(found == wanted, "{ranges}");
    }
}

#[tokio::test]
async fn a_set_of_which_one_part_remains_is_one_range() {
    let server = Server::start().await;
    let content = noise(100);
    let digest = server.push_blob("m", &content).await;
    let line = format!("GET /v2/m/blobs/{digest}");
    for (ranges, covered) in [
        ("bytes=0-9,5-14", "bytes 0-14/100"),
        ("bytes=90-,100-,200-300", "bytes 90-99/100"),
        ("bytes=0-,0-,0-,-100", "bytes 0-99/100"),
    ] {
        let answer = server.send(&line, &[("range", ranges)], b"").await.expect(206);
        assert_eq!(answer.header("content-range"), Some(covered), "{ranges}");
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    }
    for ranges in ["bytes=100-,200-", "bytes=0-9,9-5", "bytes=-0,-0"] {
        let answer = server.send(&line, &[("range", ranges)], b"").await;
        answer.expect_error(416, "SIZE_INVALID");
    }
}

#[tokio::test]
async fn a_thousand_ranges_are_served_and_more_are_the_whole() {
    let server = Server::start().await;
    let content = noise(500_000);
    let digest = server.push_blob("m", &content).await;
    let target = format!("/v2/m/blobs/{digest}");
    let set = |count: usize| {
        let list: Vec<_> = (0..count).map(|n| format!("{}-{}", n * 400, n * 400 + 99)).collect();
        format!("bytes={}", list.join(","))
    };
    let found = parts(&server, &target, &set(1024)).await;
    assert_eq!(found.len(), 1024);
    for (n, (place, bytes)) in found.iter().enumerate() {
        assert_eq!(*place, format!("bytes {}-{}/500000", n * 400, n * 400 + 99));
        assert!(*bytes == content[n * 400..n * 400 + 100]);
    }
    let line = format!("GET {target}");
    let answer = server.send(&line, &[("range", &set(1025))], b"").await.expect(200);
    assert!(answer.body == content);
    // A field beyond the limit of its own counts like any other.
    let long = format!("bytes={}", "0-0,".repeat(10_000));
    server.send(&line, &[("range", &long)], b"").await.expect_error(431, "SIZE_INVALID");
}

#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_of_the_parts_leaves_nothing_running() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let server = Server::start().await;
    let digest = server.push_blob("m", &noise(32 * 1024 * 1024)).await;
    let line = format!("GET /v2/m/blobs/{digest}");
    for _ in 0..20 {
        let mut connection = Connection::open(server.addr).await;
        connection.send_head(&line, &[("range", "bytes=0-16000000,17000000-")]).await;
        assert_eq!(connection.read_head().await.status, 206);
    }
    eventually("the responses have ended", async || {
        handle.render().contains("ddr_registry_requests_in_flight 0\n")
    })
    .await;
}

fn tagged(answer: &Answer, digest: &Digest) {
    assert_eq!(answer.header("etag"), Some(&*format!("\"{digest}\"")), "{answer:?}");
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let server = Server::start().await;
    let image = server.image("c", "x").await;
    server.put_manifest("c", "latest", &image).await.expect(201);
    let digest = server.push_blob("c", b"content").await;
    let other = format!("\"{}\"", Digest::sha256(b"other"));
    for (target, digest) in [
        (format!("/v2/c/blobs/{digest}"), digest),
        ("/v2/c/manifests/latest".to_owned(), image.digest()),
    ] {
        tagged(&server.get(&target).await.expect(200), &digest);
        let tag = format!("\"{digest}\"");
        for method in ["GET", "HEAD"] {
            let line = format!("{method} {target}");
            for has in [tag.clone(), format!("W/{tag}"), format!("{other}, {tag}"), "*".into()] {
                let mut connection = Connection::open(server.addr).await;
                connection.send_head(&line, &[("if-none-match", &has)]).await;
                let answer = connection.read_head().await;
                assert_eq!(answer.status, 304, "{line} {has}");
                assert_eq!(answer.header("content-length"), None, "{answer:?}");
                tagged(&answer, &digest);
                // Nothing follows: the next answer on this connection is the next.
                connection.send_head("GET /v2/", &[]).await;
                connection.read_answer(false).await.expect(200);
            }
            server.send(&line, &[("if-none-match", &other)], b"").await.expect(200);
        }
        let line = format!("GET {target}");
        for (if_range, status) in [(&tag, 206), (&other, 200)] {
            let fields = [("range", "bytes=0-1"), ("if-range", if_range.as_str())];
            tagged(&server.send(&line, &fields, b"").await.expect(status), &digest);
        }
    }
    let missing = format!("GET /v2/c/blobs/{}", Digest::sha256(b"missing"));
    let answer = server.send(&missing, &[("if-none-match", "*")], b"").await;
    answer.expect_error(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn parts_of_a_blob_that_arrives_from_a_peer() {
    let [one, two] = TestNode::pair().await;
    let here = Server::around(one, Limits::default()).await;
    let there = Server::around(two, Limits::default()).await;
    let content = noise(8_000_000);
    let digest = here.push_blob("m", &content).await;
    let target = format!("/v2/m/blobs/{digest}");
    eventually("the blob is announced", async || there.head(&target).await.status == 200).await;
    // The last range first: it waits until all is there and proven.
    let found = parts(&there, &target, "bytes=-100,0-99,4000000-4999999").await;
    assert!(found[0].1 == content[7_999_900..]);
    assert!(found[1].1 == content[..100]);
    assert!(found[2].1 == content[4_000_000..5_000_000]);
}
