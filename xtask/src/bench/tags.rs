//! `cargo xtask bench tags`: how long reads and writes of tags take in a swarm, beside Debian's
//! docker-registry.
//!
//! All daemons run on loopback and share this machine's processors. One manifest lies on every node, so what is
//! measured is the name: a read is a `HEAD` by tag at a random node, a write a `PUT` of that manifest under a new
//! or an old tag, each over a connection that stays open. The registry is asked the same between them.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::client::{self, Content, MANIFEST};
use super::goal::Goal;
use super::servers::Server;
use crate::TagsArgs;
use crate::e2e::{self, Random};
use crate::sandbox;
use crate::swarm::{self, Node};
use crate::tools::{self, REGISTRY};
use crate::wire::Connection;
use crate::workspace::{Workspace, ensure_release};

/// The goals: 99 of 100 take at most so many milliseconds.
const GOAL_READ_MS: f64 = 10.0;
const GOAL_WRITE_MS: f64 = 25.0;
const REPOSITORY: &str = "bench/tags";
const FIRST: &str = "first";
/// Tags that writes go to and reads come from.
const TAGS: usize = 64;
/// Writes before the measurement: every node has connections to every other.
const WARM_UP: usize = 64;
const LAYER_BYTES: usize = 64 * 1024;

/// Builds the daemon as it is shipped and measures. True when the goals are reached.
pub(crate) fn tags(workspace: &Workspace, args: &TagsArgs) -> Result<bool> {
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        tools::ensure_servers()?;
        ensure_release(args.daemon.as_deref())?;
        return sandbox::enter(workspace, &e2e::own_arguments(), false);
    };
    ensure!(args.nodes > 0 && args.reads > 0 && args.writes > 0, "nothing to measure");
    let daemon = args.daemon.clone().unwrap_or_else(|| workspace.daemon("release"));
    let seed = args.seed.map_or_else(e2e::seed_of_clock, Ok)?;
    println!("seed {seed}, {} nodes", args.nodes);
    let mut bench = Bench::prepare(&daemon, dir, args.nodes, seed)?;
    let (writes, registry_writes) = bench.measure(args.writes, write)?;
    let (reads, registry_reads) = bench.measure(args.reads, read)?;
    println!("| ms | median | p99 | most | docker-registry: median | p99 |");
    println!("|---|---|---|---|---|---|");
    row("read of a tag", &reads, &registry_reads);
    row("write of a tag", &writes, &registry_writes);
    let goals = [
        Goal::at_most("read of a tag, p99, ms", at(&reads, 0.99), GOAL_READ_MS),
        Goal::at_most("write of a tag, p99, ms", at(&writes, 0.99), GOAL_WRITE_MS),
    ];
    goals.iter().for_each(|goal| println!("{goal}"));
    Ok(goals.iter().all(Goal::reached))
}

/// A swarm and a registry with the same manifest.
struct Bench {
    nodes: Vec<(Node, Connection)>,
    /// Dropped last: it runs while it is asked.
    registry: (Server, Connection),
    manifest: Vec<u8>,
    random: Random,
}

impl Bench {
    fn prepare(daemon: &Path, dir: &Path, count: usize, seed: u64) -> Result<Self> {
        let mut random = Random::new(seed);
        let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
        let nodes = swarm::start(daemon, &dir.join("swarm"), &names)?;
        let registry = Server::registry(Path::new(REGISTRY), &dir.join("docker-registry"))?;
        let layers = [Content::new(random.next(), LAYER_BYTES)];
        for address in [&nodes[0].registry, &registry.address] {
            client::push_image(address, REPOSITORY, FIRST, &layers)?;
        }
        let mut manifest = Vec::new();
        let mut open = Vec::new();
        for node in nodes {
            let mut connection = Connection::open(&node.registry)?;
            manifest = get_manifest(&mut connection).with_context(|| node.log())?;
            open.push((node, connection));
        }
        let connection = Connection::open(&registry.address)?;
        let mut bench = Self { nodes: open, registry: (registry, connection), manifest, random };
        for number in 0..TAGS + WARM_UP {
            let at = bench.random.below(bench.nodes.len());
            write(&mut bench.nodes[at].1, number % TAGS, &bench.manifest)?;
            write(&mut bench.registry.1, number % TAGS, &bench.manifest)?;
        }
        Ok(bench)
    }

    /// The times of `count` requests, in milliseconds in order: to the swarm, to the registry.
    fn measure(
        &mut self,
        count: usize,
        ask: impl Fn(&mut Connection, usize, &[u8]) -> Result<()>,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut swarm, mut registry) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (node, tag) = (self.random.below(self.nodes.len()), self.random.below(TAGS));
            let (node, connection) = &mut self.nodes[node];
            let started = Instant::now();
            ask(connection, tag, &self.manifest).with_context(|| node.log())?;
            swarm.push(started.elapsed().as_secs_f64() * 1e3);
            let started = Instant::now();
            ask(&mut self.registry.1, tag, &self.manifest)?;
            registry.push(started.elapsed().as_secs_f64() * 1e3);
        }
        swarm.sort_by(f64::total_cmp);
        registry.sort_by(f64::total_cmp);
        Ok((swarm, registry))
    }
}

fn read(connection: &mut Connection, tag: usize, _: &[u8]) -> Result<()> {
    let target = format!("/v2/{REPOSITORY}/manifests/t{tag}");
    connection.send("HEAD", &target, &[&format!("Accept: {MANIFEST}")], None)?;
    let head = connection.receive_head()?;
    ensure!(head.status == 200, "HEAD {target}: {}", head.status);
    Ok(())
}

fn write(connection: &mut Connection, tag: usize, manifest: &[u8]) -> Result<()> {
    let target = format!("/v2/{REPOSITORY}/manifests/t{tag}");
    connection.send("PUT", &target, &[&format!("Content-Type: {MANIFEST}")], Some(manifest))?;
    let answer = connection.receive()?;
    ensure!(answer.head.status == 201, "PUT {target}: {}", answer.head.status);
    Ok(())
}

fn get_manifest(connection: &mut Connection) -> Result<Vec<u8>> {
    let target = format!("/v2/{REPOSITORY}/manifests/{FIRST}");
    connection.send("GET", &target, &[&format!("Accept: {MANIFEST}")], None)?;
    let answer = connection.receive()?;
    ensure!(answer.head.status == 200, "GET {target}: {}", answer.head.status);
    Ok(answer.body)
}

fn row(what: &str, swarm: &[f64], registry: &[f64]) {
    println!(
        "| {what} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
        at(swarm, 0.5),
        at(swarm, 0.99),
        at(swarm, 1.0),
        at(registry, 0.5),
        at(registry, 0.99)
    );
}

/// The value below which this share of the sorted ones lies.
fn at(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len() - 1;
    sorted[((last as f64) * share).round() as usize]
}
