//! The command line.

mod weeks;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use ddr_proto::kad::{KadConfig, LookupKind};
use ddr_proto::swarm::SwarmConfig;
use ddr_sim::swarm::{SourceDeath, SwarmSetup};
use ddr_sim::{Churn, Latency, Setup, SimConfig, SybilPrice};

pub(crate) use weeks::{CopiesArgs, NamesArgs};

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// Simulates DDR's overlay and swarm with their production cores.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs one network and prints what lookups in it found and cost.
    Overlay(OverlayArgs),
    /// Runs the set-up of the S/Kademlia paper: success against the part of adversaries.
    Paper(PaperArgs),
    /// Draws a chart of JSON lines that other commands printed.
    Plot(PlotArgs),
    /// Lets every node of a swarm pull the same content at once.
    Swarm(SwarmArgs),
    /// Lets machines of a swarm be lost for weeks, and counts what is lost with them.
    Copies(CopiesArgs),
    /// Moves tags in a swarm whose machines come and go for weeks, and counts stale reads and lost writes.
    Names(NamesArgs),
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct SwarmArgs {
    /// Nodes that pull; sources come on top.
    #[arg(long, default_value_t = 100)]
    pub(crate) nodes: usize,
    /// Bytes of each layer.
    #[arg(long, default_value_t = 1 << 30)]
    pub(crate) blob: u64,
    /// Layers of that size, pulled in one group.
    #[arg(long, default_value_t = 1)]
    pub(crate) layers: usize,
    /// Complete holders at the start.
    #[arg(long, default_value_t = 1)]
    pub(crate) sources: usize,
    /// Rate of each link, up and down, in Mbit/s.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) link: u64,
    /// This part of the nodes dies at this time in F/b: `0.3@0.5`.
    #[arg(long)]
    pub(crate) kill: Option<String>,
    /// The sources die when they have sent so many copies.
    #[arg(long)]
    pub(crate) kill_source: Option<f64>,
    /// This part of the nodes has links that are so many times slower: `0.1:10`.
    #[arg(long)]
    pub(crate) slow: Option<String>,
    /// This part of the nodes lies.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) liars: f64,
    /// Liars lie in four different ways.
    #[arg(long)]
    pub(crate) mixed_lies: bool,
    /// This part of messages, requests and answers is lost.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) loss: f64,
    /// Zones over which the nodes are spread.
    #[arg(long, default_value_t = 1)]
    pub(crate) zones: usize,
    /// One-way time of a message in microseconds.
    #[arg(long, default_value_t = 200)]
    pub(crate) latency_us: u64,
    /// Starts are spread over this time, in F/b.
    #[arg(long, default_value_t = 0.001)]
    pub(crate) spread: f64,
    /// Everything follows from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Prints JSON, one object for each set of rules.
    #[arg(long)]
    pub(crate) json: bool,
    /// Leaves out the mesh.
    #[arg(long)]
    pub(crate) core_only: bool,
    /// Requests of a group under way.
    #[arg(long)]
    pub(crate) window: Option<usize>,
    /// Requests under way to one neighbour.
    #[arg(long)]
    pub(crate) per_neighbour: Option<usize>,
    /// Pieces past the first gap among which the rarest is taken.
    #[arg(long)]
    pub(crate) look_ahead: Option<usize>,
    /// Pieces that are served at a time.
    #[arg(long)]
    pub(crate) uploads: Option<usize>,
    /// Neighbours of each fetch.
    #[arg(long)]
    pub(crate) degree: Option<usize>,
    /// New pieces that are told together.
    #[arg(long)]
    pub(crate) have_batch: Option<usize>,
}

