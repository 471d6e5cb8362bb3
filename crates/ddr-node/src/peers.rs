//! What this node remembers about other nodes: who gave how much, who lied, who was alive when.
//!
//! Who is struck, and what follows from it, is decided in [`strikes`]. It must never forget a strike
//! because the peer came back under another address: the node id counts.

mod strikes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddr_oci::reference::RepositoryName;
use ddr_proto::id::NodeId;
use ddr_proto::kad::Reason;
use ddr_proto::wire::{Contact, MemberSeen};
use ddr_store::{IndexError, Store};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

pub(crate) use self::strikes::Struck;
use self::strikes::{Offence, Strikes};
use crate::clock::Clock;
use crate::{ImageBytes, SourceBytes};

/// Peers with sums; beyond, the one with the fewest bytes goes.
const MAX_PEERS: usize = 1024;
/// Repositories with sums; beyond, the one with the fewest bytes goes.
const MAX_IMAGES: usize = 256;
/// Members remembered as recently alive. Three times the largest K is enough to count to K.
pub(crate) const MAX_MEMBERS: usize = 64;
/// Members remembered as gone; of more the one that left first is forgotten.
const MAX_GONE: usize = 1024;
/// How long others are asked before a node that could not be reached.
const UNREACHED_MS: u64 = 30_000;
/// Nodes remembered as such; of more the one that is due first is forgotten.
const MAX_UNREACHED: usize = 1024;
/// Where known members lie in the store's settings.
const SETTING: &str = "peers";
/// How long a member counts as part of the swarm after it was last heard. A majority for a name
/// is counted over these, so that a node that is cut off does not take itself for the majority.
pub(crate) const MEMBER_MEMORY_MS: u64 = 5 * 60_000;

/// See the module comment.
pub(crate) struct Peers {
    clock: Clock,
    state: Mutex<State>,
    changed: Notify,
    unsaved: Notify,
}

#[derive(Default)]
struct State {
    sums: BTreeMap<NodeId, Sum>,
    images: BTreeMap<RepositoryName, BTreeMap<NodeId, u64>>,
    members: BTreeMap<NodeId, Member>,
    /// Who said, or of whom was said, that it leaves: when. At most [`MAX_GONE`].
    gone: BTreeMap<NodeId, u64>,
    /// Who could not be reached: until when others are asked first. At most [`MAX_UNREACHED`].
    unreached: BTreeMap<NodeId, u64>,
    strikes: Strikes,
}

