//! What this node remembers about other nodes: who gave how much, who lied, who was alive when.
//!
//! Decides who is avoided: a peer that gave wrong content is struck, and avoided for
//! [`AVOID_FIRST_MS`], doubling with each further strike. It must never forget a strike because
//! the peer came back under another address: the node id counts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddr_oci::reference::RepositoryName;
use ddr_proto::id::NodeId;
use ddr_proto::kad::Reason;
use ddr_proto::wire::Contact;
use ddr_store::{IndexError, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::{ImageBytes, SourceBytes};

/// How long a peer is avoided after its first strike.
const AVOID_FIRST_MS: u64 = 30_000;
/// Doublings of it: 30 s to 8.5 h.
const MAX_AVOID_DOUBLINGS: u32 = 10;
/// Peers with sums or strikes; beyond, the one with the fewest bytes and no strike goes.
const MAX_PEERS: usize = 1024;
/// Repositories with sums; beyond, the one with the fewest bytes goes.
const MAX_IMAGES: usize = 256;
/// Members remembered as recently alive. Three times the largest K is enough to count to K.
pub(crate) const MAX_MEMBERS: usize = 64;
/// Where known members lie in the store's settings.
const SETTING: &str = "peers";
/// How long a member counts as part of the swarm after it was last heard. A majority for a name
/// is counted over these, so that a node that is cut off does not take itself for the majority.
pub(crate) const MEMBER_MEMORY_MS: u64 = 5 * 60_000;

/// See the module comment.
pub(crate) struct Peers {
    clock: Clock,
    state: Mutex<State>,
    met: Notify,
}

#[derive(Default)]
struct State {
    sums: BTreeMap<NodeId, Sum>,
    images: BTreeMap<RepositoryName, BTreeMap<NodeId, u64>>,
    members: BTreeMap<NodeId, Member>,
}

#[derive(Clone, Copy)]
struct Sum {
    address: SocketAddr,
    bytes: u64,
    requests: u64,
    strikes: u32,
    avoid_until_ms: u64,
    running: u32,
}

/// A running transfer; see [`Peers::transfer`].
pub(crate) struct Transfer {
    peers: Arc<Peers>,
    node: NodeId,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(sum) = self.peers.state().sums.get_mut(&self.node) {
            sum.running = sum.running.saturating_sub(1);
        }
    }
}

/// A node that was alive lately.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Member {
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) seen_ms: u64,
}

impl Peers {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default(), met: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transfer from `node` begins; it counts as running until the answer is dropped.
    pub(crate) fn transfer(self: &Arc<Self>, node: NodeId, address: SocketAddr) -> Transfer {
        let mut state = self.state();
        let sum = state.sum(node, address);
        sum.address = address;
        sum.running += 1;
        Transfer { peers: Arc::clone(self), node }
    }

    /// `node` gave content to `repository`. `first`: this request's first bytes.
    pub(crate) fn gave(&self, node: NodeId, repository: &RepositoryName, bytes: u64, first: bool) {
        let mut state = self.state();
        if let Some(sum) = state.sums.get_mut(&node) {
            sum.bytes += bytes;
            sum.requests += u64::from(first);
        }
        state.image(repository, node, bytes);
    }

    /// `node` gave wrong content, or told something false about it.
    pub(crate) fn strike(&self, node: NodeId, address: SocketAddr, why: &str) {
        let now_ms = self.clock.now_ms();
        let mut state = self.state();
        let sum = state.sum(node, address);
        let doublings = sum.strikes.min(MAX_AVOID_DOUBLINGS);
        sum.strikes = sum.strikes.saturating_add(1);
        sum.avoid_until_ms = now_ms + (AVOID_FIRST_MS << doublings);
        tracing::warn!(peer = %node, %address, strikes = sum.strikes, why, "a peer is avoided");
        metrics::counter!(crate::metrics::STRIKES).increment(1);
    }

    /// `node` broke the overlay's rules. The core has dealt with it; this is for the log.
    pub(crate) fn misbehaved(&self, node: NodeId, reason: &Reason) {
        tracing::debug!(peer = %node, ?reason, "a peer broke the rules");
    }

