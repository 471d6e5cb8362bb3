//! `ddr setup` as a person uses it, on machines below temporary directories.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::daemon::{clean, finish};

const CLIENTS: [&str; 4] = ["docker", "containerd", "podman", "crio"];

/// Runs `ddr setup` below `root`: exit status, standard output and standard error.
fn setup(root: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = clean(env!("CARGO_BIN_EXE_ddr"));
    command.arg("setup").args(words).arg("--root").arg(root);
    let Output { status, stdout, stderr } = finish(command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn shown(root: &Path, words: &[&str]) -> String {
    let (status, stdout, stderr) = setup(root, words);
    assert_eq!(status, 0, "{words:?}: {stderr}");
    stdout
}

fn is_empty(root: &Path) -> bool {
    fs::read_dir(root).unwrap().next().is_none()
}

#[test]
fn shown_written_repeated_and_undone() {
    for client in CLIENTS {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let dry = shown(root, &[client, "--dry-run"]);
        assert!(dry.contains("127.0.0.1:5000") && dry.contains("nothing was written"), "{dry}");
        assert!(is_empty(root), "{client}");
        let written = shown(root, &[client]);
        assert!(written.contains(&format!("undo with: ddr setup {client} --undo")), "{written}");
        assert!(shown(root, &[client]).starts_with("nothing to change\n"), "{client}");
        shown(root, &[client, "--undo", "--dry-run"]);
        assert!(!is_empty(root), "{client}");
        assert!(shown(root, &[client, "--undo"]).ends_with("as it was before setup\n"), "{client}");
        assert!(is_empty(root), "{client}");
        assert!(shown(root, &[client, "--undo"]).starts_with("nothing to undo"), "{client}");
    }
}

#[test]
fn options_reach_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let options = ["podman", "--registry", "127.0.0.1:6000", "--mirror", "r.example:5000"];
    shown(dir.path(), &options);
    let file = dir.path().join("etc/containers/registries.conf.d/50-ddr.conf");
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains("location = \"127.0.0.1:6000/r.example_5000\""), "{text}");
    assert!(!text.contains("docker.io"), "{text}");
}

#[test]
fn failures_are_one_line_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("etc/docker/daemon.json");
    shown(dir.path(), &["docker"]);
    fs::write(&json, "{}").unwrap();
    let (status, _, error) = setup(dir.path(), &["docker", "--undo"]);
    assert_eq!((status, error.lines().count()), (1, 1));
    assert!(error.contains("/etc/docker/daemon.json; what it was before is in"), "{error}");
    assert!(error.ends_with("/var/lib/ddr-setup/docker.json\n"), "{error}");

    fs::write(&json, "{\n  \"debug\": yes\n}").unwrap();
    let (status, _, error) = setup(dir.path(), &["docker"]);
    assert_eq!(status, 1);
    assert!(error.starts_with("ddr: /etc/docker/daemon.json:2: not JSON"), "{error}");

    let hosts = dir.path().join("etc/containerd/certs.d/_default");
    fs::create_dir_all(&hosts).unwrap();
    fs::write(hosts.join("hosts.toml"), "server = 'https://x.example'\n").unwrap();
    let (status, shown, error) = setup(dir.path(), &["containerd"]);
    assert_eq!((status, error.lines().count()), (1, 1));
    assert!(shown.starts_with("[host.\"http://127.0.0.1:5000\"]\n"), "{shown}");
    assert!(error.contains("put the text above into it"), "{error}");

    let (status, _, error) = setup(&dir.path().join("nowhere"), &["docker"]);
    assert_eq!(status, 2, "{error}");
}
