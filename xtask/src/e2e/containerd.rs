//! containerd with `ctr` and a `hosts.toml`, as Kubernetes nodes have it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::images::Image;
use super::scenario::{self, Client};
use super::{Setup, three_nodes};
use crate::checks::Checks;
use crate::run;
use crate::swarm::Node;
use crate::tools::{CONTAINERD, CTR};

/// From start to an answer of the daemon.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What `ctr` of containerd 1.6 says when it loses a message of its own daemon in the middle of a
/// push, which it does once in a while, whatever the registry (containerd issue 5734).
const OWN_STREAM_BROKE: &str = "rpc error: code = Internal desc = unexpected EOF";
/// Times that a transfer is begun, if that is all that goes wrong.
const MAX_TRANSFERS: usize = 3;

/// Inside the run's own `/run`, so the name can be short.
pub(super) const SOCKET: &str = "/run/ddr-containerd/sock";

/// A containerd that belongs to the test. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Containerd {
    dir: PathBuf,
    cgroup: String,
    child: Child,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let containerd = Containerd::start(&dir.join("containerd"), &setup.cgroup, &nodes)?;
    scenario::all(&containerd, &nodes, setup, checks);
    Ok(())
}

impl Containerd {
    fn start(dir: &Path, cgroup: &str, nodes: &[Node]) -> Result<Self> {
        Self::with_hosts(dir, cgroup, |hosts| {
            nodes.iter().try_for_each(|node| hosts_toml(hosts, &node.registry))
        })
    }

    /// Starts it with the directory of hosts that `write` fills.
    pub(super) fn with_hosts(
        dir: &Path,
        cgroup: &str,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        write(&dir.join("hosts"))?;
        let root = dir.join("root");
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = \"/run/ddr-containerd/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {SOCKET:?}\n"
        );
        fs::write(dir.join("config.toml"), config)?;
        let log = File::create(dir.join("log"))?;
        let child = Command::new(CONTAINERD)
            .arg("--config")
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start containerd")?;
        let containerd = Self { dir: dir.to_path_buf(), cgroup: cgroup.to_owned(), child };
        run::wait_for("containerd answers", START_LIMIT, || {
            Ok(run::output(containerd.ctr().arg("version")).is_ok().then_some(()))
        })
        .with_context(|| fs::read_to_string(dir.join("log")).unwrap_or_default())?;
        Ok(containerd)
    }

    fn ctr(&self) -> Command {
        let mut command = run::client(CTR);
        command.args(["--address", SOCKET, "--namespace", "ddr"]);
        command
    }

    /// `ctr images VERB` with a hosts directory.
    pub(super) fn transfer(&self, verb: &str, hosts: &Path, reference: &str) -> Result<()> {
        let mut ctr = self.ctr();
        ctr.args(["images", verb, "--hosts-dir"]).arg(hosts).arg(reference);
        for _ in 1..MAX_TRANSFERS {
            match run::output(&mut ctr) {
                Err(error) if format!("{error:#}").contains(OWN_STREAM_BROKE) => {
                    println!("        ctr and containerd lost each other, again: {error:#}");
                }
                other => return other.map(drop),
            }
        }
        run::output(&mut ctr).map(drop)
    }

    /// The hosts directory that it was started with.
    fn hosts(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    fn list(&self, what: &str) -> Result<Vec<String>> {
        let out = run::output(self.ctr().args([what, "list", "--quiet"]))?;
        Ok(out.lines().map(str::to_owned).collect())
    }
}

/// What an administrator writes so that containerd speaks plain HTTP to the node.
fn hosts_toml(hosts: &Path, registry: &str) -> Result<()> {
    let dir = hosts.join(registry);
    fs::create_dir_all(&dir)?;
    let text = format!(
        "server = \"http://{registry}\"\n[host.\"http://{registry}\"]\n\
         capabilities = [\"pull\", \"resolve\", \"push\"]\n"
    );
    fs::write(dir.join("hosts.toml"), text)?;
    Ok(())
}

impl Client for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn push(&self, image: &Image, reference: &str) -> Result<()> {
        let mut import = self.ctr();
        run::output(import.args(["images", "import", "--base-name", "local"]).arg(&image.archive))?;
        let imported = self.list("images")?;
        let [local] = imported.as_slice() else {
            anyhow::bail!("expected one imported image: {imported:?}");
        };
        run::output(self.ctr().args(["images", "tag", local, reference]))?;
        self.transfer("push", &self.hosts(), reference)?;
        self.forget()
    }

    fn pull(&self, reference: &str) -> Result<()> {
        ensure!(self.list("content")?.is_empty(), "containerd still has content");
        self.transfer("pull", &self.hosts(), reference)
    }

    fn run(&self, reference: &str, arguments: &[&str]) -> Result<String> {
        let mut run = self.ctr();
        run.args(["run", "--rm", "--cgroup", &format!("{}/ctr", self.cgroup)]);
        run::output(run.args([reference, "ddr-e2e"]).args(arguments))
    }

    fn forget(&self) -> Result<()> {
        for image in self.list("images")? {
            run::output(self.ctr().args(["images", "remove", "--sync", &image]))?;
        }
        Ok(())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Fails only when the process has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
