//! Token authentication (distribution, "Token Authentication").

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ddr_upstream::{Settings, Upstream, UpstreamError};

use crate::bed::{BASIC, found, resolve, settings, upstream, with_password};
use crate::server::{Reply, Seen, Server};

/// Answers tokens `t1`, `t2`, ... of a life, and takes those that `takes` says.
async fn registry(life_s: u64, takes: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    let count = AtomicUsize::new(0);
    Server::start(move |seen| {
        if seen.path.starts_with("/token") {
            let n = count.fetch_add(1, Ordering::Relaxed) + 1;
            return Reply::ok(format!(r#"{{"token":"t{n}","expires_in":{life_s}}}"#));
        }
        let shown = seen.authorization().and_then(|text| text.strip_prefix("Bearer "));
        if shown.is_some_and(&takes) { found() } else { challenge(seen) }
    })
    .await
}

fn challenge(seen: &Seen) -> Reply {
    let scope = "repository:everything:pull,push";
    Reply::challenge(&format!(
        r#"Bearer realm="{}/token?a=b",service="s x",scope="{scope}""#,
        seen.base
    ))
}

fn count(server: &Server, start: &str) -> usize {
    server.lines().iter().filter(|line| line.starts_with(start)).count()
}

const ASKED: &str = "GET /token?a=b&service=s+x&scope=repository%3Ateam%2Fapp%3Apull";
const HEAD: &str = "HEAD /v2/team/app/manifests/latest";

#[tokio::test]
async fn a_token_is_asked_for_once_and_used_again() {
    let server = registry(300, |_| true).await;
    let upstream = upstream(&server);
    for _ in 0..3 {
        assert!(resolve(&upstream.clone()).await.expect("an answer").is_some());
    }
    assert_eq!(server.lines(), [HEAD, ASKED, HEAD, HEAD, HEAD]);
    let shown: Vec<_> =
        server.seen().iter().map(|s| s.authorization().map(str::to_owned)).collect();
    let token = || Some("Bearer t1".to_owned());
    assert_eq!(shown, [None, None, token(), token(), token()]);
}

#[tokio::test]
async fn an_expired_token_is_replaced_without_a_challenge() {
    let server = registry(0, |_| true).await;
    let upstream = upstream(&server);
    for _ in 0..2 {
        assert!(resolve(&upstream).await.expect("an answer").is_some());
    }
    assert_eq!(server.lines(), [HEAD, ASKED, HEAD, ASKED, HEAD]);
    assert_eq!(server.seen()[4].authorization(), Some("Bearer t2"));
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let uses = AtomicUsize::new(0);
    // The first token is taken once.
    let takes = move |token: &str| token != "t1" || uses.fetch_add(1, Ordering::Relaxed) == 0;
    let server = registry(300, takes).await;
    let upstream = upstream(&server);
    for _ in 0..2 {
        assert!(resolve(&upstream).await.expect("an answer").is_some());
    }
    assert_eq!(server.lines(), [HEAD, ASKED, HEAD, HEAD, ASKED, HEAD]);
}

#[tokio::test]
async fn a_registry_that_takes_no_token_denies() {
    let server = registry(300, |_| false).await;
    let upstream = upstream(&server);
    for requests in [3, 6] {
        let error = resolve(&upstream).await.expect_err("denied");
        assert!(matches!(error, UpstreamError::Denied(_)), "{error:?}");
        assert_eq!(server.lines().len(), requests);
    }
}

#[tokio::test]
async fn many_that_need_a_token_ask_for_one() {
    let server = registry(300, |_| true).await;
    let upstream = upstream(&server);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let upstream = upstream.clone();
        all.spawn(async move { resolve(&upstream).await });
    }
    for result in all.join_all().await {
        assert!(result.expect("an answer").is_some());
    }
    assert_eq!(count(&server, "GET /token"), 1);
}

#[tokio::test]
async fn each_repository_has_its_token() {
    let server = registry(300, |_| true).await;
    let upstream = upstream(&server);
    for name in ["team/app", "team/other", "team/app"] {
        let name = name.parse().expect("a name");
        let found = upstream.resolve(&name, &crate::bed::tag()).await;
        assert!(found.expect("an answer").is_some());
    }
    assert_eq!(count(&server, "GET /token"), 2);
    assert_eq!(count(&server, ASKED), 1);
}

#[tokio::test]
async fn the_token_service_of_the_registry_sees_the_credentials_and_the_registry_does_not() {
    let server = registry(300, |_| true).await;
    let upstream = Upstream::new(with_password(&server)).expect("settings");
    assert!(resolve(&upstream).await.expect("an answer").is_some());
    let shown: Vec<_> =
        server.seen().iter().map(|s| s.authorization().map(str::to_owned)).collect();
    assert_eq!(shown, [None, Some(BASIC.to_owned()), Some("Bearer t1".to_owned())]);
}

/// A registry whose token service is `realm`, and a foreign server.
async fn with_realm(realm: impl Fn(u16) -> String) -> (Server, Server) {
    let foreign = Server::start(|_| Reply::ok(r#"{"token":"t"}"#)).await;
    let challenge = format!(r#"Bearer realm="{}""#, realm(foreign.port));
    let server = Server::start(move |_| Reply::challenge(&challenge)).await;
    (server, foreign)
}

#[tokio::test]
async fn no_credentials_and_no_question_go_to_foreign_token_services() {
    let realms: [fn(u16) -> String; 5] = [
        |port| format!("http://localhost:{port}/token?secret"),
        |port| format!("https://localhost:{port}/token?secret"),
        |port| format!("http://127.0.0.1@localhost:{port}/token?secret"),
        |port| format!("http://user:pass@127.0.0.1:{port}/token?secret"),
        |port| format!("http://127.0.0.2:{port}/token?secret"),
    ];
    for realm in realms {
        let (server, foreign) = with_realm(realm).await;
        let public = Settings { follow_public: true, ..with_password(&server) };
        for settings in [settings(&server.base()), with_password(&server), public] {
            let error = resolve(&Upstream::new(settings).expect("settings")).await;
            let error = error.expect_err("forbidden");
            assert!(matches!(error, UpstreamError::Forbidden(_)), "{error:?}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(foreign.seen().is_empty());
    }
}

#[tokio::test]
async fn the_error_says_which_host_to_add() {
    let (server, _foreign) = with_realm(|port| format!("https://localhost:{port}/token")).await;
    let error = resolve(&Upstream::new(with_password(&server)).expect("settings")).await;
    let text = error.expect_err("forbidden").to_string();
    assert!(text.contains("localhost") && text.contains("add it to hosts"), "{text}");
}

#[tokio::test]
async fn a_host_of_the_registry_may_be_its_token_service() {
    let (server, foreign) = with_realm(|port| format!("http://localhost:{port}/token")).await;
    let settings = Settings { hosts: vec!["localhost".to_owned()], ..with_password(&server) };
    let error = resolve(&Upstream::new(settings).expect("settings")).await;
    assert!(matches!(error, Err(UpstreamError::Denied(_))), "{error:?}");
    assert_eq!(foreign.seen()[0].authorization(), Some(BASIC));
    assert_eq!(server.seen()[1].authorization(), Some("Bearer t"));
}

#[tokio::test]
async fn token_services_that_fail() {
    type Is = fn(&UpstreamError) -> bool;
    let failed: Is = |error| matches!(error, UpstreamError::Failed(_));
    let denied: Is = |error| matches!(error, UpstreamError::Denied(_));
    let limited: Is = |error| matches!(error, UpstreamError::RateLimited(_));
    for (reply, is) in [
        (Reply::new(401), denied),
        (Reply::new(403), denied),
        (Reply::new(404), failed),
        (Reply::new(500), failed),
        (Reply::new(429), limited),
        (Reply::redirect("/elsewhere"), failed),
        (Reply::ok("{}"), failed),
        (Reply::ok("no JSON"), failed),
        (Reply::ok(format!(r#"{{"token":"{}"}}"#, "x".repeat(65536))), failed),
        (Reply::ok(r#"{"token":"a"}"#).header("Content-Encoding", "gzip"), failed),
    ] {
        let server = Server::start(move |seen| {
            if seen.path.starts_with("/token") { reply.clone() } else { challenge(seen) }
        })
        .await;
        let upstream = Upstream::new(with_password(&server)).expect("settings");
        let error = resolve(&upstream).await.expect_err("an error");
        assert!(is(&error), "{error:?}");
        assert_eq!(server.lines().len(), 2, "nothing after the token: {:?}", server.lines());
    }
}

#[tokio::test]
async fn challenges_that_cannot_be_answered() {
    for (challenge, expected) in [
        ("Negotiate", "Denied"),
        (r#"Bearer realm="no URL""#, "Failed"),
        (r#"Bearer service="x""#, "Denied"),
    ] {
        let server = Server::start(move |_| Reply::challenge(challenge)).await;
        let error = resolve(&upstream(&server)).await.expect_err("an error");
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
    }
}

#[tokio::test]
async fn an_identity_token_buys_tokens_by_post() {
    let server = Arc::new(registry(300, |_| true).await);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("config.json");
    let text = r#"{"auths":{"registry.example":{"auth":"dXNlcjo=","identitytoken":"id&x"}}}"#;
    std::fs::write(&path, text).expect("written");
    let credentials = ddr_upstream::Credentials::DockerConfig(path);
    let settings = Settings { credentials, ..settings(&server.base()) };
    let upstream = Upstream::new(settings).expect("settings");
    assert!(resolve(&upstream).await.expect("an answer").is_some());
    assert_eq!(server.lines(), [HEAD, "POST /token?a=b", HEAD]);
    let form = &server.seen()[1];
    assert_eq!(form.authorization(), None);
    assert_eq!(form.header("content-type"), Some("application/x-www-form-urlencoded"));
    let expected = "service=s+x&scope=repository%3Ateam%2Fapp%3Apull&grant_type=refresh_token\
                    &client_id=ddr&refresh_token=id%26x";
    assert_eq!(form.body, expected);
}
