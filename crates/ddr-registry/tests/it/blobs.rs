//! end-2 and end-10.

use ddr_oci::digest::{Algorithm, Digest};

use crate::server::{Server, noise};

#[tokio::test]
async fn get_and_head_have_the_same_headers() {
    let server = Server::start().await;
    let content = noise(100_000);
    let digest = server.push_blob("team/app", &content).await;
    let target = format!("/v2/team/app/blobs/{digest}");
    let get = server.get(&target).await.expect(200);
    let head = server.head(&target).await.expect(200);
    for answer in [&get, &head] {
        assert_eq!(answer.header("content-length"), Some("100000"));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.header("content-range"), None);
    }
    assert_eq!(get.body, content);
}

#[tokio::test]
async fn a_large_blob_comes_back_byte_for_byte() {
    let server = Server::start().await;
    let content = noise(5 * 1024 * 1024 + 17);
    let digest = server.push_blob("big", &content).await;
    let answer = server.get(&format!("/v2/big/blobs/{digest}")).await.expect(200);
    assert!(answer.body == content);
}

#[tokio::test]
async fn ranges() {
    let server = Server::start().await;
    let content: Vec<u8> = (0..100).collect();
    let digest = server.push_blob("r", &content).await;
    let target = format!("GET /v2/r/blobs/{digest}");
    for (range, first, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-1", 0, 2),
        ("bytes=10-19", 10, 20),
        ("bytes=90-", 90, 100),
        ("bytes=-7", 93, 100),
        ("bytes=-700", 0, 100),
        ("bytes=50-5000", 50, 100),
        ("bytes=0-", 0, 100),
    ] {
        let answer = server.send(&target, &[("range", range)], b"").await.expect(206);
        assert_eq!(answer.body, &content[first..end], "{range}");
        let covered = format!("bytes {first}-{}/100", end - 1);
        assert_eq!(answer.header("content-range"), Some(covered.as_str()), "{range}");
        assert_eq!(answer.header("content-length"), Some((end - first).to_string().as_str()));
        assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
    }
    for range in
        ["bytes=100-", "bytes=100-200", "bytes=50-0", "bytes=-0", "bytes=99999999999999999999-"]
    {
        let answer = server.send(&target, &[("range", range)], b"").await;
        answer.expect_error(416, "SIZE_INVALID");
        assert_eq!(answer.header("content-range"), Some("bytes */100"), "{range}");
    }
    for range in ["lines=0-1", "bytes=a-b", "bytes", "bytes=1-\u{e9}"] {
        let answer = server.send(&target, &[("range", range)], b"").await.expect(200);
        assert_eq!(answer.body, content, "{range}");
        assert_eq!(answer.header("content-range"), None);
    }
    // RFC 9110, section 14.2: a range means something for GET only.
    let head = format!("HEAD /v2/r/blobs/{digest}");
    let answer = server.send(&head, &[("range", "bytes=0-1")], b"").await.expect(200);
    assert_eq!(answer.header("content-length"), Some("100"));
}

#[tokio::test]
async fn an_empty_blob_is_a_blob() {
    let server = Server::start().await;
    let digest = server.push_blob("e", b"").await;
    let target = format!("/v2/e/blobs/{digest}");
    let answer = server.get(&target).await.expect(200);
    assert_eq!(answer.header("content-length"), Some("0"));
    assert_eq!(server.head(&target).await.header("content-length"), Some("0"));
    let answer = server.send(&format!("GET {target}"), &[("range", "bytes=0-0")], b"").await;
    answer.expect_error(416, "SIZE_INVALID");
    assert_eq!(answer.header("content-range"), Some("bytes */0"));
}

#[tokio::test]
async fn sha512_is_a_digest_like_the_other() {
    let server = Server::start().await;
    let content = noise(70_000);
    let digest = Digest::of(Algorithm::Sha512, &content);
    let line = format!("POST /v2/s/blobs/uploads/?digest={digest}");
    let answer = server.send(&line, &[], &content).await.expect(201);
    assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
    let answer = server.get(answer.header("location").unwrap()).await.expect(200);
    assert!(answer.body == content);
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_no_digest_is_400() {
    let server = Server::start().await;
    let missing = Digest::sha256(b"missing");
    let error = server.get(&format!("/v2/x/blobs/{missing}")).await;
    let error = error.expect_error(404, "BLOB_UNKNOWN");
    assert_eq!(error["detail"]["digest"], missing.to_string());
    server.head(&format!("/v2/x/blobs/{missing}")).await.expect(404);
    server.delete(&format!("/v2/x/blobs/{missing}")).await.expect_error(404, "BLOB_UNKNOWN");
    for bad in [
        format!("sha256:{}", "g".repeat(64)),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha256:{}", "0".repeat(63)),
        format!("sha256:{}", "0".repeat(65)),
        format!("md5:{}", "0".repeat(32)),
        "sha256".to_owned(),
        "sha256:".to_owned(),
        "..".to_owned(),
        "%00".to_owned(),
        "sha256%".to_owned(),
    ] {
        let answer = server.get(&format!("/v2/x/blobs/{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(!answer.json()["errors"].as_array().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_digest_is_no_licence_to_read() {
    let server = Server::start().await;
    let digest = server.push_blob("secret", b"private").await;
    server.get(&format!("/v2/other/blobs/{digest}")).await.expect_error(404, "BLOB_UNKNOWN");
    server.head(&format!("/v2/other/blobs/{digest}")).await.expect(404);
}

#[tokio::test]
async fn a_percent_encoded_digest_is_the_same_digest() {
    let server = Server::start().await;
    let digest = server.push_blob("p/q", b"content").await.to_string().replace(':', "%3A");
    assert_eq!(server.get(&format!("/v2/p/q/blobs/{digest}")).await.expect(200).body, b"content");
}

#[tokio::test]
async fn a_deleted_blob_is_gone_at_once() {
    let server = Server::start().await;
    let digest = server.push_blob("d", b"content").await;
    let target = format!("/v2/d/blobs/{digest}");
    server.delete(&target).await.expect(202);
    server.get(&target).await.expect_error(404, "BLOB_UNKNOWN");
    server.head(&target).await.expect(404);
    server.delete(&target).await.expect_error(404, "BLOB_UNKNOWN");
}
