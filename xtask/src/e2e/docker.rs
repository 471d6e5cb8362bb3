//! docker: Debian's docker.io, with a daemon that belongs to the test.

use std::ffi::OsStr;
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
use crate::tools::{DOCKER, DOCKERD};

/// From start to an answer of the daemon.
const START_LIMIT: Duration = Duration::from_secs(60);

/// From SIGTERM to the end of the daemon.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A docker daemon with its own data, socket and control group, and no network of its own.
/// Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Dockerd {
    dir: PathBuf,
    /// Its socket, in the run's own `/run`, so the name can be short.
    socket: String,
    child: Child,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let docker = Dockerd::start(&dir.join("dockerd"), &setup.cgroup)?;
    scenario::all(&docker, &nodes, setup, checks);
    Ok(())
}

impl Dockerd {
    /// Starts it and waits until it answers. The last part of `dir` is its name, which no other that
    /// runs may have.
    pub(crate) fn start(dir: &Path, cgroup: &str) -> Result<Self> {
        Self::start_with(dir, cgroup, "{}", &[])
    }

    /// The same with a `daemon.json` and more of an environment.
    pub(crate) fn start_with(
        dir: &Path,
        cgroup: &str,
        config: &str,
        environment: &[(&str, &OsStr)],
    ) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join("daemon.json"), config)?;
        let log = File::create(dir.join("log"))?;
        let name = dir.file_name().context("a daemon without a name")?;
        let place = Path::new("/run").join(name);
        let socket = format!("unix://{}", place.with_extension("sock").display());
        let child = Command::new(DOCKERD)
            .arg("--config-file")
            .arg(dir.join("daemon.json"))
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(&place)
            .arg("--pidfile")
            .arg(place.with_extension("pid"))
            .args(["--host", &socket, "--storage-driver=overlay2"])
            .args(["--iptables=false", "--bridge=none", "--ip-forward=false", "--ip-masq=false"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", cgroup])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start dockerd")?;
        let docker = Self { dir: dir.to_path_buf(), socket, child };
        run::wait_for("dockerd answers", START_LIMIT, || {
            Ok(run::output(docker.command().arg("version")).is_ok().then_some(()))
        })
        .with_context(|| docker.log())?;
        Ok(docker)
    }

    /// The client, talking to this daemon.
    pub(crate) fn command(&self) -> Command {
        let mut command = run::client(DOCKER);
        command.env("DOCKER_CONFIG", self.dir.join("client")).env("DOCKER_BUILDKIT", "0");
        command.args(["--host", &self.socket]);
        command
    }

    /// Builds the Dockerfile of a directory.
    pub(crate) fn build(&self, source: &Path, reference: &str) -> Result<()> {
        let mut build = self.command();
        run::output(build.args(["build", "--quiet", "--tag", reference]).arg(source))?;
        Ok(())
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        format!("log of dockerd:\n{}", run::tail(&log, 3000))
    }
}

impl Client for Dockerd {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn push(&self, image: &Image, reference: &str) -> Result<()> {
        self.build(&image.source, reference)?;
        run::output(self.command().args(["push", reference]))?;
        self.forget()
    }

    fn pull(&self, reference: &str) -> Result<()> {
        let said = run::output(self.command().args(["pull", reference]))?;
        ensure!(!said.contains("Already exists"), "a layer was there already:\n{said}");
        Ok(())
    }

    fn run(&self, reference: &str, arguments: &[&str]) -> Result<String> {
        let mut run = self.command();
        run.args(["run", "--rm", "--network=none", reference]).args(arguments);
        run::output(&mut run)
    }

    fn forget(&self) -> Result<()> {
        run::output(self.command().args(["image", "prune", "--all", "--force"]))?;
        let left = run::output(self.command().args(["images", "--all", "--quiet"]))?;
        ensure!(left.trim().is_empty(), "docker kept images: {left}");
        Ok(())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // A polite end lets it unmount and stop its containerd. Whatever resists dies with the
        // namespaces, so errors are of no interest here.
        let id = self.child.id().to_string();
        run::output(Command::new("kill").args(["-TERM", &id])).ok();
        run::wait_for("dockerd stops", STOP_LIMIT, || Ok(self.child.try_wait()?)).ok();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
