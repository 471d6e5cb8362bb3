//! What is asked of the simulations of weeks: machines that are lost and away, and what lies on them.

use anyhow::Context as _;
use clap::Args as ClapArgs;
use ddr_sim::copies::CopiesSetup;
use ddr_sim::names::NamesSetup;

use super::MINUTE_MS;

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct CopiesArgs {
    /// Machines at any time.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// Blobs in the swarm.
    #[arg(long, default_value_t = 10_000)]
    blobs: usize,
    /// Bytes of each.
    #[arg(long, default_value_t = 100 << 20)]
    bytes: u64,
    /// Copies that there shall be.
    #[arg(long, default_value_t = 3)]
    copies: usize,
    /// How long it goes on.
    #[arg(long, default_value_t = 365)]
    days: u64,
    /// The part of the machines that is lost for good in a day.
    #[arg(long, default_value_t = 0.01)]
    loss: f64,
    /// Times in a day that a machine is away for a while.
    #[arg(long, default_value_t = 0.14)]
    away: f64,
    /// How long it is away each time on average, minutes.
    #[arg(long, default_value_t = 2)]
    away_min: u64,
    /// This part of the machines is away at once, on this day, for so many minutes: `0.2@100:30`.
    #[arg(long)]
    rack: Option<String>,
    /// How long a silent machine is waited for, seconds.
    #[arg(long, default_value_t = 600)]
    grace: u64,
    /// Rate of one transfer, Mbit/s.
    #[arg(long, default_value_t = 100)]
    link: u64,
    /// Zones over which the machines are spread.
    #[arg(long, default_value_t = 1)]
    zones: usize,
    /// Everything follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl CopiesArgs {
    pub(crate) fn setup(&self) -> anyhow::Result<CopiesSetup> {
        let rack = rack(self.rack.as_deref())?;
        anyhow::ensure!(self.copies > 0 && self.nodes > self.copies, "more nodes than copies");
        Ok(CopiesSetup {
            nodes: self.nodes,
            blobs: self.blobs,
            bytes: self.bytes,
            copies: self.copies,
            days: self.days,
            loss: self.loss,
            away: self.away,
            away_ms: self.away_min * MINUTE_MS,
            rack,
            grace_ms: self.grace * 1_000,
            rate: self.link * 1_000_000 / 8,
            zones: self.zones,
            seed: self.seed,
        })
    }
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct NamesArgs {
    /// Machines at any time.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// Tags in the swarm.
    #[arg(long, default_value_t = 200)]
    names: usize,
    /// How long it goes on.
    #[arg(long, default_value_t = 28)]
    days: u64,
    /// The part of the machines that is lost for good in a day.
    #[arg(long, default_value_t = 0.01)]
    loss: f64,
    /// Times in a day that a machine is away for a while.
    #[arg(long, default_value_t = 1.0)]
    away: f64,
    /// How long it is away each time on average, minutes.
    #[arg(long, default_value_t = 10)]
    away_min: u64,
    /// This part of the machines is away at once, on this day, for so many minutes: `0.2@10:30`.
    #[arg(long)]
    rack: Option<String>,
    /// Between two operations, seconds on average; every fourth is a write.
    #[arg(long, default_value_t = 30)]
    every: u64,
    /// The part of questions that get no answer.
    #[arg(long, default_value_t = 0.002)]
    drop: f64,
    /// The part of close nodes that a lookup misses.
    #[arg(long, default_value_t = 0.01)]
    miss: f64,
    /// How long names take to settle where the closest nodes have changed, seconds; 0 is never.
    #[arg(long, default_value_t = 60)]
    settle: u64,
    /// Clocks are off by so many milliseconds at most.
    #[arg(long, default_value_t = 500)]
    skew_ms: u64,
    /// Everything follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl NamesArgs {
    pub(crate) fn setup(&self) -> anyhow::Result<NamesSetup> {
        anyhow::ensure!(self.nodes > 0 && self.names > 0 && self.every > 0, "nothing to simulate");
        Ok(NamesSetup {
            nodes: self.nodes,
            names: self.names,
            days: self.days,
            loss: self.loss,
            away: self.away,
            away_ms: self.away_min * MINUTE_MS,
            rack: rack(self.rack.as_deref())?,
            every_ms: self.every * 1_000,
            drop: self.drop,
            miss: self.miss,
            settle_ms: self.settle * 1_000,
            skew_ms: self.skew_ms,
            seed: self.seed,
        })
    }
}

/// This part of the machines, on this day, for so many milliseconds.
fn rack(text: Option<&str>) -> anyhow::Result<Option<(f64, u64, u64)>> {
    let read = |text: &str| {
        let (part, rest) = text.split_once('@')?;
        let (day, minutes) = rest.split_once(':')?;
        let minutes: u64 = minutes.parse().ok()?;
        Some((part.parse().ok()?, day.parse().ok()?, minutes * MINUTE_MS))
    };
    text.map(|text| read(text).context("a rack is PART@DAY:MINUTES")).transpose()
}