impl SwarmArgs {
    pub(crate) fn setup(&self) -> anyhow::Result<SwarmSetup> {
        anyhow::ensure!((1..=100_000).contains(&self.nodes), "--nodes is 1 to 100000");
        anyhow::ensure!((1..=200).contains(&self.layers), "--layers is 1 to 200");
        anyhow::ensure!((1..=1 << 40).contains(&self.blob), "--blob is 1 to 2^40");
        anyhow::ensure!((1..=32).contains(&self.sources), "--sources is 1 to 32");
        anyhow::ensure!((1..=1_000_000).contains(&self.link), "--link is 1 to 1000000");
        anyhow::ensure!((0.0..=0.9).contains(&self.liars), "--liars is 0 to 0.9");
        anyhow::ensure!((0.0..=0.5).contains(&self.loss), "--loss is 0 to 0.5");
        anyhow::ensure!((1..=64).contains(&self.zones), "--zones is 1 to 64");
        let kill = self.kill.as_deref().map(|text| pair(text, '@')).transpose()?;
        let slow = self.slow.as_deref().map(|text| pair(text, ':')).transpose()?;
        anyhow::ensure!(kill.is_none_or(|k| (0.0..=0.9).contains(&k.0)), "--kill kills 0 to 0.9");
        anyhow::ensure!(
            slow.is_none_or(|s| (0.0..=0.9).contains(&s.0) && s.1 >= 1.0),
            "--slow is a part up to 0.9 and a factor from 1"
        );
        let base = SwarmConfig::default();
        Ok(SwarmSetup {
            nodes: self.nodes,
            blob: self.blob,
            layers: self.layers,
            sources: self.sources,
            link_mbit: self.link,
            kill,
            kill_source: self.kill_source.map(|copies| SourceDeath { copies }),
            slow,
            liars: self.liars,
            mixed_lies: self.mixed_lies,
            loss: self.loss,
            zones: self.zones,
            latency_us: self.latency_us,
            spread: self.spread,
            seed: self.seed,
            core: SwarmConfig {
                window: self.window.unwrap_or(base.window),
                per_neighbour: self.per_neighbour.unwrap_or(base.per_neighbour),
                look_ahead: self.look_ahead.unwrap_or(base.look_ahead),
                uploads: self.uploads.unwrap_or(base.uploads),
                degree: self.degree.unwrap_or(base.degree),
                have_batch: self.have_batch.unwrap_or(base.have_batch),
                ..base
            },
        })
    }
}

