//! The routing table: every node that answered and is worth keeping.
//!
//! All peers live in one list ordered by distance to the own ID, which makes both structures of the
//! papers ranges of it: the bucket of shared prefix length i is one range (Kademlia, section 2.4,
//! with the tree split all the way), and the sibling list is the first s live entries (S/Kademlia,
//! section 4.2).
//!
//! Invariants:
//! - a peer enters only by [`Table::answered`], so only nodes that answered are in it;
//! - a bucket has at most k peers besides siblings, and a live peer is never pushed out of it by a
//!   newcomer (Kademlia, section 2.2: old contacts are kept);
//! - a peer with failures is "dead": kept when nobody can replace it, never handed out;
//! - at most [`MAX_DEAD`] dead peers are kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admission::AddressLimits;
use super::bucket::Replacements;
use super::config::KadConfig;
use super::peers::Peers;
use crate::id::{Distance, Key, NodeId};
use crate::time::Timestamp;
use crate::wire::Contact;

/// Most dead peers that are kept in the hope that they come back.
pub(super) const MAX_DEAD: usize = 128;
/// A peer with this many failures in a row makes room for a waiting one.
const FAILURES_TO_REPLACE: u16 = 2;
/// A peer with this many failures in a row is forgotten, unless it is all there is.
const FAILURES_TO_FORGET: u16 = 5;

/// A node that has answered at least once.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) contact: Arc<Contact>,
    pub(super) last_seen: Timestamp,
    /// Failed calls since the last answer; the peer is dead while this is not 0.
    pub(super) failures: u16,
    /// Smoothed round trip in eighths of a millisecond; 0 while there is none.
    round_trip: u16,
    /// When it failed last, counted from `last_seen`; as short as this keeps a peer small.
    failed_after_ms: u32,
}

impl Peer {
    fn new(contact: &Arc<Contact>, now: Timestamp) -> Self {
        let contact = Arc::clone(contact);
        Self { contact, last_seen: now, failures: 0, round_trip: 0, failed_after_ms: 0 }
    }

    /// The smoothed round trip of calls to this peer.
    pub(super) fn round_trip_ms(&self) -> Option<u32> {
        (self.round_trip > 0).then(|| u32::from(self.round_trip).div_ceil(8))
    }

    fn id(&self) -> NodeId {
        self.contact.id
    }

    pub(super) const fn alive(&self) -> bool {
        self.failures == 0
    }

    fn failed_at(&self) -> Timestamp {
        self.last_seen.after_ms(u64::from(self.failed_after_ms))
    }
}

/// What an answer changed.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Admitted {
    /// Known and alive already.
    Known,
    /// New, or back after failures.
    New,
    /// The bucket is full: it waits.
    Waiting,
    /// The own node, or over an address limit.
    Refused,
}

/// What a failure changed.
#[derive(Clone, Debug)]
pub(super) enum Lost {
    /// Not in the table.
    Unknown,
    /// Dead already by the same incident.
    Already,
    /// Dead for now, with so many failures in a row.
    Dead { failures: u16 },
    /// Gone; this node waited for the place and should be asked.
    Gone { waiting: Option<Arc<Contact>> },
}

#[derive(Debug)]
pub(super) struct Table {
    own: NodeId,
    k: usize,
    siblings: usize,
    limits: AddressLimits,
    peers: Peers,
    replacements: BTreeMap<u32, Replacements>,
}

impl Table {
    pub(super) fn new(own: NodeId, cfg: &KadConfig) -> Self {
        Self {
            own,
            k: cfg.k,
            siblings: cfg.siblings,
            limits: AddressLimits::new(cfg),
            peers: Peers::new(own),
            replacements: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, id: &NodeId) -> Option<&Peer> {
        self.peers.get(id)
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.alive())
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Peer)> {
        self.peers.iter().map(|peer| (self.peers.bucket_of(&peer.contact), peer))
    }

    /// The number of the bucket that `id` belongs to: leading bits shared with the own ID.
    pub(super) fn bucket_of(&self, key: &Key) -> u32 {
        key.distance(&self.own).shared_bits()
    }

    /// The number of the bucket of the nearest live peer.
    pub(super) fn deepest_bucket(&self) -> Option<u32> {
        self.live().next().map(|peer| self.peers.bucket_of(&peer.contact))
    }

