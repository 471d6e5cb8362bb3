//! `ddr` as a person or a script uses it.

use std::net::{SocketAddr, TcpListener};
use std::process::Output;

use super::daemon::{Daemon, clean, finish, until};
use super::image::{bytes, push};

pub(crate) fn ddr(admin: SocketAddr, args: &[&str]) -> Output {
    let mut command = clean(env!("CARGO_BIN_EXE_ddr"));
    command.args(["--admin", &admin.to_string()]).args(args);
    finish(command)
}

/// Standard output of a command that must succeed.
pub(crate) fn shown(admin: SocketAddr, args: &[&str]) -> String {
    let output = ddr(admin, args);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn tables_for_people_and_json_for_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &["--zone", "room-1"]);
    let b = a.joined(&dir.path().join("b"));
    for node in [&a, &b] {
        until("they know each other", || node.status()["peers"] == 1);
    }
    let image = push(a.registry, "team/app", "1.0", &[&bytes(1, 1000)]);
    let status = shown(a.admin, &["status"]);
    for word in [a.registry.to_string(), "room-1".into(), "ready".into()] {
        assert!(status.contains(&word), "{word} in {status}");
    }
    assert!(shown(a.admin, &["peers"]).contains(&b.peers.to_string()));
    let images = shown(a.admin, &["images"]);
    assert!(images.lines().any(|l| l.starts_with("team/app") && l.contains("1.0")), "{images}");
    let found = shown(b.admin, &["find", "team/app:1.0"]);
    assert!(found.contains(&image.to_string()) && found.contains(&a.peers.to_string()), "{found}");

    for args in [["status", "--json"], ["peers", "--json"], ["--json", "images"]] {
        let text = shown(a.admin, &args);
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{args:?}: {text}");
    }
    let text = shown(b.admin, &["find", &image.to_string(), "--json"]);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["holders"][0]["node_id"], a.status()["node_id"], "{found}");
}

#[test]
fn a_token_made_here_lets_another_in_until_it_is_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let token = shown(a.admin, &["token", "create", "--ttl", "10m"]);
    assert_eq!(token.lines().count(), 1, "a script takes the line as it is");
    let b = Daemon::start(&dir.path().join("b"), &["--join", token.trim()]);
    until("it is in", || b.status()["peers"] == 1);
    let list = shown(a.admin, &["token", "list"]);
    assert_eq!(list.matches("valid").count(), 2, "{list}");
    let parsed: ddr_net::JoinToken = token.trim().parse().unwrap();
    let id: String = parsed.serial().iter().map(|byte| format!("{byte:02x}")).collect();
    shown(a.admin, &["token", "revoke", &id]);
    let list = shown(a.admin, &["token", "list"]);
    let line = list.lines().find(|line| line.starts_with(&id)).unwrap();
    assert!(line.contains("revoked"), "{list}");
}

#[test]
fn failures_have_one_line_and_status_1() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let failed = |admin, args: &[&str], words: &str| {
        let output = ddr(admin, args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.starts_with("ddr: ") && stderr.lines().count() == 1, "{stderr}");
        assert!(stderr.contains(words), "{words:?} in {stderr}");
    };
    let words = format!("no daemon answers on {nobody}; start one with: ddrd");
    for args in [&["status"][..], &["peers"], &["images"], &["find", "a:b"], &["token", "list"]] {
        failed(nobody, args, &words);
    }
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    failed(a.registry, &["status"], "check --admin");
    failed(a.admin, &["find", "team/absent:1"], "nobody holds team/absent:1");
    failed(a.admin, &["find", &format!("sha256:{}", "0".repeat(64))], "nobody holds");
    failed(a.admin, &["find", "NOT A REF"], "neither a digest nor an image reference");
    failed(a.admin, &["token", "revoke", "xyz"], "32 hexadecimal digits");
}

#[test]
fn wrong_usage_has_status_2() {
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let wrong: [&[&str]; 8] = [
        &[],
        &["no-such-command"],
        &["find"],
        &["token"],
        &["token", "create", "--ttl", "soon"],
        &["status", "--bogus"],
        &["doctor", "--bogus"],
        &["doctor", "--root", "/no/such/directory"],
    ];
    for args in wrong {
        assert_eq!(ddr(nobody, args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn limits_of_bandwidth_are_shown_and_changed() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &["--upload-limit", "2MiB"]);
    let limits = shown(a.admin, &["limit"]);
    assert_eq!(limits, "upload    2.0 MiB/s\ndownload  no limit\n");
    let limits = shown(a.admin, &["limit", "--upload", "0", "--download", "500k", "--json"]);
    let limits: serde_json::Value = serde_json::from_str(&limits).unwrap();
    assert_eq!(limits, serde_json::json!({ "upload": null, "download": 500_000 }));
    let limits = shown(a.admin, &["limit", "--upload", "1GiB"]);
    assert_eq!(limits, "upload    1.0 GiB/s\ndownload  488.3 KiB/s\n");
    for wrong in ["1k", "fast", "-1"] {
        let output = ddr(a.admin, &["limit", "--upload", wrong]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}
