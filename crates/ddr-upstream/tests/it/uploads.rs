//! What is put into a registry and deleted there.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ddr_oci::{Digest, Reference};
use ddr_upstream::{Upstream, UpstreamError};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use crate::bed::{BASIC, collect, digest, repository, settings, upstream, with_password};
use crate::server::{After, Reply, Seen, Server};

const BLOB: &[u8] = b"blob";

fn body() -> BoxStream<'static, io::Result<Bytes>> {
    let parts = [&BLOB[..2], &BLOB[2..]].map(|part| Ok(Bytes::from_static(part)));
    futures_util::stream::iter(parts).boxed()
}

async fn put(upstream: &Upstream) -> Result<(), UpstreamError> {
    upstream.put_blob(&repository(), &digest(), BLOB.len() as u64, body).await
}

/// One that has nothing, and takes an upload at `location`.
fn takes(location: &'static str) -> impl Fn(&Seen) -> Reply + Send + Sync {
    move |seen| match seen.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).header("Location", location),
        _ => Reply::new(201),
    }
}

#[tokio::test]
async fn a_blob_goes_in_one_request_to_where_the_registry_says() {
    let put_path = format!("digest={}", digest().to_string().replace(':', "%3A"));
    for (location, path) in [
        ("/v2/team/app/blobs/uploads/1?_state=a%3D", "/v2/team/app/blobs/uploads/1?_state=a%3D&"),
        ("/v2/team/app/blobs/uploads/1", "/v2/team/app/blobs/uploads/1?"),
        ("1", "/v2/team/app/blobs/uploads/1?"),
    ] {
        let server = Server::start(takes(location)).await;
        put(&upstream(&server)).await.expect("it is taken");
        let lines = server.lines();
        assert_eq!(lines[1], "POST /v2/team/app/blobs/uploads/");
        assert_eq!(lines[2], format!("PUT {path}{put_path}"));
        let seen = &server.seen()[2];
        assert_eq!(seen.body.as_bytes(), BLOB);
        assert_eq!(seen.header("content-length"), Some("4"));
        assert_eq!(seen.header("content-type"), Some("application/octet-stream"));
    }
}

#[tokio::test]
async fn what_is_there_is_not_sent() {
    let server = Server::start(|_| Reply::ok("blob")).await;
    put(&upstream(&server)).await.expect("it is there");
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn an_upload_goes_to_no_other_host() {
    for location in ["http://other.example/upload", "https://127.0.0.1/upload", "http://[::1]/x"] {
        let server = Server::start(takes(location)).await;
        let refused = put(&upstream(&server)).await;
        assert!(matches!(refused, Err(UpstreamError::Forbidden(_))), "{location}: {refused:?}");
        assert_eq!(server.lines().len(), 2);
    }
    let server = Server::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::new(404),
        _ => Reply::redirect("/v2/elsewhere"),
    });
    let refused = put(&upstream(&server.await)).await;
    assert!(matches!(refused, Err(UpstreamError::Failed(_))), "{refused:?}");
}

#[tokio::test]
async fn an_upload_whose_connection_breaks_begins_again_once() {
    let puts = AtomicUsize::new(0);
    let server = Server::start(move |seen| match seen.method.as_str() {
        "PUT" if puts.fetch_add(1, Ordering::Relaxed) == 0 => Reply::nothing(After::Close),
        _ => takes("/upload")(seen),
    })
    .await;
    put(&upstream(&server)).await.expect("the second goes through");
    let methods: Vec<String> = server.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT", "POST", "PUT"]);
    let server = Server::start(|seen| match seen.method.as_str() {
        "PUT" => Reply::nothing(After::Close),
        _ => takes("/upload")(seen),
    })
    .await;
    let broken = put(&upstream(&server)).await;
    assert!(matches!(broken, Err(UpstreamError::Unreachable(_))), "{broken:?}");
    assert_eq!(server.lines().iter().filter(|line| line.starts_with("PUT")).count(), 2);
}

#[tokio::test]
async fn a_refusal_is_told_apart() {
    type Is = fn(&UpstreamError) -> bool;
    let cases: [(u16, Is); 5] = [
        (401, |error| matches!(error, UpstreamError::Denied(_))),
        (403, |error| matches!(error, UpstreamError::Denied(_))),
        (405, |error| matches!(error, UpstreamError::Unsupported(_))),
        (413, |error| matches!(error, UpstreamError::Failed(_))),
        (507, |error| matches!(error, UpstreamError::Failed(_))),
    ];
    for (status, is_it) in cases {
        let server = Server::start(move |seen| match seen.method.as_str() {
            "PUT" | "DELETE" => Reply::new(status),
            _ => takes("/upload")(seen),
        })
        .await;
        let upstream = upstream(&server);
        let manifest = Reference::Digest(Digest::sha256(b"{}"));
        let deleted = upstream.delete_manifest(&repository(), &manifest).await;
        assert!(is_it(&deleted.expect_err("refused")), "{status}");
        let bytes = Bytes::from_static(b"{}");
        let refused = upstream.put_manifest(&repository(), &manifest, "a/b", bytes).await;
        assert!(is_it(&refused.expect_err("refused")), "{status}");
        let error = put(&upstream).await.expect_err("refused");
        assert!(is_it(&error), "{status}: {error}");
    }
}

