//! Silence. The clock of these tests stands still and jumps to the next timer when nobody has anything to
//! do; it is stopped only after the bytes that matter have arrived.

use std::time::Duration;

use ddr_upstream::UpstreamError;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use crate::bed::{digest, repository, resolve, upstream};
use crate::server::{After, Reply, Server};

#[tokio::test]
async fn a_registry_that_does_not_answer_is_given_up() {
    for (is_resolve, secs) in [(true, 10), (false, 30)] {
        let (asked, mut was_asked) = mpsc::unbounded_channel();
        let server = Server::start(move |_| {
            asked.send(()).expect("a test");
            Reply::nothing(After::Hang)
        })
        .await;
        let upstream = upstream(&server);
        let question = tokio::spawn(async move {
            if is_resolve {
                resolve(&upstream).await.map(|_| ())
            } else {
                upstream.blob_size(&repository(), &digest()).await.map(|_| ())
            }
        });
        was_asked.recv().await.expect("a request");
        tokio::time::pause();
        let error = question.await.expect("no panic").expect_err("given up");
        tokio::time::resume();
        let UpstreamError::Unreachable(text) = error else { panic!("{error:?}") };
        assert!(text.ends_with(&format!("within {secs} s")), "{text}");
    }
}

#[tokio::test]
async fn a_body_that_stalls_ends_with_an_error() {
    let reply = Reply::ok("01234").length(Some(10)).after(After::Hang);
    let server = Server::start(move |_| reply.clone()).await;
    let blob = upstream(&server).blob(&repository(), &digest(), 0).await.expect("an answer");
    let mut bytes = blob.expect("a blob").bytes;
    let mut count = 0;
    while count < 5 {
        count += bytes.next().await.expect("more").expect("bytes").len();
    }
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let error = bytes.next().await.expect("an error").expect_err("an error");
    assert!(began.elapsed() >= Duration::from_secs(30));
    assert!(matches!(&error, UpstreamError::Unreachable(t) if t.contains("30 s")), "{error}");
    assert!(bytes.next().await.is_none(), "nothing after an error");
}
