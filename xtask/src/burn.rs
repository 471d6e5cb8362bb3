//! `cargo xtask burn`: after every push that was acknowledged a machine burns down.
//!
//! Five daemons; skopeo pushes an image of random layers to one of them; the moment it has its answer a
//! random node is killed and its disk removed, an operator says that it is gone, and a new node takes its
//! place. Every image that was ever acknowledged must be known after each round, with a holder for each of its
//! blobs: to one node, after each tenth round to every node, and at the end every node gives every byte of them. Until
//! then blobs are asked for with HEAD only, so that no pull makes a copy that nobody promised.

mod image;
mod look;
mod record;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::BurnArgs;
use crate::checks::Checks;
use crate::e2e::{self, Random, Setup};
use crate::sandbox;
use crate::swarm::{self, Node};
use crate::tools;
use crate::wire::Connection;
use crate::workspace::{Workspace, ensure_release};

use image::Image;
use record::Record;

/// Rounds in the end-to-end run, and with `--long` there.
const SHORT_RUN: usize = 30;
const LONG_RUN: usize = 200;
/// Nodes of the end-to-end run.
const NODES: usize = 5;
/// From a loss to the moment when nothing is short any more.
const MEND_LIMIT: Duration = Duration::from_secs(120);
/// From then on to the moment when every node finds everything.
const FIND_LIMIT: Duration = Duration::from_secs(60);
/// The same where nobody is left who could tell anything.
const NOBODY_LIMIT: Duration = Duration::from_secs(2);
/// Attempts of one push: a client is told to come back when names have no majority for a moment.
const MAX_ATTEMPTS: usize = 20;
/// Rounds between two looks at every image on every node, and two lines of progress.
const PROGRESS: usize = 10;

/// Builds the daemon as it is shipped and burns nodes. True when nothing was lost.
pub(crate) fn run(workspace: &Workspace, args: &BurnArgs) -> Result<bool> {
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        tools::ensure_clients()?;
        ensure_release(args.daemon.as_deref())?;
        return sandbox::enter(workspace, &e2e::own_arguments(), false);
    };
    sandbox::mask()?;
    ensure!(args.nodes >= 3, "three nodes at least: two disks must outlive one");
    let seed = args.seed.map_or_else(e2e::seed_of_clock, Ok)?;
    let daemon = args.daemon.clone().unwrap_or_else(|| workspace.daemon("release"));
    println!("seed {seed}, {} rounds over {} nodes", args.rounds, args.nodes);
    let mut burn = Burn::new(&daemon, dir, (args.nodes, seed))?;
    let record = burn.record.clone();
    sandbox::say_when_broken_off(move || {
        record.report();
        println!("again: cargo xtask burn --seed {seed}");
    });
    let ended = burn.rounds(args.rounds);
    burn.record.report();
    if let Err(error) = &ended {
        println!("FAILED: {error:#}\nagain: cargo xtask burn --seed {seed}");
    }
    Ok(ended.is_ok())
}

/// The short run, among the end-to-end suites.
pub(crate) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let rounds = if setup.long { LONG_RUN } else { SHORT_RUN };
    println!("        seed {}", setup.seed);
    checks.check(&format!("burn: nothing is lost when {rounds} machines burn, one a push"), || {
        let mut burn = Burn::new(&setup.daemon, dir, (NODES, setup.seed))?;
        let ended = burn.rounds(rounds);
        burn.record.report();
        ended
    });
    checks.check("burn: a loss is noticed", || {
        let mut burn = Burn::new(&setup.daemon, &dir.join("lost"), (3, setup.seed))?;
        burn.lose_an_image()
    });
    Ok(())
}

/// One run.
struct Burn {
    daemon: PathBuf,
    dir: PathBuf,
    random: Random,
    nodes: Vec<Node>,
    /// Nodes that were started so far: each has a name of its own.
    started: usize,
    images: Vec<Image>,
    record: Record,
}

