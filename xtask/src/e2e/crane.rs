//! crane: pushes and pulls image layouts, lists, copies with mounts, deletes. It runs nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::go_client::{GoClient, lines};
use super::images::Image;
use super::scenario::{self, Client, explain};
use super::{Setup, http, layout, three_nodes};
use crate::checks::Checks;
use crate::swarm::Node;
use crate::tools::GoTool;

/// Where the shared scenario has pushed its small and its large image.
const REPOSITORY: &str = "team/crane";
const LARGE: &str = "debian/crane";

/// Where the large image is copied to.
const COPY: &str = "debian/crane-copy";

/// A configuration and at least four layers.
const MIN_MOUNTS: usize = 5;

#[derive(Debug)]
struct Crane {
    client: GoClient,
    dir: PathBuf,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let client = GoClient::new(setup, GoTool::CRANE, dir)?;
    let crane = Crane { client, dir: dir.to_path_buf() };
    scenario::all(&crane, &nodes, setup, checks);
    checks.check("crane: copy to another repository on A mounts every blob, validate on B", || {
        explain(&nodes, crane.copy(&nodes))
    });
    checks.check("crane: tag on A, list tags and repositories on B and C", || {
        explain(&nodes, crane.lists(&nodes))
    });
    checks.check("crane: delete a tag, then a manifest, on A; gone on B and C", || {
        explain(&nodes, crane.deletes(&nodes))
    });
    checks.check("crane: nothing outside was called", || crane.client.stayed_at_home());
    Ok(())
}

impl Crane {
    fn run(&self, args: &[&str]) -> Result<String> {
        self.client.run(&[&["--insecure"], args].concat())
    }

    fn copy(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, b, _] = nodes;
        let (from, to) = (scenario::at(a, LARGE), scenario::at(a, COPY));
        let (_, said) = self.client.run_loud(&["--insecure", "copy", &from, &to])?;
        let count = |what: &str| said.lines().filter(|line| line.contains(what)).count();
        ensure!(count("mounted blob: ") >= MIN_MOUNTS, "not mounted: {said}");
        ensure!(count("pushed blob: ") == 0, "pushed again: {said}");
        self.run(&["validate", "--remote", &scenario::at(b, COPY)])?;
        Ok(())
    }

    fn lists(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, b, c] = nodes;
        self.run(&["tag", &scenario::at(a, COPY), "2.0"])?;
        for node in [a, b, c] {
            let said = self.run(&["ls", &format!("{}/{COPY}", node.registry)])?;
            ensure!(lines(&said) == ["1.0", "2.0"], "tags on {}: {said}", node.name);
            let said = self.run(&["catalog", &node.registry])?;
            let wanted = [LARGE, COPY, REPOSITORY];
            ensure!(lines(&said) == wanted, "repositories on {}: {said}", node.name);
        }
        Ok(())
    }

    fn deletes(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, b, c] = nodes;
        let digest = http::digest_of(&a.registry, COPY, "1.0")?;
        for node in [b, c] {
            self.pull(&scenario::at(node, COPY))?; // so that each has something to forget
            self.forget()?;
        }
        self.run(&["tag", &scenario::at(a, COPY), "3.0"])?;
        self.run(&["delete", &format!("{}/{COPY}:3.0", a.registry)])?;
        for node in nodes {
            http::absent(&node.registry, COPY, "3.0")?;
            http::digest_of(&node.registry, COPY, "1.0")?;
        }
        self.run(&["delete", &format!("{}/{COPY}@{digest}", a.registry)])?;
        for node in nodes {
            http::absent(&node.registry, COPY, &digest)?;
            http::absent(&node.registry, COPY, "1.0")?;
            let there = format!("{}/{COPY}@{digest}", node.registry);
            self.client.refused(&["--insecure", "manifest", &there], "MANIFEST_UNKNOWN")?;
            http::digest_of(&node.registry, LARGE, "1.0")?;
        }
        Ok(())
    }

    fn out(&self) -> PathBuf {
        self.dir.join("out")
    }
}

impl Client for Crane {
    fn name(&self) -> &'static str {
        "crane"
    }

    fn push(&self, image: &Image, reference: &str) -> Result<()> {
        let from = self.dir.join("in");
        layout::unpack(&image.archive, &from)?;
        self.run(&["push", &from.to_string_lossy(), reference])?;
        Ok(fs::remove_dir_all(&from)?)
    }

    fn pull(&self, reference: &str) -> Result<()> {
        let out = self.out();
        self.run(&["pull", "--format=oci", reference, &out.to_string_lossy()])?;
        layout::check(&out, self.run(&["digest", reference])?.trim())
    }

    fn run(&self, _reference: &str, _arguments: &[&str]) -> Result<String> {
        bail!("crane runs nothing")
    }

    fn runs(&self) -> bool {
        false
    }

    fn forget(&self) -> Result<()> {
        Ok(fs::remove_dir_all(self.out())?)
    }
}
