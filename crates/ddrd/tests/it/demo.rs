//! `ddr demo` passes, and leaves nothing behind however it ends.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::daemon::{Guard, clean, finish, until, wait};

fn demo(temporary: &Path) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_ddr"));
    command.arg("demo").env("TMPDIR", temporary);
    command
}

fn assert_empty(dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn it_passes_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let output = finish(demo(dir.path()));
    let text = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}\n{stderr}");
    assert!(text.ends_with("demo passed\n"), "{text}");
    for word in ["push to A: 100 %", "pull from C: 100 %", "SERVED TO PEERS", "from A"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    assert!(text.lines().all(|line| line.trim_end().len() <= 100), "{text}");
    assert_empty(dir.path());
}

/// Reads the demo's lines up to the addresses of node C and answers all admin addresses.
fn admins(lines: &mut dyn Iterator<Item = String>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    while found.len() < 3 {
        let line = lines.next().expect("the demo goes on");
        if let Some((_, admin)) = line.rsplit_once("admin ") {
            found.push(admin.parse().unwrap());
        }
    }
    found
}

fn interrupted(args: &[&str], wait_for: &str, status: i32) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = demo(dir.path());
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut guard = Guard(Some(command.spawn().unwrap()));
    let child = guard.0.as_mut().unwrap();
    let stdout = child.stdout.take().unwrap();
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let admins = admins(&mut lines);
    assert!(wait_for.is_empty() || lines.any(|line| line.contains(wait_for)), "{wait_for}");
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).unwrap();
    // The rest is read so that the demo never meets a closed pipe.
    lines.for_each(drop);
    assert_eq!(wait(child).code(), Some(status));
    for admin in admins {
        until("the node is gone", || TcpStream::connect(admin).is_err());
    }
    assert_empty(dir.path());
}

#[test]
fn interrupted_in_the_middle_it_cleans_up() {
    interrupted(&[], "", 1);
}

#[test]
fn keep_waits_for_the_interrupt_and_then_cleans_up() {
    interrupted(&["--keep"], "docker run", 0);
}
