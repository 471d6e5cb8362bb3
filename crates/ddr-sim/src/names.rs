//! Tags in a swarm whose machines come and go, for weeks: the production quorums and stamps of
//! [`ddr_proto::names`] on simulated machines.
//!
//! Machines are lost for good and replaced by empty ones; others are away and come back with what they had. Each
//! operation asks the nodes that a lookup finds closest, which misses some at random, and some questions get no answer. What
//! is modelled: who keeps which record, clocks that differ, young nodes that abstain, the settling of names where the
//! closest nodes have changed. What is not: an operation takes no time, so two never overlap (`cargo xtask
//! jepsen` is about those).

mod world;

use serde::Serialize;

pub use self::world::run;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct NamesSetup {
    /// Machines at any time.
    pub nodes: usize,
    /// Tags in the swarm.
    pub names: usize,
    /// How long it goes on.
    pub days: u64,
    /// The part of the machines that is lost for good in a day.
    pub loss: f64,
    /// Times in a day that a machine is away.
    pub away: f64,
    /// How long it is away each time on average, milliseconds.
    pub away_ms: u64,
    /// This part of the machines is away at once, on this day, for so many milliseconds.
    pub rack: Option<(f64, u64, u64)>,
    /// Between two operations, milliseconds on average; every fourth is a write.
    pub every_ms: u64,
    /// The part of questions that get no answer.
    pub drop: f64,
    /// The part of close nodes that a lookup misses.
    pub miss: f64,
    /// How long names take to settle where the closest nodes have changed, milliseconds; 0 is never.
    pub settle_ms: u64,
    /// Clocks are off by so many milliseconds at most, either way.
    pub skew_ms: u64,
    /// Everything follows from it.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NamesReport {
    /// As set up.
    pub nodes: usize,
    /// As set up.
    pub names: usize,
    /// As set up.
    pub days: u64,
    /// Machines that were lost for good.
    pub nodes_lost: u64,
    /// Times that a machine was away.
    pub outages: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that no majority took.
    pub writes_refused: u64,
    /// Reads that no majority answered.
    pub reads_refused: u64,
    /// Reads that answered with less than was acknowledged, or read, before.
    pub stale_reads: u64,
    /// Tags whose last acknowledged write is kept by nobody at the end.
    pub lost_writes: u64,
    /// Records that were passed on because the closest nodes had changed.
    pub settled: u64,
}
