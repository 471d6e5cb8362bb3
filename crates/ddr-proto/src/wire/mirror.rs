//! What nodes ask each other about registries that they mirror.
//!
//! Decides the form only. What a registry said is a claim of the node that asked it: content is proven by its
//! digest, a tag by nothing but the word of a member.

use ddr_oci::Digest;
use serde::{Deserialize, Serialize};

/// What a tag of a mirrored repository points to, as the asked node has it from the registry.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum ResolveAnswer {
    /// The registry said so.
    Is {
        /// The manifest; `None`: it has no such tag.
        digest: Option<Digest>,
        /// So long ago.
        age_ms: u32,
    },
    /// The registry did not say.
    Failed(UpstreamFailure),
    /// This node does not mirror that registry.
    NotMirrored,
}

/// Why a registry did not say what a tag points to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum UpstreamFailure {
    /// It cannot be reached, or is out of order.
    Down,
    /// It is asked too often: not again before so many seconds.
    Paused {
        /// Seconds.
        for_s: u32,
    },
    /// It refuses this node.
    Denied,
}
