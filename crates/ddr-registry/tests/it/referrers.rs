//! end-12a, end-12b, and the subject of end-7a.

use ddr_oci::digest::Digest;
use ddr_oci::media_type::{EMPTY_JSON, OCI_INDEX, OCI_MANIFEST};
use serde_json::{Value, json};

use crate::client::Answer;
use crate::server::{Image, Server};

fn manifests(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(OCI_INDEX));
    let index: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    assert_eq!(index["mediaType"], OCI_INDEX);
    index["manifests"].as_array().expect("manifests is a list").clone()
}

async fn artifact(server: &Server, name: &str, kind: &str, subject: Digest) -> Image {
    let empty = server.push_blob(name, b"{}").await;
    let empty = json!({ "mediaType": EMPTY_JSON, "digest": empty, "size": 2 });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": empty,
        "layers": [empty],
        "subject": { "mediaType": OCI_MANIFEST, "digest": subject, "size": 7 },
        "annotations": { "made.for": "a test" },
    });
    Image { bytes: manifest.to_string().into_bytes(), media_type: OCI_MANIFEST }
}

#[tokio::test]
async fn an_unknown_subject_has_an_empty_list() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"unknown");
    let answer = server.get(&format!("/v2/nowhere/referrers/{digest}")).await;
    assert!(manifests(&answer).is_empty());
    assert_eq!(answer.header("oci-filters-applied"), None);
    server.get("/v2/nowhere/referrers/sha256:zz").await.expect_error(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn referrers_are_listed_and_filtered_and_go_with_their_manifest() {
    let server = Server::start().await;
    // The subject need not exist.
    let subject = Digest::sha256(b"subject");
    let signature = artifact(&server, "art", "text/signature", subject).await;
    let sbom = artifact(&server, "art", "text/sbom+json", subject).await;
    for image in [&signature, &sbom] {
        let reference = image.digest().to_string();
        let answer = server.put_manifest("art", &reference, image).await.expect(201);
        assert_eq!(answer.header("oci-subject"), Some(subject.to_string().as_str()));
    }
    let list = format!("/v2/art/referrers/{subject}");
    assert_eq!(manifests(&server.get(&list).await).len(), 2);

    let answer = server.get(&format!("{list}?artifactType=text%2Fsbom%2Bjson")).await;
    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
    let found = manifests(&answer);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["digest"], sbom.digest().to_string());
    assert_eq!(found[0]["size"], sbom.bytes.len());
    assert_eq!(found[0]["mediaType"], OCI_MANIFEST);
    assert_eq!(found[0]["artifactType"], "text/sbom+json");
    assert_eq!(found[0]["annotations"]["made.for"], "a test");

    let answer = server.get(&format!("{list}?artifactType=none/such")).await;
    assert_eq!(answer.header("oci-filters-applied"), Some("artifactType"));
    assert!(manifests(&answer).is_empty());

    server.delete(&format!("/v2/art/manifests/{}", sbom.digest())).await.expect(202);
    let found = manifests(&server.get(&list).await);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["digest"], signature.digest().to_string());
}