#[derive(Clone, Copy)]
struct Sum {
    address: SocketAddr,
    bytes: u64,
    requests: u64,
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

impl Member {
    fn contact(&self, id: NodeId) -> Contact {
        Contact { id, addrs: self.addrs.clone(), zone: String::new() }
    }
}

impl Peers {
    pub(crate) fn new(clock: Clock) -> Self {
        let (changed, unsaved) = (Notify::new(), Notify::new());
        Self { clock, state: Mutex::default(), changed, unsaved }
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
    pub(crate) fn strike(&self, node: NodeId, address: SocketAddr, why: &'static str) {
        let mut state = self.state();
        state.sum(node, address);
        self.struck(&mut state, node, vec![address], Offence::Content(why));
    }

    /// `node` broke a rule of the overlay.
    pub(crate) fn misbehaved(&self, node: NodeId, reason: Reason) {
        let mut state = self.state();
        let addrs = state.members.get(&node).map(|member| member.addrs.clone()).unwrap_or_default();
        self.struck(&mut state, node, addrs, Offence::Rules(reason));
    }

    /// `node`, which is struck, spoke from this address: better than none.
    pub(crate) fn struck_at(&self, node: &NodeId, remote: SocketAddr) {
        self.state().strikes.met_at(node, remote);
    }

    fn struck(&self, state: &mut State, node: NodeId, addrs: Vec<SocketAddr>, offence: Offence) {
        let now_ms = self.clock.now_ms();
        match state.strikes.strike(node, addrs, offence, now_ms) {
            Some(until_ms) => {
                let seconds = until_ms.saturating_sub(now_ms) / 1_000;
                tracing::warn!(peer = %node, ?offence, seconds, "a peer is struck and left alone");
            }
            None => tracing::debug!(peer = %node, ?offence, "a peer is refused already"),
        }
    }

    /// True while `node` is avoided: nothing is read from it.
    pub(crate) fn avoided(&self, node: &NodeId) -> bool {
        self.state().strikes.is_avoided(node, self.clock.now_ms())
    }

    /// True while `node` is refused: neither dialled nor asked nor answered.
    pub(crate) fn refused(&self, node: &NodeId) -> bool {
        self.state().strikes.is_refused(node, self.clock.now_ms())
    }

    /// Whose time is not over, by ID.
    pub(crate) fn struck_now(&self) -> Vec<(NodeId, Struck)> {
        let state = self.state();
        let now = state.strikes.now(self.clock.now_ms());
        now.map(|(node, struck)| (*node, struck.clone())).collect()
    }

    /// `node` did not answer a request for content.
    pub(crate) fn unreached(&self, node: NodeId) {
        let until_ms = self.clock.now_ms() + UNREACHED_MS;
        let unreached = &mut self.state().unreached;
        if unreached.len() >= MAX_UNREACHED && !unreached.contains_key(&node) {
            let first = unreached.iter().min_by_key(|(_, until_ms)| **until_ms);
            if let Some(first) = first.map(|(node, _)| *node) {
                unreached.remove(&first);
            }
        }
        unreached.insert(node, until_ms);
    }

    /// `node` answered one.
    pub(crate) fn reached(&self, node: &NodeId) {
        self.state().unreached.remove(node);
    }

    /// True for a while after `node` could not be reached.
    pub(crate) fn unreached_lately(&self, node: &NodeId) -> bool {
        self.state().unreached.get(node).is_some_and(|until_ms| self.clock.now_ms() < *until_ms)
    }

    /// Content requests to `node` that run now.
    pub(crate) fn running(&self, node: &NodeId) -> u32 {
        self.state().sums.get(node).map_or(0, |sum| sum.running)
    }

    /// Content bytes that `node` gave, and what there is against it.
    pub(crate) fn about(&self, node: &NodeId) -> (u64, Option<Struck>) {
        let state = self.state();
        let bytes = state.sums.get(node).map_or(0, |sum| sum.bytes);
        (bytes, state.strikes.of(node).cloned())
    }

    /// Who gave, most bytes first, at most `limit`.
    pub(crate) fn sources(&self, limit: usize) -> Vec<SourceBytes> {
        let state = self.state();
        let mut rows: Vec<_> = state
            .sums
            .iter()
            .map(|(node, sum)| state.row(*node, sum))
            .filter(|row| row.bytes > 0 || row.strikes > 0)
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

    /// `contact` was alive and a member at `seen_ms`, by this node's clock.
    pub(crate) fn alive_at(&self, contact: &Contact, seen_ms: u64) {
        let left = self.state().gone.get(&contact.id).copied();
        if left.is_none_or(|left| left < seen_ms) {
            self.alive(contact);
        }
    }

    /// `nodes` answered within the last `ago_ms`. Who has left since is taken off, the others are alive.
    pub(crate) fn alive_but_who_left(&self, nodes: &mut Vec<Contact>, ago_ms: u64) {
        let seen_ms = self.clock.now_ms().saturating_sub(ago_ms);
        let state = self.state();
        nodes.retain(|node| state.gone.get(&node.id).is_none_or(|left| *left < seen_ms));
        drop(state);
        nodes.iter().for_each(|node| self.alive(node));
    }

    /// Another node says that `contact` was alive at `seen_ms`: it counts until then as this node's own word.
    pub(crate) fn told_of(&self, contact: Contact, seen_ms: u64) {
        let mut state = self.state();
        if state.gone.contains_key(&contact.id) || state.members.contains_key(&contact.id) {
            return;
        }
        state.members.insert(contact.id, Member { addrs: contact.addrs, seen_ms });
        if state.members.len() > MAX_MEMBERS {
            state.trim_members();
        }
    }

    /// `contact` proved that it is alive and a member.
    pub(crate) fn alive(&self, contact: &Contact) {
        let now_ms = self.clock.now_ms();
        let mut state = self.state();
        state.gone.remove(&contact.id);
        if let Some(member) = state.members.get_mut(&contact.id) {
            member.seen_ms = now_ms;
            if member.addrs != contact.addrs {
                member.addrs = contact.addrs.clone();
            }
            return;
        }
        let member = Member { addrs: contact.addrs.clone(), seen_ms: now_ms };
        state.members.insert(contact.id, member);
        // Who goes for another one does not change how many are counted.
        if state.members.len() <= MAX_MEMBERS {
            self.unsaved.notify_one();
        }
        state.trim_members();
        self.changed.notify_one();
    }

    /// Returns once [`Self::save`] has members to write down, since the last call: a node that is
    /// killed and comes back must count whom it knew.
    pub(crate) async fn has_unsaved(&self) {
        self.unsaved.notified().await;
    }

    /// Returns once a node was met that was not known, or one has said that it leaves, since the last
    /// call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// `node` said that it leaves, or an operator said that it is gone for good.
    pub(crate) fn left(&self, node: &NodeId) {
        let now_ms = self.clock.now_ms();
        let mut state = self.state();
        if state.members.remove(node).is_some() {
            self.changed.notify_one();
        }
        state.gone.insert(*node, now_ms);
        if state.gone.len() > MAX_GONE {
            let first = state.gone.iter().min_by_key(|(_, at)| **at).map(|(node, _)| *node);
            first.map(|node| state.gone.remove(&node));
        }
    }

    /// Other nodes that were alive within [`MEMBER_MEMORY_MS`].
    pub(crate) fn members_alive_lately(&self) -> Vec<Contact> {
        let now_ms = self.clock.now_ms();
        self.state()
            .members
            .iter()
            .filter(|(_, member)| member.seen_ms + MEMBER_MEMORY_MS > now_ms)
            .map(|(node, member)| member.contact(*node))
            .collect()
    }

    /// The same with how long ago that was, in seconds; nearest to `node` first.
    pub(crate) fn members_near(&self, node: &NodeId) -> Vec<MemberSeen> {
        let now_ms = self.clock.now_ms();
        let state = self.state();
        let lately = state
            .members
            .iter()
            .filter(|(id, member)| *id != node && member.seen_ms + MEMBER_MEMORY_MS > now_ms);
        let mut members: Vec<MemberSeen> = lately
            .map(|(id, member)| MemberSeen {
                contact: member.contact(*id),
                ago_s: u32::try_from(now_ms.saturating_sub(member.seen_ms) / 1000)
                    .unwrap_or(u32::MAX),
            })
            .collect();
        members.sort_by_key(|member| member.contact.id.distance(&node.to_key()));
        members
    }

    /// Where a node is that was met.
    pub(crate) fn contact(&self, node: &NodeId) -> Option<Contact> {
        self.state().members.get(node).map(|member| member.contact(*node))
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
                .min_by_key(|(_, sum)| sum.bytes)
                .map(|(node, _)| *node);
            if let Some(least) = least {
                self.sums.remove(&least);
            }
        }
        self.sums.entry(node).or_insert(Sum { address, bytes: 0, requests: 0, running: 0 })
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
                Some(SourceBytes { bytes: *bytes, ..self.row(*node, sum) })
            })
            .collect();
        ImageBytes { repository: name.to_string(), bytes: by.values().sum(), sources }
    }

    fn row(&self, node: NodeId, sum: &Sum) -> SourceBytes {
        SourceBytes {
            node_id: node.to_string(),
            address: sum.address,
            bytes: sum.bytes,
            requests: sum.requests,
            strikes: self.strikes.of(&node).map_or(0, |struck| struck.strikes),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId([byte; 32])
    }

    fn address() -> SocketAddr {
        "127.0.0.1:5001".parse().expect("an address")
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
    async fn who_was_met_is_to_be_saved_unless_there_are_too_many() {
        let peers = Peers::new(Clock::start());
        let meet = |byte| {
            peers.alive(&Contact { id: node(byte), addrs: vec![address()], zone: String::new() });
            peers.has_unsaved().now_or_never().is_some()
        };
        assert!(meet(0), "a new member");
        assert!(!meet(0), "the same again");
        (1..MAX_MEMBERS as u8).for_each(|byte| assert!(meet(byte)));
        assert!(!meet(MAX_MEMBERS as u8), "one in the place of another");
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
