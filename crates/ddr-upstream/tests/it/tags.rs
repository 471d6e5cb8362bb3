//! Lists of tags.

use ddr_upstream::UpstreamError;

use crate::bed::{repository, upstream};
use crate::server::{Reply, Server};

#[tokio::test]
async fn a_page_comes_as_the_registry_orders_it() {
    let body = r#"{"name":"team/app","tags":["b","a","no tag","1.0"]}"#;
    let server = Server::start(move |_| Reply::ok(body)).await;
    let upstream = upstream(&server);
    let tags = upstream.tags(&repository(), Some(3), Some("x&y")).await.expect("an answer");
    let tags: Vec<String> = tags.expect("a list").iter().map(ToString::to_string).collect();
    assert_eq!(tags, ["b", "a", "1.0"]);
    upstream.tags(&repository(), None, None).await.expect("an answer");
    let base = "GET /v2/team/app/tags/list";
    assert_eq!(server.lines(), [format!("{base}?n=3&last=x%26y"), base.to_owned()]);
}

#[tokio::test]
async fn lists_that_are_none() {
    for (reply, expected) in [
        (Reply::new(404), Some(None)),
        (Reply::ok(r#"{"tags":null}"#), Some(Some(0))),
        (Reply::ok(r#"{"name":"x"}"#), Some(Some(0))),
        (Reply::ok("[1]"), None),
        (Reply::ok("x"), None),
        (Reply::ok(vec![b' '; 8 * 1024 * 1024 + 1]), None),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let tags = upstream(&server).tags(&repository(), None, None).await;
        match (tags, expected) {
            (Ok(tags), Some(expected)) => assert_eq!(tags.map(|tags| tags.len()), expected),
            (Err(UpstreamError::Failed(_)), None) => {}
            other => panic!("{other:?}"),
        }
    }
}
