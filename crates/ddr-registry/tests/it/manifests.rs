//! end-3, end-7a, end-7b, end-9.

use ddr_oci::digest::{Algorithm, Digest};
use ddr_oci::manifest::MAX_MANIFEST_BYTES;
use ddr_oci::media_type::{DOCKER_MANIFEST, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use serde_json::json;

use crate::client::Connection;
use crate::server::{Image, Server};

#[tokio::test]
async fn a_manifest_comes_back_as_it_was_pushed() {
    let server = Server::start().await;
    // Blanks and an unknown field: bytes are kept, not re-written.
    let mut image = server.image("team/app", "one").await;
    image.bytes = [b"\n ", image.bytes.as_slice(), b" \n"].concat();
    let digest = Digest::sha256(&image.bytes).to_string();
    let answer = server.put_manifest("team/app", "1.0", &image).await.expect(201);
    let location = format!("/v2/team/app/manifests/{digest}");
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
    assert_eq!(answer.header("oci-subject"), None);
    assert_eq!(answer.header("content-length"), Some("0"));

    for reference in ["1.0", &digest, &digest.replace(':', "%3A")] {
        let target = format!("/v2/team/app/manifests/{reference}");
        let get = server.get(&target).await.expect(200);
        let head = server.head(&target).await.expect(200);
        assert_eq!(get.body, image.bytes);
        for answer in [get, head] {
            assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
            assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
            let len = image.bytes.len().to_string();
            assert_eq!(answer.header("content-length"), Some(len.as_str()));
        }
    }
}

#[tokio::test]
async fn whatever_is_accepted_the_type_stays() {
    let server = Server::start().await;
    let mut image = server.image("d", "docker").await;
    let text = String::from_utf8(image.bytes).unwrap().replace(OCI_MANIFEST, DOCKER_MANIFEST);
    image = Image { bytes: text.into_bytes(), media_type: DOCKER_MANIFEST };
    server.put_manifest("d", "latest", &image).await.expect(201);
    for accept in ["*/*", OCI_MANIFEST, "text/html", ""] {
        let line = "GET /v2/d/manifests/latest";
        let answer = server.send(line, &[("accept", accept)], b"").await.expect(200);
        assert_eq!(answer.header("content-type"), Some(DOCKER_MANIFEST));
        assert_eq!(answer.body, image.bytes);
    }
}

#[tokio::test]
async fn a_range_of_a_manifest() {
    let server = Server::start().await;
    let image = server.image("d", "ranged").await;
    server.put_manifest("d", "latest", &image).await.expect(201);
    let len = image.bytes.len();
    let line = "GET /v2/d/manifests/latest";
    for (range, part) in [("bytes=0-", 0..len), ("bytes=5-9", 5..10), ("bytes=-7", len - 7..len)] {
        let answer = server.send(line, &[("range", range)], b"").await.expect(206);
        let covered = format!("bytes {}-{}/{len}", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(covered.as_str()));
        assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
        assert_eq!(answer.header("docker-content-digest"), Some(&*image.digest().to_string()));
        assert_eq!(answer.body, image.bytes[part]);
    }
    let answer = server.send(line, &[("range", &format!("bytes={len}-"))], b"").await;
    answer.expect_error(416, "SIZE_INVALID");
    assert_eq!(answer.header("content-range"), Some(&*format!("bytes */{len}")));
    for range in ["bytes=0-1,3-4", "lines=1-2"] {
        let answer = server.send(line, &[("range", range)], b"").await.expect(200);
        assert_eq!(answer.body, image.bytes);
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
    }
    let head = server.send("HEAD /v2/d/manifests/latest", &[("range", "bytes=0-1")], b"").await;
    assert_eq!(head.expect(200).header("content-length"), Some(&*len.to_string()));
}

#[tokio::test]
async fn parameters_of_the_content_type_are_not_kept() {
    let server = Server::start().await;
    let image = server.image("p", "x").await;
    let content_type = format!("{OCI_MANIFEST}; charset=utf-8");
    let line = "PUT /v2/p/manifests/latest";
    server.send(line, &[("content-type", &content_type)], &image.bytes).await.expect(201);
    let answer = server.get("/v2/p/manifests/latest").await.expect(200);
    assert_eq!(answer.header("content-type"), Some(OCI_MANIFEST));
}

#[tokio::test]
async fn pushed_by_digest_with_tags() {
    let server = Server::start().await;
    let image = server.image("t", "x").await;
    for digest in [image.digest(), Digest::of(Algorithm::Sha512, &image.bytes)] {
        let reference = format!("{digest}?tag=a&tag=b.2&tag=a");
        let answer = server.put_manifest("t", &reference, &image).await.expect(201);
        assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
        assert_eq!(answer.header_values("oci-tag"), ["a", "b.2"]);
        for tag in ["a", "b.2"] {
            let answer = server.get(&format!("/v2/t/manifests/{tag}")).await.expect(200);
            assert_eq!(answer.body, image.bytes);
        }
        server.get(&format!("/v2/t/manifests/{digest}")).await.expect(200);
    }
    let reference = format!("{}?tag=no%20tag", image.digest());
    server.put_manifest("t", &reference, &image).await.expect_error(400, "MANIFEST_INVALID");
}

#[tokio::test]
async fn the_digest_in_the_path_must_be_right() {
    let server = Server::start().await;
    let image = server.image("x", "x").await;
    let wrong = Digest::sha256(b"wrong").to_string();
    server.put_manifest("x", &wrong, &image).await.expect_error(400, "DIGEST_INVALID");
    server.get(&format!("/v2/x/manifests/{wrong}")).await.expect_error(404, "MANIFEST_UNKNOWN");
    let malformed = format!("sha256:{}", "z".repeat(64));
    server.put_manifest("x", &malformed, &image).await.expect_error(400, "DIGEST_INVALID");
    server.get(&format!("/v2/x/manifests/{malformed}")).await.expect_error(400, "DIGEST_INVALID");
    server.put_manifest("x", "-no-tag", &image).await.expect_error(400, "MANIFEST_INVALID");
    server.get("/v2/x/manifests/-no-tag").await.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn what_is_no_manifest_is_refused() {
    let server = Server::start().await;
    let layers_and_manifests = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {}, "layers": [], "manifests": []
    });
    let truncated = &server.image("m", "x").await.bytes[..40];
    let deep = "[".repeat(100_000);
    for (body, media_type) in [
        (&b""[..], OCI_MANIFEST),
        (b"{}", OCI_MANIFEST),
        (b"null", OCI_MANIFEST),
        (b"\xff\xfe\x00", OCI_MANIFEST),
        (b"<html>", OCI_INDEX),
        (br#"{"schemaVersion":1}"#, OCI_MANIFEST),
        (truncated, OCI_MANIFEST),
        (deep.as_bytes(), OCI_MANIFEST),
        (layers_and_manifests.to_string().as_bytes(), OCI_MANIFEST),
    ] {
        let line = "PUT /v2/m/manifests/latest";
        let answer = server.send(line, &[("content-type", media_type)], body).await;
        answer.expect_error(400, "MANIFEST_INVALID");
    }
    server.get("/v2/m/manifests/latest").await.expect_error(404, "MANIFEST_UNKNOWN");
}

#[tokio::test]
async fn a_manifest_whose_blobs_are_missing_is_taken_with_a_warning() {
    let server = Server::start().await;
    let image = server.image("full", "x").await;
    let full = server.put_manifest("full", "latest", &image).await.expect(201);
    assert_eq!(full.header("warning"), None);
    let answer = server.put_manifest("sparse", "latest", &image).await.expect(201);
    let warning = answer.header("warning").unwrap();
    let expected = "299 - \"2 blobs of this manifest are not known here: sha256:";
    assert!(warning.starts_with(expected) && warning.ends_with('"'), "{warning}");
    assert_eq!(server.get("/v2/sparse/manifests/latest").await.expect(200).body, image.bytes);

    // To name a blob of another repository is no licence to read it.
    let manifest: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    server.get(&format!("/v2/full/blobs/{layer}")).await.expect(200);
    server.get(&format!("/v2/sparse/blobs/{layer}")).await.expect_error(404, "BLOB_UNKNOWN");
    // Once pushed it is there.
    server.push_blob("sparse", "x".repeat(10).as_bytes()).await;
    server.get(&format!("/v2/sparse/blobs/{layer}")).await.expect(200);
    let again = server.put_manifest("sparse", "latest", &image).await.expect(201);
    assert!(again.header("warning").unwrap().starts_with("299 - \"1 blobs of"));
}

#[tokio::test]
async fn a_warning_of_many_blobs_keeps_its_limit() {
    let server = Server::start().await;
    let config = server.push_blob("many", b"{}").await;
    let layer = |n: usize| {
        let digest = Digest::sha256(&n.to_le_bytes());
        json!({ "mediaType": OCI_LAYER, "digest": digest, "size": 8 })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": config, "size": 2 },
        "layers": (0..300).map(layer).collect::<Vec<_>>(),
    });
    let image = Image { bytes: manifest.to_string().into_bytes(), media_type: OCI_MANIFEST };
    let answer = server.put_manifest("many", "latest", &image).await.expect(201);
    let warning = answer.header("warning").unwrap();
    assert!(warning.starts_with("299 - \"300 blobs") && warning.len() <= 4096, "{warning}");
}

