//! podman, with its own storage, on runc.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::images::Image;
use super::scenario::{self, Client};
use super::{Setup, three_nodes};
use crate::checks::Checks;
use crate::run;
use crate::tools::PODMAN;

/// Limits of a container. podman's own defaults are above what a restricted root may set.
const LIMITS: &[&str] = &["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];

/// podman with its own storage.
#[derive(Debug)]
pub(super) struct Podman {
    dir: PathBuf,
    cgroup: String,
    /// What it knows of registries, if not what the machine does.
    registries: Option<PathBuf>,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let podman = Podman::new(dir, setup);
    scenario::all(&podman, &nodes, setup, checks);
    Ok(())
}

impl Podman {
    /// Keeps everything below `dir/podman`.
    pub(super) fn new(dir: &Path, setup: &Setup) -> Self {
        Self { dir: dir.join("podman"), cgroup: setup.cgroup.clone(), registries: None }
    }

    /// The same with a `registries.conf`.
    pub(super) fn with_registries(self, file: &Path) -> Self {
        Self { registries: Some(file.to_path_buf()), ..self }
    }

    /// Writes an image into a file, in a format of `podman save`. Nothing of it stays with podman.
    pub(super) fn save(
        &self,
        image: &Image,
        name: &str,
        format: &str,
        archive: &Path,
    ) -> Result<()> {
        self.take(image, name)?;
        let mut save = self.command();
        save.args(["save", "--quiet", "--format", format, "--output"]).arg(archive);
        run::output(save.arg(name))?;
        self.forget()
    }

    /// Loads an image from a file; the name that it has then.
    pub(super) fn load(&self, archive: &Path) -> Result<String> {
        let said = run::output(self.command().args(["load", "--input"]).arg(archive))?;
        let name = said.lines().find_map(|line| line.rsplit_once(": ")).context("no name")?;
        Ok(name.1.trim().to_owned())
    }

    fn take(&self, image: &Image, name: &str) -> Result<()> {
        let from = format!("oci-archive:{}", image.archive.display());
        let id = run::output(self.command().args(["pull", "--quiet", &from]))?;
        run::output(self.command().args(["tag", id.trim(), name]))?;
        Ok(())
    }

    /// runc, because crun refuses a machine that has both versions of control groups.
    fn command(&self) -> Command {
        let mut command = run::client(PODMAN);
        command.arg("--root").arg(self.dir.join("root"));
        command.args(["--runroot", "/run/podman", "--tmpdir", "/run/podman-tmp"]);
        command.args(["--storage-driver=overlay", "--cgroup-manager=cgroupfs"]);
        command.args(["--events-backend=none", "--runtime=runc"]);
        if let Some(file) = &self.registries {
            command.env("CONTAINERS_REGISTRIES_CONF", file);
        }
        command
    }
}

impl Client for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn push(&self, image: &Image, reference: &str) -> Result<()> {
        self.take(image, reference)?;
        run::output(self.command().args(["push", "--tls-verify=false", reference]))?;
        self.forget()
    }

    fn pull(&self, reference: &str) -> Result<()> {
        run::output(self.command().args(["pull", "--tls-verify=false", reference]))?;
        Ok(())
    }

    fn run(&self, reference: &str, arguments: &[&str]) -> Result<String> {
        let mut run = self.command();
        run.args(["run", "--rm", "--network=none", "--cgroup-parent", &self.cgroup]);
        run::output(run.args(LIMITS).arg(reference).args(arguments))
    }

    fn forget(&self) -> Result<()> {
        run::output(self.command().args(["rmi", "--all", "--force"]))?;
        let left = run::output(self.command().args(["images", "--all", "--quiet"]))?;
        ensure!(left.trim().is_empty(), "podman kept images: {left}");
        Ok(())
    }
}
