//! Flag beats environment beats file; what is wrong is named.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::daemon::{Daemon, command, finish, local, refused};

fn zone(config: &Path, env: Option<&str>, flag: Option<&str>, data: &Path) -> String {
    let mut command = local(data);
    command.arg("--config").arg(config);
    if let Some(env) = env {
        command.env("DDR_ZONE", env);
    }
    if let Some(flag) = flag {
        command.args(["--zone", flag]);
    }
    let daemon = Daemon::spawn(command, data);
    daemon.status()["zone"].as_str().unwrap().to_owned()
}

#[test]
fn flag_beats_environment_beats_file() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a");
    let config = dir.path().join("ddr.toml");
    fs::write(&config, "zone = 'file'\n").unwrap();
    assert_eq!(zone(&config, None, None, &data), "file");
    assert_eq!(zone(&config, Some("environment"), None, &data), "environment");
    assert_eq!(zone(&config, Some("environment"), Some("flag"), &data), "flag");
}

#[test]
fn everything_can_come_from_the_file_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a");
    let config = dir.path().join("ddr.toml");
    let text = format!(
        "data-dir = {:?}\nregistry-listen = '127.0.0.1:0'\npeer-listen = '127.0.0.1:0'\n\
         admin-listen = '[::1]:0'\npeer-advertise = '127.0.0.1:0'\nzone = 'z'\nlog = 'debug'\n\
         log-format = 'json'\n",
        data
    );
    fs::write(&config, text).unwrap();
    let mut command = command();
    command.env("DDR_CONFIG", &config);
    let daemon = Daemon::spawn(command, &data);
    let advertised = daemon.status()["advertise"][0].as_str().unwrap().to_owned();
    assert_eq!(advertised, daemon.peers.to_string(), "port 0 is filled in");
    let log = daemon.log();
    let line = log.lines().next().unwrap();
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    assert!(event["level"].is_string(), "{line}");
}

fn with(data: &Path, args: &[&str]) -> Command {
    let mut command = local(data);
    command.args(args);
    command
}

#[test]
fn wrong_usage_ends_with_status_2() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a");
    let config = dir.path().join("ddr.toml");
    let wrong: [&[&str]; 6] = [
        &["--no-such-flag"],
        &["positional"],
        &["--peer-advertise", "nowhere"],
        &["--peer-advertise", "127.0.0.1:99999"],
        &["--log-format", "xml"],
        &["--join"],
    ];
    for args in wrong {
        let output = finish(with(&data, args));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    let file = config.to_str().unwrap();
    refused(with(&data, &["--config", file]), 2, "check the path");
    fs::write(&config, "zone = 'z'\n\nregistry_lisen = '127.0.0.1:1'\n").unwrap();
    refused(with(&data, &["--config", file]), 2, "ddr.toml:3: unknown field `registry_lisen`");
    fs::write(&config, "peer-advertise = 7\n").unwrap();
    refused(with(&data, &["--config", file]), 2, "ddr.toml:1: ");
    fs::write(&config, [0xff, 0xfe]).unwrap();
    refused(with(&data, &["--config", file]), 2, "ddr.toml");
    refused(with(&data, &["--zone", "a b"]), 2, "zone");
    refused(with(&data, &["--log", "a=b=c"]), 2, "log filter");
    refused(with(&data, &["--peer-advertise", "0.0.0.0:1"]), 2, "peer-advertise");
    assert!(!data.exists(), "a refused setting leaves nothing behind");
}

#[test]
fn client_ports_beyond_loopback_are_refused() {
    for flag in ["--registry-listen", "--admin-listen"] {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:5000"] {
            let mut command = command();
            command.args([flag, address]);
            refused(command, 2, "plain HTTP without authentication");
        }
    }
}

#[test]
fn help_and_version_are_printed() {
    let mut help = command();
    help.arg("--help");
    let output = finish(help);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for word in ["Examples:", "--join", "DDR_DATA_DIR", "Exit status:"] {
        assert!(text.contains(word), "{word}");
    }
    let mut version = command();
    version.arg("--version");
    let output = finish(version);
    assert_eq!(output.stdout, format!("ddrd {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
}
