//! `cargo xtask bench overlay`: what finding costs in a swarm of real processes on loopback.
//!
//! First nothing happens, and the talk of the nodes among themselves is counted. Then blobs are looked
//! for at random nodes that do not have them, each pair of node and blob once: by HEAD on the registry
//! port, which ends with the holder's answer, and by `find` on the admin port, which runs the lookup
//! to its end. Then the same while a tenth of the nodes is killed and started again every ten
//! seconds. Client and daemons share the processors.

mod churn;
mod figures;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::OverlayArgs;
use crate::e2e::swarm64::{self, Blob, REPOSITORY};
use crate::e2e::{self, Random};
use crate::run;
use crate::sandbox;
use crate::swarm::{self, Node};
use crate::tools;
use crate::wire::Connection;
use crate::workspace::{Workspace, ensure_release};
use churn::Churn;
use figures::{Times, Traffic, cpu_s, print_memory};

/// Blobs have at most two to the power of this many bytes: finding is measured, not fetching.
const BLOB_BITS: usize = 10;
/// Lookups whose figures are thrown away: they open the connections.
const WARM_UP: usize = 400;
/// How long the nodes are left alone while their talk is counted.
const QUIET: Duration = Duration::from_secs(30);
/// How long nodes die and come back with `--long`, seconds.
const LONG_CHURN_S: u64 = 300;
/// After the churn each node must be found again within this.
const SETTLE: Duration = Duration::from_secs(30);
/// From so many nodes each blob is looked for after the churn.
const FROM_EACH: usize = 8;
/// Goals: p99 of a warm lookup, processor time of the asking daemon, part that succeeds in churn.
const GOAL_P99_MS: f64 = 10.0;
const GOAL_CPU_MS: f64 = 2.0;
const GOAL_CHURN: f64 = 0.999;

/// How a blob is looked for.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// HEAD on the registry port.
    Head,
    /// `find` on the admin port.
    Find,
}

/// Builds the daemon as it is shipped and measures. True when the goals are reached.
pub(crate) fn overlay(workspace: &Workspace, args: &OverlayArgs) -> Result<bool> {
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        ensure_release(args.daemon.as_deref())?;
        return sandbox::enter(workspace, &e2e::own_arguments(), false);
    };
    ensure!(args.nodes >= 10, "a swarm for this measure has at least 10 nodes");
    let daemon = args.daemon.clone().unwrap_or_else(|| workspace.daemon("release"));
    let seed = args.seed.map_or_else(e2e::seed_of_clock, Ok)?;
    println!("seed {seed}");
    Bench::start(&daemon, dir, args, seed)?.measure(args)
}

/// A swarm and what lies on it.
struct Bench<'a> {
    daemon: &'a Path,
    nodes: Vec<Node>,
    blobs: Vec<Blob>,
    random: Random,
}

impl<'a> Bench<'a> {
    fn start(daemon: &'a Path, dir: &Path, args: &OverlayArgs, seed: u64) -> Result<Self> {
        let mut random = Random::new(seed);
        let start = Instant::now();
        let names: Vec<String> = (0..args.nodes).map(|n| format!("n{n}")).collect();
        let nodes = swarm::start(daemon, dir, &names)?;
        println!("{} nodes ready after {:.1} s", nodes.len(), start.elapsed().as_secs_f64());
        let blobs = swarm64::push_all(&nodes, dir, BLOB_BITS, &mut random)?;
        Ok(Self { daemon, nodes, blobs, random })
    }

    fn measure(mut self, args: &OverlayArgs) -> Result<bool> {
        self.quiet()?;
        print_memory(&self.nodes)?;
        let warm_up = self.pairs(WARM_UP);
        let mut doors = Doors::new(&self.nodes);
        warm_up.iter().try_for_each(|pair| self.look(&mut doors, Way::Head, *pair).map(drop))?;
        let head = self.part("HEAD on the registry port", Way::Head, args.lookups)?;
        let find = self.part("find to its end", Way::Find, args.lookups)?;
        let one = self.one_asker()?;
        let churn_s = if args.long { LONG_CHURN_S } else { args.churn_s };
        let churned = churn_s == 0 || self.churn(args.lookups, Duration::from_secs(churn_s))?;
        print_memory(&self.nodes)?;
        Ok(head && find && one && churned)
    }

