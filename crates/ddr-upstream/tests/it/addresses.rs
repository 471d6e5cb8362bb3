//! Private addresses where none are allowed.

use ddr_upstream::{Settings, Upstream, UpstreamError};

use crate::bed::{found, resolve, settings};
use crate::server::Server;

#[tokio::test]
async fn loopback_is_refused_by_address_and_by_name() {
    let server = Server::start(|_| found()).await;
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let endpoint = format!("http://{host}:{}", server.port);
        let public = Settings { private: false, ..settings(&endpoint) };
        let error = resolve(&Upstream::new(public).expect("settings")).await;
        let error = error.expect_err("refused");
        let UpstreamError::Forbidden(text) = &error else { panic!("{host}: {error:?}") };
        assert!(text.contains("not a public address") || text.contains("localhost"), "{text}");
    }
    assert!(server.seen().is_empty());
    let private = settings(&format!("http://localhost:{}", server.port));
    let found = resolve(&Upstream::new(private).expect("settings")).await;
    assert!(found.expect("an answer").is_some());
}

#[tokio::test]
async fn a_proxy_may_be_private_and_sees_the_request() {
    let proxy = Server::start(|_| found()).await;
    let settings = Settings {
        private: false,
        proxy: Some(format!("http://localhost:{}", proxy.port)),
        ..settings("http://registry.example")
    };
    let found = resolve(&Upstream::new(settings).expect("settings")).await;
    assert!(found.expect("an answer").is_some());
    assert_eq!(proxy.lines(), ["HEAD http://registry.example/v2/team/app/manifests/latest"]);
}

#[tokio::test]
async fn a_private_address_is_no_target_through_a_proxy_either() {
    let proxy = Server::start(|_| found()).await;
    let settings = Settings {
        private: false,
        proxy: Some(proxy.base()),
        ..settings(&format!("http://127.0.0.1:{}", proxy.port))
    };
    let error = resolve(&Upstream::new(settings).expect("settings")).await;
    assert!(matches!(error, Err(UpstreamError::Forbidden(_))), "{error:?}");
    assert!(proxy.seen().is_empty());
}
