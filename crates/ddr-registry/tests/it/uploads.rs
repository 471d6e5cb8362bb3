//! end-4a, end-4b, end-6, end-11, end-13, end-14: sessions and whole blobs.

use ddr_oci::digest::Digest;

use crate::client::Answer;
use crate::server::{Server, noise};

#[tokio::test]
async fn a_session_begins_empty_at_a_relative_location() {
    let server = Server::start().await;
    let answer = server.post("/v2/team/app/blobs/uploads/", b"").await.expect(202);
    let location = answer.header("location").unwrap();
    let id = answer.header("docker-upload-uuid").unwrap();
    assert_eq!(location, format!("/v2/team/app/blobs/uploads/{id}"));
    assert_eq!(answer.header("range"), Some("0-0"));
    assert_eq!(answer.header("content-length"), Some("0"));

    let status = server.get(location).await.expect(204);
    assert_eq!(status.header("location"), Some(location));
    assert_eq!(status.header("range"), Some("0-0"));
    assert_eq!(status.header("docker-upload-uuid"), Some(id));
}

#[tokio::test]
async fn post_then_put_with_the_whole_blob() {
    let server = Server::start().await;
    let content = noise(1_500_000);
    let digest = Digest::sha256(&content);
    let location = server.begin("a/b").await;
    let answer = server.put(&format!("{location}?digest={digest}"), &content).await;
    expect_created(&answer, "a/b", &digest);
    let answer = server.get(answer.header("location").unwrap()).await.expect(200);
    assert!(answer.body == content);
    server.get(&location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn post_with_the_digest_takes_the_whole_blob() {
    let server = Server::start().await;
    let content = noise(2_000_000);
    let digest = Digest::sha256(&content);
    let encoded = digest.to_string().replace(':', "%3A");
    let target = format!("/v2/one/blobs/uploads/?digest={encoded}");
    let answer = server.post(&target, &content).await;
    expect_created(&answer, "one", &digest);
    assert!(server.get(answer.header("location").unwrap()).await.body == content);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_in_every_form() {
    let server = Server::start().await;
    let wrong = Digest::sha256(b"something else");
    let post = server.post(&format!("/v2/w/blobs/uploads/?digest={wrong}"), b"content").await;
    post.expect_error(400, "DIGEST_INVALID");
    let location = server.begin("w").await;
    let put = server.put(&format!("{location}?digest={wrong}"), b"content").await;
    put.expect_error(400, "DIGEST_INVALID");
    let location = server.begin("w").await;
    server.send(&format!("PATCH {location}"), &[], b"content").await.expect(202);
    let put = server.put(&format!("{location}?digest={wrong}"), b"").await;
    put.expect_error(400, "DIGEST_INVALID");
    server.get(&format!("/v2/w/blobs/{wrong}")).await.expect_error(404, "BLOB_UNKNOWN");
    server.get(&format!("/v2/w/blobs/{}", Digest::sha256(b"content"))).await.expect(404);
}

#[tokio::test]
async fn a_malformed_or_missing_digest_is_refused_and_the_session_stays() {
    let server = Server::start().await;
    let location = server.begin("m").await;
    for query in ["", "?digest=", "?digest=sha256:zz", "?digest=md5:00", "?digest=%zz"] {
        let answer = server.put(&format!("{location}{query}"), b"content").await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.json()["errors"][0]["code"].is_string());
    }
    let answer = server.post("/v2/m/blobs/uploads/?digest=sha256:zz", b"content").await;
    answer.expect_error(400, "DIGEST_INVALID");
    assert_eq!(server.get(&location).await.expect(204).header("range"), Some("0-0"));
}

#[tokio::test]
async fn a_cancelled_session_is_gone() {
    let server = Server::start().await;
    let location = server.begin("c").await;
    server.send(&format!("PATCH {location}"), &[], b"content").await.expect(202);
    server.delete(&location).await.expect(204);
    server.get(&location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    server.delete(&location).await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn an_unknown_session_is_404_for_every_method() {
    let server = Server::start().await;
    let digest = Digest::sha256(b"");
    let real = server.begin("mine").await;
    let foreign = real.replace("/mine/", "/theirs/");
    for location in ["/v2/x/blobs/uploads/unknown", "/v2/x/blobs/uploads/..", &foreign] {
        for line in [
            format!("GET {location}"),
            format!("PATCH {location}"),
            format!("PUT {location}?digest={digest}"),
            format!("DELETE {location}"),
        ] {
            let answer = server.send(&line, &[], b"").await;
            answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
    }
    server.get(&real).await.expect(204);
}

#[tokio::test]
async fn a_known_blob_is_mounted() {
    let server = Server::start().await;
    let digest = server.push_blob("from/here", b"content").await;
    let mount = |name: &str| format!("/v2/{name}/blobs/uploads/?mount={digest}");
    let answer = server.post(&(mount("to/a") + "&from=from%2Fhere"), b"").await;
    expect_created(&answer, "to/a", &digest);
    assert_eq!(server.get(&format!("/v2/to/a/blobs/{digest}")).await.body, b"content");
    let encoded = mount("to/b").replace("sha256:", "sha256%3A");
    let answer = server.post(&format!("{encoded}&from=from/here&origin=x"), b"").await;
    expect_created(&answer, "to/b", &digest);
}

#[tokio::test]
async fn a_mount_without_from_finds_the_blob_itself() {
    let server = Server::start().await;
    let digest = server.push_blob("from/here", b"content").await;
    for query in [format!("mount={digest}"), format!("from=&mount={digest}")] {
        let answer = server.post(&format!("/v2/to/c/blobs/uploads/?{query}"), b"").await;
        expect_created(&answer, "to/c", &digest);
        assert_eq!(server.get(&format!("/v2/to/c/blobs/{digest}")).await.body, b"content");
        server.delete(&format!("/v2/to/c/blobs/{digest}")).await.expect(202);
    }
    // What nobody has any more cannot be mounted, whoever names it.
    let image = server.image("names", "x").await;
    let manifest: serde_json::Value = serde_json::from_slice(&image.bytes).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    server.put_manifest("names", "latest", &image).await.expect(201);
    server.delete(&format!("/v2/names/blobs/{layer}")).await.expect(202);
    let answer = server.post(&format!("/v2/to/c/blobs/uploads/?mount={layer}"), b"").await;
    expect_session(&answer, "to/c");
}

#[tokio::test]
async fn a_mount_that_cannot_be_becomes_an_upload() {
    let server = Server::start().await;
    let digest = server.push_blob("from/here", b"content").await;
    let absent = Digest::sha256(b"absent");
    for query in [
        format!("mount={absent}&from=from/here"),
        format!("mount={absent}"),
        format!("mount={digest}&from=not/there"),
    ] {
        let answer = server.post(&format!("/v2/to/d/blobs/uploads/?{query}"), b"").await;
        expect_session(&answer, "to/d");
        server.delete(answer.header("location").unwrap()).await.expect(204);
    }
    server.get(&format!("/v2/to/d/blobs/{digest}")).await.expect(404);
}

fn expect_session(answer: &Answer, name: &str) {
    assert_eq!(answer.status, 202);
    let location = answer.header("location").unwrap();
    assert!(location.starts_with(&format!("/v2/{name}/blobs/uploads/")), "{location}");
    assert_eq!(answer.header("range"), Some("0-0"));
}

#[track_caller]
fn expect_created(answer: &Answer, name: &str, digest: &Digest) {
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    let location = format!("/v2/{name}/blobs/{digest}");
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
    assert_eq!(answer.header("content-length"), Some("0"));
}
