//! A place for a run where nothing can be left behind.
//!
//! The program starts itself again inside new mount and PID namespaces. When the inner process
//! ends in whatever way, or the outer one dies (Ctrl-C, SIGKILL), the kernel kills every process
//! of the run and drops its mounts: no handler has to run for that. The outer process then removes
//! the working directory and the control groups, also when it is told to break the run off ([`breaking`]). When it is killed, a process that waits for its end
//! does so, and what that could not remove is swept at the next start.

mod breaking;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

pub(crate) use breaking::{end_with_the_pipe, say_when_broken_off};

use crate::run;
use crate::tools;
use crate::workspace::Workspace;

/// Prefix of working directories and of control groups; a process ID follows.
const PREFIX: &str = "ddr-e2e-";

/// Hidden by an empty file system inside: container programs keep global state here.
const MASKED: &[&str] = &["/run", "/dev/shm", "/var/lib/containers"];

/// From the end of a run to that of its last process.
const END_LIMIT: Duration = Duration::from_secs(30);

/// Runs `xtask ARGS --inside DIR` in namespaces of its own. True when it ended well.
pub(crate) fn enter(workspace: &Workspace, args: &[OsString], keep: bool) -> Result<bool> {
    tools::require_root()?;
    let runs = workspace.target_directory.join("e2e");
    sweep(&runs)?;
    let id = std::process::id();
    let dir = runs.join(format!("{PREFIX}{id}"));
    fs::create_dir_all(&dir)?;
    let sweeper = if keep { None } else { Some(Sweeper::start(&dir)?) };
    // A copy, because the build may have put a new program in the place of this one.
    let program = dir.join("xtask");
    fs::copy("/proc/self/exe", &program).context("cannot copy this program")?;
    // A process group of its own: Ctrl-C ends the outer process, and its death the inner ones.
    let inner = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork"])
        .args(["--kill-child=KILL", "--mount-proc", "--"])
        .arg(program)
        .args(args)
        .arg("--inside")
        .arg(&dir)
        .stdin(Stdio::piped())
        .process_group(0)
        .spawn()
        .context("cannot start unshare")?;
    let status = breaking::wait(inner)?;
    remove_cgroups(id);
    if keep {
        println!("kept: {}", dir.display());
    } else {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    drop(sweeper);
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

/// A process that calls [`sweep_after_end`] for a run.
#[derive(Debug)]
struct Sweeper(Child);

impl Sweeper {
    fn start(dir: &Path) -> Result<Self> {
        // In a process group of its own, so that Ctrl-C does not end it.
        let child = Command::new("/proc/self/exe")
            .arg("sweep-after-end")
            .arg(dir)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("cannot start the process that cleans up")?;
        Ok(Self(child))
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}

/// Waits until the other end of standard input is closed, which the end of the outer process does at
/// the latest; then removes what is left of its run.
pub(crate) fn sweep_after_end(dir: &Path) -> Result<()> {
    io::copy(&mut io::stdin(), &mut io::sink())?;
    // The last processes may still write.
    run::wait_for("the end of a run", END_LIMIT, || match fs::remove_dir_all(dir) {
        Ok(()) => Ok(Some(())),
        Err(error) => Ok((error.kind() == io::ErrorKind::NotFound).then_some(())),
    })?;
    if let Some(id) = id_of(dir) {
        remove_cgroups(id);
    }
    Ok(())
}

/// The process ID in the name of a working directory.
fn id_of(dir: &Path) -> Option<u32> {
    dir.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()
}

/// Removes what runs left behind whose outer process was killed.
fn sweep(runs: &Path) -> Result<()> {
    let entries = match fs::read_dir(runs) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(id) = id_of(&entry.path()) else { continue };
        if Path::new("/proc").join(id.to_string()).exists() {
            continue;
        }
        println!("removing what an earlier run left: {}", entry.path().display());
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
