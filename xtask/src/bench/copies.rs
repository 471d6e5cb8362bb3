//! `cargo xtask bench copies`: what two durable copies cost a push, and what a lost node costs the others.
//!
//! The same image of one layer is pushed to a lone node and to a node of a swarm in turn, each time in a new
//! repository with new bytes. All nodes share the processors and the disk of this machine, so the second
//! copy is not free as it would be on another. Then a node is killed, and the content bytes that the others
//! fetch to make up for it are held against the bytes that it kept.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::client::{self, Content};
use super::goal::Goal;
use crate::CopiesArgs;
use crate::e2e::{self, Random};
use crate::median::median;
use crate::sandbox;
use crate::swarm::{self, Node};
use crate::tools;
use crate::workspace::{Workspace, ensure_release};

/// The goal: times of a push to a lone node.
const GOAL_PUSH: f64 = 1.3;
/// The goal: times of the bytes that were lost.
const GOAL_REPAIR: f64 = 1.2;
const NODES: usize = 5;
/// Images that lie in the swarm when a node is lost, and the bytes of each of their layers.
const IMAGES: usize = 24;
const LAYER_BYTES: usize = 4 << 20;
const MEND_LIMIT: Duration = Duration::from_secs(300);
const MIB: usize = 1 << 20;

/// Builds the daemon as it is shipped and measures. True when the goals are reached.
pub(crate) fn copies(workspace: &Workspace, args: &CopiesArgs) -> Result<bool> {
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        ensure_release(args.daemon.as_deref())?;
        return sandbox::enter(workspace, &e2e::own_arguments(), false);
    };
    ensure!(args.runs > 0 && args.size_mib > 0, "nothing to measure");
    let daemon = args.daemon.clone().unwrap_or_else(|| workspace.daemon("release"));
    let seed = args.seed.map_or_else(e2e::seed_of_clock, Ok)?;
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let push = pushes(&daemon, &dir.join("push"), args, &mut random)?;
    let repair = repair(&daemon, &dir.join("repair"), &mut random)?;
    println!("{push}\n{repair}");
    Ok(push.reached() && repair.reached())
}

fn pushes(daemon: &Path, dir: &Path, args: &CopiesArgs, random: &mut Random) -> Result<Goal> {
    let lone = Node::start(daemon, dir, "lone", None)?;
    lone.wait_ready()?;
    // Two copies are waited for; a third would be made while the next push is measured.
    let flags = ["--copies=2".to_owned()];
    let first = Node::start_with(daemon, dir, "a", None, &flags)?;
    let token = first.token_file()?;
    let others: Vec<Node> = ["b", "c"]
        .into_iter()
        .map(|name| Node::start_with(daemon, dir, name, Some(&token), &flags))
        .collect::<Result<_>>()?;
    let mut nodes = vec![first];
    nodes.extend(others);
    nodes.iter().try_for_each(Node::wait_ready)?;
    swarm::wait_whole(&nodes, MEND_LIMIT)?;
    let first = &nodes[0];
    let (mut alone, mut two) = (Vec::new(), Vec::new());
    for run in 0..args.runs {
        for (node, times) in [(&lone, &mut alone), (first, &mut two)] {
            let layer = Content::new(random.next(), args.size_mib * MIB);
            let started = Instant::now();
            client::push_image(&node.registry, &format!("bench/run{run}"), "1.0", &[layer])
                .with_context(|| node.log())?;
            times.push(started.elapsed().as_secs_f64());
        }
    }
    println!("push of {} MiB, seconds: lone {alone:.2?}, two copies {two:.2?}", args.size_mib);
    let (alone, two) = (median(alone), median(two));
    println!("medians: lone {alone:.2} s, two copies {two:.2} s");
    Ok(Goal::at_most("push with two durable copies, times of a lone push", two / alone, GOAL_PUSH))
}

fn repair(daemon: &Path, dir: &Path, random: &mut Random) -> Result<Goal> {
    let names: Vec<String> = (0..NODES).map(|number| format!("n{number}")).collect();
    let mut nodes = swarm::start(daemon, dir, &names)?;
    for number in 0..IMAGES {
        let layer = Content::new(random.next(), LAYER_BYTES);
        let node = &nodes[number % NODES];
        client::push_image(&node.registry, "bench/repair", &format!("i{number}"), &[layer])
            .with_context(|| node.log())?;
    }
    swarm::wait_whole(&nodes, MEND_LIMIT)?;
    let lost = nodes.remove(random.below(NODES));
    let before = lost.status()?;
    let (id, bytes) =
        (before["node_id"].as_str().context("an ID")?, number(&before["copies"]["bytes"]));
    drop(lost);
    let fetched = sum(&nodes)?;
    let started = Instant::now();
    nodes[0].declare_gone(id)?;
    swarm::wait_whole(&nodes, MEND_LIMIT)?;
    let moved = sum(&nodes)? - fetched;
    let took = started.elapsed().as_secs_f64();
    println!(
        "a node lost with {:.1} MiB of copies: {:.1} MiB moved, all copies there after {took:.1} s",
        bytes / MIB as f64,
        moved / MIB as f64
    );
    Ok(Goal::at_most("bytes moved for repair, times of the bytes lost", moved / bytes, GOAL_REPAIR))
}

/// Content bytes that came to the nodes from others.
fn sum(nodes: &[Node]) -> Result<f64> {
    nodes.iter().map(|node| Ok(number(&node.status()?["traffic"]["fetched_bytes"]))).sum()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}
