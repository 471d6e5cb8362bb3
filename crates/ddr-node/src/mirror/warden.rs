//! Which node asks a registry.
//!
//! Decides the line for each key: of the nodes closest to it those of higher rank than this one, two at most, then
//! this one. Ranks are a total order, so no two nodes wait for each other.

use std::cmp::Reverse;

use ddr_proto::id::{Key, NodeId};
use ddr_proto::replica;
use ddr_proto::wire::Contact;

use super::Mirror;

/// Nodes among which the wardens of a key are: as many as keep its names.
const CLOSE: usize = 20;
/// Other nodes that are asked before this one asks itself.
const MAX_ASKED: usize = 2;

/// One who asks a registry.
#[derive(Clone, Debug)]
pub(crate) enum Warden {
    Own,
    Peer(Contact),
}

impl Mirror {
    /// Who is to ask a registry about `key`, in their order; this node is the last.
    pub(crate) async fn line(&self, key: &Key) -> Vec<Warden> {
        let mut close = match self.overlay.is_alone() {
            true => Vec::new(),
            false => self.overlay.closest(*key).await.unwrap_or_default(),
        };
        close.truncate(CLOSE);
        let own = self.caller.own().id;
        let distance = |id: &NodeId| key.distance(id);
        let is_close = close.len() < CLOSE
            || close.last().is_some_and(|last| distance(&own) < distance(&last.id));
        let own_rank = is_close.then(|| replica::rank(key, &own));
        close.retain(|one| {
            let usable = !self.peers.avoided(&one.id) && !self.peers.unreached_lately(&one.id);
            usable && own_rank.is_none_or(|own| replica::rank(key, &one.id) > own)
        });
        close.sort_by_key(|one| Reverse(replica::rank(key, &one.id)));
        let peers = close.into_iter().take(MAX_ASKED).map(Warden::Peer);
        peers.chain([Warden::Own]).collect()
    }
}
