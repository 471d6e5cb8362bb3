//! ddr import, export and pin against real programs: skopeo, docker, podman.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::images::{Image, PRINT};
use super::podman::Podman;
use super::scenario::{self, Client, at, pull_and_run};
use super::{Dockerd, Setup, http, layout, skopeo, three_nodes};
use crate::checks::Checks;
use crate::run;
use crate::swarm::Node;
use crate::tools::SKOPEO;

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let docker = Dockerd::start(&dir.join("dockerd"), &setup.cgroup)?;
    let podman = Podman::new(dir, setup);
    let run = Run { nodes: &nodes, ddr: setup.daemon.with_file_name("ddr"), dir };
    let image = &setup.images.one;
    let mut check = |name: &str, done: Result<()>| {
        checks.check(&format!("archive: {name}"), || scenario::explain(&nodes, done));
    };
    check("skopeo writes an OCI archive, import on A, skopeo pulls from C", run.oci_archive(image));
    check(
        "skopeo writes a docker archive, import on A, docker runs it from C",
        run.docker_archive(image, &docker),
    );
    check(
        "docker save through a pipe, import on A, docker runs it from C",
        run.docker_save(image, &docker),
    );
    check("podman save, import on A, podman runs it from C", run.podman_save(image, &podman));
    check("export on C is read by skopeo, podman and docker", run.export(&podman, &docker));
    check("an archive that is cut is refused and gives no name", run.cut(image));
    check("what is pinned on C outlives its tag and a collection there", run.pin(image));
    Ok(())
}

/// Three nodes and the command line.
struct Run<'a> {
    nodes: &'a [Node; 3],
    ddr: PathBuf,
    dir: &'a Path,
}

