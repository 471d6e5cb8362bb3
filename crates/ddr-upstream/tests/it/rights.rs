//! What each request asks the right for, at a registry that checks it.

use bytes::Bytes;
use ddr_oci::{Reference, Tag};
use ddr_upstream::{Upstream, UpstreamError};
use futures_util::{StreamExt as _, stream};

use crate::bed::{BASIC, digest, repository, upstream, with_password};
use crate::server::{Reply, Seen, Server};

/// What a request must have the right to do.
fn needed(seen: &Seen) -> String {
    let right = match seen.method.as_str() {
        _ if seen.path.starts_with("/v2/_catalog") => return "registry%3Acatalog%3A*".to_owned(),
        "POST" | "PUT" => "pull%2Cpush",
        "DELETE" => "pull%2Cdelete",
        _ => "pull",
    };
    format!("repository%3Ateam%2Fapp%3A{right}")
}

fn granted(seen: &Seen) -> Reply {
    match seen.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).header("Location", "/upload"),
        "PUT" if seen.path.starts_with("/upload") || seen.path.contains("/manifests/") => {
            Reply::new(201)
        }
        "DELETE" => Reply::new(202),
        _ => Reply::ok(r#"{"repositories":["team/app"]}"#),
    }
}

/// A token of this registry names its scope; one of another scope is refused.
async fn registry() -> Server {
    Server::start(|seen| {
        if let Some((_, scope)) = seen.path.split_once("/token?scope=") {
            return match seen.authorization() {
                Some(BASIC) => Reply::ok(format!(r#"{{"token":"{scope}","expires_in":300}}"#)),
                _ => Reply::new(401),
            };
        }
        // The upload's own path names no repository.
        match seen.authorization() {
            Some(shown) if *shown == format!("Bearer {}", needed(seen)) => granted(seen),
            _ => Reply::challenge(&format!("Bearer realm=\"{}/token\"", seen.base)),
        }
    })
    .await
}

/// Everything that writes or lists, once.
async fn all(upstream: &Upstream) -> Result<(), UpstreamError> {
    let tag = Reference::Tag(Tag::latest());
    let body = || stream::iter([Ok(Bytes::from_static(b"blob"))]).boxed();
    upstream.put_blob(&repository(), &digest(), 4, body).await?;
    upstream.put_manifest(&repository(), &tag, "a/b", Bytes::from_static(b"{}")).await?;
    assert!(upstream.delete_manifest(&repository(), &tag).await?);
    assert_eq!(upstream.catalog(None, 1).await?.repositories.len(), 1);
    Ok(())
}

#[tokio::test]
async fn each_request_asks_for_the_right_that_it_needs() {
    let server = registry().await;
    let upstream = Upstream::new(with_password(&server)).expect("settings");
    for tokens in [4, 4] {
        all(&upstream).await.expect("granted");
        let count = server.lines().iter().filter(|line| line.contains("/token")).count();
        assert_eq!(count, tokens, "{:?}", server.lines());
    }
    let shown = server.seen().into_iter().filter(|seen| !seen.path.contains("/token"));
    assert!(shown.filter_map(|seen| seen.authorization().map(str::to_owned)).all(|s| s != BASIC));
}

#[tokio::test]
async fn nobody_is_denied() {
    let server = registry().await;
    let error = all(&upstream(&server)).await.expect_err("denied");
    assert!(matches!(error, UpstreamError::Denied(_)), "{error:?}");
    assert!(server.lines().iter().all(|line| !line.starts_with("PUT")));
}

#[tokio::test]
async fn a_password_opens_all_of_it() {
    let server = Server::start(|seen| match seen.authorization() {
        Some(BASIC) => granted(seen),
        _ => Reply::challenge("Basic realm=\"x\""),
    })
    .await;
    all(&Upstream::new(with_password(&server)).expect("settings")).await.expect("granted");
    let refused = server.seen().iter().filter(|seen| seen.authorization().is_none()).count();
    assert_eq!(refused, 1, "asked for once, then shown");
}
