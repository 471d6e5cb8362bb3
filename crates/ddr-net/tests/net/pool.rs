//! What the client keeps, closes and tries again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ddr_net::{
    Alpn, CallError, Carrier, Client, ClientLimits, Connection, GetError, MemoryNetwork, blob_path,
};
use ddr_oci::Digest;
use ddr_proto::NodeId;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::support::{
    CALL_TIMEOUT, Home, TestNode, TestService, envelope, eventually, memory_addr, pattern,
    repository, within,
};

/// Counts dials on their way through.
struct Counting {
    inner: Arc<dyn Carrier>,
    dials: AtomicUsize,
}

impl Carrier for Counting {
    fn dial(
        &self,
        addr: SocketAddr,
        alpn: Alpn,
        expect: Option<NodeId>,
    ) -> BoxFuture<'_, io::Result<Connection>> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        self.inner.dial(addr, alpn, expect)
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        self.inner.accept()
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn close(&self) {
        self.inner.close();
    }
}

/// A network of serving nodes and a counting client that is node 0.
struct World {
    network: MemoryNetwork,
    nodes: Vec<TestNode>,
    home: Home,
    counting: Arc<Counting>,
    client: Client,
}

impl World {
    fn new(servers: usize, limits: ClientLimits) -> Self {
        let network = MemoryNetwork::new();
        let home = Home::new();
        let inner = Arc::new(network.carrier(memory_addr(0), home.identity.node_id()));
        let counting = Arc::new(Counting { inner, dials: AtomicUsize::new(0) });
        let client = Client::new(counting.clone(), limits);
        let mut world = Self { network, nodes: Vec::new(), home, counting, client };
        for index in 1..=servers {
            let node = world.serve(index);
            world.nodes.push(node);
        }
        world
    }

    fn serve(&self, index: usize) -> TestNode {
        let home = Home::new();
        let carrier = self.network.carrier(memory_addr(index), home.identity.node_id());
        TestNode::start(home, Arc::new(carrier), TestService::default().with_blob(blob()))
    }

    async fn call(&self, index: usize) -> Result<(), CallError> {
        let message = envelope(&self.home.identity);
        let call = self.client.call(memory_addr(index), None, &message, CALL_TIMEOUT);
        within(call).await.map(drop)
    }

    async fn get(&self, index: usize) -> Result<ddr_net::ContentBody, GetError> {
        let path = blob_path(&Digest::sha256(&blob()), Some(&repository()));
        within(self.client.get(memory_addr(index), None, &path, None)).await
    }

    fn dials(&self) -> usize {
        self.counting.dials.load(Ordering::SeqCst)
    }
}

fn blob() -> bytes::Bytes {
    pattern(400_000)
}

#[tokio::test]
async fn callers_at_the_same_time_share_one_dial() {
    let world = World::new(1, ClientLimits::default());
    let calls = futures_util::future::join_all((0..50).map(|_| world.call(1))).await;
    assert!(calls.iter().all(Result::is_ok));
    assert_eq!(world.dials(), 1);
}

#[tokio::test]
async fn a_dial_outlives_the_caller_that_began_it() {
    let world = World::new(1, ClientLimits::default());
    let message = envelope(&world.home.identity);
    let hasty = world.client.call(memory_addr(1), None, &message, CALL_TIMEOUT);
    assert!(hasty.now_or_never().is_none(), "polled once, then dropped");
    world.call(1).await.unwrap();
    assert_eq!(world.dials(), 1);
}

#[tokio::test]
async fn the_peer_unused_for_longest_gives_way() {
    let world = World::new(3, ClientLimits { max_peers: 2, ..ClientLimits::default() });
    for (index, dials) in [(1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)] {
        world.call(index).await.unwrap();
        assert_eq!(world.dials(), dials, "after a call to {index}");
        assert!(world.client.connections().0 <= 2);
    }
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let idle_timeout = Duration::from_millis(40);
    let world = World::new(2, ClientLimits { idle_timeout, ..ClientLimits::default() });
    world.call(1).await.unwrap();
    let mut body = world.get(2).await.unwrap();
    while let Some(frame) = within(body.next()).await {
        frame.unwrap();
    }
    eventually("all are closed", || world.client.connections() == (0, 0)).await;
}

