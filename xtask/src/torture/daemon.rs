//! The daemon under torture: started on the same directory again and again.

use std::fs;
use std::path::Path;
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
        Ok((Self { node, registry }, start.elapsed()))
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
