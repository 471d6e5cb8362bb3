//! regctl: copies images, pushes blobs in chunks, attaches artifacts, deletes. It runs nothing.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::go_client::{GoClient, lines};
use super::images::Image;
use super::random::Random;
use super::scenario::{self, Client, explain};
use super::{Setup, http, layout, three_nodes};
use crate::checks::Checks;
use crate::run;
use crate::swarm::Node;
use crate::tools::GoTool;

const REPOSITORY: &str = "team/regctl-copy";
const KIND: &str = "application/vnd.example.sbom";

/// Size of a blob and of the chunks that it is pushed in. Bytes.
const BLOB: usize = 4_500_000;
const CHUNK: usize = 1_000_000;

#[derive(Debug)]
struct Regctl {
    client: GoClient,
    dir: PathBuf,
    seed: u64,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let client = GoClient::new(setup, GoTool::REGCTL, dir)?;
    let regctl = Regctl { client, dir: dir.to_path_buf(), seed: setup.seed };
    for node in &nodes {
        regctl.configure(node)?;
    }
    scenario::all(&regctl, &nodes, setup, checks);
    checks.check("regctl: copy from C to another repository on B, list on A", || {
        explain(&nodes, regctl.copy(&nodes))
    });
    checks.check("regctl: push a blob in chunks on A, get it on B and C", || {
        explain(&nodes, regctl.blob(&nodes))
    });
    checks.check("regctl: attach an artifact on A, list and get it on B and C", || {
        explain(&nodes, regctl.artifact(&nodes))
    });
    checks.check("regctl: delete a tag, then a manifest, on A; gone on B and C", || {
        explain(&nodes, regctl.deletes(&nodes))
    });
    checks.check("regctl: nothing outside was called", || regctl.client.stayed_at_home());
    Ok(())
}

impl Regctl {
    /// Plain HTTP and small chunks for one node, as a user sets them.
    fn configure(&self, node: &Node) -> Result<()> {
        let chunk = CHUNK.to_string();
        let limits = ["--blob-chunk", &chunk, "--blob-max", &chunk];
        let set = ["registry", "set", "--tls", "disabled"];
        self.client.run(&[&set[..], &limits, &[&node.registry]].concat())?;
        Ok(())
    }

