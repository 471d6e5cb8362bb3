//! What a node knows without asking anybody, because it knows the whole swarm or keeps the records.
//!
//! In a swarm of fewer than k nodes every node is among the k closest to every key: all lookups of nodes
//! find the same ones, and every node keeps the records of every key. So
//! - a lookup of nodes in which all answered stands for those of other keys, for [`EVERYBODY_MS`] from its
//!   start and as long as this node hears of no change: neither of who came, nor of who fell silent;
//! - who keeps a record of a holder that it knows to be alive need not ask others for holders. The own
//!   records are no liar's word, so one more path proves nothing. That holds in any swarm, for keys that
//!   this node is one of the k closest to, but in a large one the holder is seldom a node it knows.
//!
//! It must never answer a thorough question for holders: that is asked because those it names were no use.

use std::sync::Arc;

use super::lookup::{Lookup, Owner};
use super::publish::JobId;
use super::{Kad, LookupKind, OpId, Output};
use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, MAX_RECORDS_PER_ANSWER};

/// For so long after its start a lookup of nodes in which everybody answered stands for others. A lookup may
/// take four times as long, and what it found is used for seconds.
pub const EVERYBODY_MS: u64 = 500;

/// Everybody in a swarm of fewer than k nodes, when they were asked last.
#[derive(Debug, Default)]
pub(super) struct Everybody {
    until: Timestamp,
    /// Fewer than k, in the order of the table.
    nodes: Vec<NodeId>,
}

impl Kad {
    /// Whether this node knows every node of the swarm, as far as it knows.
    pub(super) fn knows_everybody(&self) -> bool {
        self.density.is_joined() && self.table.live().nth(self.cfg.k - 1).is_none()
    }

    /// Remembers that everybody was asked, if that is so.
    pub(super) fn note_everybody(&mut self, lookup: &Lookup) {
        let until = lookup.started.after_ms(EVERYBODY_MS);
        // Upkeep looks when nodes come and go: what it finds may have changed a moment later.
        let is_asked_for = matches!(lookup.owner, Owner::Ops(_) | Owner::Publish(_));
        let is_of_use = is_asked_for && lookup.kind == LookupKind::Nodes && until > self.now;
        if !is_of_use || !lookup.has_heard_from_all() || !self.knows_everybody() {
            return;
        }
        let nodes: Vec<NodeId> = self.table.live().map(|peer| peer.contact.id).collect();
        if !nodes.is_empty() && nodes.iter().all(|node| lookup.was_answered_by(node)) {
            self.everybody = Everybody { until, nodes };
        }
    }

    /// The closest nodes, if nobody need be asked for them.
    fn closest_of_everybody(&self, key: &Key) -> Option<Vec<Arc<Contact>>> {
        let live = self.table.live().map(|peer| &peer.contact.id);
        let holds = self.now < self.everybody.until
            && self.verifying.is_empty()
            && self.everybody.nodes.iter().eq(live);
        holds.then(|| self.table.closest(key, self.cfg.k, None))
    }

    /// Answers a lookup of the driver out of what is known. Returns false when it has to run.
    pub(super) fn answer_as_known(&mut self, op: OpId, kind: LookupKind, key: &Key) -> bool {
        match kind {
            LookupKind::Nodes => self.answer_with_everybody(op, key),
            LookupKind::Providers => self.answer_with_kept(op, key),
        }
    }

    fn answer_with_everybody(&mut self, op: OpId, key: &Key) -> bool {
        let Some(closest) = self.closest_of_everybody(key) else { return false };
        let closest = closest.iter().map(|contact| Contact::clone(contact)).collect();
        self.outputs.push_back(Output::LookupDone { op, closest, providers: Vec::new() });
        true
    }

    fn answer_with_kept(&mut self, op: OpId, key: &Key) -> bool {
        let own = self.own.id;
        let kept = self.choose_kept(key, MAX_RECORDS_PER_ANSWER, &own);
        if !kept.iter().any(|record| self.is_known_alive(&record.provider)) {
            return false;
        }
        let closest = self.table.closest(key, self.cfg.k, None);
        if !self.is_near(key, &closest) {
            return false;
        }
        let providers = self.nearest_first(kept);
        self.tell(&[op], providers.clone());
        let closest = closest.iter().map(|contact| Contact::clone(contact)).collect();
        self.outputs.push_back(Output::LookupDone { op, closest, providers });
        true
    }

    /// Whether this node is one of the k closest to a key, of whose other nodes `closest` are the k closest.
    pub(super) fn is_near(&self, key: &Key, closest: &[Arc<Contact>]) -> bool {
        let farthest = closest.get(self.cfg.k - 1).map(|contact| contact.id.distance(key));
        farthest.is_none_or(|farthest| self.own.id.distance(key) < farthest)
    }

    /// Whether a node answered when it was asked last, at the addresses at which it is named.
    fn is_known_alive(&self, node: &Contact) -> bool {
        let peer = self.table.get(&node.id);
        peer.is_some_and(|peer| peer.alive() && peer.contact.addrs == node.addrs)
    }

    /// Finds the nodes to which a job publishes.
    pub(super) fn look_up_for(&mut self, job: JobId, key: Key, is_thorough: bool) {
        match self.closest_of_everybody(&key) {
            Some(closest) => self.on_publish_lookup(job, &closest),
            None => {
                self.start_lookup(key, LookupKind::Nodes, Owner::Publish(job), is_thorough);
            }
        }
    }
}