    /// A node answered a call at the addresses of `contact`.
    pub(super) fn answered(&mut self, contact: &Arc<Contact>, now: Timestamp) -> Admitted {
        let distance = self.distance(&contact.id);
        if contact.id == self.own {
            return Admitted::Refused;
        }
        let bucket = distance.shared_bits();
        let known = self.get(&contact.id).is_some_and(|peer| peer.contact == *contact);
        if !known && !self.allows(contact, bucket) {
            return Admitted::Refused;
        }
        if let Some(peer) = self.peers.get_mut(&contact.id) {
            let was_alive = peer.alive();
            *peer = Peer { round_trip: peer.round_trip, ..Peer::new(contact, now) };
            if was_alive {
                return Admitted::Known;
            }
            // Back on the sibling list, it may push another off.
            self.settle_displaced_sibling();
            return Admitted::New;
        }
        if !self.is_sibling_distance(&distance) && !self.make_room(bucket) {
            self.wait(contact);
            return Admitted::Waiting;
        }
        self.peers.insert(Peer::new(contact, now));
        if let Some(waiting) = self.replacements.get_mut(&bucket) {
            waiting.remove(&contact.id);
        }
        self.settle_displaced_sibling();
        self.forget_excess_dead();
        Admitted::New
    }

    /// Gives back what is not needed, after many peers were entered at once.
    pub(super) fn pack(&mut self) {
        self.peers.pack();
    }

    /// Whether a node that is only heard of would enter if it answered.
    pub(super) fn has_place_for(&self, id: &NodeId) -> bool {
        let distance = self.distance(id);
        if self.is_sibling_distance(&distance) || self.get(id).is_some() {
            return true;
        }
        let members = || self.bucket(distance.shared_bits());
        members().count() < self.k || members().any(|peer| !peer.alive())
    }

    /// Keeps a node that is only heard of for the day its bucket has a place.
    pub(super) fn wait(&mut self, contact: &Arc<Contact>) {
        if self.get(&contact.id).is_some() {
            return;
        }
        let bucket = self.distance(&contact.id).shared_bits();
        self.replacements.entry(bucket).or_default().put(Arc::clone(contact));
    }

