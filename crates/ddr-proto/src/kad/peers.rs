//! The peers of the routing table in one list, nearest to the own ID first.
//!
//! A node of a large swarm keeps hundreds of peers, and a simulation keeps a hundred thousand nodes:
//! a sorted list of small entries takes a third of what a map keyed by distance would.

use super::table::Peer;
use crate::id::{Distance, NodeId};
use crate::wire::Contact;

#[derive(Debug)]
pub(super) struct Peers {
    own: NodeId,
    sorted: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The leading 64 bits of the distance, to compare without a look at the contact.
    leading: u64,
    peer: Peer,
}

impl Peers {
    pub(super) const fn new(own: NodeId) -> Self {
        Self { own, sorted: Vec::new() }
    }

    /// All of them, nearest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> + Clone {
        self.sorted.iter().map(|entry| &entry.peer)
    }

    pub(super) fn get(&self, id: &NodeId) -> Option<&Peer> {
        let place = self.place(&self.distance(id)).ok()?;
        Some(&self.sorted[place].peer)
    }

    pub(super) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Peer> {
        let place = self.place(&self.distance(id)).ok()?;
        Some(&mut self.sorted[place].peer)
    }

    /// Enters a peer, in the place of one with its ID.
    pub(super) fn insert(&mut self, peer: Peer) {
        let distance = self.distance(&peer.contact.id);
        let entry = Entry { leading: distance.leading_u64(), peer };
        match self.place(&distance) {
            Ok(place) => self.sorted[place] = entry,
            Err(place) => self.sorted.insert(place, entry),
        }
    }

    pub(super) fn remove(&mut self, id: &NodeId) -> Option<Peer> {
        let place = self.place(&self.distance(id)).ok()?;
        Some(self.sorted.remove(place).peer)
    }

    /// Gives back room that is kept for more.
    pub(super) fn pack(&mut self) {
        self.sorted.shrink_to_fit();
    }

    /// Splits all of them into those nearer than the bucket, its own, and those farther away.
    pub(super) fn around(&self, bucket: u32) -> [impl Iterator<Item = &Peer> + Clone; 3] {
        let start = self.place(&Distance::bucket_start(bucket)).unwrap_or_else(|place| place);
        let end = self.place(&Distance::bucket_end(bucket));
        let end = end.map_or_else(|place| place, |place| place + 1);
        let parts = [&self.sorted[..start], &self.sorted[start..end], &self.sorted[end..]];
        parts.map(|part| part.iter().map(|entry| &entry.peer))
    }

    pub(super) fn distance(&self, id: &NodeId) -> Distance {
        Distance::between(&self.own.0, &id.0)
    }

    /// The number of the bucket of a peer: leading bits shared with the own ID.
    pub(super) fn bucket_of(&self, contact: &Contact) -> u32 {
        self.distance(&contact.id).shared_bits()
    }

    fn place(&self, distance: &Distance) -> Result<usize, usize> {
        let leading = distance.leading_u64();
        self.sorted.binary_search_by(|entry| {
            let rest = || self.distance(&entry.peer.contact.id).cmp(distance);
            entry.leading.cmp(&leading).then_with(rest)
        })
    }
}
