//! A machine inside this one, for what this one does not allow: User-Mode Linux, a Linux kernel
//! that runs as a program.
//!
//! It sees the files of this machine, has one processor and a loopback network of its own, and its
//! root may open as many files as are asked for. System calls are slow there, so waits and rates
//! mean nothing; memory does. It ends with the program that it was started for, or with this one.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run;
use crate::tools::{self, UML};
use crate::workspace::Workspace;

/// Memory of the guest; pages that it does not use are not taken.
const MEMORY: &str = "mem=12G";
/// Mappings that one process may have: each scattered page of a process in the guest is one.
const MAPPINGS: &str = "4000000";
const MAPPINGS_LIMIT: &str = "/proc/sys/vm/max_map_count";
/// Settings that the program inside needs of this process's.
const ENVIRONMENT: &[&str] =
    &["PATH", "HOME", "CARGO_HOME", "CARGO_TARGET_DIR", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];

/// Runs `xtask ARGS --inside DIR` as the only program of a guest. True when it ended well.
pub(super) fn enter(workspace: &Workspace, args: &[OsString]) -> Result<bool> {
    tools::ensure_guest()?;
    let dir = workspace.target_directory.join(format!("e2e/guest-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let allowed = fs::read_to_string(MAPPINGS_LIMIT)?;
    println!("vm.max_map_count is {MAPPINGS} until the guest ends");
    fs::write(MAPPINGS_LIMIT, MAPPINGS)?;
    let status = boot(workspace, &dir, args);
    fs::write(MAPPINGS_LIMIT, allowed.trim())?;
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    status
}

fn boot(workspace: &Workspace, dir: &Path, args: &[OsString]) -> Result<bool> {
    fs::copy("/proc/self/exe", dir.join("xtask")).context("cannot copy this program")?;
    let init = dir.join("init");
    fs::write(&init, script(workspace, dir, args)?)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o700))?;
    let mut kernel = Command::new("setpriv");
    // The kernel and its processes take turns, which is fast on one processor only.
    kernel.args(["--pdeathsig", "KILL", "--", "taskset", "-c", "0", UML, MEMORY, "quiet"]);
    kernel.args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw"]);
    kernel.args(["con=null", "con0=null,fd:1"]).arg(format!("init={}", init.display()));
    // Its memory is a file without a name there, which must be as large.
    kernel.env("TMPDIR", "/dev/shm").stdin(Stdio::null());
    run::visible(&mut kernel)?;
    match fs::read_to_string(dir.join("status")) {
        Ok(status) => Ok(status.trim() == "0"),
        Err(error) => bail!("the guest did not come to its end: {error}"),
    }
}

/// What the guest runs in place of init.
fn script(workspace: &Workspace, dir: &Path, args: &[OsString]) -> Result<String> {
    let mut lines = vec!["#!/bin/sh".to_owned()];
    for name in ENVIRONMENT {
        if let Ok(value) = std::env::var(name) {
            lines.push(format!("export {name}={}", quoted(&value)));
        }
    }
    let (at, work) = (quoted(&dir.display().to_string()), dir.join("work"));
    fs::create_dir_all(&work)?;
    let work = quoted(&work.display().to_string());
    let args = args.iter().map(|arg| quoted(&arg.to_string_lossy())).collect::<Vec<_>>().join(" ");
    lines.push("mount -t proc proc /proc".to_owned());
    lines.push(format!("mount -t tmpfs tmpfs {work}"));
    lines.push("ip link set lo up".to_owned());
    // Sockets wait for each other less in a queue of this length.
    lines.push("echo 16384 >/proc/sys/net/core/somaxconn".to_owned());
    lines.push(format!("cd {}", quoted(&workspace.workspace_root.display().to_string())));
    lines.push(format!("{at}/xtask {args} --inside {work}"));
    lines.push(format!("echo $? >{at}/status"));
    lines.push("halt -f || echo o >/proc/sysrq-trigger".to_owned());
    Ok(lines.join("\n") + "\n")
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
