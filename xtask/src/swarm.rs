//! Daemons on loopback, started as a user starts them and read as a user reads them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::netns::{self, Host, Lab};
use crate::run;
use crate::wire::Connection;

/// From start to the three lines of output.
const START_LIMIT: Duration = Duration::from_secs(60);

/// From the three lines to a node that says it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// From SIGTERM to the end of the process.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How much of a daemon's log is shown when something fails. Bytes.
const MAX_LOG_SHOWN: usize = 4000;

/// Where a daemon on a machine of its own listens for others.
const PEER_PORT: u16 = 5001;

/// A port that the system chooses.
const ANY_PORT: &str = "127.0.0.1:0";

/// One running daemon. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    /// `127.0.0.1:PORT` of the registry.
    pub(crate) registry: String,
    /// `127.0.0.1:PORT` of the admin interface.
    pub(crate) admin: String,
    /// `127.0.0.1:PORT` for other nodes.
    peers: String,
    flags: Vec<String>,
    dir: PathBuf,
    child: Child,
}

/// Where a daemon listens, as it says or is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) registry: String,
    pub(crate) peers: String,
    pub(crate) admin: String,
}

impl Memory {
    /// The larger of each figure.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            resident: self.resident.max(other.resident),
            anonymous: self.anonymous.max(other.anonymous),
            peak: self.peak.max(other.peak),
        }
    }
}

impl Node {
    /// Starts a daemon in `dir/name` and waits until it says where it listens. With `join`, the
    /// file of a token, it joins the swarm of that token.
    pub(crate) fn start(
        daemon: &Path,
        dir: &Path,
        name: &str,
        join: Option<&Path>,
    ) -> Result<Self> {
        Self::start_with(daemon, dir, name, join, &[])
    }

    /// The same with more flags.
    pub(crate) fn start_with(
        daemon: &Path,
        dir: &Path,
        name: &str,
        join: Option<&Path>,
        flags: &[String],
    ) -> Result<Self> {
        Self::start_at(daemon, dir, name, ANY_PORT, join, flags)
    }

    /// The same with an address for other nodes; `dir/name` may be that of a node that has ended.
    pub(crate) fn start_at(
        daemon: &Path,
        dir: &Path,
        name: &str,
        peers: &str,
        join: Option<&Path>,
        flags: &[String],
    ) -> Result<Self> {
        let any = ANY_PORT.to_owned();
        let at = Listening { registry: any.clone(), peers: peers.to_owned(), admin: any };
        let mut node = Self::spawn(daemon, dir, name, at, join, flags)?;
        node.note_addresses()?;
        Ok(node)
    }

    /// The same at addresses that are known, without waiting for the daemon.
    pub(crate) fn spawn(
        daemon: &Path,
        dir: &Path,
        name: &str,
        at: Listening,
        join: Option<&Path>,
        flags: &[String],
    ) -> Result<Self> {
        let dir = dir.join(name);
        fs::create_dir_all(&dir)?;
        let mut flags = flags.to_vec();
        flags.extend(join.map(|token_file| format!("--join=@{}", token_file.display())));
        let child = spawn(daemon, &dir, &at, &flags)?;
        let Listening { registry, peers, admin } = at;
        Ok(Self { name: name.to_owned(), registry, admin, peers, flags, dir, child })
    }

    /// Starts the daemon again, after it was killed, where it was: a machine that comes back.
    pub(crate) fn start_again(&mut self, daemon: &Path) -> Result<()> {
        let (registry, peers, admin) =
            (self.registry.clone(), self.peers.clone(), self.admin.clone());
        self.child = spawn(daemon, &self.dir, &Listening { registry, peers, admin }, &self.flags)?;
        self.note_addresses()
    }

    /// Waits until the daemon listens: before that a signal ends it without a word.
    pub(crate) fn wait_listening(&mut self) -> Result<()> {
        self.wait_for_addresses().map(drop).with_context(|| self.log())
    }

    fn note_addresses(&mut self) -> Result<()> {
        let listening = self.wait_for_addresses().with_context(|| self.log())?;
        (self.registry, self.peers, self.admin) =
            (listening.registry, listening.peers, listening.admin);
        Ok(())
    }