impl Run<'_> {
    fn command(&self, node: &Node) -> Command {
        let mut command = run::client(&self.ddr);
        command.args(["--admin", &node.admin]);
        command
    }

    /// Imports a file on A, under a name or those of the archive.
    fn import(&self, archive: &Path, name: Option<&str>) -> Result<String> {
        let mut import = self.command(&self.nodes[0]);
        run::output(import.arg("import").arg(archive).args(name))
    }

    /// What skopeo makes of an archive.
    fn copied(&self, image: &Image, kind: &str, name: &str) -> Result<PathBuf> {
        let archive = self.dir.join(format!("{kind}.tar"));
        let mut copy = run::client(SKOPEO);
        copy.args(["copy", &format!("oci-archive:{}", image.archive.display())]);
        run::output(copy.arg(format!("{kind}:{}:{name}", archive.display())))?;
        Ok(archive)
    }

    fn oci_archive(&self, image: &Image) -> Result<()> {
        let archive = self.copied(image, "oci-archive", "team/oci:1.0")?;
        self.import(&archive, None)?;
        let unpacked = self.dir.join("oci-archive");
        layout::unpack(&archive, &unpacked)?;
        let digest = http::digest_of(&self.nodes[2].registry, "team/oci", "1.0")?;
        layout::check(&unpacked, &digest)?;
        let pulled = self.dir.join("pulled.tar");
        skopeo::pull(&at(&self.nodes[2], "team/oci"), &format!("oci-archive:{}", pulled.display()))
    }

    fn docker_archive(&self, image: &Image, docker: &Dockerd) -> Result<()> {
        let archive = self.copied(image, "docker-archive", "team/docker-archive:1.0")?;
        let said = self.import(&archive, None)?;
        ensure!(said.contains("team/docker-archive:1.0"), "{said}");
        self.runs(docker, "team/docker-archive")
    }

    fn docker_save(&self, image: &Image, docker: &Dockerd) -> Result<()> {
        docker.build(&image.source, "team/saved:1.0")?;
        let archive = self.dir.join("docker-save.tar");
        run::output(
            docker.command().args(["save", "--output"]).arg(&archive).arg("team/saved:1.0"),
        )?;
        docker.forget()?;
        // A gzip through a pipe, as in `docker save | gzip | ssh far ddr import -`.
        let mut gzip = Command::new("gzip")
            .arg("--stdout")
            .arg(&archive)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start gzip")?;
        let pipe = gzip.stdout.take().context("gzip has an output")?;
        let mut import = self.command(&self.nodes[0]);
        let imported = run::both_outputs_of(import.args(["import", "-"]), pipe.into());
        gzip.wait()?;
        imported?;
        self.runs(docker, "team/saved")
    }

    fn podman_save(&self, image: &Image, podman: &Podman) -> Result<()> {
        for format in ["oci-archive", "docker-archive"] {
            let repository = format!("team/podman-{format}");
            let archive = self.dir.join(format!("podman-{format}.tar"));
            podman.save(image, &format!("localhost/{repository}:1.0"), format, &archive)?;
            self.import(&archive, None)?;
            pull_and_run(podman, &at(&self.nodes[2], &repository), PRINT, "one")?;
        }
        Ok(())
    }

    fn runs(&self, docker: &Dockerd, repository: &str) -> Result<()> {
        pull_and_run(docker, &at(&self.nodes[2], repository), PRINT, "one")
    }

    fn export(&self, podman: &Podman, docker: &Dockerd) -> Result<()> {
        let (tar, directory) = (self.dir.join("export.tar"), self.dir.join("export"));
        let name = "team/oci:1.0";
        for target in [&tar, &directory] {
            let mut export = self.command(&self.nodes[2]);
            run::output(export.args(["export", name]).arg(target))?;
        }
        let digest = http::digest_of(&self.nodes[2].registry, "team/oci", "1.0")?;
        layout::check(&directory, &digest)?;
        let out = format!("dir:{}", self.dir.join("read").display());
        for from in [
            format!("oci-archive:{}:{name}", tar.display()),
            format!("oci:{}:{name}", directory.display()),
        ] {
            run::output(run::client(SKOPEO).args(["copy", &from, &out]))?;
        }
        let loaded = podman.load(&tar)?;
        ensure!(loaded.ends_with(name), "podman loaded {loaded}");
        let printed = podman.run(&loaded, PRINT)?;
        ensure!(printed.trim() == "one", "podman printed {printed:?}");
        let said = run::output(docker.command().args(["load", "--input"]).arg(&tar))?;
        ensure!(said.contains(name), "docker load said {said:?}");
        let printed = docker.run(name, PRINT)?;
        ensure!(printed.trim() == "one", "the loaded image printed {printed:?}");
        docker.forget()
    }

    /// At places spread over a whole archive.
    fn cut(&self, image: &Image) -> Result<()> {
        let len = fs::metadata(&image.archive)?.len();
        let cut = self.dir.join("cut.tar");
        fs::copy(&image.archive, &cut)?;
        for tenths in (0..10).rev() {
            File::options().write(true).open(&cut)?.set_len(len * tenths / 10)?;
            let refused = self.import(&cut, Some("team/cut:1.0"));
            ensure!(refused.is_err(), "{tenths} tenths of an archive were imported");
        }
        http::absent(&self.nodes[2].registry, "team/cut", "1.0")
    }

    fn pin(&self, image: &Image) -> Result<()> {
        let [a, _, c] = self.nodes;
        let on = |node: &Node, arguments: &[&str]| run::output(self.command(node).args(arguments));
        let name = "team/pinned:1.0";
        self.import(&image.archive, Some(name))?;
        let digest = http::digest_of(&a.registry, "team/pinned", "1.0")?;
        on(c, &["pin", name])?;
        ensure!(on(c, &["--json", "pin", "--list"])?.contains(&digest), "the pin is not listed");
        on(a, &["rm", name])?;
        on(c, &["gc", "--untagged", "--grace", "0s"])?;
        let to = format!("dir:{}", self.dir.join("pinned").display());
        let by_digest = format!("team/pinned@{digest}");
        skopeo::pull(&format!("{}/{by_digest}", c.registry), &to)?;
        on(c, &["unpin", &by_digest])?;
        ensure!(!on(c, &["--json", "pin", "--list"])?.contains(&digest), "the pin is still listed");
        Ok(())
    }
}
