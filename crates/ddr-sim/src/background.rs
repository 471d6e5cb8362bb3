//! Background traffic: what a node causes that nobody asked for a blob at.
//!
//! A few nodes hold many blobs and publish them again in their sweep, all others only keep their
//! tables; the difference is what publishing costs. If all nodes held so many blobs, each would cause
//! what those few do. Simulating that would only repeat the same work, and not fit into memory.

use ddr_oci::Digest;
use ddr_proto::Key;
use ddr_proto::kad::Input;

use crate::latency::Micros;
use crate::net::Net;

/// What was measured.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Background {
    pub(crate) blobs: usize,
    /// Bytes that a node without blobs causes in a second.
    pub(crate) upkeep_s: f64,
    /// Bytes that a node with so many blobs causes in a second while it sweeps.
    pub(crate) sweeping_s: f64,
}

impl Background {
    /// Bytes that publishing one blob once in an interval costs.
    pub(crate) fn per_blob(&self, republish_ms: u64) -> f64 {
        let interval_s = republish_ms as f64 / 1_000.0;
        (self.sweeping_s - self.upkeep_s) * interval_s / self.blobs.max(1) as f64
    }
}

/// Lets `publishers` honest nodes announce `blobs` keys each, now. Returns them.
pub(crate) fn announce(net: &mut Net, publishers: usize, blobs: usize) -> Vec<u32> {
    let mut chosen: Vec<u32> = (0..publishers).filter_map(|_| net.random_honest()).collect();
    chosen.sort_unstable();
    chosen.dedup();
    for node in &chosen {
        for number in 0..blobs {
            let text = format!("layer {number} of node {node}");
            let key = Key::of_content(&Digest::sha256(text.as_bytes()));
            let op = net.ops.unmeasured();
            net.op_input(*node, op, Input::Provide { op, key, complete: true });
        }
    }
    chosen
}

/// What the publishers and the others caused since their bytes were set to 0, `time` ago.
pub(crate) fn measure(net: &Net, publishers: &[u32], blobs: usize, time: Micros) -> Background {
    let mean = |publishing: bool| {
        let members = net.members.iter().enumerate().filter(|(_, member)| member.kad.is_some());
        let chosen = members
            .filter(|(node, _)| publishers.binary_search(&(*node as u32)).is_ok() == publishing);
        let (mut sum, mut count) = (0_u64, 0_u64);
        for (_, member) in chosen {
            (sum, count) = (sum + member.caused_bytes, count + 1);
        }
        sum as f64 / count.max(1) as f64
    };
    let seconds = time as f64 / 1e6;
    Background { blobs, upkeep_s: mean(false) / seconds, sweeping_s: mean(true) / seconds }
}