    /// A peer answered or asked without a call of ours.
    pub(super) fn touch(&mut self, id: &NodeId, now: Timestamp) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.last_seen = now;
        }
    }

    /// A call to a peer took `ms` (smoothed as in RFC 6298, section 2).
    pub(super) fn timed(&mut self, id: &NodeId, ms: u64) {
        if let Some(peer) = self.peers.get_mut(id) {
            let sample = ms.saturating_mul(8).clamp(1, u64::from(u16::MAX));
            let before = if peer.round_trip == 0 { sample } else { u64::from(peer.round_trip) };
            peer.round_trip = ((7 * before + sample) / 8).max(1) as u16;
        }
    }

    /// A call to a node, made at `sent`, failed. All calls that one lost connection takes with it
    /// are one failure.
    pub(super) fn failed(&mut self, id: &NodeId, sent: Timestamp, now: Timestamp) -> Lost {
        let bucket = self.distance(id).shared_bits();
        let others_live = self.live().any(|peer| peer.contact.id != *id);
        let waits = self.replacements.get(&bucket).is_some_and(|waiting| !waiting.is_empty());
        let Some(peer) = self.peers.get_mut(id) else {
            if let Some(waiting) = self.replacements.get_mut(&bucket) {
                waiting.remove(id);
            }
            return Lost::Unknown;
        };
        if !peer.alive() && sent < peer.failed_at() {
            return Lost::Already;
        }
        peer.failed_after_ms = u32::try_from(now.since_ms(peer.last_seen)).unwrap_or(u32::MAX);
        peer.failures = peer.failures.saturating_add(1);
        let failures = peer.failures;
        let replace = failures >= FAILURES_TO_REPLACE && waits;
        let forget = failures >= FAILURES_TO_FORGET && others_live;
        if !replace && !forget {
            self.forget_excess_dead();
            return Lost::Dead { failures };
        }
        self.peers.remove(id);
        Lost::Gone { waiting: self.take_waiting(bucket) }
    }

    /// Takes the node that waits for a place in the bucket and was heard of last.
    fn take_waiting(&mut self, bucket: u32) -> Option<Arc<Contact>> {
        let waiting = self.replacements.get_mut(&bucket)?;
        let newest = waiting.take_newest();
        if waiting.is_empty() {
            self.replacements.remove(&bucket);
        }
        newest
    }

    /// The up to `limit` live peers nearest to `key`, nearest first, without `except`.
    ///
    /// Let i be the bucket that the key itself falls into. Its peers share more than i bits with
    /// the key; those of all deeper buckets share exactly i; those of a bucket j < i share exactly
    /// j. So the buckets are taken in that order, only until there are enough.
    pub(super) fn closest(
        &self,
        key: &Key,
        limit: usize,
        except: Option<&NodeId>,
    ) -> Vec<Arc<Contact>> {
        let bucket = self.bucket_of(key);
        let [deeper, bucket, farther] = self.peers.around(bucket);
        let usable = |peer: &Peer| peer.alive() && Some(&peer.contact.id) != except;
        let entry = |peer: &Peer| (peer.contact.id.distance(key), Arc::clone(&peer.contact));
        let mut found: Vec<(Distance, Arc<Contact>)> = Vec::with_capacity(2 * limit);
        found.extend(bucket.filter(|p| usable(p)).map(entry));
        if found.len() < limit {
            found.extend(deeper.filter(|p| usable(p)).map(entry));
        }
        let mut group = None;
        for peer in farther {
            let this = Some(self.peers.bucket_of(&peer.contact));
            if group != this && found.len() >= limit {
                break;
            }
            group = this;
            if usable(peer) {
                found.push(entry(peer));
            }
        }
        found.sort_unstable_by_key(|(distance, _)| *distance);
        found.truncate(limit);
        found.into_iter().map(|(_, contact)| contact).collect()
    }

    pub(super) fn distance(&self, id: &NodeId) -> Distance {
        self.peers.distance(id)
    }

    pub(super) const fn sibling_count(&self) -> usize {
        self.siblings
    }

    fn bucket(&self, bucket: u32) -> impl Iterator<Item = &Peer> + Clone {
        let [_, members, _] = self.peers.around(bucket);
        members
    }

    /// The peers of a bucket that are not kept as siblings: all beyond the border.
    fn plain(&self, bucket: u32) -> impl Iterator<Item = &Peer> + Clone {
        let border = self.sibling_border();
        self.bucket(bucket).filter(move |peer| {
            border.is_none_or(|border| self.distance(&peer.contact.id) > border)
        })
    }

    fn allows(&self, contact: &Contact, bucket: u32) -> bool {
        self.limits.allow(contact, self.bucket(bucket).map(|peer| &*peer.contact))
    }

    /// Whether the bucket can take one more peer besides siblings; a dead one goes for it.
    fn make_room(&mut self, bucket: u32) -> bool {
        if self.plain(bucket).count() < self.k {
            return true;
        }
        let Some(dead) = self.plain(bucket).find(|peer| !peer.alive()).map(Peer::id) else {
            return false;
        };
        self.peers.remove(&dead);
        true
    }

    /// A new sibling may have pushed another off the list: it stays only if its bucket has room.
    fn settle_displaced_sibling(&mut self) {
        let Some(displaced) = self.live().nth(self.siblings).map(Peer::id) else {
            return;
        };
        let bucket = self.distance(&displaced).shared_bits();
        while self.plain(bucket).count() > self.k {
            let dead = self.plain(bucket).find(|peer| !peer.alive()).map(Peer::id);
            let Some(peer) = self.peers.remove(&dead.unwrap_or(displaced)) else {
                return;
            };
            if peer.alive() {
                self.wait(&peer.contact);
            }
        }
    }

    fn forget_excess_dead(&mut self) {
        let dead = || self.peers.iter().filter(|peer| !peer.alive());
        if dead().count() <= MAX_DEAD {
            return;
        }
        let oldest = dead().min_by_key(|peer| peer.last_seen).map(Peer::id);
        if let Some(oldest) = oldest {
            self.peers.remove(&oldest);
        }
    }
}
