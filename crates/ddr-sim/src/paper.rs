//! The set-up of Baumgart and Mies (2007): success of lookups against the part of adversarial nodes
//! for d = 1, 2, 4, 8 paths, with and without sibling lists, k = s = 16; and beside it lookups as DDR
//! does them, with the same k and s.
//!
//! Ordinary Kademlia is d = 1 without siblings. `docs/overlay.md` says what of the set-up is known.

use ddr_proto::kad::{KadConfig, LookupKind};
use serde::Serialize;

use crate::attack::Attack;
use crate::config::SimConfig;
use crate::plain;
use crate::report::Report;
use crate::scenario::run;

/// Numbers of paths.
pub const PATHS: [usize; 4] = [1, 2, 4, 8];
/// Bucket size and length of the sibling list.
pub const K: usize = 16;

/// One point of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// What is compared: `kademlia`, `d=2`, `d=2 plain`, `d=2 no siblings`, `ddr`, ...
    pub series: String,
    /// Part of the nodes that is adversarial.
    pub adversarial: f64,
    /// Part of the lookups that found the closest honest node.
    pub success: f64,
    /// Lookups; 0 for the plain model.
    pub lookups: usize,
    /// Mean number of requests of a lookup; 0 for the plain model.
    pub messages_mean: f64,
}

impl Point {
    fn of(series: String, report: &Report) -> Self {
        Self {
            series,
            adversarial: report.adversarial,
            success: report.success,
            lookups: report.lookups,
            messages_mean: report.messages_mean,
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes of each network.
    pub nodes: usize,
    /// Lookups of each point.
    pub lookups: usize,
    /// What the adversaries do.
    pub attack: Attack,
    /// Parts of adversarial nodes.
    pub parts: Vec<f64>,
    /// The seed of each network.
    pub seed: u64,
}

impl Plan {
    /// Runs everything; `tell` gets each point as soon as it is known.
    pub fn run(&self, mut tell: impl FnMut(&Point)) -> Vec<Point> {
        let mut points = Vec::new();
        let mut add = |point: Point| {
            tell(&point);
            points.push(point);
        };
        for paths in PATHS {
            let hops = self.measure(0.0, of_the_paper(paths, K)).hops_mean;
            for &adversarial in &self.parts {
                for siblings in [K, 0] {
                    let report = self.measure(adversarial, of_the_paper(paths, siblings));
                    add(Point::of(series_name(paths, siblings), &report));
                }
                add(Point {
                    series: format!("d={paths} plain"),
                    adversarial,
                    success: plain::success(adversarial, paths, hops),
                    lookups: 0,
                    messages_mean: 0.0,
                });
            }
        }
        for &adversarial in &self.parts {
            let kad = KadConfig { k: K, siblings: K, ..KadConfig::default() };
            add(Point::of("ddr".to_owned(), &self.measure(adversarial, kad)));
        }
        points
    }

    fn measure(&self, adversarial: f64, kad: KadConfig) -> Report {
        let cfg = SimConfig {
            nodes: self.nodes,
            adversarial,
            attack: self.attack,
            lookups: self.lookups,
            kind: LookupKind::Nodes,
            window_s: 10,
            seed: self.seed,
            kad,
            ..SimConfig::default()
        };
        run(&cfg, || 0)
    }
}

/// Lookups as the paper describes them: one round, and no node's word is followed up.
fn of_the_paper(paths: usize, siblings: usize) -> KadConfig {
    let lookup = KadConfig { paths, paths_under_suspicion: 0, followed: 0, ..KadConfig::default() };
    KadConfig { k: K, siblings, ..lookup }
}

fn series_name(paths: usize, siblings: usize) -> String {
    match (paths, siblings) {
        (1, 0) => "kademlia".to_owned(),
        (_, 0) => format!("d={paths} no siblings"),
        _ => format!("d={paths}"),
    }
}
