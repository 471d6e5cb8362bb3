//! How peers that the driver kept from an earlier run come back.
//!
//! Kademlia, section 2.3, lets a node join through any one node; a node that remembers its own
//! peers needs no bootstrap node at all (section 4.1: old contacts are the ones that stay). What
//! was remembered is only hearsay: a peer is pinged, [`AT_ONCE`] at a time and in random order so
//! that a whole swarm that restarts does not fall upon the same node, and enters a bucket only when
//! it answers (S/Kademlia, section 4.3).

use std::sync::Arc;

use super::Kad;
use crate::wire::Contact;

/// Most peers that are taken back.
pub const MAX_KEPT_PEERS: usize = 256;
/// Most peers of the last run that are pinged at the same time.
const AT_ONCE: usize = 16;

/// Peers of the last run that were not pinged yet.
#[derive(Debug, Default)]
pub(super) struct Restore {
    waiting: Vec<Contact>,
}

impl Kad {
    pub(super) fn on_restore(&mut self, mut peers: Vec<Contact>) {
        peers.truncate(MAX_KEPT_PEERS);
        peers.retain(|contact| self.is_usable(contact));
        let count = peers.len();
        self.chance.choose(&mut peers, count);
        self.restore.waiting = peers;
    }

    /// Pings the next peers of the last run; each answer or failure makes room for another.
    pub(super) fn run_restore(&mut self) {
        while self.verifying.len() < AT_ONCE
            && !self.calls.is_full()
            && let Some(contact) = self.restore.waiting.pop()
        {
            if self.table.get(&contact.id).is_none() {
                self.verify(Arc::new(contact));
            }
            if self.restore.waiting.is_empty() {
                // Gives the memory back: this happens once in the life of a node.
                self.restore.waiting = Vec::new();
            }
        }
    }
}