/// Two numbers with a sign between them.
fn pair(text: &str, sign: char) -> anyhow::Result<(f64, f64)> {
    let (first, second) = text.split_once(sign).with_context(|| format!("{text}: A{sign}B"))?;
    let number = |text: &str| text.parse::<f64>().with_context(|| format!("{text} is no number"));
    Ok((number(first)?, number(second)?))
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct PaperArgs {
    /// Nodes of each network.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) nodes: usize,
    /// Lookups of each point.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) lookups: usize,
    /// What the adversaries do.
    #[arg(long, default_value = "misroute")]
    pub(crate) attack: String,
    /// Parts of adversarial nodes.
    #[arg(long, value_delimiter = ',', default_value = "0,0.1,0.2,0.3,0.4,0.5")]
    pub(crate) adversarial: Vec<f64>,
    /// Everything follows from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Prints JSON, one object for each point.
    #[arg(long)]
    pub(crate) json: bool,
    /// Draws the chart into this file.
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct PlotArgs {
    /// Files of JSON lines.
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Field of the x axis.
    #[arg(long)]
    pub(crate) x: String,
    /// Field of the y axis.
    #[arg(long)]
    pub(crate) y: String,
    /// Field that tells the lines apart.
    #[arg(long)]
    pub(crate) by: Option<String>,
    /// Title of the chart.
    #[arg(long, default_value = "")]
    pub(crate) title: String,
    /// The x axis grows by powers of ten.
    #[arg(long)]
    pub(crate) log_x: bool,
    /// Where the chart goes.
    #[arg(long, short)]
    pub(crate) output: PathBuf,
}

#[derive(Copy, Clone, Debug, ValueEnum)]
pub(crate) enum ChurnName {
    /// Nobody leaves.
    None,
    /// Heavy-tailed sessions, 30 minutes in the mean.
    Heavy,
    /// Half of the nodes leave within an hour.
    Hourly,
}

#[derive(Copy, Clone, Debug, ValueEnum)]
pub(crate) enum LatencyName {
    /// One data centre.
    Lan,
    /// Ten regions of the world.
    World,
}

#[derive(Copy, Clone, Debug, ValueEnum)]
pub(crate) enum SetupName {
    /// Tables as a settled network gives them.
    Settled,
    /// Every node joins.
    Join,
}

#[derive(Copy, Clone, Debug, ValueEnum)]
pub(crate) enum KindName {
    /// Holders of a key.
    Providers,
    /// The closest nodes.
    Nodes,
}

#[derive(Copy, Clone, Debug, ValueEnum)]
pub(crate) enum SwarmName {
    /// A credential admits; addresses may be shared.
    Private,
    /// Anybody may join; one address is one voice.
    Open,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct OverlayArgs {
    /// Nodes, adversarial ones included.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) nodes: usize,
    /// Part of the nodes that is adversarial, 0 to 0.9.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) adversarial: f64,
    /// What they do: a name, `all` for one run of each, `worst` for the worst of those.
    #[arg(long)]
    pub(crate) attack: Option<String>,
    /// How honest nodes come and go.
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) churn: ChurnName,
    /// Disjoint paths of a lookup, d, 1 to 8.
    #[arg(long)]
    pub(crate) paths: Option<usize>,
    /// Lookups to measure.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) lookups: usize,
    /// How long messages travel.
    #[arg(long, value_enum, default_value = "lan")]
    pub(crate) latency: LatencyName,
    /// Everything follows from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Prints JSON, one object for each run.
    #[arg(long)]
    pub(crate) json: bool,
    /// What is looked up.
    #[arg(long, value_enum, default_value = "providers")]
    pub(crate) kind: KindName,
    /// Different keys; 0 chooses.
    #[arg(long, default_value_t = 0)]
    pub(crate) keys: usize,
    /// Part of the messages that is lost.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) loss: f64,
    /// Part of the honest nodes that cannot be dialled.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) nat: f64,
    /// Eclipse: key pairs that each adversary tries to come near to the key.
    #[arg(long, default_value_t = 4)]
    pub(crate) grind: u32,
    /// Sybil: zero bits of the static puzzle.
    #[arg(long, default_value_t = 12)]
    pub(crate) puzzle_bits: u32,
    /// Sybil: each host tries 2 to this power key pairs.
    #[arg(long, default_value_t = 14)]
    pub(crate) effort_bits: u32,
    /// Limits of a private or an open swarm.
    #[arg(long, value_enum, default_value = "private")]
    pub(crate) swarm: SwarmName,
    /// How the network comes about.
    #[arg(long, value_enum, default_value = "settled")]
    pub(crate) setup: SetupName,
    /// Bucket size.
    #[arg(long)]
    pub(crate) k: Option<usize>,
    /// Length of the sibling list; 0 for none.
    #[arg(long)]
    pub(crate) siblings: Option<usize>,
    /// Measures background traffic too, with so many blobs on each node.
    #[arg(long, default_value_t = 0)]
    pub(crate) blobs: usize,
    /// Time over which the lookups are spread, in seconds; 0 chooses.
    #[arg(long, default_value_t = 0)]
    pub(crate) window_s: u64,
}

impl OverlayArgs {
    /// The settings, without the attack.
    pub(crate) fn config(&self) -> anyhow::Result<SimConfig> {
        anyhow::ensure!((2..=400_000).contains(&self.nodes), "--nodes is 2 to 400000");
        anyhow::ensure!((0.0..=0.9).contains(&self.adversarial), "--adversarial is 0 to 0.9");
        anyhow::ensure!((0.0..=0.9).contains(&self.loss), "--loss is 0 to 0.9");
        anyhow::ensure!((0.0..=0.9).contains(&self.nat), "--nat is 0 to 0.9");
        Ok(SimConfig {
            nodes: self.nodes,
            adversarial: self.adversarial,
            churn: match self.churn {
                ChurnName::None => Churn::None,
                ChurnName::Heavy => Churn::Heavy,
                ChurnName::Hourly => Churn::Hourly,
            },
            lookups: self.lookups,
            kind: match self.kind {
                KindName::Providers => LookupKind::Providers,
                KindName::Nodes => LookupKind::Nodes,
            },
            keys: self.keys,
            latency: match self.latency {
                LatencyName::Lan => Latency::Lan,
                LatencyName::World => Latency::World,
            },
            loss: self.loss,
            nat: self.nat,
            grind: self.grind,
            sybil: SybilPrice { puzzle_bits: self.puzzle_bits, effort_bits: self.effort_bits },
            setup: match self.setup {
                SetupName::Settled => Setup::Settled,
                SetupName::Join => Setup::Join,
            },
            blobs: self.blobs,
            window_s: self.window_s,
            seed: self.seed,
            kad: self.kad(),
            ..SimConfig::default()
        })
    }

    fn kad(&self) -> KadConfig {
        let base = match self.swarm {
            SwarmName::Private => KadConfig::default(),
            // What the puzzles cost is counted, not computed: see docs/simulator.md.
            SwarmName::Open => KadConfig {
                static_puzzle_bits: 0,
                dynamic_puzzle_bits: 0,
                ..KadConfig::open_swarm()
            },
        };
        KadConfig {
            paths: self.paths.unwrap_or(base.paths),
            k: self.k.unwrap_or(base.k),
            siblings: self.siblings.unwrap_or(base.siblings),
            ..base
        }
    }
}
