//! What a start prints and writes, and what it refuses.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use super::daemon::{Daemon, local, refused};
use super::http;

#[test]
fn three_lines_then_how_to_join() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a");
    let daemon = Daemon::start(&data, &[]);
    assert_eq!(http::get(daemon.registry, "/v2/").status, 200);
    assert_eq!(http::get(daemon.admin, "/healthz").status, 200);
    assert!(std::net::TcpStream::connect(daemon.peers).is_ok());
    let path = data.join("join-token");
    assert_eq!(daemon.join_line, format!("join: ddrd --join @{}", path.display()));
}

#[test]
fn the_token_is_in_a_private_file_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &["--log", "trace"]);
    let mode = fs::metadata(daemon.token_file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let token = daemon.token();
    assert!(token.starts_with("ddr1."), "{token}");
    assert!(!daemon.log().contains(&token["ddr1.".len()..]), "the log holds the secret");
    let data_mode = fs::metadata(&daemon.data).unwrap().permissions().mode();
    assert_eq!(data_mode & 0o077, 0, "the data directory is for its owner only");
}

#[test]
fn a_restart_keeps_identity_and_swarm_and_its_token_works() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a");
    let daemon = Daemon::start(&data, &[]);
    let before = daemon.status();
    assert!(daemon.stop().success());
    let daemon = Daemon::start(&data, &[]);
    let after = daemon.status();
    assert_eq!(before["node_id"], after["node_id"]);
    assert_eq!(before["swarm_id"], after["swarm_id"]);
    // The peer port is another one now, so the old token would lead nowhere.
    let joined = daemon.joined(&dir.path().join("b"));
    assert_eq!(joined.status()["swarm_id"], after["swarm_id"]);
}

#[test]
fn a_port_in_use_is_one_line_and_leaves_no_swarm() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--registry-listen", "--admin-listen", "--peer-listen"] {
        let data = dir.path().join(&flag[2..]);
        let mut command = super::daemon::command();
        command.arg("--data-dir").arg(&data);
        for other in ["--registry-listen", "--admin-listen", "--peer-listen"] {
            command.args([other, if other == flag { address.as_str() } else { "127.0.0.1:0" }]);
        }
        refused(command, 1, &format!("choose another with {flag}"));
        assert!(!data.join("swarm.pem").exists(), "{flag}");
    }
}

#[test]
fn a_foreign_or_unusable_data_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear diary").unwrap();
    refused(local(&foreign), 1, "letter.txt");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);

    let file = dir.path().join("file");
    fs::write(&file, "no directory").unwrap();
    refused(local(&file), 1, "file");
    assert_eq!(fs::read(&file).unwrap(), b"no directory");

    // Fails for root, too: nothing can be made below a process that does not exist.
    refused(local("/proc/self/nowhere/ddr".as_ref()), 1, "/proc/self/nowhere");
}

#[test]
fn a_second_daemon_on_one_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    refused(local(&daemon.data), 1, "in use by another ddrd");
    assert_eq!(http::get(daemon.registry, "/v2/").status, 200, "the first goes on");
}

#[test]
fn a_second_daemon_on_one_port_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Daemon::start(&dir.path().join("a"), &[]);
    let mut second = super::daemon::command();
    second.arg("--data-dir").arg(dir.path().join("b"));
    second.args(["--registry-listen", &first.registry.to_string()]);
    second.args(["--peer-listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    refused(second, 1, "choose another with --registry-listen");
    assert_eq!(http::get(first.registry, "/v2/").status, 200, "the first goes on");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a");
    assert!(Daemon::start(&data, &[]).stop().success());
    fs::set_permissions(data.join("node.key"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(local(&data), 1, "chmod 600");
}

#[test]
fn a_damaged_index_is_refused_with_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a");
    assert!(Daemon::start(&data, &[]).stop().success());
    fs::write(data.join("index.redb"), b"not a database").unwrap();
    refused(local(&data), 1, "index.redb");
}

#[test]
fn an_idle_node_stays_within_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let bytes = daemon.resident_bytes();
    assert!(bytes < 40.0 * 1024.0 * 1024.0, "{bytes} bytes resident");
}
