//! `cargo xtask bench mirror`: nodes in front of docker-registry, which is behind a narrow link.
//!
//! The registry runs on the source's machine, whose link is the uplink; the nodes' links are ten times as
//! wide, or as `--link` says. A cold blob is pulled through one node, then another by all nodes of a new swarm at once: what the registry sends
//! is counted on its link. Then a warm blob is read through a node and from a registry, each on its
//! own loopback, and a blob that nobody has is asked for.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::client::{self, Content, Read};
use super::goal::Goal;
use super::servers::Server;
use super::swarm::pull::{self, Client, Wanted};
use crate::MirrorArgs;
use crate::e2e::{self, Random};
use crate::median::median;
use crate::netns::{Host, Lab, MAX_NODES, address};
use crate::sandbox;
use crate::swarm::Node;
use crate::tools::{self, REGISTRY};
use crate::workspace::{Workspace, ensure_release};

/// Times that a node's link is wider than the uplink, unless it is given.
const WIDER: u64 = 10;
/// The goals: copies that the registry sends; times of a lone node; times of a registry; milliseconds.
const GOAL_COPIES: f64 = 1.05;
const GOAL_TIME: f64 = 1.25;
const GOAL_WARM: f64 = 1.05;
const GOAL_ABSENT_MS: f64 = 50.0;
const REPOSITORY: &str = "bench/mirror";
const REGISTRY_PORT: u16 = 5000;
const PEER_PORT: u16 = 5001;
const MIB: usize = 1 << 20;

/// Builds the daemon as it is shipped and measures. True when the goals are reached.
pub(crate) fn mirror(workspace: &Workspace, args: &MirrorArgs) -> Result<bool> {
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        tools::ensure_links()?;
        ensure_release(args.daemon.as_deref())?;
        return sandbox::enter(workspace, &e2e::own_arguments(), false);
    };
    ensure!((1..MAX_NODES).contains(&args.nodes), "1 to {} nodes", MAX_NODES - 1);
    ensure!(args.uplink >= 10 && args.blob > 0, "a blob of 1 MiB and 10 Mbit/s at least");
    sandbox::mask()?;
    let seed = args.seed.map_or_else(e2e::seed_of_clock, Ok)?;
    println!("seed {seed}");
    let daemon = args.daemon.clone().unwrap_or_else(|| workspace.daemon("release"));
    let mut bench = Bench { args, daemon, dir, random: Random::new(seed) };
    let (lone, _, warm) = bench.cold("lone", 1)?;
    let (all, copies, _) = bench.cold("all", args.nodes)?;
    let nodes = args.nodes;
    let goals = [
        Goal::at_most(
            format!("copies that the registry sends to {nodes} nodes"),
            copies,
            GOAL_COPIES,
        ),
        Goal::at_most(
            format!("slowest of {nodes} nodes, times of a lone one"),
            all / lone,
            GOAL_TIME,
        ),
        Goal::at_most("warm blob through a node, times of docker-registry", warm.ratio, GOAL_WARM),
        Goal::at_most(
            "404 through a node, ms more than from the registry",
            warm.absent_ms,
            GOAL_ABSENT_MS,
        ),
    ];
    println!("| | value | goal | |\n|---|---|---|---|");
    goals.iter().for_each(|goal| println!("{goal}"));
    Ok(goals.iter().all(Goal::reached))
}

struct Bench<'a> {
    args: &'a MirrorArgs,
    daemon: PathBuf,
    dir: &'a Path,
    random: Random,
}

/// What a node adds to what is there, and to what is nowhere.
struct Warm {
    ratio: f64,
    absent_ms: f64,
}

