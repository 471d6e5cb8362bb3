//! Tags and manifests, true and false.

use ddr_oci::{Algorithm, Digest, MAX_MANIFEST_BYTES, media_type};
use ddr_upstream::{Found, Manifest, UpstreamError};

use crate::bed::{digest, repository, resolve, upstream};
use crate::server::{Reply, Server};

const BODY: &[u8] = br#"{"schemaVersion":2}"#;

fn manifest() -> Reply {
    Reply::ok(BODY).header("Content-Type", media_type::OCI_MANIFEST)
}

fn expected() -> Manifest {
    let digest = Digest::sha256(BODY);
    let media_type = media_type::OCI_MANIFEST.to_owned();
    Manifest { digest, media_type, bytes: BODY.into() }
}

#[tokio::test]
async fn a_tag_is_resolved_by_head_alone() {
    let server = Server::start(|_| crate::bed::found()).await;
    let found = resolve(&upstream(&server)).await.expect("an answer");
    assert_eq!(found, Some(Found { digest: digest(), manifest: None }));
    assert_eq!(server.lines(), ["HEAD /v2/team/app/manifests/latest"]);
    let seen = server.seen().remove(0);
    let accept = seen.header("accept").expect("accept");
    assert!(accept.contains(media_type::OCI_INDEX) && accept.contains(media_type::DOCKER_LIST));
    assert_eq!(seen.header("accept-encoding"), Some("identity"));
    assert_eq!(seen.header("user-agent"), Some(concat!("ddr/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(seen.authorization(), None);
}

#[tokio::test]
async fn where_head_says_nothing_the_manifest_is_read() {
    for head in [
        Reply::ok(BODY),
        Reply::ok(BODY).header("Docker-Content-Digest", "sha256:short"),
        Reply::new(405),
        Reply::new(501),
    ] {
        let server = Server::start(
            move |seen| {
                if seen.method == "HEAD" { head.clone() } else { manifest() }
            },
        )
        .await;
        let found = resolve(&upstream(&server)).await.expect("an answer").expect("a tag");
        let digest = Digest::sha256(BODY);
        assert_eq!(found, Found { digest, manifest: Some(expected()) });
    }
}

#[tokio::test]
async fn a_digest_stated_with_the_manifest_must_fit() {
    let stated = Digest::of(Algorithm::Sha512, BODY).to_string();
    for (stated, is_true) in [(stated.as_str(), true), (&digest().to_string(), false)] {
        let reply = manifest().header("Docker-Content-Digest", stated);
        let server =
            Server::start(
                move |seen| {
                    if seen.method == "HEAD" { Reply::new(405) } else { reply.clone() }
                },
            )
            .await;
        match resolve(&upstream(&server)).await {
            Ok(Some(found)) if is_true => assert_eq!(found.digest.to_string(), stated),
            Err(UpstreamError::Lied(_)) if !is_true => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn no_tag_is_no_error() {
    let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#;
    let server = Server::start(move |_| Reply::new(404).body(body)).await;
    let upstream = upstream(&server);
    assert_eq!(resolve(&upstream).await.expect("an answer"), None);
    assert_eq!(upstream.manifest(&repository(), &digest()).await.expect("an answer"), None);
}

#[tokio::test]
async fn a_manifest_has_its_digest() {
    let server = Server::start(|_| manifest()).await;
    let upstream = upstream(&server);
    let digest = Digest::sha256(BODY);
    let found = upstream.manifest(&repository(), &digest).await.expect("an answer");
    assert_eq!(found, Some(expected()));
    assert_eq!(server.lines(), [format!("GET /v2/team/app/manifests/{digest}")]);
    let other = upstream.manifest(&repository(), &Digest::sha256(b"other")).await;
    assert!(matches!(other, Err(UpstreamError::Lied(_))), "{other:?}");
}

#[tokio::test]
async fn a_manifest_is_read_up_to_its_limit() {
    for (len, announced) in [
        (MAX_MANIFEST_BYTES, true),
        (MAX_MANIFEST_BYTES + 1, true),
        (MAX_MANIFEST_BYTES, false),
        (MAX_MANIFEST_BYTES + 1, false),
    ] {
        let body = vec![b' '; len];
        let digest = Digest::sha256(&body);
        let reply = Reply::ok(&body).header("Content-Type", media_type::OCI_INDEX);
        let reply = if announced { reply } else { reply.length(None) };
        let server = Server::start(move |_| reply.clone()).await;
        let found = upstream(&server).manifest(&repository(), &digest).await;
        match found {
            Ok(Some(found)) => assert_eq!(found.bytes.len(), MAX_MANIFEST_BYTES),
            Err(UpstreamError::Failed(_)) => assert!(len > MAX_MANIFEST_BYTES),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn encoded_and_typeless_manifests_are_refused() {
    for reply in [manifest().header("Content-Encoding", "gzip"), Reply::ok(BODY)] {
        let server = Server::start(move |_| reply.clone()).await;
        let found = upstream(&server).manifest(&repository(), &Digest::sha256(BODY)).await;
        assert!(matches!(found, Err(UpstreamError::Failed(_))), "{found:?}");
    }
    let server = Server::start(|_| manifest().header("Content-Encoding", "identity")).await;
    let found = upstream(&server).manifest(&repository(), &Digest::sha256(BODY)).await;
    assert_eq!(found.expect("an answer"), Some(expected()));
}

#[tokio::test]
async fn statuses_become_errors() {
    for status in [400, 401, 403, 500, 503, 304] {
        let server = Server::start(move |_| Reply::new(status)).await;
        let error = resolve(&upstream(&server)).await.expect_err("an error");
        match error {
            UpstreamError::Denied(_) => assert!(matches!(status, 401 | 403)),
            UpstreamError::Failed(text) => assert!(text.contains(&status.to_string()), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}