    /// Counts what the nodes say to each other of themselves.
    fn quiet(&self) -> Result<()> {
        let (traffic, cpu) = (Traffic::of(&self.nodes)?, cpu_s(&self.nodes)?);
        let start = Instant::now();
        std::thread::sleep(QUIET);
        let seconds = start.elapsed().as_secs_f64();
        let (traffic, cpu) = (Traffic::of(&self.nodes)? - traffic, cpu_s(&self.nodes)? - cpu);
        let each = |sum: f64| sum / self.nodes.len() as f64 / seconds;
        println!(
            "at rest, each node and second: {:.0} bytes sent, {:.0} received in {:.2} messages; \
             {:.2} ms of processor time",
            each(traffic.sent),
            each(traffic.received),
            each(traffic.messages),
            each(cpu) * 1e3
        );
        Ok(())
    }

    /// Pairs of a node and a blob that it does not have; no pair twice.
    fn pairs(&mut self, count: usize) -> Vec<(usize, usize)> {
        let (nodes, blobs) = (self.nodes.len(), self.blobs.len());
        let pairs = self.random.distinct(nodes * blobs, nodes * blobs).into_iter();
        let pairs = pairs.map(|number| (number / blobs, number % blobs));
        pairs.filter(|(node, blob)| self.blobs[*blob].holder != *node).take(count).collect()
    }

    /// One lookup after the other, nothing else.
    fn part(&mut self, what: &str, way: Way, count: usize) -> Result<bool> {
        let pairs = self.pairs(count);
        let mut doors = Doors::new(&self.nodes);
        let before = (Traffic::of(&self.nodes)?, cpu_s(&self.nodes)?);
        let mut times = Times::default();
        for pair in pairs {
            let start = Instant::now();
            let found = self.look(&mut doors, way, pair)?;
            times.add(found, start.elapsed());
        }
        let traffic = Traffic::of(&self.nodes)? - before.0;
        let cpu_ms = (cpu_s(&self.nodes)? - before.1) * 1e3 / times.len() as f64;
        println!("{what}: {times}");
        println!(
            "  {cpu_ms:.2} ms of processor time of all daemons, {:.1} messages and {:.0} bytes for each",
            traffic.messages / times.len() as f64,
            traffic.sent / times.len() as f64
        );
        let p99 = times.at(0.99);
        println!("  goals: all found, p99 {GOAL_P99_MS} ms");
        Ok(times.failures() == 0 && p99 <= GOAL_P99_MS)
    }

    /// One node looks for all blobs: what a lookup costs the daemon that asks.
    fn one_asker(&mut self) -> Result<bool> {
        let mut doors = Doors::new(&self.nodes);
        let pairs: Vec<_> =
            self.pairs(usize::MAX).into_iter().filter(|(node, _)| *node == 0).collect();
        let before = self.nodes[0].cpu_s()?;
        for pair in &pairs {
            self.look(&mut doors, Way::Head, *pair)?;
        }
        let cpu_ms = (self.nodes[0].cpu_s()? - before) * 1e3 / pairs.len() as f64;
        println!(
            "{} lookups by one node: {cpu_ms:.2} ms of its processor time for each",
            pairs.len()
        );
        println!("  goal: {GOAL_CPU_MS} ms of processor time");
        Ok(cpu_ms <= GOAL_CPU_MS)
    }

