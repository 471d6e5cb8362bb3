//! buildah: builds, pushes, pulls, runs; and makes images for more than one platform.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::images::Image;
use super::scenario::{self, Client};
use super::{Setup, http, skopeo, three_nodes};
use crate::checks::Checks;
use crate::run;
use crate::swarm::Node;
use crate::tools::BUILDAH;

/// Platforms of the index; each image in it has content of its own.
const PLATFORMS: &[&str] = &["linux/amd64", "linux/arm64", "linux/s390x"];

/// buildah with its own storage.
#[derive(Debug)]
pub(super) struct Buildah {
    dir: PathBuf,
    registries: Option<PathBuf>,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let buildah = Buildah::new(&dir.join("buildah"));
    scenario::all(&buildah, &nodes, setup, checks);
    checks.check("buildah: index of three platforms, push on A, skopeo copies C to B", || {
        scenario::explain(&nodes, index(&buildah, &nodes, dir))
    });
    Ok(())
}

impl Buildah {
    /// Keeps everything below `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), registries: None }
    }

    /// The same with a `registries.conf`.
    pub(super) fn with_registries(self, file: &Path) -> Self {
        Self { registries: Some(file.to_path_buf()), ..self }
    }

    fn command(&self) -> Command {
        let mut command = run::client(BUILDAH);
        command.arg("--root").arg(self.dir.join("root"));
        command.args(["--runroot", "/run/buildah", "--storage-driver=overlay"]);
        if let Some(file) = &self.registries {
            command.env("CONTAINERS_REGISTRIES_CONF", file);
        }
        command
    }

    fn build(&self, source: &Path, name: &str, platform: Option<&str>) -> Result<()> {
        let mut build = self.command();
        build.args(["bud", "--quiet", "--layers", "--isolation=chroot", "--tag", name]);
        build.args(platform.into_iter().flat_map(|p| ["--platform", p]));
        run::output(build.arg(source))?;
        Ok(())
    }

    /// Builds a source and writes the image as an OCI archive.
    pub(super) fn archive(&self, source: &Path, archive: &Path) -> Result<()> {
        self.build(source, "localhost/archive:1.0", None)?;
        let to = format!("oci-archive:{}:1.0", archive.display());
        run::output(self.command().args(["push", "--quiet", "localhost/archive:1.0", &to]))?;
        self.forget()
    }
}

impl Client for Buildah {
    fn name(&self) -> &'static str {
        "buildah"
    }

    fn push(&self, image: &Image, reference: &str) -> Result<()> {
        self.build(&image.source, reference, None)?;
        run::output(self.command().args(["push", "--tls-verify=false", reference]))?;
        self.forget()
    }

    fn pull(&self, reference: &str) -> Result<()> {
        run::output(self.command().args(["pull", "--tls-verify=false", reference]))?;
        Ok(())
    }

    fn run(&self, reference: &str, arguments: &[&str]) -> Result<String> {
        let from = run::output(self.command().args(["from", "--pull-never", reference]))?;
        let container = from.trim();
        let mut run = self.command();
        run.args(["run", "--isolation=chroot", container, "--"]).args(arguments);
        let printed = run::output(&mut run)?;
        run::output(self.command().args(["rm", container]))?;
        Ok(printed)
    }

    fn forget(&self) -> Result<()> {
        run::output(self.command().args(["rmi", "--all", "--force"]))?;
        let left = run::output(self.command().args(["images", "--all", "--quiet"]))?;
        ensure!(left.trim().is_empty(), "buildah kept images: {left}");
        Ok(())
    }
}

/// An index made by buildah on A, copied whole by skopeo from C to B under another name.
fn index(buildah: &Buildah, nodes: &[Node; 3], dir: &Path) -> Result<()> {
    let [a, b, c] = nodes;
    let list = "localhost/index:1.0";
    run::output(buildah.command().args(["manifest", "create", list]))?;
    for platform in PLATFORMS {
        let name = format!("localhost/{}:1.0", platform.replace('/', "-"));
        let source = dir.join(platform.replace('/', "-"));
        super::images::small(&source, platform)?;
        buildah.build(&source, &name, Some(platform))?;
        run::output(buildah.command().args(["manifest", "add", list, &name]))?;
    }
    let to = format!("docker://{}", scenario::at(a, "team/index"));
    let mut push = buildah.command();
    run::output(push.args(["manifest", "push", "--all", "--tls-verify=false", list, &to]))?;
    skopeo::copy_all(&scenario::at(c, "team/index"), &scenario::at(b, "team/copy"))?;
    let pushed = http::digest_of(&a.registry, "team/index", "1.0")?;
    let copied = http::digest_of(&c.registry, "team/copy", "1.0")?;
    ensure!(pushed == copied, "the index changed on its way: {pushed}, {copied}");
    let raw = skopeo::raw(&scenario::at(a, "team/copy"))?;
    for platform in PLATFORMS {
        let architecture = platform.split('/').nth(1).context("a platform has two parts")?;
        ensure!(raw.contains(architecture), "no {architecture} in {raw}");
    }
    buildah.forget()?;
    let reference = scenario::at(c, "team/copy");
    buildah.pull(&reference)?;
    let printed = buildah.run(&reference, super::images::PRINT)?;
    let own = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    ensure!(printed == own, "the image for another platform was pulled: {printed}");
    buildah.forget()
}
