//! What a run of a swarm measured.

use serde::Serialize;

use super::config::SwarmSetup;
use super::copy::Marks;
use super::host::Role;
use super::plain::{block_bound, whole_layers};
use super::run::Net;

/// Figures of one run. Times are multiples of F/b from the start of each node; the first nine fields
/// are an interface.
#[derive(Clone, Debug, Serialize)]
pub struct SwarmReport {
    /// Nodes that pull.
    pub nodes: usize,
    /// Least possible time.
    pub bound: f64,
    /// Time of the slowest node that ended.
    pub makespan: f64,
    /// Median time.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Copies that the sources sent together.
    pub source_copies: f64,
    /// Bytes that nodes received and had no use for, all together.
    pub duplicate_bytes: u64,
    /// When the sources had sent one copy together.
    pub first_copy: f64,
    /// When half could be read in order, mean.
    pub in_order_half: f64,
    /// Wrong bytes that clients were given.
    pub wrong_bytes: u64,
    /// Which rules: `core`, the production core, or `mesh`.
    pub rules: &'static str,
    /// When a tenth could be read in order, mean.
    pub in_order_tenth: f64,
    /// `duplicate_bytes` as a part of all bytes that were received.
    pub duplicate_part: f64,
    /// 99th percentile of the nodes whose links are not slow.
    pub p99_fast: f64,
    /// Living nodes that did not end.
    pub unfinished: usize,
    /// Nodes that died.
    pub dead: usize,
    /// Copies that came into each zone from others, mean; 0 with one zone.
    pub zone_copies: f64,
    /// Whole layers from the sources: time of the slowest node.
    pub whole_layers: f64,
    /// Complete holders at the start.
    pub sources: usize,
    /// Bytes of a layer.
    pub blob: u64,
    /// Layers.
    pub layers: usize,
    /// Pieces of a layer.
    pub pieces: usize,
    /// Messages between cores.
    pub messages: u64,
    /// Busy answers.
    pub busy_answers: u64,
    /// Strikes that honest nodes gave.
    pub strikes: u64,
    /// Seconds of real time that the run took; filled in by the program.
    pub wall_s: f64,
    /// The seed.
    pub seed: u64,
}

/// Times of the nodes that ended, sorted.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// Sorts times.
    #[must_use]
    pub fn new(times: impl Iterator<Item = f64>) -> Self {
        let mut times: Vec<f64> = times.collect();
        times.sort_unstable_by(f64::total_cmp);
        Self(times)
    }

    /// The time within which this part of the nodes ended; 0 without any.
    #[must_use]
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (part * last as f64).ceil() as usize;
        self.0.get(at.min(last)).copied().unwrap_or(0.0)
    }

    /// The mean; 0 without any.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }
}

/// What both kinds of runs count.
pub(super) struct Counts {
    pub(super) marks: Vec<Marks>,
    pub(super) fast: Vec<Marks>,
    pub(super) unfinished: usize,
    pub(super) dead: usize,
    pub(super) source_bytes: u64,
    pub(super) received: u64,
    pub(super) useful: u64,
}

impl SwarmReport {
    pub(super) fn new(
        setup: &SwarmSetup,
        pieces: usize,
        rules: &'static str,
        counts: &Counts,
    ) -> Self {
        let file = setup.file_time() as f64;
        let times = |marks: &[Marks], end: fn(&Marks) -> Option<u64>| {
            Times::new(marks.iter().filter_map(|m| Some((end(m)? - m.started) as f64 / file)))
        };
        let done = times(&counts.marks, |marks| marks.done);
        let wasted = counts.received.saturating_sub(counts.useful);
        Self {
            nodes: setup.nodes,
            bound: block_bound(setup.nodes, pieces * setup.layers),
            makespan: done.quantile(1.0),
            p50: done.quantile(0.5),
            p99: done.quantile(0.99),
            source_copies: counts.source_bytes as f64 / setup.bytes() as f64,
            duplicate_bytes: wasted,
            first_copy: 0.0,
            in_order_half: times(&counts.marks, |marks| marks.half).mean(),
            wrong_bytes: 0,
            rules,
            in_order_tenth: times(&counts.marks, |marks| marks.tenth).mean(),
            duplicate_part: wasted as f64 / counts.received.max(1) as f64,
            p99_fast: times(&counts.fast, |marks| marks.done).quantile(0.99),
            unfinished: counts.unfinished,
            dead: counts.dead,
            zone_copies: 0.0,
            whole_layers: whole_layers(setup.nodes, setup.sources),
            sources: setup.sources,
            blob: setup.blob,
            layers: setup.layers,
            pieces,
            messages: 0,
            busy_answers: 0,
            strikes: 0,
            wall_s: 0.0,
            seed: setup.seed,
        }
    }

    pub(super) fn of_core(net: &Net) -> Self {
        let setup = &net.setup;
        let slow = setup.slow.map_or(0.0, |slow| slow.0 * setup.nodes as f64).round() as usize;
        let first_slow = net.hosts.len() - slow;
        let pullers = || net.hosts.iter().enumerate().filter(|(_, h)| h.role == Role::Puller);
        let living = || pullers().filter(|(node, _)| !net.fabric.is_dead(*node));
        let counts = Counts {
            marks: living().map(|(_, host)| host.marks).collect(),
            fast: living().filter(|(n, _)| *n < first_slow).map(|(_, host)| host.marks).collect(),
            unfinished: living().filter(|(_, host)| host.marks.done.is_none()).count(),
            dead: pullers().count() - living().count(),
            source_bytes: (0..setup.sources).map(|source| net.fabric.sent(source)).sum(),
            received: living().map(|(node, _)| net.fabric.received(node)).sum(),
            useful: living().map(|(_, host)| host.useful).sum(),
        };
        let bad = |(_, host): (usize, &super::host::Host)| -> u64 {
            host.copies.iter().map(|copy| copy.read_bad as u64).sum()
        };
        Self {
            wrong_bytes: pullers().map(bad).sum::<u64>() * net.piece_bytes(0),
            zone_copies: net.cross_bytes as f64 / setup.bytes() as f64 / setup.zones.max(1) as f64,
            first_copy: net.first_copy as f64 / setup.file_time() as f64,
            messages: net.messages,
            busy_answers: net.busy_answers,
            strikes: pullers().map(|(_, host)| host.strikes).sum(),
            ..Self::new(setup, net.pieces(), "core", &counts)
        }
    }
}
