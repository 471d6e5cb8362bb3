//! Nodes that are said to be gone for good: what they signed is void until they are heard again.
//!
//! The provider records of a node outlive it by an hour, and every copy that is made for it adds the name of another
//! holder to the key. Where somebody says that a node is gone, its records are told to nobody any more, and none is kept
//! that others pass on. A word alone moves nothing: the node is pinged, and once more, and only its silence counts.
//! The records stay until they expire, so that a word that proves wrong costs nothing once the node is heard.

use std::collections::BTreeMap;

use super::Kad;
use super::records::Kept;
use crate::id::NodeId;
use crate::time::Timestamp;
use crate::wire::{Contact, ProviderRecord, RecordError};

/// Nodes that are remembered; of more the one that was named first is forgotten.
const MAX_GONE: usize = 4_096;
/// Pings that it leaves unanswered.
const PINGS: u8 = 2;
/// So long after a word the next one about the same node is heard.
const AGAIN_MS: u64 = 10_000;

/// See the module comment.
#[derive(Debug, Default)]
pub(super) struct GoneMemory {
    by_node: BTreeMap<NodeId, Word>,
}

/// That a node is gone, as somebody said.
#[derive(Debug)]
struct Word {
    said: Timestamp,
    unanswered: u8,
}

impl GoneMemory {
    /// Whether somebody said so and the node answered no ping.
    pub(super) fn contains(&self, node: &NodeId) -> bool {
        self.by_node.get(node).is_some_and(|word| word.unanswered >= PINGS)
    }

    /// Whether a word about a node is to be heard: not if it is gone, or was named a moment ago.
    fn is_news(&self, node: &NodeId, now: Timestamp) -> bool {
        let is_old = |word: &Word| now.since_ms(word.said) >= AGAIN_MS;
        self.by_node.get(node).is_none_or(is_old) && !self.contains(node)
    }

    fn note(&mut self, node: &NodeId, now: Timestamp) {
        if self.by_node.len() >= MAX_GONE && !self.by_node.contains_key(node) {
            let first = self.by_node.iter().min_by_key(|(_, word)| word.said);
            if let Some(first) = first.map(|(node, _)| *node) {
                self.by_node.remove(&first);
            }
        }
        self.by_node.insert(*node, Word { said: now, unanswered: 0 });
    }

    /// A ping was not answered; whether the node is to be pinged once more.
    fn unanswered(&mut self, node: &NodeId) -> bool {
        let Some(word) = self.by_node.get_mut(node) else { return false };
        word.unanswered = word.unanswered.saturating_add(1);
        word.unanswered < PINGS
    }

    /// The node was heard.
    pub(super) fn forgive(&mut self, node: &NodeId) {
        self.by_node.remove(node);
    }
}

impl Kad {
    /// Keeps a record that another node passes on, unless its holder is gone.
    pub(super) fn keep(&mut self, record: ProviderRecord) -> Result<Kept, RecordError> {
        if self.gone.contains(&record.provider.id) {
            return Ok(Kept::No);
        }
        self.records.offer(record, self.now)
    }

    /// Somebody says that a node is gone: it is asked.
    pub(super) fn on_gone(&mut self, node: &NodeId) {
        if !self.gone.is_news(node, self.now) {
            return;
        }
        let has_records = self.records.has_of(node);
        let peer = self.table.get(node).filter(|peer| has_records || peer.alive());
        let contact = peer.map(|peer| Contact::clone(&peer.contact));
        if let Some(contact) = contact.or_else(|| self.records.provider(node)) {
            self.gone.note(node, self.now);
            self.verify(contact.into());
        }
    }

    /// A node did not answer a ping.
    pub(super) fn on_silent(&mut self, node: &Contact) {
        if self.gone.unanswered(&node.id) {
            self.verify(node.clone().into());
        } else if self.gone.contains(&node.id) {
            self.answers.forget_all();
        }
    }
}