impl Burn {
    fn new(daemon: &Path, dir: &Path, (count, seed): (usize, u64)) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let names: Vec<String> = (0..count).map(|number| format!("n{number}")).collect();
        let nodes = swarm::start(daemon, dir, &names)?;
        Ok(Self {
            daemon: daemon.to_path_buf(),
            dir: dir.to_path_buf(),
            random: Random::new(seed),
            nodes,
            started: count,
            images: Vec::new(),
            record: Record::default(),
        })
    }

    fn rounds(&mut self, rounds: usize) -> Result<()> {
        for round in 1..=rounds {
            self.round(round % PROGRESS == 0)
                .with_context(|| format!("round {round}"))
                .with_context(|| self.logs())?;
            if round % PROGRESS == 0 {
                println!("        {}", self.record.seen().last_rounds(PROGRESS));
            }
        }
        self.pull_all().with_context(|| self.logs())
    }

    fn round(&mut self, is_thorough: bool) -> Result<()> {
        let started = Instant::now();
        self.push()?;
        self.burn_one()?;
        self.wait_mended()?;
        match is_thorough {
            true => self.look_everywhere(FIND_LIMIT)?,
            false => self.look_somewhere()?,
        }
        let mut seen = self.record.seen();
        seen.rounds += 1;
        seen.round_s.push(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Pushes a new image to a random node, until that is acknowledged.
    fn push(&mut self) -> Result<()> {
        let number = self.images.len();
        let image = Image::make(&self.dir.join("image"), number, &mut self.random)?;
        let at = self.random.below(self.nodes.len());
        let mut attempt = 0;
        loop {
            let started = Instant::now();
            match image.push(&self.nodes[at].registry) {
                Ok(()) => {
                    self.record.seen().push_s.push(started.elapsed().as_secs_f64());
                    break;
                }
                Err(error) if attempt + 1 >= MAX_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
        self.images.push(image);
        let mut seen = self.record.seen();
        (seen.again, seen.images) = (seen.again + attempt, self.images.len());
        drop(seen);
        Ok(())
    }

    /// A random node is killed and its disk removed; another takes its place.
    fn burn_one(&mut self) -> Result<()> {
        let at = self.random.below(self.nodes.len());
        let id =
            self.nodes[at].status()?["node_id"].as_str().context("a node has an ID")?.to_owned();
        let mut lost = self.nodes.remove(at);
        lost.kill()?;
        let name = lost.name.clone();
        drop(lost);
        fs::remove_dir_all(self.dir.join(&name)).context("the disk cannot be removed")?;
        // Said on every node: one that joined just now may not be known to the others yet.
        self.nodes.iter().try_for_each(|node| node.declare_gone(&id))?;
        let token = self.nodes[self.random.below(self.nodes.len())].token_file()?;
        let name = format!("n{}", self.started);
        self.started += 1;
        let node = Node::start(&self.daemon, &self.dir, &name, Some(&token))?;
        node.wait_ready()?;
        self.nodes.push(node);
        Ok(())
    }

    /// Waits until no node has a part with too few copies.
    fn wait_mended(&mut self) -> Result<()> {
        let started = Instant::now();
        swarm::wait_whole(&self.nodes, MEND_LIMIT)?;
        self.record.seen().mend_s.push(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Every node knows every image and finds a holder of each blob. Who holds what is written down on nodes
    /// that burn too, so finding may take until that was told to those that came in their place.
    fn look_everywhere(&mut self, limit: Duration) -> Result<()> {
        let started = Instant::now();
        look::everywhere(&self.nodes, &self.images, limit)?;
        self.record.seen().found_s.push(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Some node knows every image and finds a holder of each blob.
    fn look_somewhere(&mut self) -> Result<()> {
        let started = Instant::now();
        look::somewhere(&self.nodes, &self.images, FIND_LIMIT)?;
        self.record.seen().found_s.push(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Every node gives every byte.
    fn pull_all(&self) -> Result<()> {
        for node in &self.nodes {
            let mut connection = Connection::open(&node.registry)?;
            for image in &self.images {
                image
                    .pull(&mut connection)
                    .with_context(|| format!("{} on {}", image.name(), node.name))?;
            }
        }
        Ok(())
    }

    /// All holders of an image burn at once: the check must see it.
    fn lose_an_image(&mut self) -> Result<()> {
        self.push()?;
        self.wait_mended()?;
        self.look_everywhere(FIND_LIMIT)?;
        for node in &mut self.nodes {
            node.kill()?;
        }
        self.nodes.clear();
        self.nodes = vec![Node::start(&self.daemon, &self.dir, "fresh", None)?];
        self.nodes[0].wait_ready()?;
        ensure!(
            self.look_everywhere(NOBODY_LIMIT).is_err(),
            "nobody has the image, and it was not missed"
        );
        Ok(())
    }

    fn logs(&self) -> String {
        self.nodes.iter().map(Node::log).collect::<Vec<_>>().join("\n")
    }
}