    fn copy(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, b, c] = nodes;
        let from = scenario::at(c, "debian/regctl");
        self.client.run(&["image", "copy", &from, &scenario::at(b, REPOSITORY)])?;
        let tags = self.client.run(&["tag", "ls", &format!("{}/{REPOSITORY}", a.registry)])?;
        ensure!(lines(&tags) == ["1.0"], "tags on A: {tags}");
        let repositories = self.client.run(&["repo", "ls", &a.registry])?;
        ensure!(lines(&repositories).contains(&REPOSITORY), "repositories on A: {repositories}");
        let digest = self.client.run(&["image", "digest", &scenario::at(a, REPOSITORY)])?;
        let original = http::digest_of(&a.registry, "debian/regctl", "1.0")?;
        ensure!(digest.trim() == original, "{digest} on A, {original} was copied");
        Ok(())
    }

    fn blob(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, b, c] = nodes;
        let file = self.dir.join("blob.bin");
        fs::write(&file, Random::new(self.seed).bytes(BLOB))?;
        let at = |node: &Node| format!("{}/{REPOSITORY}", node.registry);
        let mut put = self.client.command();
        put.args(["--verbosity", "trace", "blob", "put", &at(a)]);
        let (digest, said) = run::both_outputs_of(&mut put, File::open(&file)?.into())?;
        let digest = digest.trim();
        ensure!(digest == http::digests(&[&file])?[0], "another digest: {digest}");
        let chunks = said.lines().filter(|line| line.contains("method=PATCH")).count();
        ensure!(chunks >= BLOB.div_ceil(CHUNK), "pushed in {chunks} chunks: {said}");
        for node in [b, c] {
            let got = self.dir.join("got.bin");
            let mut get = self.client.command();
            get.args(["blob", "get", &at(node), digest]).stdout(File::create(&got)?);
            ensure!(get.status()?.success(), "blob get on {} failed", node.name);
            ensure!(fs::read(&got)? == fs::read(&file)?, "{} gave other bytes", node.name);
        }
        Ok(())
    }

    fn artifact(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, b, c] = nodes;
        let file = self.client.home().join("sbom.json");
        fs::write(&file, "{\"packages\":[]}")?;
        let subject = scenario::at(a, REPOSITORY);
        let name = file.to_string_lossy();
        let put = ["artifact", "put", "--artifact-type", KIND, "--file", &name];
        self.client.run(&[&put[..], &["--subject", &subject]].concat())?;
        for node in [a, b, c] {
            let digests = self.listed(node)?;
            ensure!(digests.len() == 1, "{} lists {digests:?}", node.name);
            let reference = format!("{}/{REPOSITORY}@{}", node.registry, digests[0]);
            let got = self.client.run(&["artifact", "get", &reference])?;
            ensure!(got == fs::read_to_string(&file)?, "{} gave {got:?}", node.name);
        }
        Ok(())
    }

    /// Digests of what refers to the image, by a node.
    fn listed(&self, node: &Node) -> Result<Vec<String>> {
        let subject = scenario::at(node, REPOSITORY);
        let list = ["artifact", "list", "--format", "body", "--filter-artifact-type", KIND];
        let index: Value =
            serde_json::from_str(&self.client.run(&[&list[..], &[&subject]].concat())?)?;
        let manifests = index["manifests"].as_array().context("no list of manifests")?;
        let digest = |m: &Value| m["digest"].as_str().map(str::to_owned).context("no digest");
        manifests.iter().map(digest).collect()
    }

    fn deletes(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, ..] = nodes;
        let digest = http::digest_of(&a.registry, REPOSITORY, "1.0")?;
        let second = format!("{}/{REPOSITORY}:2.0", a.registry);
        self.client.run(&["image", "copy", &scenario::at(a, REPOSITORY), &second])?;
        self.client.run(&["tag", "delete", &second])?;
        for node in nodes {
            http::absent(&node.registry, REPOSITORY, "2.0")?;
            let tags =
                self.client.run(&["tag", "ls", &format!("{}/{REPOSITORY}", node.registry)])?;
            ensure!(lines(&tags) == ["1.0"], "tags on {}: {tags}", node.name);
        }
        let target = format!("{}/{REPOSITORY}@{digest}", a.registry);
        self.client.run(&["manifest", "delete", &target])?;
        for node in nodes {
            http::absent(&node.registry, REPOSITORY, &digest)?;
            http::absent(&node.registry, REPOSITORY, "1.0")?;
            http::digest_of(&node.registry, "debian/regctl", "1.0")?;
        }
        Ok(())
    }

    fn out(&self) -> PathBuf {
        self.dir.join("out")
    }
}

impl Client for Regctl {
    fn name(&self) -> &'static str {
        "regctl"
    }

    fn push(&self, image: &Image, reference: &str) -> Result<()> {
        self.client.run(&["image", "import", reference, &image.archive.to_string_lossy()])?;
        Ok(())
    }

    fn pull(&self, reference: &str) -> Result<()> {
        let out = format!("ocidir://{}:1.0", self.out().display());
        self.client.run(&["image", "copy", reference, &out])?;
        let digest = self.client.run(&["image", "digest", reference])?;
        layout::check(&self.out(), digest.trim())
    }

    fn run(&self, _reference: &str, _arguments: &[&str]) -> Result<String> {
        bail!("regctl runs nothing")
    }

    fn runs(&self) -> bool {
        false
    }

    fn forget(&self) -> Result<()> {
        Ok(fs::remove_dir_all(self.out())?)
    }
}