#[tokio::test]
async fn a_restarted_peer_is_dialled_again() {
    let mut world = World::new(1, ClientLimits::default());
    world.call(1).await.unwrap();
    let mut body = world.get(1).await.unwrap();
    while let Some(frame) = within(body.next()).await {
        frame.unwrap();
    }
    world.network.kill(memory_addr(1));
    let error = world.call(1).await.unwrap_err();
    assert!(matches!(error, CallError::Dial(_) | CallError::Broken(_)), "{error}");
    let node = world.serve(1);
    world.nodes.push(node);
    // The first call may still meet the old connection; it never meets it twice.
    if world.call(1).await.is_err() {
        world.call(1).await.unwrap();
    }
    world.get(1).await.unwrap();
}

#[tokio::test]
async fn another_node_at_a_known_address_gets_no_message() {
    let world = World::new(1, ClientLimits::default());
    let message = envelope(&world.home.identity);
    let stranger = Home::new().identity.node_id();
    let found = world.nodes[0].home.identity.node_id();
    let call = world.client.call(memory_addr(1), Some(stranger), &message, CALL_TIMEOUT);
    assert_eq!(within(call).await.unwrap_err(), CallError::WrongNode { found });
    let path = blob_path(&Digest::sha256(&blob()), Some(&repository()));
    let get = world.client.get(memory_addr(1), Some(stranger), &path, None);
    assert_eq!(within(get).await.unwrap_err(), GetError::WrongNode { found });
    assert_eq!(world.nodes[0].service.messages.load(Ordering::SeqCst), 0);
    assert_eq!(world.nodes[0].service.contents.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_knock_is_a_connection_of_its_own() {
    let world = World::new(1, ClientLimits::default());
    world.call(1).await.unwrap();
    let (there, addr) = (world.nodes[0].home.identity.node_id(), memory_addr(1));
    within(world.client.knock(addr, there)).await.unwrap();
    assert_eq!((world.dials(), world.client.connections()), (2, (1, 0)));
    let other = within(world.client.knock(addr, Home::new().identity.node_id())).await;
    assert_eq!(other.unwrap_err().kind, io::ErrorKind::PermissionDenied);
    world.network.kill(addr);
    let gone = within(world.client.knock(addr, there)).await;
    assert_eq!(gone.unwrap_err().kind, io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_body_left_unread_ends_its_connection() {
    let world = World::new(1, ClientLimits::default());
    for expected in 1..=3 {
        let mut body = world.get(1).await.unwrap();
        within(body.next()).await.unwrap().unwrap();
        drop(body);
        assert_eq!(world.dials(), expected);
        assert_eq!(world.client.connections(), (0, 0));
    }
}

#[tokio::test]
async fn idle_connections_per_peer_are_bounded() {
    let world = World::new(1, ClientLimits { max_idle_per_peer: 2, ..ClientLimits::default() });
    let mut bodies = Vec::new();
    for _ in 0..5 {
        bodies.push(world.get(1).await.unwrap());
    }
    assert_eq!(world.dials(), 5);
    for mut body in bodies {
        while let Some(frame) = within(body.next()).await {
            frame.unwrap();
        }
    }
    assert_eq!(world.client.connections(), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_lost_network_times_out_and_heals() {
    let world = World::new(2, ClientLimits::default());
    world.call(1).await.unwrap();
    let mut body = world.get(1).await.unwrap();
    world.network.partition(&[&[memory_addr(0)]]);
    assert_eq!(world.call(1).await.unwrap_err(), CallError::Timeout, "an open connection stalls");
    let error = world.call(2).await.unwrap_err();
    let CallError::Dial(error) = error else { panic!("{error}") };
    assert_eq!(error.kind, io::ErrorKind::TimedOut);
    let mut last = Ok(());
    while let Some(frame) = within(body.next()).await {
        last = frame.map(drop);
    }
    assert_eq!(last.unwrap_err().kind(), io::ErrorKind::TimedOut);
    world.network.heal();
    world.call(2).await.unwrap();
    // The stalled connection has been found dead by its keep-alive, or goes on.
    if world.call(1).await.is_err() {
        world.call(1).await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_node_breaks_its_connections_and_dials_no_more() {
    let world = World::new(2, ClientLimits::default());
    let mut body = world.get(1).await.unwrap();
    world.network.kill(memory_addr(1));
    let mut last = Ok(());
    while let Some(frame) = within(body.next()).await {
        last = frame.map(drop);
    }
    assert!(last.is_err(), "the body ends short");
    let carrier = &world.nodes[0].carrier;
    assert!(carrier.dial(memory_addr(2), Alpn::Messages, None).await.is_err());
    assert!(within(carrier.accept()).await.is_err());
}
