//! Name and password with each request.

use ddr_upstream::{Upstream, UpstreamError};

use crate::bed::{BASIC, found, resolve, upstream, with_password};
use crate::server::{Reply, Server};

async fn registry(password: &'static str) -> Server {
    Server::start(move |seen| match seen.authorization() {
        Some(shown) if shown == password => found(),
        _ => Reply::challenge(r#"Basic realm="registry""#),
    })
    .await
}

#[tokio::test]
async fn credentials_are_shown_when_asked_for_and_then_unasked() {
    let server = registry(BASIC).await;
    let upstream = Upstream::new(with_password(&server)).expect("settings");
    for _ in 0..2 {
        assert!(resolve(&upstream).await.expect("an answer").is_some());
    }
    let shown: Vec<_> =
        server.seen().iter().map(|s| s.authorization().map(str::to_owned)).collect();
    assert_eq!(shown, [None, Some(BASIC.to_owned()), Some(BASIC.to_owned())]);
}

#[tokio::test]
async fn without_credentials_or_with_wrong_ones_it_denies() {
    let server = registry("Basic other").await;
    let error = resolve(&upstream(&server)).await.expect_err("denied");
    assert!(matches!(error, UpstreamError::Denied(_)), "{error:?}");
    assert_eq!(server.lines().len(), 1);
    let upstream = Upstream::new(with_password(&server)).expect("settings");
    for requests in [3, 4] {
        let error = resolve(&upstream).await.expect_err("denied");
        assert!(matches!(error, UpstreamError::Denied(_)), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert_eq!(server.lines().len(), requests, "no second attempt with the same");
    }
}

#[tokio::test]
async fn nothing_that_is_printed_has_a_secret() {
    let server = registry(BASIC).await;
    let settings = with_password(&server);
    let printed = format!("{settings:?} {:?}", Upstream::new(settings.clone()));
    assert!(!printed.contains("secret"), "{printed}");
}
