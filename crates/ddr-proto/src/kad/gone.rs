//! Nodes that are said to be gone for good: what they signed is void.
//!
//! The provider records of a node outlive it by an hour, and every copy that is made for it adds the name of another
//! holder to the key. Where somebody says that a node is gone, its records go too, and are refused when others pass
//! them on. A word alone moves nothing: the node is pinged, and once more, and only its silence counts. Who is heard
//! again counts again, with what it signs from then on.

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
    by_node: BTreeMap<NodeId, Gone>,
}

#[derive(Debug)]
struct Gone {
    said: Timestamp,
    unanswered: u8,
    /// What it issued until then is void, by its own clock.
    void_until_ms: Option<u64>,
}

impl GoneMemory {
    /// Somebody says so; whether that is new.
    fn said(&mut self, node: &NodeId, now: Timestamp) -> bool {
        let is_known =
            |gone: &Gone| gone.void_until_ms.is_some() || now.since_ms(gone.said) < AGAIN_MS;
        if self.by_node.get(node).is_some_and(is_known) {
            return false;
        }
        if self.by_node.len() >= MAX_GONE && !self.by_node.contains_key(node) {
            let first = self.by_node.iter().min_by_key(|(_, gone)| gone.said);
            if let Some(first) = first.map(|(node, _)| *node) {
                self.by_node.remove(&first);
            }
        }
        self.by_node.insert(*node, Gone { said: now, unanswered: 0, void_until_ms: None });
        true
    }

    /// A ping was not answered. `None`: nobody says that the node is gone, or it is known.
    fn unanswered(&mut self, node: &NodeId) -> Option<&mut Gone> {
        let gone = self.by_node.get_mut(node).filter(|gone| gone.void_until_ms.is_none())?;
        gone.unanswered += 1;
        Some(gone)
    }

    /// The node was heard.
    pub(super) fn forgive(&mut self, node: &NodeId) {
        self.by_node.remove(node);
    }

    /// Whether a record is of a node that is gone.
    pub(super) fn voids(&self, record: &ProviderRecord) -> bool {
        let gone = self.by_node.get(&record.provider.id);
        gone.and_then(|gone| gone.void_until_ms).is_some_and(|until| record.issued_ms <= until)
    }
}

impl Kad {
    /// Keeps a record that another node passes on, unless it is void.
    pub(super) fn keep(&mut self, record: ProviderRecord) -> Result<Kept, RecordError> {
        if self.gone.voids(&record) {
            return Ok(Kept::No);
        }
        self.records.offer(record, self.now)
    }

    /// Somebody says that a node is gone: it is asked.
    pub(super) fn on_gone(&mut self, node: &NodeId) {
        let has_records = self.records.has_of(node);
        let peer = self.table.get(node).filter(|peer| has_records || peer.alive());
        let contact = peer.map(|peer| Contact::clone(&peer.contact));
        let contact = contact.or_else(|| self.records.provider(node));
        if let Some(contact) = contact.filter(|_| self.gone.said(node, self.now)) {
            self.verify(contact.into());
        }
    }

    /// A node did not answer a ping.
    pub(super) fn on_silent(&mut self, node: &Contact) {
        let Some(gone) = self.gone.unanswered(&node.id) else { return };
        if gone.unanswered < PINGS {
            return self.verify(node.clone().into());
        }
        let (keys, newest) = self.records.void(&node.id);
        gone.void_until_ms = Some(newest.max(self.now.0));
        keys.iter().for_each(|key| self.answers.forget(key));
    }
}
