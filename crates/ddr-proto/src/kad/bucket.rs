//! The replacement cache of one bucket (Kademlia, section 4.1).
//!
//! It keeps nodes that were heard of while their bucket was full. They have not necessarily
//! answered, so none moves into the bucket before it has.

use std::sync::Arc;

use crate::id::NodeId;
use crate::wire::Contact;

/// Most nodes that wait for one bucket. Kademlia does not say how many; every lookup brings new ones,
/// and with 20 instead of 4 they were a third of a core's memory and found nothing more under churn.
const MAX_WAITING: usize = 4;

/// Waiting nodes of one bucket, oldest first.
#[derive(Debug, Default)]
pub(super) struct Replacements {
    waiting: Vec<Arc<Contact>>,
}

impl Replacements {
    /// Puts a node at the newest end; the oldest goes when there are more than [`MAX_WAITING`].
    pub(super) fn put(&mut self, contact: Arc<Contact>) {
        self.remove(&contact.id);
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.remove(0);
        }
        self.waiting.push(contact);
    }

    /// Takes the node that was heard of last.
    pub(super) fn take_newest(&mut self) -> Option<Arc<Contact>> {
        self.waiting.pop()
    }

    pub(super) fn remove(&mut self, id: &NodeId) {
        self.waiting.retain(|contact| contact.id != *id);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