    fn wait_for_addresses(&mut self) -> Result<Listening> {
        let out = self.dir.join("out");
        run::wait_for(&format!("{} starts", self.name), START_LIMIT, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it listened", self.name);
            }
            Ok(parse_listening(&fs::read_to_string(&out)?))
        })
    }

    /// The file with the token with which others join the swarm of this node.
    pub(crate) fn token_file(&self) -> Result<PathBuf> {
        let file = self.dir.join("data/join-token");
        run::wait_for("join token", START_LIMIT, || {
            let token = fs::read_to_string(&file).unwrap_or_default();
            Ok((!token.trim().is_empty()).then_some(()))
        })?;
        Ok(file)
    }

    /// Waits until `/readyz` of the admin interface answers 200.
    pub(crate) fn wait_ready(&self) -> Result<()> {
        let url = format!("http://{}/readyz", self.admin);
        run::wait_for(&format!("{} is ready", self.name), READY_LIMIT, || {
            let mut curl = run::client("/usr/bin/curl");
            curl.args(["--noproxy", "*", "--silent", "--output", "/dev/null"]);
            curl.args(["--write-out", "%{http_code}", &url]);
            Ok(run::output(&mut curl).is_ok_and(|code| code == "200").then_some(()))
        })
        .with_context(|| self.log())
    }

    /// Memory of the process: everything resident, and the anonymous part of it. KiB.
    pub(crate) fn memory_kib(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        parse_memory(&status).with_context(|| format!("no memory figures of {}", self.name))
    }

    /// Processor time that the process has used. Seconds.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        parse_cpu_s(&stat).with_context(|| format!("no processor time of {}", self.name))
    }

    /// What the node says of itself: `/api/v1/status`.
    pub(crate) fn status(&self) -> Result<Value> {
        let answer = Connection::open(&self.admin)?.ask("GET", "/api/v1/status", None)?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// Tells the swarm of this node that one is gone for good, by its ID.
    pub(crate) fn declare_gone(&self, id: &str) -> Result<()> {
        let target = format!("/api/v1/peers/{id}");
        let answer = Connection::open(&self.admin)?.ask("DELETE", &target, None)?;
        ensure!(answer.head.status == 200, "the loss cannot be told: {}", answer.head.status);
        Ok(())
    }

    /// SIGKILL, as a power cut would end it.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal by its name, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.id().to_string();
        run::output(Command::new("kill").args([&format!("-{name}"), &id])).map(drop)
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// SIGTERM; the daemon must end in time and with status 0.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let status = run::wait_for(&format!("{} stops", self.name), STOP_LIMIT, || {
            Ok(self.child.try_wait()?)
        })?;
        ensure!(
            status.success(),
            "{} ended with {status} after SIGTERM\n{}",
            self.name,
            self.log()
        );
        Ok(())
    }

    /// The end of what the daemon wrote, for an error message.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        format!("log of {}:\n{}", self.name, run::tail(text.trim_end(), MAX_LOG_SHOWN))
    }
}

/// A daemon in `dir` that listens at these addresses.
fn spawn(daemon: &Path, dir: &Path, at: &Listening, flags: &[String]) -> Result<Child> {
    let mut command = Command::new(daemon);
    command.arg("--data-dir").arg(dir.join("data"));
    command.args(["--registry-listen", &at.registry, "--peer-listen", &at.peers]);
    command.args(["--admin-listen", &at.admin]).args(flags);
    command
        .stdin(Stdio::null())
        .stdout(File::create(dir.join("out"))?)
        .stderr(File::options().create(true).append(true).open(dir.join("log"))?)
        .spawn()
        .with_context(|| format!("cannot start {}", daemon.display()))
}

