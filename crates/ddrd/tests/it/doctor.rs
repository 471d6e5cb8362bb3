//! `ddr doctor` on real daemons: what it says of a node that is well, and of each kind that is not.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use serde_json::Value;

use super::cli::{ddr, shown};
use super::daemon::{Daemon, until};
use super::http;

/// What `ddr doctor --json` finds: the exit status and the findings.
fn doctor(admin: SocketAddr, root: &Path) -> (i32, Value) {
    let output = ddr(admin, &["doctor", "--json", "--root", root.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (output.status.code().unwrap(), value)
}

/// The finding of a check.
fn of<'a>(found: &'a Value, check: &str) -> &'a Value {
    let findings = found["findings"].as_array().unwrap();
    let one = findings.iter().find(|finding| finding["check"] == check);
    one.unwrap_or_else(|| panic!("{check} in {found:#}"))
}

fn state<'a>(found: &'a Value, check: &str) -> &'a str {
    of(found, check)["state"].as_str().unwrap()
}

fn swarm(dir: &Path) -> [Daemon; 3] {
    let a = Daemon::start(&dir.join("a"), &[]);
    let b = a.joined(&dir.join("b"));
    let c = a.joined(&dir.join("c"));
    for node in [&a, &b, &c] {
        until("they know each other", || node.status()["peers"] == 2);
    }
    [a, b, c]
}

#[test]
fn three_nodes_that_are_well() {
    let dir = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    let nodes = swarm(dir.path());
    for node in &nodes {
        let (status, found) = doctor(node.admin, root.path());
        assert_eq!(status, 0, "{found:#}");
        for check in ["daemon", "ready", "registry port", "peer port", "clock"] {
            assert_eq!(state(&found, check), "ok", "{found:#}");
        }
        for check in ["reaches peers", "reached by peers", "round trip"] {
            assert_eq!(state(&found, check), "ok", "{found:#}");
        }
        assert!(of(&found, "reached by peers")["found"].as_str().unwrap().starts_with("2 of 2"));
        assert_eq!(state(&found, "docker"), "skip");
        assert_eq!(found["summary"]["fail"], 0);
    }
    // Nothing of the round trips is left, on any of them.
    for node in &nodes {
        until("all is deleted", || {
            let status = node.status();
            status["blobs"] == 0 && status["manifests"] == 0
        });
        let catalog = http::get(node.registry, "/v2/_catalog").json();
        assert_eq!(catalog["repositories"], serde_json::json!([]), "{catalog}");
    }
    let text = shown(nodes[0].admin, &["doctor", "--root", root.path().to_str().unwrap()]);
    assert!(text.lines().any(|line| line.starts_with("ok    round trip ")), "{text}");
    assert!(text.trim_end().ends_with("0 FAIL, 4 skip"), "{text}");
}

#[test]
fn a_wrong_advertised_address_is_found_by_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    // Port 1 of the loopback: nobody listens there.
    let token = format!("@{}", a.token_file().display());
    let wrong = ["--peer-advertise", "127.0.0.1:1", "--join", &token];
    let b = Daemon::start(&dir.path().join("b"), &wrong);
    until("it knows the other", || b.status()["peers"] == 1);
    let (status, found) = doctor(b.admin, dir.path());
    assert_eq!(status, 1, "{found:#}");
    assert_eq!(state(&found, "reaches peers"), "ok", "{found:#}");
    for check in ["peer port", "reached by peers"] {
        assert_eq!(state(&found, check), "fail", "{found:#}");
        let advice = of(&found, check)["advice"].as_str().unwrap();
        assert!(advice.contains("--peer-advertise"), "{advice}");
    }
    let back = of(&found, "reached by peers")["found"].as_str().unwrap();
    assert!(back.contains("127.0.0.1:1: nobody listens there"), "{back}");
}

#[test]
fn without_a_daemon_the_rest_is_looked_at_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    fs::write(root.path().join("usr/bin/dockerd"), "").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let (status, found) = doctor(nobody, root.path());
    assert_eq!(status, 1);
    assert_eq!(state(&found, "daemon"), "fail");
    assert!(of(&found, "daemon")["advice"].as_str().unwrap().contains("start it: ddrd"));
    for check in ["registry port", "peer port"] {
        assert_ne!(state(&found, check), "fail", "who has the port is for the operator to judge");
    }
    assert_eq!(state(&found, "docker"), "ok");
    assert!(of(&found, "docker")["advice"].as_str().unwrap().contains("ddr setup docker"));
    assert_eq!(state(&found, "podman"), "skip");
    let output = ddr(nobody, &["doctor", "--root", root.path().to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("ddr: 1 of the checks failed"), "{stderr}");
}

#[test]
fn a_lone_node_has_nobody_to_ask() {
    let dir = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let (status, found) = doctor(a.admin, root.path());
    assert_eq!(status, 0, "{found:#}");
    for check in ["clock", "reaches peers", "reached by peers", "round trip"] {
        assert_eq!(state(&found, check), "skip", "{found:#}");
    }
    let bare = ddr(a.registry, &["doctor", "--json", "--root", root.path().to_str().unwrap()]);
    assert_eq!(bare.status.code(), Some(1), "the registry port is not the admin port");
}

#[test]
fn clients_that_ask_another_port_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for program in ["docker", "podman"] {
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin").join(program), "").unwrap();
    }
    fs::create_dir_all(root.join("etc/docker")).unwrap();
    let mirrors = |port| format!("{{\"registry-mirrors\": [\"http://127.0.0.1:{port}\"]}}");
    let json = root.join("etc/docker/daemon.json");
    fs::write(&json, mirrors(1)).unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let (_, found) = doctor(a.admin, &root);
    assert_eq!(state(&found, "docker"), "warn", "{found:#}");
    let advice = of(&found, "docker")["advice"].as_str().unwrap();
    assert!(advice.ends_with(&format!("--registry {}", a.registry)), "{advice}");
    assert_eq!(state(&found, "podman"), "ok");
    fs::write(&json, mirrors(a.registry.port())).unwrap();
    let (_, found) = doctor(a.admin, &root);
    assert_eq!((state(&found, "docker"), &of(&found, "docker")["advice"]), ("ok", &Value::Null));
}
