//! The daemon under torture: started on the same directory again and again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::run;
use crate::swarm::Node;
use crate::wire::Connection;

/// From the three lines to an answer 200 of `/readyz`.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// One running daemon; dropping it kills it.
#[derive(Debug)]
pub(super) struct Daemon {
    node: Node,
    dir: PathBuf,
    pub(super) registry: String,
}

impl Daemon {
    /// Starts it on `dir/data` and waits until it is ready. How long that took is given, too. The
    /// log of the run before is kept as `log.before`.
    pub(super) fn start(program: &Path, dir: &Path) -> Result<(Self, Duration)> {
        let log = dir.join("log");
        if log.exists() {
            fs::rename(&log, dir.join("log.before"))?;
        }
        let start = Instant::now();
        let parent = dir.parent().context("a directory inside another one")?;
        let name = dir.file_name().context("a directory with a name")?.to_string_lossy();
        let node = Node::start(program, parent, &name, None)?;
        run::wait_for("the daemon is ready", READY_LIMIT, || {
            let mut connection = Connection::open(&node.admin)?;
            let answer = connection.ask("GET", "/readyz", None)?;
            Ok((answer.head.status == 200).then_some(()))
        })
        .with_context(|| node.log())?;
        let registry = node.registry.clone();
        Ok((Self { node, dir: dir.to_path_buf(), registry }, start.elapsed()))
    }

    /// Starts `ddr gc` or `ddr verify` against it. The kill may end it in the middle.
    pub(super) fn sweep(&self, ddr: &Path, command: &str) -> Result<Child> {
        let output = File::create(ddr_output(&self.dir))?;
        Command::new(ddr)
            .args(["--admin", &self.node.admin, command])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", ddr.display()))
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.node.kill()
    }

    /// SIGTERM; it must end well.
    pub(super) fn stop(mut self) -> Result<()> {
        self.node.stop()
    }
}

/// The commands of maintenance that this `ddr` has, beside the daemon's program.
pub(super) fn sweeps(daemon: &Path) -> (PathBuf, Vec<&'static str>) {
    let ddr = daemon.with_file_name("ddr");
    let known = |command: &&str| run::output(Command::new(&ddr).args([*command, "--help"])).is_ok();
    let commands = ["gc", "verify"].into_iter().filter(known).collect();
    (ddr, commands)
}

fn ddr_output(dir: &Path) -> PathBuf {
    dir.join("ddr-output")
}