#[tokio::test]
async fn a_manifest_that_it_never_takes_is_told_apart() {
    for status in [400, 405, 415, 422] {
        let server = Server::start(move |_| Reply::new(status)).await;
        let manifest = Reference::Digest(Digest::sha256(b"{}"));
        let bytes = Bytes::from_static(b"{}");
        let refused = upstream(&server).put_manifest(&repository(), &manifest, "a/b", bytes).await;
        assert!(matches!(refused, Err(UpstreamError::Unsupported(_))), "{status}: {refused:?}");
    }
}

#[tokio::test]
async fn a_manifest_is_put_under_its_name_and_deleted() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "PUT" => Reply::new(201),
        "DELETE" if seen.path.ends_with("/gone") => Reply::new(404),
        _ => Reply::new(202),
    })
    .await;
    let upstream = upstream(&server);
    let tag = |text: &str| Reference::Tag(text.parse().expect("a tag"));
    let bytes = Bytes::from_static(b"{}");
    upstream.put_manifest(&repository(), &tag("1.0"), "a/b+json", bytes).await.expect("taken");
    assert_eq!(upstream.delete_manifest(&repository(), &tag("1.0")).await.ok(), Some(true));
    assert_eq!(upstream.delete_manifest(&repository(), &tag("gone")).await.ok(), Some(false));
    let seen = server.seen();
    assert_eq!(seen[0].path, "/v2/team/app/manifests/1.0");
    assert_eq!((seen[0].header("content-type"), seen[0].body.as_str()), (Some("a/b+json"), "{}"));
}

#[tokio::test]
async fn one_that_deletes_nothing_says_so_in_three_ways() {
    for status in [400, 405, 501] {
        let server = Server::start(move |_| Reply::new(status)).await;
        let tag = Reference::Tag("1.0".parse().expect("a tag"));
        let error = upstream(&server).delete_manifest(&repository(), &tag).await;
        let error = error.expect_err("not deleted");
        assert!(matches!(error, UpstreamError::Unsupported(_)), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn tokens_are_asked_for_with_the_right_to_write() {
    let server = Server::start(|seen| {
        let base = &seen.base;
        if seen.path.starts_with("/token") {
            return Reply::ok(r#"{"token":"t"}"#);
        }
        match seen.authorization() {
            Some("Bearer t") => takes("/upload")(seen),
            _ => Reply::challenge(&format!("Bearer realm=\"{base}/token\",service=\"s\"")),
        }
    })
    .await;
    put(&upstream(&server)).await.expect("taken");
    let lines = server.lines();
    let asked: Vec<&String> = lines.iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(asked.len(), 2, "{lines:?}");
    assert!(asked[0].ends_with("scope=repository%3Ateam%2Fapp%3Apull"), "{asked:?}");
    assert!(asked[1].ends_with("scope=repository%3Ateam%2Fapp%3Apull%2Cpush"), "{asked:?}");
}

#[tokio::test]
async fn a_password_is_shown_with_the_bytes() {
    let server = Server::start(|seen| match seen.authorization() {
        Some(BASIC) => takes("/upload")(seen),
        _ => Reply::challenge("Basic realm=\"x\""),
    })
    .await;
    put(&Upstream::new(with_password(&server)).expect("settings")).await.expect("taken");
    let last = server.seen().pop().expect("requests");
    assert_eq!((last.method.as_str(), last.authorization()), ("PUT", Some(BASIC)));
}

#[tokio::test]
async fn repositories_come_in_pages() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/v2/_catalog?n=2" => {
            let body = r#"{"repositories":["a","No Name"]}"#;
            Reply::ok(body).header("Link", "</v2/_catalog?last=No+Name&n=2>; rel=\"next\"")
        }
        "/v2/_catalog?n=2&last=No+Name" => Reply::ok(r#"{"repositories":["z"]}"#),
        _ => Reply::new(404),
    })
    .await;
    let upstream = Upstream::new(settings(&server.base())).expect("settings");
    let first = upstream.catalog(None, 2).await.expect("a page");
    assert_eq!((first.repositories.len(), first.last.as_deref()), (1, Some("No Name")));
    let second = upstream.catalog(first.last.as_deref(), 2).await.expect("a page");
    assert_eq!((second.repositories[0].as_str(), second.last), ("z", None));
    let none = upstream.catalog(None, 3).await;
    assert!(matches!(none, Err(UpstreamError::Unsupported(_))), "{none:?}");
}

#[tokio::test]
async fn a_part_of_a_blob_is_all_that_is_asked_for() {
    let server = Server::start(|seen| match seen.header("range") {
        Some("bytes=1-2") => Reply::new(206).body("lo").header("Content-Range", "bytes 1-2/4"),
        _ => Reply::ok("blob"),
    })
    .await;
    let upstream = upstream(&server);
    let part = upstream.blob_part(&repository(), &digest(), 1..3).await;
    let part = part.expect("an answer").expect("a part");
    assert_eq!((part.start, part.size), (1, 4));
    assert_eq!(collect(part).await.expect("bytes"), b"lo");
    let whole = upstream.blob_part(&repository(), &digest(), 0..2).await;
    let whole = whole.expect("an answer").expect("a body");
    assert_eq!((whole.start, whole.size), (0, 4));
    assert_eq!(collect(whole).await.expect("bytes"), BLOB);
}
