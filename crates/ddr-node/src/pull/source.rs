//! Which peer to read from next.
//!
//! Decides the order: who could not be reached lately last, own zone first, then the peer with the fewest
//! transfers from here, then as found. It must never offer this node, a peer that is avoided, one that said it lacks the
//! content, or one peer more than [`MAX_TRIES`] times.

use std::sync::Arc;

use ddr_oci::Digest;
use ddr_proto::id::NodeId;
use ddr_proto::wire::Contact;

use super::locate::{Holders, Locator};
use crate::peers::Peers;

/// Attempts with one peer in one fetch.
const MAX_TRIES: u32 = 2;
/// Lookups in one fetch after the first, when all known holders failed.
const MAX_MORE_LOOKUPS: u32 = 2;

/// The peers that one fetch may read from.
pub(crate) struct Sources {
    digest: Digest,
    locator: Locator,
    peers: Arc<Peers>,
    own: Contact,
    holders: Holders,
    candidates: Vec<Candidate>,
    lookups_left: u32,
}

struct Candidate {
    contact: Contact,
    tries_left: u32,
    tried: bool,
    dismissed: bool,
}

impl Sources {
    pub(crate) fn new(digest: Digest, locator: Locator, peers: Arc<Peers>, own: Contact) -> Self {
        let holders = locator.holders(&digest);
        Self {
            digest,
            locator,
            peers,
            own,
            holders,
            candidates: Vec::new(),
            lookups_left: MAX_MORE_LOOKUPS,
        }
    }

    /// The next peer to ask. `None`: there is nobody left.
    pub(crate) async fn next(&mut self) -> Option<Contact> {
        loop {
            if let Some(contact) = self.next_new().await {
                return Some(contact);
            }
            if let Some(contact) = self.pick(true) {
                return Some(contact);
            }
            // "Nobody has it" is an answer. Worth another lookup is "those who have it failed", and
            // once "those found do not have it": they were remembered too long, or lie.
            let disproved = !self.candidates.is_empty() && self.lookups_left == MAX_MORE_LOOKUPS;
            if !(self.any_failed() || disproved) || self.lookups_left == 0 {
                return None;
            }
            self.lookups_left -= 1;
            self.holders = self.locator.holders_anew(&self.digest);
        }
    }

    /// The next peer that was not asked yet, of those that the lookup finds that runs.
    pub(crate) async fn next_new(&mut self) -> Option<Contact> {
        loop {
            while let Some(holder) = self.holders.ready() {
                self.add(holder.contact);
            }
            if let Some(contact) = self.pick(false) {
                return Some(contact);
            }
            let holder = self.holders.next().await?;
            self.add(holder.contact);
        }
    }

    /// `node` could not be asked: others are asked before it for a while.
    pub(crate) fn failed(&self, node: &NodeId) {
        self.peers.unreached(*node);
    }

    /// `node` can be reached.
    pub(crate) fn answered(&self, node: &NodeId) {
        self.peers.reached(node);
    }

    /// `node` does not have it: it counts as if it had not been found.
    pub(crate) fn dismiss(&mut self, node: &NodeId) {
        self.give_up(node);
        if let Some(candidate) = self.candidate(node) {
            candidate.dismissed = true;
        }
    }

    /// `node` has it and must not be asked again in this fetch.
    pub(crate) fn give_up(&mut self, node: &NodeId) {
        self.answered(node);
        if let Some(candidate) = self.candidate(node) {
            candidate.tries_left = 0;
        }
    }

    /// `node` was too busy: that was no attempt.
    pub(crate) fn give_back(&mut self, node: &NodeId) {
        if let Some(candidate) = self.candidate(node) {
            candidate.tries_left += 1;
        }
    }

    fn candidate(&mut self, node: &NodeId) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|candidate| candidate.contact.id == *node)
    }

    /// True when somebody is said to hold it and could not be read from.
    pub(crate) fn any_failed(&self) -> bool {
        self.candidates.iter().any(|candidate| !candidate.dismissed)
    }

    fn add(&mut self, contact: Contact) {
        let known = self.candidates.iter().any(|c| c.contact.id == contact.id);
        if !known && contact.id != self.own.id {
            self.candidates.push(Candidate {
                contact,
                tries_left: MAX_TRIES,
                tried: false,
                dismissed: false,
            });
        }
    }

    fn pick(&mut self, again: bool) -> Option<Contact> {
        let (peers, zone) = (&self.peers, &self.own.zone);
        let best = self
            .candidates
            .iter_mut()
            .filter(|c| c.tries_left > 0 && c.tried == again && !peers.avoided(&c.contact.id))
            .min_by_key(|c| {
                let elsewhere = zone.is_empty() || c.contact.zone != *zone;
                let id = &c.contact.id;
                (peers.unreached_lately(id), elsewhere, peers.running(id))
            })?;
        best.tries_left -= 1;
        best.tried = true;
        Some(best.contact.clone())
    }
}
