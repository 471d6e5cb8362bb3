//! Blobs: sizes, parts, and bodies that are not what their head says.

use ddr_upstream::UpstreamError;

use crate::bed::{collect, digest, repository, upstream};
use crate::server::{After, Reply, Server};

const BODY: &[u8] = b"0123456789";

fn part(range: &str, body: &[u8]) -> Reply {
    Reply::new(206).header("Content-Range", &format!("bytes {range}")).body(body)
}

async fn size(handler: impl Fn(&str) -> Reply + Send + Sync + 'static) -> (String, Vec<String>) {
    let server = Server::start(move |seen| handler(&seen.method)).await;
    let size = upstream(&server).blob_size(&repository(), &digest()).await;
    let ranges =
        server.seen().iter().filter_map(|seen| seen.header("range").map(str::to_owned)).collect();
    (format!("{size:?}"), ranges)
}

#[tokio::test]
async fn the_size_comes_from_head() {
    let (size, ranges) = size(|_| Reply::ok(BODY)).await;
    assert_eq!((size.as_str(), ranges.len()), ("Ok(Some(10))", 0));
}

#[tokio::test]
async fn the_size_comes_from_the_first_byte_where_head_has_none() {
    for (head, get, expected) in [
        (Reply::new(200).length(None), part("0-0/10", b"0"), "Ok(Some(10))"),
        (Reply::new(200).length(None), Reply::ok(BODY), "Ok(Some(10))"),
        (Reply::new(405), part("0-0/10", b"0"), "Ok(Some(10))"),
        (
            Reply::new(200).length(None),
            Reply::new(416).header("Content-Range", "bytes */0"),
            "Ok(Some(0))",
        ),
        (Reply::new(405), Reply::new(404), "Ok(None)"),
    ] {
        let handler = move |method: &str| if method == "HEAD" { head.clone() } else { get.clone() };
        let (size, ranges) = size(handler).await;
        assert_eq!(size, expected);
        assert_eq!(ranges, ["bytes=0-0"]);
    }
}

#[tokio::test]
async fn no_blob_has_no_size() {
    let server = Server::start(|_| Reply::new(404)).await;
    let upstream = upstream(&server);
    assert_eq!(upstream.blob_size(&repository(), &digest()).await.expect("an answer"), None);
    assert!(upstream.blob(&repository(), &digest(), 0).await.expect("an answer").is_none());
    let expected = ["HEAD", "GET"].map(|m| format!("{m} /v2/team/app/blobs/{}", digest()));
    assert_eq!(server.lines(), expected);
}

/// Start, size and bytes of the blob as `reply` gives it from `start` on.
async fn blob(reply: Reply, start: u64) -> Result<(u64, u64, Vec<u8>), (Vec<u8>, UpstreamError)> {
    let server = Server::start(move |_| reply.clone()).await;
    let blob = upstream(&server).blob(&repository(), &digest(), start).await;
    let blob = blob.map_err(|error| (vec![], error))?.expect("a blob");
    let asked = server.seen().remove(0);
    let expected = (start > 0).then(|| format!("bytes={start}-"));
    assert_eq!(asked.header("range"), expected.as_deref());
    let (start, size) = (blob.start, blob.size);
    Ok((start, size, collect(blob).await?))
}

#[tokio::test]
async fn a_blob_arrives_whole_or_from_a_byte_on() {
    assert_eq!(blob(Reply::ok(BODY), 0).await.expect("whole"), (0, 10, BODY.to_vec()));
    let rest = blob(part("4-9/10", &BODY[4..]), 4).await.expect("a part");
    assert_eq!(rest, (4, 10, BODY[4..].to_vec()));
    assert_eq!(blob(Reply::ok(""), 0).await.expect("empty"), (0, 0, vec![]));
    // No length, but a range: the size is known nevertheless.
    let rest = blob(part("4-9/10", &BODY[4..]).length(None), 4).await.expect("a part");
    assert_eq!(rest, (4, 10, BODY[4..].to_vec()));
}

#[tokio::test]
async fn a_server_that_ignores_ranges_sends_all() {
    assert_eq!(blob(Reply::ok(BODY), 4).await.expect("whole"), (0, 10, BODY.to_vec()));
}

#[tokio::test]
async fn other_parts_than_asked_for_are_lies() {
    for reply in [part("5-9/10", &BODY[5..]), part("0-9/10", BODY), part("4-9/10", &BODY[5..])] {
        let (_, error) = blob(reply, 4).await.expect_err("refused");
        assert!(matches!(error, UpstreamError::Lied(_)), "{error:?}");
    }
}

#[tokio::test]
async fn bodies_of_unknown_extent_are_refused() {
    for (reply, start) in [
        (Reply::ok(BODY).length(None), 0),
        (Reply::ok(BODY).header("Content-Encoding", "gzip"), 0),
        (Reply::new(206).body(BODY), 4),
        (part("4-9/*", &BODY[4..]), 4),
        (part("*/10", &BODY[4..]), 4),
        (Reply::new(416), 40),
    ] {
        let (_, error) = blob(reply, start).await.expect_err("refused");
        assert!(matches!(error, UpstreamError::Failed(_)), "{error:?}");
    }
}

#[tokio::test]
async fn short_bodies_end_with_an_error() {
    let close = |reply: Reply| reply.after(After::Close);
    for (reply, start, arrived) in [
        (close(Reply::ok(BODY).length(Some(11))), 0, BODY),
        (close(part("4-9/10", &BODY[4..9]).length(Some(6))), 4, &BODY[4..9]),
        (part("4-9/10", &BODY[4..9]).length(None), 4, &BODY[4..9]),
        // An honest part that is not the rest.
        (part("4-5/10", &BODY[4..6]), 4, &BODY[4..6]),
    ] {
        let (bytes, error) = blob(reply, start).await.expect_err("short");
        assert_eq!(bytes, arrived);
        assert!(matches!(&error, UpstreamError::Unreachable(t) if t.contains("early")), "{error}");
    }
}

#[tokio::test]
async fn long_bodies_are_lies() {
    let reply = part("4-9/10", b"456789more").length(None);
    let (_, error) = blob(reply, 4).await.expect_err("long");
    assert!(matches!(error, UpstreamError::Lied(_)), "{error:?}");
    // Beyond the announced length nothing is read.
    let long = Reply::ok("0123456789more").length(Some(10)).after(After::Close);
    assert_eq!(blob(long, 0).await.expect("cut"), (0, 10, BODY.to_vec()));
}

#[tokio::test]
async fn a_connection_that_broke_before_an_answer_is_tried_once_more() {
    for (broken, expected) in [(1, true), (2, false)] {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::start(move |_| {
            let before = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if before < broken { Reply::nothing(After::Close) } else { Reply::ok(BODY) }
        })
        .await;
        let blob = upstream(&server).blob(&repository(), &digest(), 0).await;
        assert_eq!(blob.is_ok(), expected, "{blob:?}");
        assert_eq!(server.lines().len(), 2);
    }
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    // The listener is gone with the block.
    let port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let settings = crate::bed::settings(&format!("http://127.0.0.1:{port}"));
    let upstream = ddr_upstream::Upstream::new(settings).expect("settings");
    let error = upstream.blob_size(&repository(), &digest()).await.expect_err("nobody");
    let UpstreamError::Unreachable(text) = error else { panic!("{error:?}") };
    assert!(text.starts_with("127.0.0.1 cannot be reached: "), "{text}");
}
