//! A real node in a temporary directory, alone in its swarm.

use std::net::SocketAddr;
use std::sync::Arc;

use ddr_net::{Identity, MemoryNetwork, Swarm};
use ddr_node::{Limits, Node, NodeConfig};
use ddr_store::disk::{Disk, RealDisk};
use ddr_store::{Store, StoreConfig};
use tempfile::TempDir;

/// The address of the node in its network of one.
const OWN: &str = "127.0.0.1:5001";

/// A node; it and its directory go with the test.
pub(crate) struct TestNode {
    pub(crate) node: Node,
    _directory: TempDir,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::start_on(Arc::new(RealDisk)).await
    }

    /// A node with other bounds.
    pub(crate) async fn start_with(limits: Limits) -> Self {
        Self::start_so(Arc::new(RealDisk), limits).await
    }

    /// A node whose store is on `disk`.
    pub(crate) async fn start_on(disk: Arc<dyn Disk>) -> Self {
        Self::start_so(disk, Limits::default()).await
    }

    async fn start_so(disk: Arc<dyn Disk>, limits: Limits) -> Self {
        let directory = TempDir::new().unwrap();
        let keys = directory.path().join("identity");
        let identity = Identity::load_or_create(&keys).unwrap();
        let swarm = Swarm::create(&keys, &identity).unwrap();
        let root = directory.path().join("store");
        let store = Store::open(StoreConfig { root, disk }).unwrap();
        let own: SocketAddr = OWN.parse().unwrap();
        let carrier = MemoryNetwork::new().carrier(own, identity.node_id());
        let config = NodeConfig {
            store,
            identity: Arc::new(identity),
            swarm,
            carrier: Arc::new(carrier),
            advertise: vec![own],
            zone: String::new(),
            bootstrap: Vec::new(),
            limits,
        };
        let node = Node::start(config).await.unwrap();
        node.wait_ready().await;
        Self { node, _directory: directory }
    }
}
