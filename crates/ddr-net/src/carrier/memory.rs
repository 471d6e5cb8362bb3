//! A network inside one process, for tests with dozens of nodes and no TLS.
//!
//! Identities are claimed, not proven. Faults are given by the test: [`MemoryNetwork::kill`] ends a
//! node as SIGKILL does, [`MemoryNetwork::partition`] makes packets vanish without a word. It must
//! never be reachable from a daemon's configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ddr_proto::id::NodeId;
use futures_util::future::BoxFuture;
use tokio::io::duplex;
use tokio::sync::mpsc;

use super::{Alpn, Carrier, Connection, PeerInfo, Standing, closed, wrong_node};
use link::{Link, LinkState, LinkedStream};

mod link;

/// Bytes in flight in one direction of a connection.
pub const PIPE_BYTES: usize = 64 * 1024;
/// Connections that wait for `accept`; a dial beyond that is refused.
pub const MAX_BACKLOG: usize = 64;

/// All nodes of one test. Cheap to clone.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    nodes: BTreeMap<SocketAddr, Endpoint>,
    links: Vec<(SocketAddr, SocketAddr, Weak<Link>)>,
    /// Group of each address; those that are not named are in group 0.
    groups: BTreeMap<SocketAddr, usize>,
    generations: u64,
}

struct Endpoint {
    generation: u64,
    node: NodeId,
    inbox: mpsc::Sender<Connection>,
}

impl MemoryNetwork {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// A member at `addr`. A node that was there before is killed.
    pub fn carrier(&self, addr: SocketAddr, node: NodeId) -> MemoryCarrier {
        self.attach(addr, node, Standing::Member)
    }

    /// As [`Self::carrier`], with any standing.
    pub fn attach(&self, addr: SocketAddr, node: NodeId, standing: Standing) -> MemoryCarrier {
        self.kill(addr);
        let (inbox, receiver) = mpsc::channel(MAX_BACKLOG);
        let mut state = self.lock();
        state.generations += 1;
        let generation = state.generations;
        state.nodes.insert(addr, Endpoint { generation, node, inbox });
        drop(state);
        let own = PeerInfo { node, remote: addr, standing };
        MemoryCarrier { network: self.clone(), own, generation, inbox: Mutex::new(receiver) }
    }

    /// Ends the node at `addr`: its connections break, it can neither dial nor be dialled.
    pub fn kill(&self, addr: SocketAddr) {
        let mut state = self.lock();
        state.nodes.remove(&addr);
        state.links.retain(|(one, two, link)| {
            let Some(link) = link.upgrade() else { return false };
            if *one == addr || *two == addr {
                link.set(LinkState::Cut);
                return false;
            }
            true
        });
    }

    /// Splits the network: nodes of different groups do not hear each other, connections between
    /// them stall, and dials between them never end. Nodes in no group stay together.
    pub fn partition(&self, groups: &[&[SocketAddr]]) {
        let mut state = self.lock();
        state.groups = groups
            .iter()
            .enumerate()
            .flat_map(|(index, group)| group.iter().map(move |addr| (*addr, index + 1)))
            .collect();
        state.apply_groups();
    }

    /// Ends every partition; stalled connections go on where they were.
    pub fn heal(&self) {
        self.partition(&[]);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork").field("nodes", &self.lock().nodes.len()).finish()
    }
}

impl State {
    fn apart(&self, one: SocketAddr, two: SocketAddr) -> bool {
        let group = |addr| self.groups.get(&addr).copied().unwrap_or_default();
        group(one) != group(two)
    }

    fn apply_groups(&mut self) {
        self.links.retain(|(_, _, link)| link.strong_count() > 0);
        for (one, two, link) in &self.links {
            let Some(link) = link.upgrade() else { continue };
            let state = if self.apart(*one, *two) { LinkState::Stalled } else { LinkState::Open };
            link.set(state);
        }
    }

    fn is_alive(&self, addr: SocketAddr, generation: u64) -> bool {
        self.nodes.get(&addr).is_some_and(|node| node.generation == generation)
    }
}

/// One node's end of a [`MemoryNetwork`].
pub struct MemoryCarrier {
    network: MemoryNetwork,
    own: PeerInfo,
    generation: u64,
    inbox: Mutex<mpsc::Receiver<Connection>>,
}

/// What came of an attempt to connect.
enum Attempt {
    Connected(Connection),
    Lost,
}

impl MemoryCarrier {
    fn try_dial(
        &self,
        addr: SocketAddr,
        alpn: Alpn,
        expect: Option<NodeId>,
    ) -> io::Result<Attempt> {
        let mut state = self.network.lock();
        if !state.is_alive(self.own.remote, self.generation) {
            return Err(closed());
        }
        if state.apart(self.own.remote, addr) {
            return Ok(Attempt::Lost);
        }
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let target = state.nodes.get(&addr).ok_or_else(refused)?;
        if expect.is_some_and(|node| node != target.node) {
            return Err(wrong_node(addr, target.node));
        }
        let (near, far) = duplex(PIPE_BYTES);
        let link = Arc::new(Link::default());
        let stream = Box::new(LinkedStream::new(far, link.clone(), 1));
        let accepted = Connection { peer: self.own, alpn, stream };
        target.inbox.try_send(accepted).map_err(|_| refused())?;
        let peer = PeerInfo { node: target.node, remote: addr, standing: Standing::Member };
        state.links.retain(|(_, _, link)| link.strong_count() > 0);
        state.links.push((self.own.remote, addr, Arc::downgrade(&link)));
        let stream = Box::new(LinkedStream::new(near, link, 0));
        Ok(Attempt::Connected(Connection { peer, alpn, stream }))
    }
}

impl Carrier for MemoryCarrier {
    fn dial(
        &self,
        addr: SocketAddr,
        alpn: Alpn,
        expect: Option<NodeId>,
    ) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            match self.try_dial(addr, alpn, expect)? {
                Attempt::Connected(connection) => Ok(connection),
                Attempt::Lost => pending().await,
            }
        })
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let next = poll_fn(|cx| {
                self.inbox.lock().unwrap_or_else(PoisonError::into_inner).poll_recv(cx)
            });
            next.await.ok_or_else(closed)
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.own.remote
    }

    fn close(&self) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).close();
    }
}

impl fmt::Debug for MemoryCarrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCarrier").field("own", &self.own).finish_non_exhaustive()
    }
}
