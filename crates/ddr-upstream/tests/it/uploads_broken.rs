//! Uploads that do not go as they should.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ddr_upstream::{Upstream, UpstreamError};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::bed::{digest, repository, upstream, with_password};
use crate::server::{After, Reply, Seen, Server};

/// What does not fit into the buffers between two ends of a connection, in bytes.
const LARGE: usize = 16 * 1024 * 1024;

type Body = BoxStream<'static, io::Result<Bytes>>;

/// A registry that has nothing; `put` answers the bytes.
fn taking(put: impl Fn() -> Reply + Send + Sync) -> impl Fn(&Seen) -> Reply + Send + Sync {
    move |seen| match seen.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).header("Location", "/upload?state=secret"),
        _ => put(),
    }
}

fn zeros(size: usize) -> Body {
    let chunk = Bytes::from_static(&[0; 64 * 1024]);
    stream::repeat_with(move || Ok(chunk.clone())).take(size / (64 * 1024)).boxed()
}

/// Two bytes, and then nothing for ever.
fn endless() -> Body {
    stream::iter([Ok(Bytes::from_static(b"bl"))]).chain(stream::pending()).boxed()
}

async fn put(upstream: &Upstream, size: usize, body: fn() -> Body) -> Result<(), UpstreamError> {
    upstream.put_blob(&repository(), &digest(), size as u64, body).await
}

fn count(server: &Server, method: &str) -> usize {
    server.lines().iter().filter(|line| line.starts_with(method)).count()
}

#[tokio::test]
async fn a_connection_that_ends_in_the_middle_is_said_and_tried_once_more() {
    let server = Server::start_impatient(1024, taking(|| Reply::nothing(After::Close))).await;
    let upstream = Upstream::new(with_password(&server)).expect("settings");
    let error = put(&upstream, LARGE, || zeros(LARGE)).await.expect_err("broken");
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!((count(&server, "POST"), count(&server, "PUT")), (2, 2));
}

#[tokio::test]
async fn an_answer_in_the_middle_counts() {
    for status in [403, 413, 507] {
        let reply = move || Reply::new(status).after(After::Hang);
        let server = Server::start_impatient(0, taking(reply)).await;
        let error = put(&upstream(&server), LARGE, endless).await.expect_err("refused");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(count(&server, "PUT"), 1, "a refusal is not tried again");
    }
}

#[tokio::test]
async fn a_refusal_to_begin_sends_no_byte() {
    for status in [400, 405, 507] {
        let server = Server::start(move |seen| match seen.method.as_str() {
            "HEAD" => Reply::new(404),
            _ => Reply::new(status).header("Location", "/upload"),
        })
        .await;
        put(&upstream(&server), 4, endless).await.expect_err("refused");
        assert_eq!((count(&server, "POST"), count(&server, "PUT")), (1, 0));
    }
}

#[tokio::test]
async fn other_answers_than_created_are_refusals() {
    for status in [200, 202, 204] {
        let server = Server::start(taking(move || Reply::new(status))).await;
        let body = || stream::iter([Ok(Bytes::from_static(b"blob"))]).boxed();
        let error = put(&upstream(&server), 4, body).await.expect_err("not created");
        assert!(matches!(error, UpstreamError::Failed(_)), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn a_body_that_fails_or_is_short_is_no_blob() {
    let failing: fn() -> Body = || stream::iter([Err(io::Error::other("disk"))]).boxed();
    let short: fn() -> Body = || stream::iter([Ok(Bytes::from_static(b"bl"))]).boxed();
    for body in [failing, short] {
        let finished = std::sync::Arc::new(AtomicUsize::new(0));
        let puts = finished.clone();
        let server = Server::start(taking(move || {
            puts.fetch_add(1, Ordering::Relaxed);
            Reply::new(201)
        }))
        .await;
        put(&upstream(&server), 4, body).await.expect_err("no blob");
        assert_eq!(finished.load(Ordering::Relaxed), 0, "no request came to its end");
    }
}

#[tokio::test]
async fn an_empty_blob_is_one() {
    let server = Server::start(taking(|| Reply::new(201))).await;
    put(&upstream(&server), 0, || stream::empty().boxed()).await.expect("taken");
    let seen = server.seen();
    for (at, method) in [(1, "POST"), (2, "PUT")] {
        assert_eq!(seen[at].method, method);
        // Some answer 411 without.
        assert_eq!(seen[at].header("content-length"), Some("0"), "{method}");
        assert_eq!(seen[at].header("transfer-encoding"), None, "{method}");
    }
}

#[tokio::test]
async fn a_large_blob_goes_in_parts_as_it_is_read() {
    let server = Server::start(taking(|| Reply::new(201))).await;
    put(&upstream(&server), LARGE, || zeros(LARGE)).await.expect("taken");
    let last = server.seen().pop().expect("requests");
    assert_eq!((last.method.as_str(), last.body.len()), ("PUT", LARGE));
}
