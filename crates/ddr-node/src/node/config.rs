//! What a node is started with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ddr_net::{Carrier, Identity, Swarm};
use ddr_store::Store;

use crate::copies::CopySettings;
use crate::upkeep::UpkeepSettings;
use crate::{DriverSettings, MirrorSettings, TagRules};

/// Largest blob that is fetched from a peer unless configured otherwise: 1 TiB.
pub const MAX_BLOB_BYTES: u64 = 1 << 40;
/// Downloads that run at once unless configured otherwise.
pub const MAX_FETCHES: usize = 128;

/// What a node is started with.
pub struct NodeConfig {
    /// The opened store.
    pub store: Store,
    /// The node's key.
    pub identity: Arc<Identity>,
    /// The swarm it is a member of.
    pub swarm: Swarm,
    /// How it reaches others; it already listens.
    pub carrier: Arc<dyn Carrier>,
    /// Addresses that peers are told, 1 to [`ddr_proto::wire::MAX_ADDRS`].
    pub advertise: Vec<SocketAddr>,
    /// Where the node stands, at most [`ddr_proto::wire::MAX_ZONE_BYTES`]; empty for nowhere.
    pub zone: String,
    /// Addresses of the token that this node joined by; may be empty. With one, or with peers that
    /// an earlier run knew, the node is not ready before it has met another.
    pub bootstrap: Vec<SocketAddr>,
    /// The wall clock as it is now; from then on time passes as the runtime's clock says.
    pub now: SystemTime,
    /// Bounds that an operator may change.
    pub limits: Limits,
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig")
            .field("advertise", &self.advertise)
            .field("zone", &self.zone)
            .field("bootstrap", &self.bootstrap)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Bounds that an operator may change. Everything else is a named constant where it is used.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest blob that is fetched from a peer, in bytes.
    pub max_blob_bytes: u64,
    /// Downloads that may run at once; more are refused as busy.
    pub max_fetches: usize,
    /// Refuse a manifest whose blobs nobody has; else it is stored, and the answer names them.
    pub require_blobs: bool,
    /// What is wanted of tags.
    pub tags: TagRules,
    /// Collection of garbage and verification in the background.
    pub upkeep: UpkeepSettings,
    /// Bytes of all buffers that hold content on its way, to clients, to peers and from clients.
    pub buffer_bytes: usize,
    /// How fast content goes from and to other nodes, at first.
    pub bandwidth: Bandwidth,
    /// Copies of what is pushed.
    pub copies: CopySettings,
    /// Other registries whose content is given as if it were here.
    pub mirror: MirrorSettings,
    /// Where content lives beside the own store.
    pub driver: Option<DriverSettings>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_blob_bytes: MAX_BLOB_BYTES,
            max_fetches: MAX_FETCHES,
            require_blobs: false,
            tags: TagRules::default(),
            upkeep: UpkeepSettings::default(),
            buffer_bytes: crate::budget::BUFFER_BYTES,
            bandwidth: Bandwidth::default(),
            copies: CopySettings::default(),
            mirror: MirrorSettings::default(),
            driver: None,
        }
    }
}

/// How fast content goes from and to other nodes, in bytes a second; `None` is no limit. A limit
/// below [`crate::MIN_RATE`] counts as that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Bandwidth {
    /// From this node to others.
    pub upload: Option<u64>,
    /// From others to this node.
    pub download: Option<u64>,
}
