//! Every number of the overlay that may be chosen, with its default and its source.

/// Settings of one overlay core. [`KadConfig::default`] is for a private swarm.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KadConfig {
    /// Bucket size, size of the closest set and copies of a record (Kademlia, section 2.2).
    pub k: usize,
    /// Requests in flight on one path (Kademlia, section 2.3).
    pub alpha: usize,
    /// Disjoint paths of a lookup, d (S/Kademlia, section 4.4).
    pub paths: usize,
    /// Paths of the second round of a lookup whose result looks wrong, at most 8 (S/Kademlia,
    /// section 4.4); 0 for none.
    pub paths_under_suspicion: usize,
    /// Of the nodes that a node named, a thorough lookup asks so many of the nearest in any case, at
    /// most [`super::MAX_FOLLOWED`]; 0 for the lookups of the papers.
    pub followed: usize,
    /// Length of the sibling list (S/Kademlia, section 4.2).
    pub siblings: usize,
    /// How long a provider record holds after it was signed.
    pub provider_ttl_ms: u64,
    /// Every provided key is published again once in this time (Kademlia, section 2.5).
    pub republish_ms: u64,
    /// A bucket without a lookup for this long is refreshed (Kademlia, section 2.3).
    pub refresh_ms: u64,
    /// The own ID is looked up at least this often, to keep the sibling list true.
    pub sibling_refresh_ms: u64,
    /// About this often a node compares its records with those of a sibling.
    pub sync_ms: u64,
    /// A call fails after this time; slow round trips stretch it.
    pub call_timeout_ms: u64,
    /// A call never waits longer than this.
    pub max_call_timeout_ms: u64,
    /// Least patience of a lookup with a slow node.
    pub lookup_floor_ms: u64,
    /// A lookup ends after this time with what it has.
    pub lookup_ceiling_ms: u64,
    /// A node that failed is left alone this long, unless it shows a sign of life.
    pub dead_ms: u64,
    /// Zero bits of the static puzzle, c1 (S/Kademlia, section 4.1); 0 in a private swarm.
    pub static_puzzle_bits: u32,
    /// Zero bits of the dynamic puzzle, c2 (S/Kademlia, section 4.1); 0 in a private swarm.
    pub dynamic_puzzle_bits: u32,
    /// Most nodes of one bucket that share an IP address.
    pub max_per_address: usize,
    /// Most nodes of one bucket that share a /24 (IPv4) or /64 (IPv6) prefix.
    pub max_per_prefix: usize,
    /// Most holders kept for one key.
    pub max_holders_per_key: usize,
    /// Most provider records kept for others.
    pub max_records: usize,
    /// Most provider records kept for one signer.
    pub max_records_per_signer: usize,
}

/// A bound that one machine full of nodes, or a data centre behind one address, never meets.
const PRIVATE_SWARM_LIMIT: usize = 65_536;

impl Default for KadConfig {
    fn default() -> Self {
        Self {
            k: 20,
            alpha: 3,
            paths: 4,
            paths_under_suspicion: 8,
            followed: 4,
            siblings: 20,
            provider_ttl_ms: 60 * 60_000,
            republish_ms: 30 * 60_000,
            refresh_ms: 15 * 60_000,
            sibling_refresh_ms: 60_000,
            sync_ms: 45_000,
            call_timeout_ms: 500,
            max_call_timeout_ms: 2_000,
            lookup_floor_ms: 20,
            lookup_ceiling_ms: 2_000,
            dead_ms: 30_000,
            static_puzzle_bits: 0,
            dynamic_puzzle_bits: 0,
            max_per_address: PRIVATE_SWARM_LIMIT,
            max_per_prefix: PRIVATE_SWARM_LIMIT,
            max_holders_per_key: 256,
            max_records: 262_144,
            max_records_per_signer: 65_536,
        }
    }
}

impl KadConfig {
    /// Settings for a swarm that anyone may join: IDs cost work, one address is one voice.
    #[must_use]
    pub fn open_swarm() -> Self {
        Self {
            static_puzzle_bits: 12,
            dynamic_puzzle_bits: 20,
            max_per_address: 1,
            max_per_prefix: 3,
            max_records_per_signer: 4_096,
            ..Self::default()
        }
    }
}
