//! What every client must be able to do with a swarm of three nodes.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;

use super::images::{Image, Images, PRINT};
use super::{Setup, http};
use crate::checks::Checks;
use crate::swarm::Node;

/// Prints one word from inside a Debian container if its package database is whole.
const ASK_DPKG: &[&str] = &["/bin/sh", "-c", "dpkg-query -W -f '${Package}' libc6 && dpkg --audit"];

/// The large image has at least so many layers.
const MIN_LAYERS: usize = 4;

/// One real client program.
pub(super) trait Client {
    /// As in the names of the checks.
    fn name(&self) -> &'static str;
    /// Makes the image known to the client and pushes it. Nothing of it stays with the client.
    fn push(&self, image: &Image, reference: &str) -> Result<()>;
    /// Pulls; fails when content was there already.
    fn pull(&self, reference: &str) -> Result<()>;
    /// What a container of a pulled image prints.
    fn run(&self, reference: &str, arguments: &[&str]) -> Result<String>;
    /// False for a client that runs nothing.
    fn runs(&self) -> bool {
        true
    }
    /// Removes all images and their content.
    fn forget(&self) -> Result<()>;
}

/// Runs the three checks that all clients share.
pub(super) fn all(client: &dyn Client, nodes: &[Node; 3], setup: &Setup, checks: &mut Checks) {
    let name = client.name();
    let repository = format!("team/{name}");
    let images = &setup.images;
    let pull = if client.runs() { "pull and run" } else { "pull" };
    checks.check(&format!("{name}: push on A, {pull} on C"), || {
        explain(nodes, first_push(client, nodes, &repository, images))
    });
    checks.check(&format!("{name}: the same tag pushed on B is new on A and C"), || {
        explain(nodes, moved_tag(client, nodes, &repository, images))
    });
    checks.check(&format!("{name}: Debian of at least 4 layers, push on A, {pull} on C"), || {
        explain(nodes, debian(client, nodes, images))
    });
}

/// Adds the nodes' logs to an error.
pub(super) fn explain<T>(nodes: &[Node], result: Result<T>) -> Result<T> {
    result.map_err(|error| {
        let logs: Vec<String> = nodes.iter().map(Node::log).collect();
        anyhow!("{error:#}\n{}", logs.join("\n"))
    })
}

fn first_push(client: &dyn Client, nodes: &[Node; 3], repo: &str, images: &Images) -> Result<()> {
    let [a, _, c] = nodes;
    client.push(&images.one, &at(a, repo))?;
    same_digest(nodes, repo)?;
    pull_and_run(client, &at(c, repo), PRINT, "one")
}

fn moved_tag(client: &dyn Client, nodes: &[Node; 3], repo: &str, images: &Images) -> Result<()> {
    let [a, b, c] = nodes;
    let before = same_digest(nodes, repo)?;
    client.push(&images.two, &at(b, repo))?;
    let after = same_digest(nodes, repo)?;
    ensure!(before != after, "the tag did not move: still {before}");
    for node in [a, c] {
        pull_and_run(client, &at(node, repo), PRINT, "two")
            .with_context(|| format!("pull on {}", node.name))?;
    }
    Ok(())
}

fn debian(client: &dyn Client, nodes: &[Node; 3], images: &Images) -> Result<()> {
    let [a, _, c] = nodes;
    let repo = format!("debian/{}", client.name());
    client.push(&images.debian, &at(a, &repo))?;
    same_digest(nodes, &repo)?;
    let layers = layers_of(c, &repo)?;
    ensure!(layers.len() >= MIN_LAYERS, "only {} layers", layers.len());
    let total: u64 = layers.iter().map(|l| l.size).sum();
    println!("        {} layers, {} MB compressed", layers.len(), total / 1_000_000);
    pull_and_run(client, &at(c, &repo), ASK_DPKG, "libc6")
}

/// Pulls, runs when the client can, compares, forgets.
pub(super) fn pull_and_run(
    client: &dyn Client,
    reference: &str,
    run: &[&str],
    expected: &str,
) -> Result<()> {
    client.pull(reference)?;
    if client.runs() {
        let printed = client.run(reference, run)?;
        ensure!(printed.trim() == expected, "printed {printed:?}, expected {expected:?}");
    }
    client.forget()
}

/// All nodes must give the same digest for the tag.
fn same_digest(nodes: &[Node; 3], repository: &str) -> Result<String> {
    let digests: BTreeSet<String> = nodes
        .iter()
        .map(|n| {
            http::digest_of(&n.registry, repository, TAG).with_context(|| format!("on {}", n.name))
        })
        .collect::<Result<_>>()?;
    ensure!(digests.len() == 1, "nodes disagree about {repository}:{TAG}: {digests:?}");
    digests.into_iter().next().context("no digest")
}

/// A layer in a manifest.
#[derive(Debug, Deserialize)]
pub(super) struct Layer {
    pub(super) size: u64,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

/// The layers of the image under [`TAG`].
pub(super) fn layers_of(node: &Node, repository: &str) -> Result<Vec<Layer>> {
    let url = format!("http://{}/v2/{repository}/manifests/{TAG}", node.registry);
    let answer = http::request(&url, &["--header", http::ACCEPT])?.expect(200)?;
    let manifest: Manifest = serde_json::from_str(&answer.body).context("not a manifest")?;
    Ok(manifest.layers)
}

/// The tag that everything is pushed under.
const TAG: &str = "1.0";

/// The reference of a repository on a node.
pub(super) fn at(node: &Node, repository: &str) -> String {
    format!("{}/{repository}:{TAG}", node.registry)
}
