//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use ddr_proto::kad::{KadConfig, LookupKind};
use ddr_sim::{Churn, Latency, Setup, SimConfig, SybilPrice};

/// Simulates DDR's overlay with its production core.
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
