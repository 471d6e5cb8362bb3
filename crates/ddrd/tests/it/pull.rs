//! `ddr pull` against daemons, and the swarms in `ddr status`.

use std::net::SocketAddr;
use std::process::Output;

use serde_json::Value;

use super::daemon::{Daemon, clean, finish, until};
use super::http::{get, request};
use super::image::{bytes, pull_blob, push, push_blob};

fn ddr(admin: SocketAddr, args: &[&str]) -> Output {
    let mut command = clean(env!("CARGO_BIN_EXE_ddr"));
    command.args(["--admin", &admin.to_string()]).args(args);
    finish(command)
}

/// Both outputs of a command that ends with this status.
pub(crate) fn ended(admin: SocketAddr, args: &[&str], code: i32) -> (String, String) {
    let output = ddr(admin, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    (stdout, stderr)
}

/// Three daemons that know each other.
fn three(dir: &tempfile::TempDir) -> [Daemon; 3] {
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let (b, c) = (a.joined(&dir.path().join("b")), a.joined(&dir.path().join("c")));
    for node in [&a, &b, &c] {
        until("each knows the other two", || node.status()["peers"] == 2);
    }
    [a, b, c]
}

#[test]
fn what_was_pulled_is_here_when_its_source_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    for node in [&a, &b] {
        until("they know each other", || node.status()["peers"] == 1);
    }
    let layer = bytes(1, 3 << 20);
    let image = push(a.registry, "team/app", "1.0", &[&layer]);
    let (shown, told) = ended(b.admin, &["pull", "team/app:1.0"], 0);
    assert!(shown.contains("2 of 2") && shown.contains(&image.to_string()), "{shown}");
    assert_eq!(told.matches(" done, ").count(), 2, "a line for each blob: {told}");
    a.kill();
    let digest = ddr_oci::Digest::sha256(&layer);
    assert!(pull_blob(b.registry, "team/app", &digest).body == layer);

    let (text, _) = ended(b.admin, &["pull", &format!("team/app@{image}"), "--json"], 0);
    let job: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&job["state"], &job["kind"]), (&"done".into(), &"pull".into()), "{job}");
    assert_eq!(get(b.admin, "/api/v1/swarms").json(), serde_json::json!([]));
    assert_eq!(b.status()["swarms"], serde_json::json!([]));
    let metrics = get(b.admin, "/metrics").text();
    let pieces = metrics.lines().find(|line| line.starts_with("ddr_pieces_received_total "));
    assert_eq!(pieces.and_then(|line| line.rsplit(' ').next()), Some("48"), "64 KiB each");
}

#[test]
fn all_nodes_get_it_and_one_that_is_gone_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = three(&dir);
    let layer = bytes(2, 2 << 20);
    push(a.registry, "team/app", "1.0", &[&layer]);
    let (shown, told) = ended(a.admin, &["pull", "team/app:1.0", "--nodes", "all"], 0);
    for node in [&b, &c] {
        assert!(shown.contains(&node.peers.to_string()), "{shown}");
        assert_eq!(node.status()["blobs"], 2);
    }
    assert_eq!(
        told.lines().filter(|line| line.contains("node ") && line.contains("done")).count(),
        2
    );

    push(a.registry, "team/app", "2.0", &[&bytes(3, 100_000)]);
    let gone = c.peers.to_string();
    c.kill();
    let (shown, told) = ended(a.admin, &["pull", "team/app:2.0", "--nodes", "all"], 1);
    assert!(shown.contains("failed: it cannot be reached"), "{shown}");
    let last = told.lines().last().unwrap();
    assert!(last.starts_with("ddr: node ") && last.contains(&gone), "{told}");
    assert_eq!(b.status()["blobs"], 4, "the other got it");
}

#[test]
fn what_cannot_be_had_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let failed = |args: &[&str], words: &str| {
        let (_, told) = ended(a.admin, args, 1);
        let last = told.lines().last().unwrap();
        assert!(last.starts_with("ddr: ") && last.contains(words), "{words:?} in {told}");
    };
    failed(&["pull", "team/app:9"], "nobody holds team/app:9");
    push_blob(a.registry, "team/app", &bytes(4, 100));
    push(a.registry, "team/app", "1.0", &[&bytes(5, 100)]);
    failed(&["pull", "team/app:1.0", "--nodes", "all"], "knows no other");
    failed(&["pull", "team/app:1.0", "--nodes", "zone=moon"], "\"moon\"");
    failed(&["pull", "--stop"], "no run is under way");
    ended(a.admin, &["pull", "team/app:1.0", "--platform", "linux/amd64"], 0);
}

#[test]
fn wrong_usage_has_status_2_and_a_hint_and_wrong_queries_are_400() {
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let wrong: [&[&str]; 8] = [
        &["pull"],
        &["pull", "NOT A REF"],
        &["pull", "a:1", "--nodes", "0"],
        &["pull", "a:1", "--nodes", "some"],
        &["pull", "a:1", "--nodes", "zone="],
        &["pull", "a:1", "--platform", "linux"],
        &["pull", "a:1", "--stop"],
        &["pull", "a:1", "b:1"],
    ];
    for args in wrong {
        let (_, told) = ended(nobody, args, 2);
        assert!(told.contains("--help"), "{args:?}: {told}");
    }
    let (help, _) = ended(nobody, &["pull", "--help"], 0);
    assert!(help.contains("ddr pull team/app:1.0 --nodes all"), "{help}");

    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    for query in ["", "?ref=A", "?ref=a:1&nodes=0", "?ref=a:1&platform=x"] {
        let answer = request(a.admin, "POST", &format!("/api/v1/pull{query}"), &[], b"");
        assert_eq!(answer.status, 400, "{query}");
    }
    assert_eq!(request(a.admin, "POST", "/api/v1/swarms", &[], b"").status, 405);
    assert_eq!(get(a.admin, "/api/v1/pull").json()["state"], "never");
}
