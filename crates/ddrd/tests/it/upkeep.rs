//! `ddr gc` and `ddr verify` against daemons.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;

use ddr_oci::Digest;
use serde_json::Value;

use super::daemon::{Daemon, clean, finish, until};
use super::http::{get, request};
use super::image::{bytes, push};

fn ddr(admin: SocketAddr, args: &[&str]) -> Output {
    let mut command = clean(env!("CARGO_BIN_EXE_ddr"));
    command.args(["--admin", &admin.to_string()]).args(args);
    finish(command)
}

/// The answer of a command with `--json` that ends with this status.
fn json(admin: SocketAddr, args: &[&str], code: i32) -> Value {
    let output = ddr(admin, &[args, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {stderr}"))
}

fn rot(data: &Path, digest: &Digest) {
    let hex = digest.hex();
    let path = data.join("blobs/sha256").join(&hex[..2]).join(&hex);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn garbage_goes_when_it_is_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let node = Daemon::start(&dir.path().join("a"), &[]);
    let layer = bytes(1, 100_000);
    let image = push(node.registry, "team/app", "1.0", &[&layer]);
    let path = format!("/v2/team/app/manifests/{image}");
    assert_eq!(json(node.admin, &["gc"], 0)["report"]["blobs_removed"], 0);
    assert_eq!(request(node.registry, "DELETE", &path, &[], b"").status, 202);
    let young = json(node.admin, &["gc"], 0);
    assert_eq!((&young["state"], &young["report"]["blobs_removed"]), (&"done".into(), &0.into()));
    assert!(young["report"]["kept_by_grace"].as_u64() >= Some(1), "{young}");
    let dry = json(node.admin, &["gc", "--grace", "0s", "--dry-run"], 0);
    assert!(dry["report"]["bytes_freed"].as_u64() >= Some(100_000), "{dry}");
    let shown = ddr(node.admin, &["gc", "--grace", "0s"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.contains("freed"), "{text}");
    assert_eq!(node.status()["blobs"], 0);
}

#[test]
fn damage_is_told_and_repaired_once_somebody_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let layer = bytes(2, 200_000);
    push(a.registry, "team/app", "1.0", &[&layer]);
    assert_eq!(json(a.admin, &["verify"], 0)["report"]["corrupt"], 0);
    let digest = Digest::sha256(&layer);
    rot(&a.data, &digest);
    assert_eq!(json(a.admin, &["verify", "--fast"], 0)["report"]["corrupt"], 0);
    let told = json(a.admin, &["verify"], 1);
    assert_eq!(told["report"]["not_repaired"], serde_json::json!([digest.to_string()]));
    let shown = ddr(a.admin, &["verify"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(1));
    assert!(text.contains(&digest.to_string()), "{text}");
    // Another node gets it, and the first one from there.
    let b = a.joined(&dir.path().join("b"));
    for node in [&a, &b] {
        until("they know each other", || node.status()["peers"] == 1);
    }
    push(b.registry, "team/app", "2.0", &[&layer]);
    until("it is announced", || ddr(a.admin, &["find", &digest.to_string()]).status.success());
    let told = json(a.admin, &["verify"], 0);
    assert_eq!(told["report"]["repaired"], 1, "{told}");
    assert_eq!(json(a.admin, &["verify"], 0)["report"]["lost"], serde_json::json!([]));
}

#[test]
fn one_run_of_a_kind_and_it_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let node = Daemon::start(&dir.path().join("a"), &[]);
    push(node.registry, "team/app", "1.0", &[&bytes(3, 3_000_000)]);
    let begun = request(node.admin, "POST", "/api/v1/verify?limit=1", &[], b"");
    assert_eq!(begun.status, 202);
    let busy = ddr(node.admin, &["verify"]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&busy.stderr).contains("--stop"));
    assert!(ddr(node.admin, &["verify", "--stop"]).status.success());
    until("it stops", || get(node.admin, "/api/v1/verify").json()["state"] == "stopped");
    assert!(!ddr(node.admin, &["verify", "--stop"]).status.success());
}

#[test]
fn the_routes_refuse_what_they_do_not_know_and_web_pages() {
    let dir = tempfile::tempdir().unwrap();
    let node = Daemon::start(&dir.path().join("a"), &[]);
    for path in
        ["gc?grace=soon", "gc?untagged=maybe", "gc?dry-run=1", "verify?limit=0", "verify?fast=x"]
    {
        let answer = request(node.admin, "POST", &format!("/api/v1/{path}"), &[], b"");
        assert_eq!(answer.status, 400, "{path}");
    }
    for path in ["/api/v1/gc", "/api/v1/verify"] {
        assert_eq!(request(node.admin, "PUT", path, &[], b"").status, 405);
        let page = [("origin", "http://evil.example")];
        assert_eq!(request(node.admin, "POST", path, &page, b"").status, 403);
        assert_eq!(get(node.admin, path).json()["state"], "never");
    }
    let wrong: [&[&str]; 4] = [
        &["gc", "--grace", "soon"],
        &["verify", "--limit", "0"],
        &["gc", "--fast"],
        &["verify", "--stop", "--fast"],
    ];
    for args in wrong {
        assert_eq!(ddr(node.admin, args).status.code(), Some(2), "{args:?}");
    }
}
