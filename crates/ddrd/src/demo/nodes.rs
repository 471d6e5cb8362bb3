//! The three daemons of the demo: started, waited for, stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::DemoError;

/// Wait for a node to say that it serves.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Wait for a node to leave after SIGTERM; then it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// The nodes' names.
const NAMES: [char; 3] = ['A', 'B', 'C'];

/// A daemon that runs. Dropping it kills it.
#[derive(Debug)]
pub(super) struct DemoNode {
    pub(super) name: char,
    pub(super) registry: SocketAddr,
    pub(super) peers: SocketAddr,
    pub(super) admin: SocketAddr,
    child: Child,
    /// Kept open: a daemon must not meet a closed pipe.
    _stdout: Lines<BufReader<ChildStdout>>,
}

/// All nodes of the demo.
#[derive(Debug)]
pub(super) struct Nodes<'a> {
    daemon: PathBuf,
    dir: &'a Path,
    running: Vec<DemoNode>,
}

impl<'a> Nodes<'a> {
    pub(super) fn new(daemon: PathBuf, dir: &'a Path) -> Self {
        Self { daemon, dir, running: Vec::with_capacity(NAMES.len()) }
    }

    /// Starts the first node, which makes a swarm, then the others, which join it.
    pub(super) async fn start(&mut self) -> Result<(), DemoError> {
        for name in NAMES {
            let node = self.launch(name).await?;
            self.running.push(node);
        }
        Ok(())
    }

    pub(super) fn all(&self) -> &[DemoNode] {
        &self.running
    }

    /// Asks every node to leave, waits a bounded time, kills what is left.
    pub(super) async fn stop(&mut self) {
        for node in &self.running {
            if let Some(pid) = node.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                // It may be gone already, which is what is wanted.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        for node in &mut self.running {
            if timeout(STOP_TIMEOUT, node.child.wait()).await.is_err() {
                let _ = node.child.kill().await;
            }
        }
        self.running.clear();
    }

    async fn launch(&self, name: char) -> Result<DemoNode, DemoError> {
        let data = self.dir.join(name.to_string());
        let log = self.dir.join(format!("{name}.log"));
        let stderr = std::fs::File::create(&log).map_err(super::file("a log file"))?;
        let mut command = Command::new(&self.daemon);
        command
            .args(["--registry-listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"])
            .args(["--admin-listen", "127.0.0.1:0"])
            // One copy: what is shown is how the image gets from one node to another.
            .args(["--copies", "1", "--durability", "local", "--data-dir"])
            .arg(&data);
        if let Some(first) = NAMES.first().filter(|first| **first != name) {
            let token = self.dir.join(first.to_string()).join("join-token");
            command.arg("--join").arg(format!("@{}", token.display()));
        }
        // The settings of the person who runs the demo must not reach into it.
        for (key, _) in std::env::vars_os() {
            if key.to_str().is_some_and(|key| key.starts_with("DDR_")) {
                command.env_remove(key);
            }
        }
        let start = |reason| DemoError::Start { name, reason };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| start(error.to_string()))?;
        let stdout = child.stdout.take().ok_or_else(|| start("it has no output".into()))?;
        let mut lines = BufReader::new(stdout).lines();
        match timeout(START_TIMEOUT, addresses(&mut lines)).await {
            Ok(Some([registry, peers, admin])) => {
                Ok(DemoNode { name, registry, peers, admin, child, _stdout: lines })
            }
            Ok(None) => Err(start(last_line(&log))),
            Err(_) => Err(start(format!("no answer in {} s", START_TIMEOUT.as_secs()))),
        }
    }
}

/// The addresses of the three lines that a daemon prints once it serves.
async fn addresses(lines: &mut Lines<BufReader<ChildStdout>>) -> Option<[SocketAddr; 3]> {
    let mut found = [None; 3];
    for (place, prefix) in found.iter_mut().zip(["registry http://", "peers ", "admin http://"]) {
        let line = lines.next_line().await.ok()??;
        *place = line.strip_prefix(prefix)?.parse().ok();
    }
    let [registry, peers, admin] = found;
    Some([registry?, peers?, admin?])
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().next_back().unwrap_or("it ended without a word").to_owned()
}
