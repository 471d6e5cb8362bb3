//! What is simulated.

use ddr_oci::PieceChain;
use ddr_proto::swarm::SwarmConfig;

use super::fabric::Nanos;

/// When the sources die.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct SourceDeath {
    /// After they have sent so many copies together.
    pub copies: f64,
}

/// One run of a swarm.
#[derive(Clone, Debug)]
pub struct SwarmSetup {
    /// Nodes that pull; sources come on top.
    pub nodes: usize,
    /// Bytes of each layer.
    pub blob: u64,
    /// Layers that every node pulls in one group.
    pub layers: usize,
    /// Complete holders from the start.
    pub sources: usize,
    /// Rate of each link, up and down, in Mbit/s.
    pub link_mbit: u64,
    /// This part of the nodes dies at this time, in F/b.
    pub kill: Option<(f64, f64)>,
    /// When the sources die.
    pub kill_source: Option<SourceDeath>,
    /// This part of the nodes has links that are so many times slower.
    pub slow: Option<(f64, f64)>,
    /// This part of the nodes claims to hold everything, gives wrong bytes and signs wrong chains.
    pub liars: f64,
    /// Only a fourth of the liars does that. The others stall, or have nothing that they said they have,
    /// or sign the true chain and give wrong bytes.
    pub mixed_lies: bool,
    /// This part of messages, requests and answers is lost; their senders see the connection break.
    pub loss: f64,
    /// Zones, over which the nodes are spread evenly.
    pub zones: usize,
    /// One-way time of a message in microseconds.
    pub latency_us: u64,
    /// Starts are spread over this time, in F/b.
    pub spread: f64,
    /// Everything follows from it.
    pub seed: u64,
    /// Settings of every core.
    pub core: SwarmConfig,
}

impl Default for SwarmSetup {
    fn default() -> Self {
        Self {
            nodes: 100,
            blob: 1 << 30,
            layers: 1,
            sources: 1,
            link_mbit: 1_000,
            kill: None,
            kill_source: None,
            slow: None,
            liars: 0.0,
            mixed_lies: false,
            loss: 0.0,
            zones: 1,
            latency_us: 200,
            spread: 0.001,
            seed: 1,
            core: SwarmConfig::default(),
        }
    }
}

impl SwarmSetup {
    /// F: bytes that every node pulls.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blob * self.layers as u64
    }

    /// Pieces of one layer.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.blob.div_ceil(PieceChain::piece_len_for(self.blob)).max(1) as usize
    }

    /// F/b in nanoseconds.
    #[must_use]
    pub fn file_time(&self) -> Nanos {
        self.bytes() * 8_000 / self.link_mbit
    }

    /// A time in F/b as nanoseconds.
    #[must_use]
    pub fn nanos(&self, file_times: f64) -> Nanos {
        (self.file_time() as f64 * file_times) as Nanos
    }
}
