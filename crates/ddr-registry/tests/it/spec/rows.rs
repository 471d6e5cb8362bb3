//! Rows, rules and traps that no other file holds.

use ddr_oci::digest::{Algorithm, Digest};
use ddr_oci::media_type::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use ddr_registry::Limits;
use serde_json::json;

use crate::node::TestNode;
use crate::server::{Image, Server, noise};

#[tokio::test]
async fn end_04c_the_algorithm_is_a_hint() {
    let server = Server::start().await;
    let content = noise(50_000);
    for hint in ["?digest-algorithm=sha512", "?digest-algorithm=sha256", ""] {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, &content);
            let name = format!("a{}/b{}", hint.len(), algorithm.name());
            let post = server.post(&format!("/v2/{name}/blobs/uploads/{hint}"), b"").await;
            let location = post.expect(202).header("location").unwrap().to_owned();
            server.send(&format!("PATCH {location}"), &[], &content[..20_000]).await.expect(202);
            let put = format!("{location}?digest={digest}");
            let answer = server.put(&put, &content[20_000..]).await.expect(201);
            assert_eq!(answer.header("docker-content-digest"), Some(&*digest.to_string()));
            let blob = server.get(answer.header("location").unwrap()).await.expect(200);
            assert!(blob.body == content);
        }
    }
    let unknown = "/v2/a/blobs/uploads/?digest-algorithm=md5";
    server.post(unknown, b"").await.expect_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn end_08_n_of_any_size() {
    let server = Server::start().await;
    let image = server.image("team/app", "x").await;
    for tag in ["a", "b"] {
        server.put_manifest("team/app", tag, &image).await.expect(201);
    }
    for (list, key, all) in [
        ("/v2/team/app/tags/list", "tags", json!(["a", "b"])),
        ("/v2/_catalog", "repositories", json!(["team/app"])),
    ] {
        for n in ["1000000000000", "18446744073709551615", "99999999999999999999999999"] {
            let answer = server.get(&format!("{list}?n={n}")).await.expect(200);
            assert_eq!(answer.json()[key], all, "{list} {n}");
            assert_eq!(answer.header("link"), None);
        }
        let answer = server.get(&format!("{list}?n=0")).await.expect(200);
        assert_eq!(answer.json()[key], json!([]));
        assert_eq!(answer.header("link"), None);
        server.get(&format!("{list}?n=-1")).await.expect_error(400, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn rule_foreign_layers_are_not_demanded() {
    let limits = ddr_node::Limits { require_blobs: true, ..ddr_node::Limits::default() };
    let server = Server::around(TestNode::start_with(limits).await, Limits::default()).await;
    let config = server.push_blob("win", b"{}").await;
    let foreign = |media_type: &str| {
        json!({
            "mediaType": media_type,
            "digest": Digest::sha256(media_type.as_bytes()),
            "size": 1000,
            "urls": ["https://layers.example/base"],
        })
    };
    let manifest = |layer| {
        let config = json!({ "mediaType": OCI_CONFIG, "digest": config, "size": 2 });
        let document = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]
        });
        Image { bytes: document.to_string().into_bytes(), media_type: OCI_MANIFEST }
    };
    for (tag, media_type) in [
        ("oci", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        ("docker", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
    ] {
        let image = manifest(foreign(media_type));
        let answer = server.put_manifest("win", tag, &image).await.expect(201);
        assert_eq!(answer.header("warning"), None);
    }
    let own = manifest(foreign(OCI_LAYER));
    server.put_manifest("win", "own", &own).await.expect_error(404, "MANIFEST_BLOB_UNKNOWN");
}

#[tokio::test]
async fn trap_e_every_location_after_201_can_be_fetched() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"content");
    let location = server.begin("loc").await;
    let image = server.image("loc", "x").await;
    let created = [
        server.put(&format!("{location}?digest={digest}"), b"content").await,
        server.post(&format!("/v2/loc/one/blobs/uploads/?digest={digest}"), b"content").await,
        server.post(&format!("/v2/loc/two/blobs/uploads/?mount={digest}&from=loc"), b"").await,
        server.post(&format!("/v2/loc/three/blobs/uploads/?mount={digest}"), b"").await,
        server.put_manifest("loc", "tag", &image).await,
        server.put_manifest("loc", &format!("{}?tag=x", image.digest()), &image).await,
    ];
    for answer in created {
        assert_eq!(answer.status, 201, "{answer:?}");
        let fetched = server.get(answer.header("location").unwrap()).await.expect(200);
        let digest = answer.header("docker-content-digest").unwrap();
        assert_eq!(Digest::sha256(&fetched.body).to_string(), digest);
    }
}
