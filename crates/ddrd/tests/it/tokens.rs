//! Join tokens that work and those that do not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use ddr_net::{Identity, Swarm};

use super::daemon::{Daemon, local, refused, until};
use super::http;

fn join(data: &Path, token: &str) -> Command {
    let mut command = local(data);
    command.args(["--join", token]);
    command
}

/// A swarm that exists only as files, for tokens that no daemon gave out.
fn swarm(dir: &Path) -> Swarm {
    let identity = Identity::load_or_create(dir).unwrap();
    Swarm::create(dir, &identity).unwrap()
}

#[test]
fn a_malformed_token_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("b");
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let token = daemon.token();
    let middle = token.len() / 2;
    let other = if token.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let changed = format!("{}{other}{}", &token[..middle], &token[middle + 1..]);
    for wrong in ["", "hello", "ddr1.", &token[..token.len() - 4], &changed, &"x".repeat(100_000)] {
        refused(join(&data, wrong), 1, "malformed");
    }
    refused(join(&data, "@/nonexistent"), 1, "/nonexistent");
    let file = dir.path().join("binary");
    fs::write(&file, [0xff; 100]).unwrap();
    refused(join(&data, &format!("@{}", file.display())), 1, "binary");
    assert!(!data.join("swarm.pem").exists());
}

#[test]
fn an_expired_token_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let identity = Identity::load_or_create(&daemon.data).unwrap();
    let swarm = Swarm::load(&daemon.data, &identity).unwrap().unwrap();
    let past = SystemTime::now() - Duration::from_secs(60);
    let token = swarm.create_token_until(vec![daemon.peers], past).unwrap().to_string();
    refused(join(&dir.path().join("b"), &token), 1, "expired");
}

#[test]
fn a_token_of_another_swarm_than_the_directory_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let daemon = Daemon::start(&a, &[]);
    assert!(Daemon::start(&b, &[]).stop().success());
    refused(join(&b, &daemon.token()), 1, "belongs to swarm");
    assert!(Daemon::start(&b, &[]).stop().success(), "the directory is as it was");
}

#[test]
fn a_token_whose_member_is_of_another_swarm_admits_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let other = swarm(&dir.path().join("other"));
    let ttl = Duration::from_secs(3600);
    let token = other.create_token(vec![daemon.peers], ttl).unwrap().to_string();
    let b = dir.path().join("b");
    refused(join(&b, &token), 1, "swarm");
    assert!(!b.join("swarm.pem").exists());
}

#[test]
fn a_token_that_leads_to_nobody_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let (token, peers) = (daemon.token(), daemon.peers);
    assert!(daemon.stop().success());
    refused(join(&dir.path().join("b"), &token), 1, &peers.to_string());
}

#[test]
fn a_revoked_token_admits_nobody_and_the_file_gets_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let old = daemon.token();
    let tokens = http::get(daemon.admin, "/api/v1/tokens").json();
    let id = tokens[0]["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(http::request(daemon.admin, "DELETE", &path, &[], b"").status, 200);
    refused(join(&dir.path().join("b"), &old), 1, "token");
    let data = daemon.data.clone();
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&data, &[]);
    assert_ne!(daemon.token(), old);
    let joined = daemon.joined(&dir.path().join("c"));
    until("the nodes know each other", || joined.status()["peers"] == 1);
}

#[test]
fn joining_again_with_the_same_token_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    let data = b.data.clone();
    assert!(b.stop().success());
    let b = a.joined(&data);
    assert_eq!(b.status()["swarm_id"], a.status()["swarm_id"]);
}

#[test]
fn after_a_join_that_failed_a_node_can_begin_a_swarm_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let token = daemon.token();
    assert!(daemon.stop().success());
    let b = dir.path().join("b");
    refused(join(&b, &token), 1, "no member answered");
    let daemon = Daemon::start(&b, &[]);
    until("it is ready without anybody", || http::get(daemon.admin, "/readyz").status == 200);
}
