//! What broke between clients and other registries, and no other file holds.

use ddr_oci::digest::Digest;
use ddr_oci::media_type::{DOCKER_MANIFEST, EMPTY_JSON, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};

use crate::server::{Image, Server, noise};

#[tokio::test]
async fn lesson_01_a_tag_that_head_finds_its_digest_finds_too() {
    let server = Server::start().await;
    let image = server.image("team/app", "x").await;
    server.put_manifest("team/app", "1.0", &image).await.expect(201);
    let head = server.head("/v2/team/app/manifests/1.0").await.expect(200);
    let digest = head.header("docker-content-digest").unwrap();
    let target = format!("/v2/team/app/manifests/{digest}");
    assert_eq!(server.get(&target).await.expect(200).body, image.bytes);
    // A tag goes with its manifest: it must not lead to nothing.
    server.delete(&target).await.expect(202);
    server.head("/v2/team/app/manifests/1.0").await.expect(404);
}

#[tokio::test]
async fn lesson_02_what_nobody_has_is_a_plain_no() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"nowhere");
    for target in [
        format!("/v2/a/blobs/{digest}"),
        format!("/v2/a/manifests/{digest}"),
        "/v2/a/manifests/latest".to_owned(),
    ] {
        for line in [format!("GET {target}"), format!("HEAD {target}?ns=docker.io")] {
            let answer = server.send(&line, &[], b"").await.expect(404);
            // 429 and 503 make containerd ask again before it goes to the next host.
            assert_eq!(answer.header("retry-after"), None, "{line}");
        }
    }
}

#[tokio::test]
async fn lesson_03_no_challenge_where_nothing_is_protected() {
    let server = Server::start().await;
    for target in ["/v2/", "/v2/_catalog", "/v2/a/manifests/latest"] {
        let fields = [("authorization", "Basic dXNlcjpwYXNz")];
        for fields in [&fields[..], &[]] {
            let answer = server.send(&format!("GET {target}"), fields, b"").await;
            assert_ne!(answer.status, 401);
            assert_eq!(answer.header("www-authenticate"), None, "{target}");
        }
    }
}

#[tokio::test]
async fn lesson_05_location_is_relative_whatever_a_proxy_says() {
    let server = Server::start().await;
    let fields = [
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "registry.example"),
        ("x-forwarded-port", "443"),
        ("forwarded", "host=registry.example;proto=https"),
    ];
    let answer = server.send("POST /v2/a/blobs/uploads/", &fields, b"").await.expect(202);
    let location = answer.header("location").unwrap().to_owned();
    assert!(location.starts_with("/v2/a/blobs/uploads/"), "{location}");
    let put = format!("PUT {location}?digest={}", Digest::sha256(b"x"));
    let answer = server.send(&put, &fields, b"x").await.expect(201);
    assert!(answer.header("location").unwrap().starts_with("/v2/a/blobs/sha256:"));
}

#[tokio::test]
async fn lesson_08_content_is_never_encoded() {
    let server = Server::start().await;
    let content = vec![7; 100_000];
    let digest = server.push_blob("enc", &content).await;
    let image = server.image("enc", "x").await;
    server.put_manifest("enc", "latest", &image).await.expect(201);
    for accept in ["gzip", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5", "br", "*", "identity;q=0"] {
        let fields = [("accept-encoding", accept)];
        let line = format!("GET /v2/enc/blobs/{digest}");
        let blob = server.send(&line, &fields, b"").await.expect(200);
        assert_eq!(blob.header("content-encoding"), None);
        assert!(blob.body == content);
        let manifest = server.send("GET /v2/enc/manifests/latest", &fields, b"").await.expect(200);
        assert_eq!(manifest.header("content-encoding"), None);
        assert_eq!(manifest.body, image.bytes);
    }
}

#[tokio::test]
async fn lesson_10_a_manifest_without_a_type_keeps_the_pushed_one() {
    let server = Server::start().await;
    let image = server.image("bare", "x").await;
    let mut document: Value = serde_json::from_slice(&image.bytes).unwrap();
    document.as_object_mut().unwrap().remove("mediaType");
    let bytes = document.to_string().into_bytes();
    for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
        let bare = Image { bytes: bytes.clone(), media_type };
        server.put_manifest("bare", "latest", &bare).await.expect(201);
        let answer = server.get("/v2/bare/manifests/latest").await.expect(200);
        assert_eq!(answer.header("content-type"), Some(media_type));
        assert_eq!(answer.body, bytes);
    }
}

#[tokio::test]
async fn lesson_12_a_sparse_index_is_accepted() {
    let server = Server::start().await;
    let here = server.image("idx", "x").await;
    let absent = Image { bytes: noise(100), media_type: OCI_MANIFEST };
    let index = Image::index(&[&here, &absent]);
    server.put_manifest("idx", &here.digest().to_string(), &here).await.expect(201);
    server.put_manifest("idx", "latest", &index).await.expect(201);
    let answer = server.get("/v2/idx/manifests/latest").await.expect(200);
    assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
    server.get(&format!("/v2/idx/manifests/{}", here.digest())).await.expect(200);
    server.get(&format!("/v2/idx/manifests/{}", absent.digest())).await.expect(404);
}

#[tokio::test]
async fn lesson_16_parameters_in_any_order() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"content");
    let encoded = digest.to_string().replace(':', "%3A");
    for query in [
        format!("_state=a%2Bb&digest={encoded}"),
        format!("digest={digest}&_state=x&account=me"),
        format!("ns=localhost%3A5000&digest={encoded}&digest={encoded}"),
        format!("dige%73t={digest}"),
    ] {
        let location = server.begin("order").await;
        server.put(&format!("{location}?{query}"), b"content").await.expect(201);
    }
    for query in [format!("from=order&mount={encoded}"), format!("mount={digest}&x=&from=ord%65r")]
    {
        server.post(&format!("/v2/to/blobs/uploads/?{query}"), b"").await.expect(201);
    }
}

#[tokio::test]
async fn lesson_18_signatures_pushed_at_once_are_all_listed() {
    let server = Server::start().await;
    let empty = server.push_blob("sig", b"{}").await;
    let subject = Digest::sha256(b"subject");
    let pushes = (0..16).map(|number| {
        let empty = json!({ "mediaType": EMPTY_JSON, "digest": empty, "size": 2 });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json",
            "config": empty,
            "layers": [empty],
            "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 },
            "annotations": { "number": number.to_string() },
        });
        let bytes = manifest.to_string().into_bytes();
        let server = &server;
        async move {
            let image = Image { bytes, media_type: OCI_MANIFEST };
            server.put_manifest("sig", &image.digest().to_string(), &image).await.expect(201);
        }
    });
    futures_util::future::join_all(pushes).await;
    let answer = server.get(&format!("/v2/sig/referrers/{subject}")).await.expect(200);
    let index: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 16);
}
