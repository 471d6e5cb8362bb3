//! The nodes that this one shares blobs with: how busy each is, and who is left alone for how long.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::limits::{LOST_MS, MAX_PEERS, MAX_STRIKE_MS, MAX_STRUCK, STRIKE_MS};
use crate::id::NodeId;
use crate::time::Timestamp;
use crate::wire::Contact;

/// The place of a node in the table; free for another one after the node was let go.
pub(super) type PeerIx = usize;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) contact: Arc<Contact>,
    /// Of the zone of this node.
    pub(super) near: bool,
    pub(super) rtt_us: u32,
    /// Blobs of which it is a neighbour.
    pub(super) links: u32,
    /// Asks under way to it.
    pub(super) asks: usize,
    /// Uploads that ran there when it last told.
    pub(super) load: u16,
    /// It is not asked before this.
    pub(super) busy_until: Timestamp,
    /// Busy answers and failures since the last piece.
    pub(super) setbacks: u32,
    /// Pieces that it was given.
    pub(super) given: u32,
    /// Refusals for asking too much at once, since it was last given a piece.
    pub(super) refusals: u32,
}

impl Peer {
    /// How far away it is, in steps: 0 within 4 ms, one more for each time four times as far.
    pub(super) const fn distance(&self) -> usize {
        let rtt_ms = self.rtt_us / 1_000;
        match rtt_ms {
            0 => 0,
            _ => (rtt_ms.ilog2() / 2) as usize,
        }
    }
}

#[derive(Copy, Clone, Debug, Default)]
struct Strike {
    count: u32,
    until: Timestamp,
    /// It is not greeted before this, without blame.
    lost_until: Timestamp,
}

/// All nodes, and the memory of those that did wrong.
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_id: BTreeMap<NodeId, PeerIx>,
    slots: Vec<Option<Peer>>,
    free: Vec<PeerIx>,
    strikes: BTreeMap<NodeId, Strike>,
}

impl Peers {
    pub(super) fn find(&self, id: &NodeId) -> Option<PeerIx> {
        self.by_id.get(id).copied()
    }

    /// The place of a node, made if need be; `None` when there is no room.
    pub(super) fn admit(&mut self, contact: &Arc<Contact>, zone: &str) -> Option<PeerIx> {
        if let Some(ix) = self.find(&contact.id) {
            let peer = self.get_mut(ix);
            if peer.contact != *contact {
                peer.contact = Arc::clone(contact);
                peer.near = contact.zone == zone;
            }
            return Some(ix);
        }
        if self.by_id.len() >= MAX_PEERS {
            return None;
        }
        let peer = Peer {
            contact: Arc::clone(contact),
            near: contact.zone == zone,
            rtt_us: 0,
            links: 0,
            asks: 0,
            load: 0,
            busy_until: Timestamp::default(),
            setbacks: 0,
            given: 0,
            refusals: 0,
        };
        let ix = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[ix] = Some(peer);
        self.by_id.insert(contact.id, ix);
        Some(ix)
    }

    /// Lets a node go when nothing holds it any more.
    pub(super) fn release(&mut self, ix: PeerIx) {
        let Some(peer) = self.slots[ix].as_ref() else { return };
        if peer.links == 0 && peer.asks == 0 {
            self.by_id.remove(&peer.contact.id);
            self.slots[ix] = None;
            self.free.push(ix);
        }
    }

    pub(super) fn get(&self, ix: PeerIx) -> &Peer {
        self.slots[ix].as_ref().expect("links, asks and uploads name nodes that are kept")
    }

    pub(super) fn get_mut(&mut self, ix: PeerIx) -> &mut Peer {
        self.slots[ix].as_mut().expect("links, asks and uploads name nodes that are kept")
    }

    /// Leaves a node alone for 30 s, and twice as long with each strike; returns until when.
    pub(super) fn strike(&mut self, id: NodeId, now: Timestamp) -> Timestamp {
        let strike = self.remember(id, now);
        let wait_ms = STRIKE_MS.saturating_mul(1 << strike.count.min(16)).min(MAX_STRIKE_MS);
        strike.count += 1;
        strike.until = strike.until.max(now.after_ms(wait_ms));
        strike.until
    }

    /// Takes the last strike back.
    pub(super) fn forgive(&mut self, id: &NodeId) {
        if let Some(strike) = self.strikes.get_mut(id) {
            strike.count = strike.count.saturating_sub(1);
            strike.until = Timestamp::default();
        }
    }

    /// Leaves a node alone for a moment, without blame.
    pub(super) fn lost(&mut self, id: NodeId, now: Timestamp) {
        let strike = self.remember(id, now);
        strike.lost_until = strike.lost_until.max(now.after_ms(LOST_MS));
    }

    /// Whether nothing is to be asked of the node now.
    pub(super) fn is_struck(&self, id: &NodeId, now: Timestamp) -> bool {
        self.strikes.get(id).is_some_and(|strike| strike.until > now)
    }

    /// Whether the node is not to be greeted now.
    pub(super) fn is_avoided(&self, id: &NodeId, now: Timestamp) -> bool {
        self.strikes.get(id).is_some_and(|strike| strike.until.max(strike.lost_until) > now)
    }

    fn remember(&mut self, id: NodeId, now: Timestamp) -> &mut Strike {
        if self.strikes.len() >= MAX_STRUCK && !self.strikes.contains_key(&id) {
            let first =
                self.strikes.iter().min_by_key(|(_, strike)| strike.until.max(strike.lost_until));
            if let Some(oldest) = first.map(|(id, _)| *id) {
                self.strikes.remove(&oldest);
            }
        }
        self.strikes.entry(id).or_insert(Strike { count: 0, until: now, lost_until: now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([7; 32]);

    #[test]
    fn strikes_double_and_end() {
        let mut peers = Peers::default();
        let now = Timestamp(1_000);
        assert_eq!(peers.strike(NODE, now), now.after_ms(30_000));
        assert_eq!(peers.strike(NODE, now), now.after_ms(60_000));
        assert!(peers.is_struck(&NODE, now.after_ms(59_999)));
        assert!(!peers.is_struck(&NODE, now.after_ms(60_000)));
        (0..40).for_each(|_| {
            peers.strike(NODE, now);
        });
        assert!(!peers.is_struck(&NODE, now.after_ms(MAX_STRIKE_MS)));
        peers.forgive(&NODE);
        assert!(!peers.is_struck(&NODE, now));
    }

    #[test]
    fn the_memory_of_strikes_has_an_end() {
        let mut peers = Peers::default();
        for n in 0..2 * MAX_STRUCK {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            peers.strike(NodeId(id), Timestamp(n as u64));
        }
        assert_eq!(peers.strikes.len(), MAX_STRUCK);
    }
}