    /// Lookups at nodes that live, for blobs whose holder lives, while others die. A lookup does
    /// not count when one of the two was killed meanwhile.
    fn churn(&mut self, count: usize, length: Duration) -> Result<bool> {
        let pairs = self.pairs(usize::MAX);
        let seed = self.random.next();
        let holders: Vec<usize> = self.blobs.iter().map(|blob| blob.holder).collect();
        let mut doors = Doors::new(&self.nodes);
        let targets: Vec<String> = self.blobs.iter().map(target).collect();
        let mut times = Times::default();
        let (nodes, lives) = (std::mem::take(&mut self.nodes), churn::Lives::new(doors.len()));
        let churn = Churn::start(self.daemon.to_owned(), nodes, lives.clone(), length, seed);
        let start = Instant::now();
        for (node, blob) in pairs.into_iter().cycle() {
            if times.len() >= count || churn.is_over() {
                break;
            }
            let due = length.mul_f64(times.len() as f64 / count as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            let before = (lives.of(node), lives.of(holders[blob]));
            if before.0.is_none() || before.1.is_none() {
                continue;
            }
            let began = Instant::now();
            let found = doors.head(node, &targets[blob]).unwrap_or_default();
            if before == (lives.of(node), lives.of(holders[blob])) {
                times.add(found, began.elapsed());
            }
        }
        let (nodes, deaths) = churn.end()?;
        self.nodes = nodes;
        println!("while {deaths} times a node was killed and started again in {length:?}: {times}");
        let success = 1.0 - times.failures() as f64 / times.len().max(1) as f64;
        println!("  {:.3} % found (goal: {:.1} %)", success * 1e2, GOAL_CHURN * 1e2);
        self.settled()?;
        Ok(success >= GOAL_CHURN)
    }

    /// Every blob is found from some random nodes once the churn is over.
    fn settled(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut doors = Doors::new(&self.nodes);
        let blobs = self.blobs.iter().enumerate();
        for (number, blob) in blobs.flat_map(|blob| [blob; FROM_EACH]) {
            let node =
                (blob.holder + 1 + self.random.below(self.nodes.len() - 1)) % self.nodes.len();
            let found =
                run::wait_for(&format!("blob {number} is found at node {node}"), SETTLE, || {
                    Ok(doors.head(node, &target(blob)).unwrap_or_default().then_some(()))
                });
            found.with_context(|| self.whereabouts(&mut doors, node, blob))?;
        }
        println!("  afterwards all are found, after {:.1} s", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// What is to be known of a blob that was not found.
    fn whereabouts(&self, doors: &mut Doors, node: usize, blob: &Blob) -> String {
        let all = 0..self.nodes.len();
        let finders = all.filter(|node| doors.find(*node, &blob.digest).unwrap_or_default());
        let finders: Vec<usize> = finders.collect();
        let (holder, log) = (blob.holder, self.nodes[node].log());
        format!("node {holder} holds it; nodes {finders:?} find a record of it\n{log}")
    }

    /// True when the node finds the blob.
    fn look(&self, doors: &mut Doors, way: Way, (node, blob): (usize, usize)) -> Result<bool> {
        let blob = &self.blobs[blob];
        let found = match way {
            Way::Head => doors.head(node, &target(blob)),
            Way::Find => doors.find(node, &blob.digest),
        };
        found.with_context(|| self.nodes[node].log())
    }
}

fn target(blob: &Blob) -> String {
    format!("/v2/{REPOSITORY}/blobs/{}", blob.digest)
}

/// One open connection to each port that is asked.
struct Doors {
    places: Vec<(String, String)>,
    registry: Vec<Option<Connection>>,
    admin: Vec<Option<Connection>>,
}

impl Doors {
    fn new(nodes: &[Node]) -> Self {
        let places = nodes.iter().map(|node| (node.registry.clone(), node.admin.clone())).collect();
        let none = || nodes.iter().map(|_| None).collect();
        Self { places, registry: none(), admin: none() }
    }

    fn len(&self) -> usize {
        self.places.len()
    }

    fn head(&mut self, node: usize, target: &str) -> Result<bool> {
        let status = with(&mut self.registry[node], &self.places[node].0, |door| {
            door.send("HEAD", target, &[], None)?;
            Ok(door.receive_head()?.status)
        })?;
        Ok(status == 200)
    }

    fn find(&mut self, node: usize, digest: &str) -> Result<bool> {
        let answer = with(&mut self.admin[node], &self.places[node].1, |door| {
            door.ask("GET", &format!("/api/v1/find?q={digest}"), None)
        })?;
        let report: serde_json::Value = serde_json::from_slice(&answer.body)?;
        Ok(report["holders"].as_array().is_some_and(|holders| !holders.is_empty()))
    }
}

/// Asks over the open connection, which is opened again once when the other end has closed it.
fn with<T>(
    door: &mut Option<Connection>,
    place: &str,
    ask: impl Fn(&mut Connection) -> std::io::Result<T>,
) -> Result<T> {
    if let Some(open) = door
        && let Ok(answer) = ask(open)
    {
        return Ok(answer);
    }
    let mut open = Connection::open(place)?;
    let answer = ask(&mut open);
    *door = answer.is_ok().then_some(open);
    Ok(answer?)
}
