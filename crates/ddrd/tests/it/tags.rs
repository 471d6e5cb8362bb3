//! Rules of tags on real nodes: what may not move, what was before, and reads without a majority.

use std::time::Duration;

use super::cli::{ddr, shown};
use super::daemon::{Daemon, until};
use super::http::{self, Answer};
use super::image::{bytes, push};

fn manifest(node: &Daemon, tag: &str) -> Answer {
    http::get(node.registry, &format!("/v2/team/app/manifests/{tag}"))
}

#[test]
fn tags_are_kept_deleted_and_remembered_as_the_rules_say() {
    let dir = tempfile::tempdir().unwrap();
    let rules = ["--immutable-tags", "v*,other:x", "--tags", "stale-ok"];
    let a = Daemon::start(&dir.path().join("a"), &rules);
    let b = a.joined(&dir.path().join("b"));
    let c = a.joined(&dir.path().join("c"));
    for node in [&a, &b, &c] {
        until("they know each other", || node.status()["peers"] == 2);
    }
    let first = push(a.registry, "team/app", "v1", &[&bytes(1, 1000)]);
    push(a.registry, "team/app", "v1", &[&bytes(1, 1000)]);
    let second = push(b.registry, "team/app", "latest", &[&bytes(2, 1000)]);
    let third = push(a.registry, "team/app", "latest", &[&bytes(3, 1000)]);

    let moved = http::request(
        a.registry,
        "PUT",
        "/v2/team/app/manifests/v1",
        &[("Content-Type", "application/vnd.oci.image.manifest.v1+json")],
        manifest(&a, "latest").body.as_slice(),
    );
    assert_eq!(moved.status, 403, "{}", moved.text());
    assert_eq!(moved.json()["errors"][0]["code"], "DENIED");
    let words = format!("the tag v1 is immutable and points to {first}");
    assert_eq!(moved.json()["errors"][0]["message"], words);
    for args in [&["rm", "team/app:v1"][..], &["rm", "team/app:v1", "--digest"]] {
        let output = ddr(a.admin, args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&words), "{output:?}");
    }

    let history = shown(c.admin, &["images", "--history", "team/app:latest"]);
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[0].starts_with("SINCE") && lines.len() == 3, "{history}");
    assert!(lines[1].contains(&third.to_string()), "{history}");
    assert!(lines[2].contains(&second.to_string()), "{history}");
    let removed = shown(c.admin, &["rm", "team/app:latest"]);
    assert_eq!(removed, format!("untagged team/app:latest, which was {third}\n"));
    assert_eq!(manifest(&b, "latest").status, 404);
    assert_eq!(ddr(c.admin, &["rm", "team/app:latest"]).status.code(), Some(1));
    assert_eq!(ddr(c.admin, &["rm", "NOT A REF"]).status.code(), Some(1));
    let history = shown(b.admin, &["images", "--history", "team/app:latest", "--json"]);
    let history: serde_json::Value = serde_json::from_str(&history).unwrap();
    assert_eq!(
        (history[0]["digest"].clone(), history.as_array().unwrap().len()),
        (serde_json::Value::Null, 3)
    );

    push(b.registry, "team/app", "old", &[&bytes(4, 1000)]);
    let gone = shown(b.admin, &["rm", "team/app:old", "--digest", "--json"]);
    let gone: serde_json::Value = serde_json::from_str(&gone).unwrap();
    assert_eq!((&gone["repository"], &gone["tag"]), (&"team/app".into(), &serde_json::Value::Null));
    assert_eq!(manifest(&a, "old").status, 404);

    // Without a majority: the node with the rule answers what it knows, and says so.
    until("the node keeps the tag", || a.status()["names"].as_u64() >= Some(1));
    drop((b.kill(), c.kill()));
    let stale = || manifest(&a, "v1");
    until("no majority answers", || stale().header("warning").is_some());
    let answer = stale();
    assert_eq!(
        (answer.status, answer.header("warning")),
        (200, Some("110 - \"Response is Stale\""))
    );
    assert_eq!(answer.header("docker-content-digest"), Some(first.to_string().as_str()));
    let listed = http::get(a.registry, "/v2/team/app/tags/list");
    assert_eq!(listed.header("warning"), Some("110 - \"Response is Stale\""), "{}", listed.text());
    assert_eq!(listed.json()["tags"], serde_json::json!(["v1"]));
    let catalogue = http::get(a.registry, "/v2/_catalog");
    assert_eq!(catalogue.status, 503, "{}", catalogue.text());
    let wait = catalogue.header("retry-after").and_then(|text| text.parse().ok());
    assert!(wait.map(Duration::from_secs) > Some(Duration::ZERO), "it says when to come back");
    let message = catalogue.json()["errors"][0]["message"].to_string();
    assert!(message.contains("of 3 nodes that keep this list answered"), "{message}");
}
