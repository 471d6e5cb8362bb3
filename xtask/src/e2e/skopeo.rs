//! skopeo: copies images between registries and files. It runs nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::images::Image;
use super::scenario::{self, Client};
use super::{Setup, three_nodes};
use crate::checks::Checks;
use crate::run;
use crate::tools::SKOPEO;

#[derive(Debug)]
struct Skopeo {
    /// Where a pulled image is put.
    out: PathBuf,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let skopeo = Skopeo { out: dir.join("out") };
    scenario::all(&skopeo, &nodes, setup, checks);
    checks.check("skopeo: lists tags on A", || {
        let tags = list_tags(&format!("{}/team/skopeo", nodes[0].registry));
        let tags = scenario::explain(&nodes, tags)?;
        ensure!(tags.contains("\"1.0\""), "the tag is not listed: {tags}");
        Ok(())
    });
    Ok(())
}

/// Copies an image or a whole index from one registry to another.
pub(super) fn copy_all(from: &str, to: &str) -> Result<()> {
    let mut copy = run::client(SKOPEO);
    copy.args(["copy", "--all", "--preserve-digests"]);
    copy.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
    run::output(copy.args([format!("docker://{from}"), format!("docker://{to}")]))?;
    Ok(())
}

/// Copies an OCI archive to a registry.
pub(super) fn push(archive: &Path, reference: &str) -> Result<()> {
    let mut copy = run::client(SKOPEO);
    copy.args(["copy", "--dest-tls-verify=false"]);
    copy.arg(format!("oci-archive:{}", archive.display()));
    run::output(copy.arg(format!("docker://{reference}")))?;
    Ok(())
}

/// Copies an image from a registry to where skopeo writes: a transport and a path.
pub(super) fn pull(reference: &str, to: &str) -> Result<()> {
    let mut copy = run::client(SKOPEO);
    copy.args(["copy", "--src-tls-verify=false", &format!("docker://{reference}"), to]);
    run::output(&mut copy)?;
    Ok(())
}

/// A manifest or an index, as it is.
pub(super) fn raw(reference: &str) -> Result<String> {
    let mut inspect = run::client(SKOPEO);
    inspect.args(["inspect", "--raw", "--tls-verify=false"]);
    run::output(inspect.arg(format!("docker://{reference}")))
}

/// The tags of a repository, as JSON.
pub(super) fn list_tags(repository: &str) -> Result<String> {
    let mut list = run::client(SKOPEO);
    list.args(["list-tags", "--tls-verify=false"]);
    run::output(list.arg(format!("docker://{repository}")))
}

impl Client for Skopeo {
    fn name(&self) -> &'static str {
        "skopeo"
    }

    fn push(&self, image: &Image, reference: &str) -> Result<()> {
        push(&image.archive, reference)
    }

    fn pull(&self, reference: &str) -> Result<()> {
        pull(reference, &format!("dir:{}", self.out.display()))?;
        let pulled = fs::read_to_string(self.out.join("manifest.json"))?;
        ensure!(pulled == raw(reference)?, "the manifest on disk is not the one that is served");
        Ok(())
    }

    fn run(&self, _reference: &str, _arguments: &[&str]) -> Result<String> {
        bail!("skopeo runs nothing")
    }

    fn runs(&self) -> bool {
        false
    }

    fn forget(&self) -> Result<()> {
        Ok(fs::remove_dir_all(&self.out)?)
    }
}
