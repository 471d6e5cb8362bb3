//! 429 and what follows.

use std::time::Duration;

use ddr_upstream::{MAX_PAUSE, UpstreamError};

use crate::bed::{digest, found, repository, resolve, upstream};
use crate::server::{Reply, Server};

fn time(error: &UpstreamError) -> Duration {
    let UpstreamError::RateLimited(time) = error else { panic!("{error:?}") };
    *time
}

#[tokio::test]
async fn after_429_nothing_is_asked_for_a_while() {
    for (header, secs) in [(Some("120"), 120), (None, 60), (Some("999999"), 3600)] {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#;
        let reply = Reply::new(429).body(body);
        let reply = header.map_or(reply.clone(), |header| reply.header("Retry-After", header));
        let server = Server::start(move |_| reply.clone()).await;
        let upstream = upstream(&server);
        assert_eq!(upstream.paused(), None);
        let error = resolve(&upstream).await.expect_err("limited");
        assert_eq!(time(&error), Duration::from_secs(secs));
        let left = upstream.clone().paused().expect("a pause");
        assert!(left <= Duration::from_secs(secs));
        let error = upstream.blob_size(&repository(), &digest()).await.expect_err("limited");
        assert!(time(&error) <= left);
        assert_eq!(server.lines().len(), 1, "the second question is not sent");
    }
}

#[tokio::test]
async fn a_pause_that_others_were_told_is_kept() {
    let server = Server::start(|_| found()).await;
    let upstream = upstream(&server);
    upstream.pause(Duration::from_secs(1000));
    upstream.pause(Duration::from_secs(1));
    assert!(upstream.paused().expect("a pause") > Duration::from_secs(500));
    upstream.pause(Duration::MAX);
    assert!(upstream.paused().expect("a pause") <= MAX_PAUSE);
    assert!(matches!(resolve(&upstream).await, Err(UpstreamError::RateLimited(_))));
    assert!(server.seen().is_empty());
}