    /// True while `node` is avoided.
    pub(crate) fn avoided(&self, node: &NodeId) -> bool {
        let now_ms = self.clock.now_ms();
        self.state().sums.get(node).is_some_and(|sum| sum.avoid_until_ms > now_ms)
    }

    /// Content requests to `node` that run now.
    pub(crate) fn running(&self, node: &NodeId) -> u32 {
        self.state().sums.get(node).map_or(0, |sum| sum.running)
    }

    /// Bytes, strikes, avoided, for one peer.
    pub(crate) fn about(&self, node: &NodeId) -> (u64, u32, bool) {
        let now_ms = self.clock.now_ms();
        let state = self.state();
        state
            .sums
            .get(node)
            .map_or((0, 0, false), |sum| (sum.bytes, sum.strikes, sum.avoid_until_ms > now_ms))
    }

    /// Who gave, most bytes first, at most `limit`.
    pub(crate) fn sources(&self, limit: usize) -> Vec<SourceBytes> {
        let state = self.state();
        let mut rows: Vec<_> = state
            .sums
            .iter()
            .filter(|(_, sum)| sum.bytes > 0 || sum.strikes > 0)
            .map(|(node, sum)| sum.row(*node))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
        rows.truncate(limit);
        rows
    }

    /// The same by repository, most bytes first.
    pub(crate) fn images(&self, limit: usize) -> Vec<ImageBytes> {
        let state = self.state();
        let mut rows: Vec<_> =
            state.images.iter().map(|(name, by)| state.image_row(name, by)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
        rows.truncate(limit);
        rows
    }

    /// `contact` proved that it is alive and a member.
    pub(crate) fn alive(&self, contact: &Contact) {
        let now_ms = self.clock.now_ms();
        let mut state = self.state();
        if let Some(member) = state.members.get_mut(&contact.id) {
            member.seen_ms = now_ms;
            if member.addrs != contact.addrs {
                member.addrs = contact.addrs.clone();
            }
            return;
        }
        let member = Member { addrs: contact.addrs.clone(), seen_ms: now_ms };
        state.members.insert(contact.id, member);
        state.trim_members();
        self.met.notify_one();
    }

    /// Returns once a node was met that was not known, since the last call.
    pub(crate) async fn met_somebody(&self) {
        self.met.notified().await;
    }

    /// `node` said that it leaves.
    pub(crate) fn left(&self, node: &NodeId) {
        self.state().members.remove(node);
    }

    /// Other nodes that were alive within [`MEMBER_MEMORY_MS`].
    pub(crate) fn members_alive_lately(&self) -> Vec<Contact> {
        let now_ms = self.clock.now_ms();
        self.state()
            .members
            .iter()
            .filter(|(_, member)| member.seen_ms + MEMBER_MEMORY_MS > now_ms)
            .map(|(node, member)| Contact {
                id: *node,
                addrs: member.addrs.clone(),
                zone: String::new(),
            })
            .collect()
    }

    /// Writes down who is known, for the next start. Blocks.
    pub(crate) fn save(&self, store: &Store) -> Result<(), IndexError> {
        let rows: Vec<(NodeId, Member)> =
            self.state().members.iter().map(|(node, member)| (*node, member.clone())).collect();
        let rows = serde_json::to_vec(&rows).expect("ids, addresses and numbers have a JSON form");
        store.set_setting(SETTING, &rows)
    }

    /// Reads what an earlier run wrote down. Blocks. The node has until
    /// [`MEMBER_MEMORY_MS`] from now to meet them again.
    pub(crate) fn restore(&self, store: &Store) -> Result<(), IndexError> {
        let saved = store.get_setting(SETTING)?.unwrap_or_default();
        let rows: Vec<(NodeId, Member)> = serde_json::from_slice(&saved).unwrap_or_default();
        let now_ms = self.clock.now_ms();
        let mut state = self.state();
        for (node, mut member) in rows.into_iter().take(MAX_MEMBERS) {
            member.seen_ms = now_ms;
            state.members.insert(node, member);
        }
        Ok(())
    }
}

impl State {
    fn trim_members(&mut self) {
        while self.members.len() > MAX_MEMBERS {
            let oldest = self.members.iter().min_by_key(|(_, m)| m.seen_ms).map(|(node, _)| *node);
            let Some(oldest) = oldest else { return };
            self.members.remove(&oldest);
        }
    }

