//! Lists of repositories from registries that do not keep to the rules.

use ddr_upstream::UpstreamError;

use crate::bed::upstream;
use crate::server::{Reply, Server};

/// More than any page.
const TOO_LONG: usize = 33 * 1024 * 1024;

#[tokio::test]
async fn a_link_is_never_followed() {
    let other = Server::start(|_| Reply::ok(r#"{"repositories":["foreign"]}"#)).await;
    let link = format!("<{}/v2/_catalog?last=b>; rel=\"next\"", other.base());
    let server =
        Server::start(move |_| Reply::ok(r#"{"repositories":["a","b"]}"#).header("Link", &link))
            .await;
    let page = upstream(&server).catalog(Some("x&y"), 2).await.expect("a page");
    assert_eq!((page.repositories.len(), page.last.as_deref()), (2, Some("b")));
    assert_eq!(server.lines(), ["GET /v2/_catalog?n=2&last=x%26y"]);
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn an_empty_page_is_the_last_whatever_its_link_says() {
    for body in [r#"{"repositories":[]}"#, r#"{"repositories":null}"#, "{}"] {
        let reply = Reply::ok(body).header("Link", "</v2/_catalog?last=z>; rel=\"next\"");
        let server = Server::start(move |_| reply.clone()).await;
        let page = upstream(&server).catalog(None, 2).await.expect("a page");
        assert_eq!((page.repositories.len(), page.last), (0, None));
    }
}

#[tokio::test]
async fn what_is_no_list_is_refused() {
    type Is = fn(&UpstreamError) -> bool;
    let failed: Is = |error| matches!(error, UpstreamError::Failed(_));
    let denied: Is = |error| matches!(error, UpstreamError::Denied(_));
    let unsupported: Is = |error| matches!(error, UpstreamError::Unsupported(_));
    for (reply, is) in [
        (Reply::ok("[]"), failed),
        (Reply::ok(r#"{"repositories":[1]}"#), failed),
        (Reply::ok("").length(Some(TOO_LONG)), failed),
        (Reply::new(500), failed),
        (Reply::new(403), denied),
        (Reply::new(404), unsupported),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let error = upstream(&server).catalog(None, 2).await.expect_err("no page");
        assert!(is(&error), "{error:?}");
    }
}
