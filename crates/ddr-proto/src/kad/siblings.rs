//! The sibling list: the live nodes nearest to the own ID (S/Kademlia, section 4.2).
//!
//! Buckets alone cannot promise that a node knows all of its nearest nodes, because a bucket may be
//! full of others. Siblings are therefore kept whatever their bucket looks like, so that "the K
//! nodes closest to a key" is agreed among exactly those nodes.

use super::table::{Peer, Table};
use crate::id::{Distance, NodeId};

impl Table {
    /// The siblings, nearest first.
    pub(super) fn siblings(&self) -> impl Iterator<Item = &Peer> {
        self.live().take(self.sibling_count())
    }

    pub(super) fn is_sibling(&self, id: &NodeId) -> bool {
        self.siblings().any(|peer| peer.contact.id == *id)
    }

    /// The distance of the last sibling, or `None` while the list is not full.
    pub(super) fn sibling_border(&self) -> Option<Distance> {
        let last = self.live().nth(self.sibling_count().checked_sub(1)?)?;
        Some(self.distance(&last.contact.id))
    }

    /// Whether a node at this distance belongs on the list.
    pub(super) fn is_sibling_distance(&self, distance: &Distance) -> bool {
        if self.sibling_count() == 0 {
            return false;
        }
        self.sibling_border().is_none_or(|border| *distance < border)
    }
}
