//! Five dockers pull one image at once, each from the node on its own machine, over shaped links.
//!
//! What is asserted beside the right images is a count, not a time: how many copies of the image the
//! one node gave away that had it.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use super::docker::Dockerd;
use super::images;
use super::scenario::{self, Client, at, explain};
use super::{Setup, http};
use crate::checks::Checks;
use crate::netns::{Host, Lab};
use crate::run;
use crate::swarm::{self, Node};

/// Machines that pull.
const PULLERS: usize = 5;
/// The image, and that of a long run. MiB.
const IMAGE_MIB: u64 = 160;
const LONG_IMAGE_MIB: u64 = 500;
/// Each link, in each direction. Mbit/s.
const LINK_MBIT: u64 = 100;
/// Copies of the image that its source may give to all together.
const MAX_COPIES: f64 = 1.2;

const REPOSITORY: &str = "team/five";
/// What the source has sent to other nodes.
const SERVED_BYTES: &str = "ddr_served_bytes_total";

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let lab = Lab::new(PULLERS, LINK_MBIT, &[])?;
    let nodes = swarm::start_in(&lab, &setup.daemon, dir)?;
    let mut pushed = None;
    checks.check("dockers: push of a large image to the source", || {
        pushed = Some(explain(&nodes, push(setup, dir, &lab, &nodes[0]))?);
        Ok(())
    });
    checks.check("dockers: five pulls at once get the image, at most 1.2 copies from it", || {
        let pushed = pushed.as_ref().context("nothing was pushed")?;
        explain(&nodes, pull_all(setup, dir, &lab, &nodes, pushed))
    });
    Ok(())
}

/// What was pushed.
#[derive(Debug)]
struct Pushed {
    image_id: String,
    /// Of all layers, as they are sent.
    bytes: u64,
}

/// Builds the image with a docker on the source's machine, and pushes it there.
fn push(setup: &Setup, dir: &Path, lab: &Lab, source: &Node) -> Result<Pushed> {
    let context = dir.join("image");
    images::large(&context, if setup.long { LONG_IMAGE_MIB } else { IMAGE_MIB })?;
    lab.source().enter(|| {
        let docker = Dockerd::start(&dir.join("docker-0"), &setup.cgroup)?;
        let reference = at(source, REPOSITORY);
        docker.build(&context, &reference)?;
        run::output(docker.command().args(["push", &reference]))?;
        let bytes = scenario::layers_of(source, REPOSITORY)?.iter().map(|layer| layer.size).sum();
        Ok(Pushed { image_id: image_id(&docker, &reference)?, bytes })
    })
}

/// All pull at once; then the images and the copies are looked at.
fn pull_all(setup: &Setup, dir: &Path, lab: &Lab, nodes: &[Node], pushed: &Pushed) -> Result<()> {
    let (source, pullers) = (&nodes[0], &nodes[1..]);
    let machines: Vec<(&Host, &Node)> = lab.pullers().iter().zip(pullers).collect();
    let dockers: Vec<Dockerd> = on_each(&machines, |host, node| {
        host.enter(|| Dockerd::start(&dir.join(format!("docker-{}", node.name)), &setup.cgroup))
    })?;
    let dockers: Vec<(&Dockerd, &Node)> = dockers.iter().zip(pullers).collect();
    let before = served_bytes(lab.source(), source)?;
    on_each(&dockers, |docker, node| docker.pull(&at(node, REPOSITORY)))?;
    let sent = served_bytes(lab.source(), source)? - before;
    for (docker, node) in dockers {
        let id = image_id(docker, &at(node, REPOSITORY))?;
        ensure!(id == pushed.image_id, "{} has {id}, not {}", node.name, pushed.image_id);
    }
    let copies = sent as f64 / pushed.bytes as f64;
    let image_mb = pushed.bytes / 1_000_000;
    println!("        {PULLERS} pulls of {image_mb} MB, {copies:.3} copies from the source");
    ensure!(copies <= MAX_COPIES, "{copies:.3} copies are more than {MAX_COPIES}");
    Ok(())
}

/// Runs `work` for each pair at the same time; the first error of all.
fn on_each<A: Sync, T: Send>(
    pairs: &[(&A, &Node)],
    work: impl Fn(&A, &Node) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let start = |(a, node)| {
            let work = &work;
            scope.spawn(move || work(a, node).with_context(|| format!("on {}", node.name)))
        };
        let threads: Vec<_> = pairs.iter().copied().map(start).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(|done| done.map_err(|_| anyhow!("a thread panicked"))?).collect()
    })
}

/// The digest of the configuration of an image that docker has.
fn image_id(docker: &Dockerd, reference: &str) -> Result<String> {
    let id = run::output(docker.command().args(["images", "--no-trunc", "--quiet", reference]))?;
    let id = id.trim();
    ensure!(id.starts_with("sha256:"), "not one image: {id:?}");
    Ok(id.to_owned())
}

/// Content bytes that a node has sent to others.
fn served_bytes(host: &Host, node: &Node) -> Result<u64> {
    host.enter(|| http::metric(&node.admin, SERVED_BYTES))
}
