//! oras: files as artifacts, what refers to them, single blobs, copies. It runs nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::go_client::{GoClient, lines};
use super::images::Image;
use super::random::Random;
use super::scenario::{self, Client, explain};
use super::{Setup, http, layout, three_nodes};
use crate::checks::Checks;
use crate::swarm::Node;
use crate::tools::GoTool;

const REPOSITORY: &str = "team/files";
const COPY: &str = "team/files-copy";
const KIND: &str = "application/vnd.example.files";
const REFERRER_KIND: &str = "application/vnd.example.sbom";

/// The files of the artifact, and one that is pushed as a blob alone. Bytes.
const FILES: &[(&str, usize)] = &[("small.bin", 11), ("large.bin", 5_000_000)];
const BLOB: (&str, usize) = ("blob.bin", 3_000_000);

#[derive(Debug)]
struct Oras {
    client: GoClient,
    dir: PathBuf,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let nodes = three_nodes(setup, dir)?;
    let client = GoClient::new(setup, GoTool::ORAS, dir)?;
    let mut random = Random::new(setup.seed);
    for (name, size) in FILES.iter().chain([&BLOB]) {
        fs::write(client.home().join(name), random.bytes(*size))?;
    }
    let oras = Oras { client, dir: dir.to_path_buf() };
    scenario::all(&oras, &nodes, setup, checks);
    checks.check("oras: push files as an artifact on A, pull on C, list on B", || {
        explain(&nodes, oras.files(&nodes))
    });
    checks.check("oras: attach on A, discover on B and C, copy with referrers from C to B", || {
        explain(&nodes, oras.referrers(&nodes))
    });
    checks.check("oras: push a blob on A, fetch it on B and C", || {
        explain(&nodes, oras.blob(&nodes))
    });
    checks.check("oras: delete the referrer, then its subject, on A; gone on B and C", || {
        explain(&nodes, oras.deletes(&nodes))
    });
    checks.check("oras: nothing outside was called", || oras.client.stayed_at_home());
    Ok(())
}

impl Oras {
    fn files(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, b, c] = nodes;
        let to = scenario::at(a, REPOSITORY);
        let mut push = vec!["push", "--plain-http", "--artifact-type", KIND, &to];
        push.extend(FILES.iter().map(|(name, _)| *name));
        self.client.run(&push)?;
        let out = self.client.home().join("pulled");
        let from = scenario::at(c, REPOSITORY);
        self.client.run(&["pull", "--plain-http", "--output", &out.to_string_lossy(), &from])?;
        for (name, _) in FILES {
            self.same(&out.join(name), name)?;
        }
        let repository = format!("{}/{REPOSITORY}", b.registry);
        let tags = self.client.run(&["repo", "tags", "--plain-http", &repository])?;
        ensure!(lines(&tags) == ["1.0"], "tags on B: {tags}");
        let repositories = self.client.run(&["repo", "ls", "--plain-http", &b.registry])?;
        ensure!(lines(&repositories).contains(&REPOSITORY), "repositories on B: {repositories}");
        Ok(())
    }

    fn referrers(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, b, c] = nodes;
        let subject = scenario::at(a, REPOSITORY);
        let attach = ["attach", "--plain-http", "--artifact-type", REFERRER_KIND, &subject];
        self.client.run(&[&attach[..], &["small.bin"]].concat())?;
        for node in nodes {
            let found = self.discover(node, REPOSITORY)?;
            ensure!(found.len() == 1, "{} lists {found:?}", node.name);
        }
        let (from, to) = (scenario::at(c, REPOSITORY), scenario::at(b, COPY));
        self.client.run(&["cp", "-r", "--from-plain-http", "--to-plain-http", &from, &to])?;
        let original = self.discover(a, REPOSITORY)?;
        for node in nodes {
            let copied = self.discover(node, COPY)?;
            ensure!(copied == original, "{} lists {copied:?} of the copy", node.name);
        }
        Ok(())
    }

    /// Digests of what refers to the artifact, by a node.
    fn discover(&self, node: &Node, repository: &str) -> Result<Vec<String>> {
        let subject = scenario::at(node, repository);
        let said = self.client.run(&["discover", "--plain-http", "--format", "json", &subject])?;
        let tree: Value = serde_json::from_str(&said).context("discover gave no JSON")?;
        let referrers = tree["referrers"].as_array().context("no list of referrers")?;
        let digest = |r: &Value| {
            ensure!(r["artifactType"] == REFERRER_KIND, "another type: {r}");
            Ok(r["digest"].as_str().context("a referrer without a digest")?.to_owned())
        };
        referrers.iter().map(digest).collect()
    }

    fn blob(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, b, c] = nodes;
        let digest = http::digests(&[self.client.home().join(BLOB.0)])?.remove(0);
        let at = |node: &Node| format!("{}/{REPOSITORY}@{digest}", node.registry);
        self.client.run(&["blob", "push", "--plain-http", &at(a), BLOB.0])?;
        for node in [b, c] {
            self.client.run(&[
                "blob",
                "fetch",
                "--plain-http",
                "--output",
                "fetched",
                &at(node),
            ])?;
            self.same(&self.client.home().join("fetched"), BLOB.0)?;
        }
        Ok(())
    }

    fn deletes(&self, nodes: &[Node; 3]) -> Result<()> {
        let [a, ..] = nodes;
        let referrer = self.discover(a, REPOSITORY)?.pop().context("nothing to delete")?;
        let subject = http::digest_of(&a.registry, REPOSITORY, "1.0")?;
        for digest in [&referrer, &subject] {
            let target = format!("{}/{REPOSITORY}@{digest}", a.registry);
            self.client.run(&["manifest", "delete", "--plain-http", "--force", &target])?;
            for node in nodes {
                http::absent(&node.registry, REPOSITORY, digest)?;
            }
            if *digest == referrer {
                for node in nodes {
                    let left = self.discover(node, REPOSITORY)?;
                    ensure!(left.is_empty(), "{} still lists {left:?}", node.name);
                }
            }
        }
        for node in nodes {
            http::absent(&node.registry, REPOSITORY, "1.0")?;
            http::digest_of(&node.registry, COPY, "1.0")?;
        }
        Ok(())
    }

    fn same(&self, got: &Path, name: &str) -> Result<()> {
        let same = fs::read(got)? == fs::read(self.client.home().join(name))?;
        ensure!(same, "{} is not the {name} that was pushed", got.display());
        Ok(())
    }

    fn out(&self) -> PathBuf {
        self.dir.join("out")
    }
}

impl Client for Oras {
    fn name(&self) -> &'static str {
        "oras"
    }

    fn push(&self, image: &Image, reference: &str) -> Result<()> {
        let from = self.dir.join("in");
        layout::unpack(&image.archive, &from)?;
        let source = format!("{}:1.0", from.display());
        self.client.run(&["cp", "--from-oci-layout", "--to-plain-http", &source, reference])?;
        Ok(fs::remove_dir_all(&from)?)
    }

    fn pull(&self, reference: &str) -> Result<()> {
        let out = format!("{}:1.0", self.out().display());
        self.client.run(&["cp", "--from-plain-http", "--to-oci-layout", reference, &out])?;
        let digest = self.client.run(&["resolve", "--plain-http", reference])?;
        layout::check(&self.out(), digest.trim())
    }

    fn run(&self, _reference: &str, _arguments: &[&str]) -> Result<String> {
        bail!("oras runs nothing")
    }

    fn runs(&self) -> bool {
        false
    }

    fn forget(&self) -> Result<()> {
        Ok(fs::remove_dir_all(self.out())?)
    }
}
