//! Two daemons on a LAN of their own, which is made of network namespaces and a bridge: nothing but
//! multicast DNS leads from one to the other.
//!
//! The names of the namespaces lie in the `/run` of the sandbox and go with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Setup;
use crate::checks::Checks;
use crate::run;

/// The namespace of the bridge.
const LAN: &str = "ddr-lan";
/// Addresses of the two machines, and those that they have later.
const FIRST: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
const LATER: [&str; 2] = ["10.77.0.11", "10.77.0.12"];
/// From the start of the daemons to the meeting.
const MEETING_LIMIT: Duration = Duration::from_secs(60);
/// How much of a daemon's log is shown when something fails. Bytes.
const MAX_LOG_SHOWN: usize = 4000;

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    ip(&["netns", "add", LAN])?;
    ip(&["-n", LAN, "link", "add", "br0", "up", "type", "bridge"])?;
    let mut hosts = ["ddr-a", "ddr-b"].map(|name| Host::new(setup, dir, name));
    hosts.iter().try_for_each(Host::plug_in)?;
    checks.check("mdns: B joins A by a token", || {
        let joined = join(&mut hosts);
        explain(&hosts, joined)
    });
    checks.check("mdns: moved and without their books, they meet by the LAN alone", || {
        let met = move_and_meet(&mut hosts);
        explain(&hosts, met)
    });
    Ok(())
}

fn join([a, b]: &mut [Host; 2]) -> Result<()> {
    a.start(FIRST[0], None)?;
    let token = a.data.join("join-token");
    run::wait_for("A writes its token", MEETING_LIMIT, || Ok(token.exists().then_some(())))?;
    b.start(FIRST[1], Some(&token))?;
    meet(&[a, b])
}

/// Every address that one knows of the other is wrong from now on.
fn move_and_meet([a, b]: &mut [Host; 2]) -> Result<()> {
    for (host, address) in [(&mut *a, LATER[0]), (&mut *b, LATER[1])] {
        host.stop();
        fs::remove_file(host.data.join("peers.json")).context("no book was written")?;
        host.start(address, None)?;
    }
    meet(&[a, b])?;
    let mut answered = 0;
    for host in [a, b] {
        let status = host.status()?;
        for source in status["bootstrap"].as_array().context("no sources in the status")? {
            let count = source["answered"].as_u64().context("no count")?;
            let by_lan = source["source"] == "mdns";
            ensure!(by_lan || count == 0, "{}: found by {source}", host.name);
            answered += count;
        }
    }
    ensure!(answered > 0, "nobody answered at an address from the LAN");
    Ok(())
}

/// Waits until each is ready and knows the other.
fn meet(hosts: &[&mut Host; 2]) -> Result<()> {
    for host in hosts {
        run::wait_for(&format!("{} meets the other", host.name), MEETING_LIMIT, || {
            // Before it listens the status cannot be read.
            let Ok(status) = host.status() else { return Ok(None) };
            Ok((status["ready"] == true && status["peers"] == 1).then_some(()))
        })?;
    }
    Ok(())
}

/// A machine on the LAN: a network namespace with one interface.
#[derive(Debug)]
struct Host {
    name: &'static str,
    daemon: PathBuf,
    data: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Host {
    fn new(setup: &Setup, dir: &Path, name: &'static str) -> Self {
        let (daemon, data) = (setup.daemon.clone(), dir.join(name));
        Self { name, daemon, data, log: dir.join(format!("{name}.log")), child: None }
    }

    fn plug_in(&self) -> Result<()> {
        let name = self.name;
        ip(&["netns", "add", name])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", name];
        ip(&[&["-n", LAN, "link", "add", name][..], &pair].concat())?;
        ip(&["-n", LAN, "link", "set", name, "up", "master", "br0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])
    }

    /// Gives the machine this address and no other, and starts its daemon.
    fn start(&mut self, address: &str, join: Option<&Path>) -> Result<()> {
        ip(&["-n", self.name, "addr", "flush", "dev", "eth0"])?;
        ip(&["-n", self.name, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
        let log = File::options().create(true).append(true).open(&self.log)?;
        // `ip` becomes the daemon, so that its end is the daemon's.
        let mut command = self.inside(Command::new("ip"), &self.daemon);
        command
            .arg("--data-dir")
            .arg(&self.data)
            .args(["--peer-listen", &format!("{address}:5001")]);
        if let Some(token) = join {
            command.arg(format!("--join=@{}", token.display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().context("cannot start a daemon")?);
        Ok(())
    }

    /// SIGKILL: it has no time to say goodbye.
    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; either way it is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn status(&self) -> Result<Value> {
        let mut command = self.inside(run::client("ip"), &self.daemon.with_file_name("ddr"));
        let said = run::output(command.args(["--json", "status"]))?;
        serde_json::from_str(&said).context("the status is no JSON")
    }

    /// `ip` with the words that run a program on this machine.
    fn inside(&self, mut ip: Command, program: &Path) -> Command {
        ip.args(["netns", "exec", self.name]).arg(program);
        ip
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop();
    }
}

fn ip(args: &[&str]) -> Result<()> {
    run::output(Command::new("ip").args(args)).map(drop)
}

/// The error with the ends of the daemons' logs.
fn explain(hosts: &[Host; 2], result: Result<()>) -> Result<()> {
    let logs = hosts.iter().map(|host| {
        let log = fs::read_to_string(&host.log).unwrap_or_default();
        format!("log of {}:\n{}", host.name, run::tail(&log, MAX_LOG_SHOWN))
    });
    result.with_context(|| logs.collect::<Vec<_>>().join("\n"))
}