#[tokio::test]
async fn missing_blobs_are_named_where_they_are_required() {
    let limits = ddr_node::Limits { require_blobs: true, ..ddr_node::Limits::default() };
    let node = crate::node::TestNode::start_with(limits).await;
    let server = Server::around(node, ddr_registry::Limits::default()).await;
    let image = server.image("full", "x").await;
    let answer = server.put_manifest("empty", "latest", &image).await;
    let error = answer.expect_error(404, "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(error["detail"]["digests"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_manifest_over_the_limit_is_413() {
    let server = Server::start().await;
    let body = vec![b' '; MAX_MANIFEST_BYTES + 1];
    let line = "PUT /v2/l/manifests/latest";
    let fields = [("content-type", OCI_MANIFEST)];
    server.send(line, &fields, &body).await.expect_error(413, "SIZE_INVALID");

    let mut connection = Connection::open(server.addr).await;
    connection.send_head(line, &[("transfer-encoding", "chunked")]).await;
    connection.send_chunk(&body).await;
    connection.send(b"0\r\n\r\n").await;
    connection.read_answer(false).await.expect_error(413, "SIZE_INVALID");
}

#[tokio::test]
async fn a_manifest_of_nearly_four_megabytes_is_accepted() {
    let server = Server::start().await;
    let mut image = server.image("big", "x").await;
    image.bytes.resize(3_900_000, b' ');
    server.put_manifest("big", "latest", &image).await.expect(201);
    assert!(server.get("/v2/big/manifests/latest").await.body == image.bytes);
}

#[tokio::test]
async fn a_tag_moves_also_from_manifest_to_index() {
    let server = Server::start().await;
    let (one, two) = (server.image("mv", "one").await, server.image("mv", "two").await);
    server.put_manifest("mv", "latest", &one).await.expect(201);
    server.put_manifest("mv", "latest", &two).await.expect(201);
    assert_eq!(server.get("/v2/mv/manifests/latest").await.body, two.bytes);
    let index = Image::index(&[&one, &two]);
    server.put_manifest("mv", "latest", &index).await.expect(201);
    let answer = server.get("/v2/mv/manifests/latest").await.expect(200);
    assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
    assert_eq!(answer.body, index.bytes);
    server.get(&format!("/v2/mv/manifests/{}", one.digest())).await.expect(200);
}

#[tokio::test]
async fn deletion_of_a_tag_and_of_a_manifest() {
    let server = Server::start().await;
    let image = server.image("del", "x").await;
    let digest = image.digest();
    for tag in ["a", "b", "c"] {
        server.put_manifest("del", tag, &image).await.expect(201);
    }
    server.delete("/v2/del/manifests/a").await.expect(202);
    server.get("/v2/del/manifests/a").await.expect_error(404, "MANIFEST_UNKNOWN");
    server.delete("/v2/del/manifests/a").await.expect_error(404, "MANIFEST_UNKNOWN");
    server.get("/v2/del/manifests/b").await.expect(200);

    let target = format!("/v2/del/manifests/{digest}");
    server.delete(&target).await.expect(202);
    for reference in ["b", "c", &digest.to_string()] {
        let target = format!("/v2/del/manifests/{reference}");
        server.get(&target).await.expect_error(404, "MANIFEST_UNKNOWN");
        server.head(&target).await.expect(404);
    }
    server.delete(&target).await.expect_error(404, "MANIFEST_UNKNOWN");
    let tags = server.get("/v2/del/tags/list").await;
    assert!(tags.status == 404 || tags.json()["tags"] == json!([]), "{tags:?}");
}

#[tokio::test]
async fn what_nobody_has_is_404_with_the_reference() {
    let server = Server::start().await;
    for reference in ["latest".to_owned(), Digest::sha256(b"x").to_string()] {
        let target = format!("/v2/no/such/manifests/{reference}");
        let error = server.get(&target).await.expect_error(404, "MANIFEST_UNKNOWN");
        assert_eq!(error["detail"]["reference"], reference);
        let head = server.head(&target).await.expect(404);
        assert!(head.body.is_empty());
    }
}

#[tokio::test]
async fn what_is_in_memory_goes_with_the_manifest() {
    let server = Server::start().await;
    let image = server.image("one", "cached").await;
    let other = server.image("two", "cached").await;
    let target = format!("/v2/one/manifests/{}", image.digest());
    let elsewhere = format!("/v2/two/manifests/{}", image.digest());
    for _ in 0..3 {
        server.put_manifest("one", "tag", &image).await.expect(201);
        for _ in 0..3 {
            assert_eq!(server.get(&target).await.expect(200).body, image.bytes);
            assert_eq!(server.head(&target).await.expect(200).body, b"");
        }
        server.get(&elsewhere).await.expect_error(404, "MANIFEST_UNKNOWN");
        server.delete(&target).await.expect(202);
        server.get(&target).await.expect_error(404, "MANIFEST_UNKNOWN");
        assert_eq!(server.head(&target).await.status, 404);
    }
    server.put_manifest("one", "tag", &image).await.expect(201);
    server.put_manifest("two", "tag", &other).await.expect(201);
    for target in [&target, &elsewhere] {
        server.get(target).await.expect(200);
        server.get(target).await.expect(200);
    }
    server.delete(&target).await.expect(202);
    server.get(&target).await.expect_error(404, "MANIFEST_UNKNOWN");
    server.get(&elsewhere).await.expect(200);
}
