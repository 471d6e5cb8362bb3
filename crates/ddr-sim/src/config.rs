//! What is simulated.

use ddr_proto::kad::{KadConfig, LookupKind};

use crate::attack::Attack;
use crate::churn::Churn;
use crate::latency::Latency;

/// How the network comes about.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum Setup {
    /// Every node starts with the table that a settled network has given it: all nodes of small
    /// buckets, k random ones of large ones, and its siblings.
    #[default]
    Settled,
    /// Every node joins through three earlier ones, and the adversaries join like the others.
    Join,
}

/// A Sybil flood: what a host of the adversary can afford.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct SybilPrice {
    /// Zero bits of the static puzzle, c1 (S/Kademlia, section 4.1).
    pub puzzle_bits: u32,
    /// Each host of the adversary tries 2 to this power key pairs.
    pub effort_bits: u32,
}

impl SybilPrice {
    /// Identities that one host gets for its work, besides its own.
    #[must_use]
    pub const fn identities_per_host(self) -> u32 {
        match self.effort_bits.checked_sub(self.puzzle_bits) {
            Some(bits) if bits < 16 => 1 << bits,
            Some(_) => 1 << 16,
            None => 0,
        }
    }
}

/// One run of the overlay.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Nodes, adversarial ones included; 2 to 400,000.
    pub nodes: usize,
    /// Part of the nodes that is adversarial, 0 to 0.9.
    pub adversarial: f64,
    /// What the adversarial nodes do.
    pub attack: Attack,
    /// How honest nodes come and go.
    pub churn: Churn,
    /// Lookups to measure.
    pub lookups: usize,
    /// Lookups of holders, or of the closest nodes.
    pub kind: LookupKind,
    /// Different keys that are looked up; each has one honest holder. 0 chooses by the attack.
    pub keys: usize,
    /// How long messages travel.
    pub latency: Latency,
    /// Part of the messages that is lost.
    pub loss: f64,
    /// Part of the honest nodes that cannot be dialled.
    pub nat: f64,
    /// Key pairs that each adversary tries to come near to an eclipsed key.
    pub grind: u32,
    /// What a Sybil flood may cost.
    pub sybil: SybilPrice,
    /// How the network comes about.
    pub setup: Setup,
    /// Blobs that each publishing node holds, for the measurement of background traffic.
    pub blobs: usize,
    /// Nodes that hold blobs; what others would publish is extrapolated from them.
    pub publishers: usize,
    /// Time over which the lookups are spread, in seconds; 0 chooses by their number and the churn.
    pub window_s: u64,
    /// Everything follows from it.
    pub seed: u64,
    /// Settings of every honest core.
    pub kad: KadConfig,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            nodes: 1_000,
            adversarial: 0.0,
            attack: Attack::None,
            churn: Churn::None,
            lookups: 10_000,
            kind: LookupKind::Providers,
            keys: 0,
            latency: Latency::Lan,
            loss: 0.0,
            nat: 0.0,
            grind: 4,
            sybil: SybilPrice { puzzle_bits: 12, effort_bits: 14 },
            setup: Setup::Settled,
            blobs: 0,
            publishers: 20,
            window_s: 0,
            seed: 1,
            kad: KadConfig::default(),
        }
    }
}

/// Lookups that each node makes in a second when nothing else is asked for.
const LOOKUPS_PER_NODE_S: f64 = 0.2;
/// Lookups are never squeezed into less than this.
const MIN_WINDOW_S: u64 = 10;
/// Under churn they are spread over an hour, so that records of every age are looked up.
const CHURN_WINDOW_S: u64 = 3_600;

impl SimConfig {
    /// Number of adversarial hosts.
    #[must_use]
    pub fn adversaries(&self) -> usize {
        (self.nodes as f64 * self.adversarial).round() as usize
    }

    /// Number of keys that are published and looked up.
    #[must_use]
    pub fn key_count(&self) -> usize {
        match (self.keys, self.attack) {
            (0, Attack::Eclipse) => 1,
            (0, Attack::Flood) => 4,
            (0, _) => self.lookups.min(self.nodes).clamp(1, 10_000),
            (keys, _) => keys,
        }
    }

    /// Time over which the lookups are spread, in seconds.
    #[must_use]
    pub fn lookup_window_s(&self) -> u64 {
        if self.window_s > 0 {
            return self.window_s;
        }
        if self.churn != Churn::None {
            return CHURN_WINDOW_S;
        }
        let calm_s = self.lookups as f64 / (self.nodes as f64 * LOOKUPS_PER_NODE_S);
        (calm_s as u64).max(MIN_WINDOW_S)
    }
}
