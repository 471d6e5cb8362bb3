//! Parts of blobs, from registries that do not keep to the range.

use std::ops::Range;

use ddr_upstream::{BlobBody, UpstreamError};

use crate::bed::{collect, digest, repository, upstream};
use crate::server::{Reply, Server};

fn part(range: &str, body: &str) -> Reply {
    Reply::new(206).header("Content-Range", &format!("bytes {range}")).body(body)
}

async fn ask(reply: Reply, part: Range<u64>) -> Result<Option<BlobBody>, UpstreamError> {
    let server = Server::start(move |_| reply.clone()).await;
    let body = upstream(&server).blob_part(&repository(), &digest(), part.clone()).await;
    let range = format!("bytes={}-{}", part.start, part.end - 1);
    assert_eq!(server.seen()[0].header("range"), Some(range.as_str()));
    body
}

#[tokio::test]
async fn no_blob_has_no_part() {
    assert!(ask(Reply::new(404), 2..4).await.expect("an answer").is_none());
}

#[tokio::test]
async fn a_part_past_the_end_ends_there() {
    let body = ask(part("8-9/10", "89"), 8..20).await.expect("an answer").expect("a part");
    assert_eq!((body.start, body.size), (8, 10));
    assert_eq!(collect(body).await.expect("bytes"), b"89");
    let error = ask(Reply::new(416), 10..20).await.expect_err("nothing there");
    assert!(matches!(error, UpstreamError::Failed(_)), "{error:?}");
}

#[tokio::test]
async fn a_part_that_begins_elsewhere_or_has_another_length_is_a_lie() {
    for reply in [part("3-4/10", "34"), part("2-4/10", "23"), part("2-3/10", "234")] {
        let error = ask(reply, 2..4).await.expect_err("refused");
        assert!(matches!(error, UpstreamError::Lied(_)), "{error:?}");
    }
}

#[tokio::test]
async fn no_byte_beyond_the_part_is_passed_on() {
    let body = ask(part("2-5/10", "2345"), 2..4).await.expect("an answer").expect("a part");
    let (bytes, error) = collect(body).await.expect_err("too long");
    assert!(bytes.len() <= 2, "{bytes:?}");
    assert!(matches!(error, UpstreamError::Lied(_)), "{error:?}");
}

#[tokio::test]
async fn a_shorter_part_than_asked_for_ends_with_an_error() {
    let body = ask(part("2-3/10", "23"), 2..6).await.expect("an answer").expect("a part");
    let (bytes, error) = collect(body).await.expect_err("short");
    assert_eq!(bytes, b"23");
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error:?}");
}
