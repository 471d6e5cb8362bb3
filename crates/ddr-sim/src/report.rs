//! What a run measured.

use serde::Serialize;

use crate::background::Background;
use crate::config::SimConfig;
use crate::net::Net;
use crate::tally::wilson95;

/// The figures of one run. The first twelve fields are an interface.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Nodes, adversarial ones included, Sybil identities not.
    pub nodes: usize,
    /// Part of the nodes that is adversarial.
    pub adversarial: f64,
    /// Lookups that ended.
    pub lookups: usize,
    /// Part of the lookups that succeeded.
    pub success: f64,
    /// 95 % confidence interval of it, as if lookups were independent.
    pub success_ci95: [f64; 2],
    /// Mean number of steps to the node that gave the answer, of successful lookups.
    pub hops_mean: f64,
    /// 99th percentile of the same.
    pub hops_p99: u64,
    /// Mean number of requests that a lookup sent until it ended.
    pub messages_mean: f64,
    /// Median time from the start of a lookup to its answer, of successful lookups.
    pub latency_ms_p50: f64,
    /// 99th percentile of the same.
    pub latency_ms_p99: f64,
    /// Memory that the cores hold, in bytes for each core; 0 when it was not measured.
    pub bytes_per_node: u64,
    /// Seconds of real time that the run took; filled in by the program.
    pub wall_s: f64,
    /// What the adversaries did.
    pub attack: &'static str,
    /// Disjoint paths of a lookup.
    pub paths: usize,
    /// Median time until a lookup ended by itself, of successful lookups.
    pub duration_ms_p50: f64,
    /// 99th percentile of the same.
    pub duration_ms_p99: f64,
    /// Different keys that were looked up.
    pub keys: usize,
    /// Keys of which at least one lookup failed.
    pub keys_with_failures: usize,
    /// Mean number of nodes that said that they keep a published record.
    pub stored_mean: f64,
    /// Bytes that nodes sent, requests and answers with what carries them, for each node that is
    /// up and each simulated second, while lookups ran or traffic was measured.
    pub traffic_bytes_per_node_s: f64,
    /// Messages of the same.
    pub messages_per_node_s: f64,
    /// Blobs of each publishing node in the measurement of background traffic; 0 without it.
    pub blobs: usize,
    /// Bytes that upkeep of one node causes in a second, answers included.
    pub upkeep_bytes_per_node_s: f64,
    /// Bytes that publishing one blob once causes, answers included.
    pub publish_bytes_per_blob: f64,
    /// What each node would send in a second if all held so many blobs: upkeep, and each blob
    /// published once in the republish interval.
    pub background_bytes_per_node_s: f64,
    /// Misbehaviour that honest cores reported.
    pub misbehaviour: u64,
    /// Adversarial identities, Sybil identities included.
    pub identities: usize,
    /// Simulated seconds.
    pub simulated_s: f64,
    /// Fingerprint of everything that the cores did.
    pub transcript: String,
    /// The seed.
    pub seed: u64,
}

impl Report {
    pub(crate) fn new(
        cfg: &SimConfig,
        net: &mut Net,
        keys: usize,
        window_s: f64,
        background: Background,
    ) -> Self {
        let (done, succeeded) = (net.ops.done, net.ops.succeeded);
        let (low, high) = wilson95(succeeded, done);
        let up = net.members.iter().filter(|member| member.up).count().max(1);
        let per_node_s = |count: u64| count as f64 / up as f64 / window_s.max(1.0);
        let ms = |micros: u64| micros as f64 / 1_000.0;
        let ops = &mut net.ops;
        Self {
            nodes: cfg.nodes,
            adversarial: cfg.adversarial,
            lookups: done,
            success: succeeded as f64 / done.max(1) as f64,
            success_ci95: [low, high],
            hops_mean: ops.hops.mean(),
            hops_p99: ops.hops.quantile(0.99),
            messages_mean: ops.messages.mean(),
            latency_ms_p50: ms(ops.latency.quantile(0.5)),
            latency_ms_p99: ms(ops.latency.quantile(0.99)),
            bytes_per_node: 0,
            wall_s: 0.0,
            attack: cfg.attack.name(),
            paths: cfg.kad.paths,
            duration_ms_p50: ms(ops.duration.quantile(0.5)),
            duration_ms_p99: ms(ops.duration.quantile(0.99)),
            keys,
            keys_with_failures: ops.failed_keys.len(),
            stored_mean: ops.stored.mean(),
            traffic_bytes_per_node_s: per_node_s(net.traffic.bytes),
            messages_per_node_s: per_node_s(net.traffic.messages),
            blobs: background.blobs,
            upkeep_bytes_per_node_s: background.upkeep_s,
            publish_bytes_per_blob: background.per_blob(cfg.kad.republish_ms),
            background_bytes_per_node_s: background.sweeping_s,
            misbehaviour: net.reports,
            identities: net.adversary.ring.len(),
            simulated_s: net.now as f64 / 1e6,
            transcript: format!("{:016x}", net.transcript.value()),
            seed: cfg.seed,
        }
    }
}