impl Bench<'_> {
    /// A cold blob through each of so many nodes at once: seconds of the slowest, copies that left the registry, and
    /// then the first node when it is warm.
    fn cold(&mut self, name: &str, nodes: usize) -> Result<(f64, f64, Warm)> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        let wide = self.args.link.unwrap_or(self.args.uplink * WIDER);
        let lab = Lab::new(nodes, wide, &[])?;
        lab.shape_source(self.args.uplink)?;
        let upstream = SocketAddr::new(address(0), REGISTRY_PORT).to_string();
        let blob = Content::new(self.random.next(), self.args.blob * MIB);
        let server = lab.source().enter(|| {
            let server =
                Server::registry_at(Path::new(REGISTRY), &dir.join("registry"), upstream.clone())?;
            client::push_image(&upstream, REPOSITORY, "1.0", std::slice::from_ref(&blob))?;
            Ok(server)
        })?;
        let swarm = self.start(&lab, &dir, &upstream)?;
        let here = format!("{}/{REPOSITORY}", upstream.replace(':', "_"));
        let wanted = Wanted::blob(&here, &blob);
        super::settle()?;
        let mut sent = lab.source().sent_bytes()?;
        let before = sent.read()?;
        let clients: Vec<Client<'_>> = lab
            .pullers()
            .iter()
            .zip(&swarm)
            .map(|(host, node)| Client {
                host,
                address: node.registry.clone(),
                delay: Duration::ZERO,
            })
            .collect();
        let outcomes = pull::all(&clients, &wanted, |_| Ok(()))?;
        let copies = (sent.read()? - before) as f64 / wanted.bytes() as f64;
        let mut slowest: f64 = 0.0;
        for (outcome, node) in outcomes.iter().zip(&swarm) {
            let pull = outcome.pull.with_context(|| node.log())?;
            ensure!(pull.right, "wrong bytes through {}", node.name);
            slowest = slowest.max(pull.end_s);
        }
        println!(
            "{name}: {nodes} nodes, slowest {slowest:.2} s, {copies:.3} copies sent, headers included"
        );
        let warm = self.warm(&lab, (&swarm[0], &here), (&server, &upstream), &blob)?;
        Ok((slowest, copies, warm))
    }

    /// A node on each machine but the source's, all in one swarm, which mirror the registry there.
    fn start(&self, lab: &Lab, dir: &Path, upstream: &str) -> Result<Vec<Node>> {
        let config = dir.join("ddrd.toml");
        let table =
            format!("host = \"{upstream}\"\nendpoint = \"http://{upstream}\"\nprivate = true\n");
        fs::write(&config, format!("mirror = []\n[[upstream]]\n{table}"))?;
        let flags = [format!("--config={}", config.display())];
        let start = |number: usize, host: &Host, join: Option<&Path>| {
            let peers = format!("{}:{PEER_PORT}", address(number));
            let name = format!("n{number}");
            host.enter(|| Node::start_at(&self.daemon, dir, &name, &peers, join, &flags))
        };
        let hosts = lab.pullers();
        let mut nodes = vec![start(1, &hosts[0], None)?];
        let token = nodes[0].token_file()?;
        for (number, host) in hosts.iter().enumerate().skip(1) {
            nodes.push(start(number + 1, host, Some(&token))?);
        }
        for (host, node) in hosts.iter().zip(&nodes) {
            host.enter(|| node.wait_ready())?;
        }
        Ok(nodes)
    }

    /// Reads in turn, so that both see the same machine, once what was fetched is on the disk.
    fn warm(
        &self,
        lab: &Lab,
        (node, here): (&Node, &str),
        (_server, upstream): (&Server, &str),
        blob: &Content,
    ) -> Result<Warm> {
        let len = blob.bytes.len() as u64;
        let (through, direct) = (
            format!("/v2/{here}/blobs/{}", blob.digest),
            format!("/v2/{REPOSITORY}/blobs/{}", blob.digest),
        );
        let read = |host: &Host, address: &str, target: &str| {
            host.enter(|| {
                let started = Instant::now();
                client::get(address, target, len, 1, Read::Left)?;
                Ok(started.elapsed().as_secs_f64())
            })
        };
        super::settle()?;
        let puller = &lab.pullers()[0];
        let (mut by_node, mut by_registry) = (Vec::new(), Vec::new());
        for _ in 0..self.args.runs {
            by_node.push(read(puller, &node.registry, &through)?);
            by_registry.push(read(lab.source(), upstream, &direct)?);
        }
        let nowhere = Content::new(1, 1).digest;
        let ask = |host: &Host, address: &str, repository: &str| {
            host.enter(|| {
                let started = Instant::now();
                let size = client::size_of(address, repository, &nowhere)?;
                ensure!(size.is_none(), "a blob that nobody has");
                Ok(started.elapsed().as_secs_f64() * 1000.0)
            })
        };
        let (mut asked, mut itself) = (Vec::new(), Vec::new());
        for _ in 0..self.args.runs * 4 {
            asked.push(ask(puller, &node.registry, here)?);
            itself.push(ask(puller, upstream, REPOSITORY)?);
        }
        let (by_node, by_registry) = (median(by_node), median(by_registry));
        let (asked, itself) = (median(asked), median(itself));
        println!(
            "  warm {by_node:.3} s, docker-registry {by_registry:.3} s; 404 {asked:.1} ms, registry {itself:.1} ms"
        );
        Ok(Warm { ratio: by_node / by_registry, absent_ms: asked - itself })
    }
}
