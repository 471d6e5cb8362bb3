//! Several nodes: join, push on one, pull on another.

use super::daemon::{Daemon, until};
use super::image::{bytes, pull, push};

#[test]
fn pushed_on_a_pulled_on_c() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    // Any member lets others in.
    let c = b.joined(&dir.path().join("c"));
    for node in [&a, &b, &c] {
        until("each knows the other two", || node.status()["peers"] == 2);
    }
    let layers = [bytes(1, 3 << 20), bytes(2, 100), bytes(3, 1 << 20)];
    let pushed = push(a.registry, "team/app", "1.0", &layers.each_ref().map(Vec::as_slice));
    assert_eq!(pull(c.registry, "team/app", "1.0"), pushed);

    let status = c.status();
    let sources = status["images"][0]["sources"].as_array().unwrap();
    assert_eq!(status["images"][0]["repository"], "team/app");
    assert_eq!(sources[0]["node_id"], a.status()["node_id"], "A served C");

    // The same tag with other content, pushed elsewhere: the new content arrives everywhere.
    let second = push(b.registry, "team/app", "1.0", &[&bytes(4, 1 << 20)]);
    for node in [&a, &b, &c] {
        assert_eq!(pull(node.registry, "team/app", "1.0"), second);
    }
}

#[test]
fn a_member_comes_back_without_a_token_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    until("they know each other", || b.status()["peers"] == 1);
    let pushed = push(b.registry, "team/app", "1", &[&bytes(5, 200_000)]);
    let data = b.data.clone();
    assert!(b.stop().success());
    let b = Daemon::start(&data, &[]);
    until("it finds its way back", || b.status()["peers"] == 1);
    until("A knows its new address", || {
        let path = "/v2/team/app/manifests/1";
        super::http::get(a.registry, path).status == 200
    });
    assert_eq!(pull(a.registry, "team/app", "1"), pushed);
}
