//! The blobs on their way here, told to who asks.

use std::sync::Arc;

use ddr_oci::Digest;

use super::Pull;
use super::progress::{Here, Progress, Trust};
use super::slot::Slot;
use super::tally::Giver;
use crate::peers::Peers;
use crate::{SwarmSource, SwarmStatus};

/// Peers that one report names of one blob.
const MAX_SOURCES: usize = 20;

impl Pull {
    /// See [`crate::Node::swarms`].
    pub(crate) fn swarms(&self) -> Vec<SwarmStatus> {
        let mut slots: Vec<Arc<Slot>> = self.slots().values().cloned().collect();
        slots.sort_by_key(|slot| slot.tally.since_ms);
        slots.iter().map(|slot| swarm(slot, &self.shared.peers)).collect()
    }

    /// Bytes of a blob on its way that are here. `None`: it is on no way.
    pub(crate) fn bytes_here(&self, digest: &Digest) -> Option<u64> {
        let slot = self.slots().get(digest).cloned();
        slot.map(|slot| slot.progress().bytes_here())
    }
}

fn swarm(slot: &Slot, peers: &Peers) -> SwarmStatus {
    let progress = slot.progress();
    let (pieces_here, pieces, settled) = pieces(&progress);
    let repositories = slot.repositories();
    let giver = |giver: &Giver| source(giver, peers);
    SwarmStatus {
        digest: slot.digest.to_string(),
        repositories: repositories.iter().map(ToString::to_string).collect(),
        size: progress.size,
        bytes_here: progress.bytes_here(),
        pieces_here,
        pieces,
        settled,
        bytes_per_second: slot.tally.bytes_per_second(),
        neighbours: slot.tally.neighbours(),
        sources: slot.tally.givers(MAX_SOURCES).iter().map(giver).collect(),
        readers: slot.readers().count(),
        since_ms: slot.tally.since_ms,
    }
}

/// Pieces that are here, all pieces, and whether the chain is settled.
fn pieces(progress: &Progress) -> (usize, usize, bool) {
    match &progress.here {
        Here::Nothing | Here::Start { .. } => (0, 0, false),
        Here::Pieces { reader, trust } => {
            let here = reader.have();
            (here.count(), here.len(), *trust >= Trust::Settled)
        }
    }
}

fn source(giver: &Giver, peers: &Peers) -> SwarmSource {
    let (_, struck) = peers.about(&giver.node);
    SwarmSource {
        node_id: giver.node.to_string(),
        address: giver.address,
        bytes: giver.bytes,
        strikes: struck.as_ref().map_or(0, |struck| struck.strikes),
        struck_for: struck.map(|struck| struck.why),
    }
}