impl Drop for Node {
    fn drop(&mut self) {
        // Fails only when the process has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Resident memory of one process: all of it, its anonymous part, the most that it ever had. KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
    pub(crate) peak: u64,
}

/// Starts one node and `count - 1` that join it; returns when all are ready.
pub(crate) fn start(daemon: &Path, dir: &Path, names: &[String]) -> Result<Vec<Node>> {
    let (first, rest) = names.split_first().context("a swarm has at least one node")?;
    let mut nodes = vec![Node::start(daemon, dir, first, None)?];
    let token_file = nodes[0].token_file()?;
    for name in rest {
        nodes.push(Node::start(daemon, dir, name, Some(&token_file))?);
    }
    for node in &nodes {
        node.wait_ready()?;
    }
    Ok(nodes)
}

/// Waits until every node knows all others, and no part that one of them keeps has too few copies.
pub(crate) fn wait_whole(nodes: &[Node], limit: Duration) -> Result<()> {
    run::wait_for("all copies are there", limit, || {
        for node in nodes {
            let status = node.status()?;
            let copies = &status["copies"];
            let is_whole = copies["short_parts"] == 0 && copies["waiting_images"] == 0;
            let peers = status["peers"].as_u64().unwrap_or_default();
            let knows_all = peers as usize + 1 >= nodes.len();
            if !is_whole || !knows_all || copies["surveyed"] != true {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

/// Flags of a node whose content stays where it was pushed.
pub(crate) fn one_copy() -> [String; 2] {
    ["--copies=1".to_owned(), "--durability=local".to_owned()]
}

/// Starts a node on each machine, all in one swarm, the first on the source; returns when all are
/// ready. Each listens on its machine's loopback for clients. What is pushed to one stays there alone: what
/// is looked at is how the others get it.
pub(crate) fn start_in(lab: &Lab, daemon: &Path, dir: &Path) -> Result<Vec<Node>> {
    let flags = one_copy();
    let start = |number: usize, host: &Host, join: Option<&Path>| {
        let peers = format!("{}:{PEER_PORT}", netns::address(number));
        host.enter(|| Node::start_at(daemon, dir, &name(number), &peers, join, &flags))
    };
    let mut nodes = vec![start(0, lab.source(), None)?];
    let token = nodes[0].token_file()?;
    for (number, host) in lab.hosts().iter().enumerate().skip(1) {
        nodes.push(start(number, host, Some(&token))?);
    }
    for (host, node) in lab.hosts().iter().zip(&nodes) {
        host.enter(|| node.wait_ready())?;
    }
    Ok(nodes)
}

/// The name of node `number` of [`start_in`].
pub(crate) fn name(number: usize) -> String {
    format!("n{number}")
}

/// The three lines that a serving daemon prints, or `None` while one is missing.
fn parse_listening(out: &str) -> Option<Listening> {
    let value = |key: &str| {
        let complete = out.rfind('\n').map_or("", |end| &out[..end]);
        let line = complete.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' '))?;
        let address = line.split_whitespace().next()?;
        let address = address.split_once("://").map_or(address, |(_, address)| address);
        Some(address.trim_end_matches('/').to_owned())
    };
    Some(Listening { registry: value("registry")?, peers: value("peers")?, admin: value("admin")? })
}

fn parse_memory(status: &str) -> Option<Memory> {
    let kib = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let (resident, anonymous) = (kib("VmRSS:")?, kib("RssAnon:")?);
    Some(Memory { resident, anonymous, peak: kib("VmHWM:")? })
}

/// User and system time stand 12th and 13th after the name, in ticks of 10 ms (proc(5)).
fn parse_cpu_s(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lines_are_read() {
        let out = "registry http://127.0.0.1:5000\npeers 127.0.0.1:5001\n\
                   admin http://127.0.0.1:5002/\njoin with: ddrd --join ddr1.x\n";
        let listening = parse_listening(out).unwrap();
        assert_eq!(listening.registry, "127.0.0.1:5000");
        assert_eq!(listening.peers, "127.0.0.1:5001");
        assert_eq!(listening.admin, "127.0.0.1:5002");
    }

    #[test]
    fn a_line_that_is_not_complete_does_not_count() {
        let out = "registry http://127.0.0.1:5000\npeers 127.0.0.1:5001\nadmin http://127.0.0.1:50";
        assert_eq!(parse_listening(out), None);
    }

    #[test]
    fn processor_time_is_read() {
        let stat = "42 (a) name) S 1 42 42 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1";
        assert_eq!(parse_cpu_s(stat), Some(2.0));
    }

    #[test]
    fn memory_is_read() {
        let status =
            "Name:\tddrd\nVmHWM:\t   23456 kB\nVmRSS:\t   12345 kB\nRssAnon:\t    6789 kB\n";
        let memory = parse_memory(status).unwrap();
        assert_eq!(memory, Memory { resident: 12345, anonymous: 6789, peak: 23456 });
    }
}
