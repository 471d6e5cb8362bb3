//! The admin API: shapes, guards, errors.

use super::daemon::Daemon;
use super::http::{get, request};
use super::image::{bytes, push};

#[test]
fn the_endpoints_answer() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let image = push(daemon.registry, "team/app", "1.0", &[&bytes(1, 1000)]);
    assert_eq!(get(daemon.admin, "/healthz").text(), "ok\n");
    assert_eq!(get(daemon.admin, "/readyz").text(), "ready\n");
    assert!(get(daemon.admin, "/").text().starts_with("ddrd "));
    let metrics = get(daemon.admin, "/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for name in ["ddr_build_info", "ddr_registry_requests_total", "process_resident_memory_bytes"] {
        assert!(metrics.text().contains(name), "{name} in {}", metrics.text());
    }
    let status = daemon.status();
    assert_eq!(status["registry"], daemon.registry.to_string());
    assert_eq!(status["blobs"], 2);
    assert_eq!(status["ready"], true);
    assert_eq!(get(daemon.admin, "/api/v1/peers").json(), serde_json::json!([]));
    let images = get(daemon.admin, "/api/v1/images").json();
    assert_eq!(images[0]["repository"], "team/app");
    assert_eq!(images[0]["tags"][0]["digest"], image.to_string());
    for target in ["team/app:1.0".to_owned(), image.to_string()] {
        let found = get(daemon.admin, &format!("/api/v1/find?q={target}")).json();
        assert_eq!(found["digest"], image.to_string(), "{found}");
        assert_eq!(found["local"], true, "{found}");
    }
}

#[test]
fn tokens_are_made_listed_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let made = request(daemon.admin, "POST", "/api/v1/tokens?ttl=2h", &[], b"");
    assert_eq!(made.status, 201, "{}", made.text());
    assert!(made.json()["token"].as_str().unwrap().starts_with("ddr1."));
    let list = get(daemon.admin, "/api/v1/tokens");
    assert!(!list.text().contains("ddr1."), "a list shows no secrets");
    let list = list.json();
    assert_eq!(list.as_array().unwrap().len(), 2, "the file's token and this one: {list}");
    let revoke = |id: &str| {
        request(daemon.admin, "DELETE", &format!("/api/v1/tokens/{id}"), &[], b"").status
    };
    assert_eq!(revoke(list[0]["id"].as_str().unwrap()), 200);
    assert_eq!(revoke("nonsense"), 400);
    for ttl in ["0s", "1x", "-5m", "400d", "1h30m"] {
        let path = format!("/api/v1/tokens?ttl={ttl}");
        assert_eq!(request(daemon.admin, "POST", &path, &[], b"").status, 400, "{ttl}");
    }
}

#[test]
fn web_pages_and_rebound_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let with =
        |method: &str, path: &str, header| request(daemon.admin, method, path, &[header], b"");
    for path in ["/", "/healthz", "/metrics", "/api/v1/status", "/api/v1/tokens"] {
        assert_eq!(with("GET", path, ("Host", "evil.example")).status, 403, "{path}");
        assert_eq!(with("GET", path, ("Origin", "http://evil.example")).status, 403, "{path}");
    }
    let own = format!("http://{}", daemon.admin);
    assert_eq!(with("POST", "/api/v1/tokens", ("Origin", &own)).status, 403);
    assert_eq!(get(daemon.admin, "/api/v1/tokens").json().as_array().unwrap().len(), 1);
    assert_eq!(with("GET", "/healthz", ("Host", "localhost")).status, 200);
}

#[test]
fn wrong_paths_and_methods_and_targets_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    assert_eq!(get(daemon.admin, "/nothing").status, 404);
    assert_eq!(get(daemon.admin, "/api/v1/tokensX").status, 404);
    let wrong = request(daemon.admin, "POST", "/healthz", &[], b"");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(get(daemon.admin, "/api/v1/find").status, 400);
    assert_eq!(get(daemon.admin, "/api/v1/find?q=%20bad%20").status, 400);
    assert_eq!(get(daemon.admin, &format!("/api/v1/find?q={}", "x".repeat(3000))).status, 414);
    let long = "x".repeat(60_000);
    let huge = std::panic::catch_unwind(|| {
        request(daemon.admin, "GET", "/healthz", &[("X-Long", &long)], b"").status
    });
    assert!(matches!(huge, Err(_) | Ok(431)), "{huge:?}");
    assert_eq!(get(daemon.admin, "/healthz").status, 200, "the next request is served");
}