    fn sum(&mut self, node: NodeId, address: SocketAddr) -> &mut Sum {
        if self.sums.len() >= MAX_PEERS && !self.sums.contains_key(&node) {
            let idle = |sum: &Sum| sum.running == 0;
            let least = self
                .sums
                .iter()
                .filter(|(_, sum)| idle(sum))
                .min_by_key(|(_, sum)| (sum.strikes, sum.bytes))
                .map(|(node, _)| *node);
            if let Some(least) = least {
                self.sums.remove(&least);
            }
        }
        self.sums.entry(node).or_insert(Sum {
            address,
            bytes: 0,
            requests: 0,
            strikes: 0,
            avoid_until_ms: 0,
            running: 0,
        })
    }

    fn image(&mut self, repository: &RepositoryName, node: NodeId, bytes: u64) {
        if self.images.len() >= MAX_IMAGES && !self.images.contains_key(repository) {
            let least = self.images.iter().min_by_key(|(_, by)| by.values().sum::<u64>());
            if let Some(least) = least.map(|(name, _)| name.clone()) {
                self.images.remove(&least);
            }
        }
        let by = self.images.entry(repository.clone()).or_default();
        if by.len() < MAX_PEERS || by.contains_key(&node) {
            *by.entry(node).or_default() += bytes;
        }
    }

    fn image_row(&self, name: &RepositoryName, by: &BTreeMap<NodeId, u64>) -> ImageBytes {
        let sources = by
            .iter()
            .filter_map(|(node, bytes)| {
                let sum = self.sums.get(node)?;
                Some(SourceBytes { bytes: *bytes, ..sum.row(*node) })
            })
            .collect();
        ImageBytes { repository: name.to_string(), bytes: by.values().sum(), sources }
    }
}

impl Sum {
    fn row(&self, node: NodeId) -> SourceBytes {
        SourceBytes {
            node_id: node.to_string(),
            address: self.address,
            bytes: self.bytes,
            requests: self.requests,
            strikes: self.strikes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 32])
    }

    fn address() -> SocketAddr {
        "127.0.0.1:5001".parse().expect("an address")
    }

    #[tokio::test(start_paused = true)]
    async fn each_strike_doubles_the_time_out() {
        let peers = Peers::new(Clock::start());
        for strike in 0..4_u32 {
            peers.strike(node(1), address(), "test");
            let time_out = std::time::Duration::from_millis(AVOID_FIRST_MS << strike);
            tokio::time::advance(time_out - std::time::Duration::from_millis(1)).await;
            assert!(peers.avoided(&node(1)), "strike {strike}: still avoided");
            tokio::time::advance(std::time::Duration::from_millis(1)).await;
            assert!(!peers.avoided(&node(1)), "strike {strike}: over");
        }
        assert!(!peers.avoided(&node(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn members_are_forgotten_in_time_and_in_number() {
        let peers = Peers::new(Clock::start());
        for byte in 0..=255_u8 {
            peers.alive(&Contact { id: node(byte), addrs: vec![address()], zone: String::new() });
        }
        assert_eq!(peers.members_alive_lately().len(), MAX_MEMBERS);
        tokio::time::advance(std::time::Duration::from_millis(MEMBER_MEMORY_MS)).await;
        assert_eq!(peers.members_alive_lately().len(), 0);
    }

    #[tokio::test]
    async fn sums_stay_bounded() {
        let peers = Arc::new(Peers::new(Clock::start()));
        for number in 0..3_000_u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            let id = NodeId(id);
            drop(peers.transfer(id, address()));
        }
        assert!(peers.state().sums.len() <= MAX_PEERS);
    }
}
