//! Redirects: followed without credentials, or refused.

use ddr_upstream::{Settings, Upstream, UpstreamError};

use crate::bed::{BASIC, collect, digest, repository, settings, upstream, with_password};
use crate::server::{Reply, Server};

/// A registry that wants a password and redirects blobs to `location`.
async fn redirecting(location: String) -> Server {
    Server::start(move |seen| match seen.authorization() {
        Some(BASIC) => Reply::redirect(&location),
        _ => Reply::challenge("Basic"),
    })
    .await
}

async fn blob(settings: Settings) -> Result<Vec<u8>, UpstreamError> {
    let upstream = Upstream::new(settings).expect("settings");
    let body = upstream.blob(&repository(), &digest(), 0).await?;
    Ok(collect(body.expect("a blob")).await.expect("whole"))
}

#[tokio::test]
async fn another_port_gets_the_request_without_credentials() {
    let storage = Server::start(|_| Reply::ok("blob")).await;
    let server = redirecting(format!("{}/storage?signature=x", storage.base())).await;
    assert_eq!(blob(with_password(&server)).await.expect("a blob"), b"blob");
    assert_eq!(storage.lines(), ["GET /storage?signature=x"]);
    assert_eq!(storage.seen()[0].authorization(), None);
    assert_eq!(storage.seen()[0].header("accept-encoding"), Some("identity"));
}

#[tokio::test]
async fn a_range_goes_with_the_redirect_and_head_stays_head() {
    let part = || Reply::new(206).header("Content-Range", "bytes 2-3/4").body("ob");
    let storage =
        Server::start(move |seen| if seen.method == "HEAD" { Reply::ok("blob") } else { part() })
            .await;
    let location = format!("{}/storage", storage.base());
    let server = Server::start(move |_| Reply::redirect(&location)).await;
    let upstream = upstream(&server);
    let size = upstream.blob_size(&repository(), &digest()).await.expect("an answer");
    assert_eq!(size, Some(4));
    let body = upstream.blob(&repository(), &digest(), 2).await.expect("an answer");
    assert_eq!(body.expect("a blob").start, 2);
    assert_eq!(storage.lines(), ["HEAD /storage", "GET /storage"]);
    assert_eq!(storage.seen()[1].header("range"), Some("bytes=2-"));
}

#[tokio::test]
async fn a_storage_that_refuses_head_is_asked_for_a_byte() {
    let storage = Server::start(|seen| match seen.method.as_str() {
        "HEAD" => Reply::new(403),
        _ => Reply::new(206).header("Content-Range", "bytes 0-0/4").body("b"),
    })
    .await;
    let server = redirecting(storage.base()).await;
    let upstream = Upstream::new(with_password(&server)).expect("settings");
    let size = upstream.blob_size(&repository(), &digest()).await.expect("an answer");
    assert_eq!(size, Some(4));
}

#[tokio::test]
async fn within_the_registry_credentials_stay() {
    let server = Server::start(|seen| match (seen.authorization(), seen.path.as_str()) {
        (Some(BASIC), "/elsewhere") => Reply::ok("blob"),
        (Some(BASIC), _) => Reply::redirect("/elsewhere"),
        _ => Reply::challenge("Basic"),
    })
    .await;
    assert_eq!(blob(with_password(&server)).await.expect("a blob"), b"blob");
}

#[tokio::test]
async fn a_way_back_from_elsewhere_has_no_credentials() {
    // The storage learns the registry's address from the request's query.
    let storage = Server::start(|seen| {
        let (_, back) = seen.path.split_once('?').expect("a query");
        Reply::redirect(back)
    })
    .await;
    let base = storage.base();
    let server = Server::start(move |seen| match (seen.path.as_str(), seen.authorization()) {
        ("/back", None) => Reply::ok("blob"),
        ("/back", Some(_)) => Reply::new(500),
        (_, Some(BASIC)) => Reply::redirect(&format!("{base}/?{}/back", seen.base)),
        _ => Reply::challenge("Basic"),
    })
    .await;
    assert_eq!(blob(with_password(&server)).await.expect("a blob"), b"blob");
}

#[tokio::test]
async fn a_challenge_from_elsewhere_is_not_answered() {
    let storage = Server::start(|_| Reply::challenge("Basic")).await;
    let location = storage.base();
    let server = Server::start(move |_| Reply::redirect(&location)).await;
    let error = blob(with_password(&server)).await.expect_err("denied");
    assert!(matches!(error, UpstreamError::Denied(_)), "{error:?}");
    for asked in [&server, &storage] {
        assert_eq!(asked.lines().len(), 1);
        assert_eq!(asked.seen()[0].authorization(), None);
    }
}

#[tokio::test]
async fn loops_end() {
    let server = Server::start(|seen| Reply::redirect(&seen.path)).await;
    let error = blob(settings(&server.base())).await.expect_err("a loop");
    assert!(matches!(&error, UpstreamError::Failed(text) if text.contains("5 times")), "{error}");
    assert_eq!(server.lines().len(), 6);
}

#[tokio::test]
async fn redirects_to_where_nobody_may_go_are_refused() {
    let other = Server::start(|_| Reply::ok("blob")).await;
    let port = other.port;
    for location in [
        "http://169.254.169.254/latest/meta-data?secret".to_owned(),
        "https://169.254.169.254/latest/meta-data?secret".to_owned(),
        "https://[fe80::1]/?secret".to_owned(),
        "https://[::ffff:169.254.169.254]/?secret".to_owned(),
        format!("http://localhost:{port}/?secret"),
        format!("http://user:secret@127.0.0.1:{port}/"),
        "file:///etc/passwd?secret".to_owned(),
        "ftp://127.0.0.1/secret".to_owned(),
    ] {
        let server = Server::start({
            let location = location.clone();
            move |_| Reply::redirect(&location)
        })
        .await;
        for follow_public in [false, true] {
            let settings = Settings { follow_public, ..settings(&server.base()) };
            let error = blob(settings).await.expect_err("forbidden");
            assert!(matches!(error, UpstreamError::Forbidden(_)), "{location}: {error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn redirects_to_nowhere_fail() {
    let long = format!("/{}", "x".repeat(10_000));
    for reply in [
        Reply::new(302),
        Reply::new(307).header("Location", "http://[/"),
        Reply::new(307).header("Location", &long),
    ] {
        let server = Server::start(move |_| reply.clone()).await;
        let error = blob(settings(&server.base())).await.expect_err("failed");
        assert!(matches!(error, UpstreamError::Failed(_)), "{error:?}");
    }
}
