//! How a node is reached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{WireError, at_most};
use crate::id::NodeId;

/// Most addresses of one node.
pub const MAX_ADDRS: usize = 4;
/// Longest zone name in bytes.
pub const MAX_ZONE_BYTES: usize = 32;

/// A node's identity, addresses and zone: the triple of Kademlia, section 2.2, and a little more.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub struct Contact {
    /// The node.
    pub id: NodeId,
    /// Where it listens for peers, best first, at most [`MAX_ADDRS`].
    pub addrs: Vec<SocketAddr>,
    /// Failure zone, empty when unknown, at most [`MAX_ZONE_BYTES`].
    pub zone: String,
}

impl Contact {
    /// Checks the lists and texts against their limits.
    pub fn check_limits(&self) -> Result<(), WireError> {
        at_most(self.addrs.len(), MAX_ADDRS, "MAX_ADDRS")?;
        at_most(self.zone.len(), MAX_ZONE_BYTES, "MAX_ZONE_BYTES")
    }

    /// Whether there is an address that one could dial.
    #[must_use]
    pub fn is_dialable(&self) -> bool {
        self.addrs.iter().any(is_possible)
    }

    /// Whether it lists an address at which no node can ever listen: port 0, the unspecified address,
    /// multicast or broadcast.
    #[must_use]
    pub fn has_impossible_address(&self) -> bool {
        !self.addrs.iter().all(is_possible)
    }
}

fn is_possible(addr: &SocketAddr) -> bool {
    let ip = addr.ip().to_canonical();
    let broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}
