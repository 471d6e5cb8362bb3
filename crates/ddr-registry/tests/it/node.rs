//! A real node in a temporary directory, alone in its swarm.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ddr_net::{Identity, MemoryNetwork, Swarm};
use ddr_node::{Limits, Node, NodeConfig};
use ddr_store::disk::{Disk, RealDisk};
use ddr_store::{Store, StoreConfig};
use tempfile::TempDir;

use crate::client::eventually;

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
        Self::join(&MemoryNetwork::new(), OWN.parse().unwrap(), Vec::new(), disk, limits).await
    }

    /// Two nodes that know each other.
    pub(crate) async fn pair() -> [Self; 2] {
        let (network, first) = (MemoryNetwork::new(), OWN.parse().unwrap());
        let limits = Limits::default();
        let disk = || Arc::new(RealDisk);
        let one = Self::join(&network, first, Vec::new(), disk(), limits.clone()).await;
        let second = SocketAddr::from(([127, 0, 0, 2], first.port()));
        let two = Self::join(&network, second, vec![first], disk(), limits).await;
        eventually("the nodes know each other", async || {
            one.node.peers().await.len() == 1 && two.node.peers().await.len() == 1
        })
        .await;
        [one, two]
    }

    async fn join(
        network: &MemoryNetwork,
        own: SocketAddr,
        bootstrap: Vec<SocketAddr>,
        disk: Arc<dyn Disk>,
        limits: Limits,
    ) -> Self {
        let directory = TempDir::new().unwrap();
        let keys = directory.path().join("identity");
        let identity = Identity::load_or_create(&keys).unwrap();
        let swarm = Swarm::create(&keys, &identity).unwrap();
        let root = directory.path().join("store");
        let store = Store::open(StoreConfig { root, disk }).unwrap();
        let carrier = network.carrier(own, identity.node_id());
        let config = NodeConfig {
            store,
            identity: Arc::new(identity),
            swarm,
            carrier: Arc::new(carrier),
            advertise: vec![own],
            zone: String::new(),
            bootstrap,
            now: SystemTime::now(),
            limits,
        };
        let node = Node::start(config).await.unwrap();
        node.wait_ready().await;
        Self { node, _directory: directory }
    }
}
