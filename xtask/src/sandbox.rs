//! A place for a run where nothing can be left behind.
//!
//! The program starts itself again inside new mount and PID namespaces. When the inner process
//! ends in whatever way, or the outer one dies (Ctrl-C, SIGKILL), the kernel kills every process
//! of the run and drops its mounts: no handler has to run for that. The outer process then removes
//! the working directory and the control groups; what an outer process that was killed could not
//! remove is swept at the next start.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::run;
use crate::tools;
use crate::workspace::Workspace;

/// Prefix of working directories and of control groups; a process ID follows.
const PREFIX: &str = "ddr-e2e-";

/// Hidden by an empty file system inside: container programs keep global state here.
const MASKED: &[&str] = &["/run", "/dev/shm", "/var/lib/containers"];

/// Runs `xtask ARGS --inside DIR` in namespaces of its own. True when it ended well.
pub(crate) fn enter(workspace: &Workspace, args: &[OsString], keep: bool) -> Result<bool> {
    tools::require_root()?;
    let runs = workspace.target_directory.join("e2e");
    sweep(&runs)?;
    let id = std::process::id();
    let dir = runs.join(format!("{PREFIX}{id}"));
    fs::create_dir_all(&dir)?;
    // A copy, because the build may have put a new program in the place of this one.
    let program = dir.join("xtask");
    fs::copy("/proc/self/exe", &program).context("cannot copy this program")?;
    // A process group of its own: Ctrl-C ends the outer process, and its death the inner ones.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork"])
        .args(["--kill-child=KILL", "--mount-proc", "--"])
        .arg(program)
        .args(args)
        .arg("--inside")
        .arg(&dir)
        .stdin(Stdio::null())
        .process_group(0)
        .status()
        .context("cannot start unshare")?;
    remove_cgroups(id);
    if keep {
        println!("kept: {}", dir.display());
    } else {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(status.success())
}

/// Called inside, after everything that needs the machine's own `/run` (name resolution).
pub(crate) fn mask() -> Result<()> {
    for place in MASKED {
        fs::create_dir_all(place)?;
        run::output(Command::new("mount").args(["-t", "tmpfs", "tmpfs", place]))?;
    }
    Ok(())
}

/// The control group under which the clients of the run with this directory put containers.
pub(crate) fn cgroup_parent(dir: &Path) -> String {
    let name = dir.file_name().map(|n| n.to_string_lossy().into_owned());
    format!("/{}", name.unwrap_or_else(|| PREFIX.to_owned()))
}

/// Removes what runs left behind whose outer process was killed.
fn sweep(runs: &Path) -> Result<()> {
    let entries = match fs::read_dir(runs) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix(PREFIX).and_then(|id| id.parse::<u32>().ok()) else {
            continue;
        };
        if Path::new("/proc").join(id.to_string()).exists() {
            continue;
        }
        println!("removing what an earlier run left: {name}");
        fs::remove_dir_all(entry.path())?;
        remove_cgroups(id);
    }
    Ok(())
}

/// Control groups outlive namespaces. An empty one harms nobody, so a failure is only shown.
fn remove_cgroups(id: u32) {
    let root = Path::new("/sys/fs/cgroup");
    let name = format!("{PREFIX}{id}");
    let mut parents: Vec<PathBuf> = vec![root.to_path_buf()];
    if let Ok(entries) = fs::read_dir(root) {
        parents.extend(entries.flatten().map(|e| e.path()));
    }
    for parent in parents {
        let group = parent.join(&name);
        if group.is_dir() && remove_tree_of_groups(&group).is_err() {
            println!("cannot remove control group {}", group.display());
        }
    }
}

/// Control groups are removed by `rmdir`, children first; their files go with them.
fn remove_tree_of_groups(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree_of_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
