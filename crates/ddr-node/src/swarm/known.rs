//! Who spoke or was asked, and in whose name who speaks about which blob.
//!
//! Decides how many are remembered. What is forgotten is learnt again from the next word.

use std::collections::BTreeMap;
use std::sync::Arc;

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::wire::Contact;

use super::outbox::Topic;

/// Names under which peers speak of blobs; beyond, those of blobs that are no longer held go, then all.
const MAX_TOPICS: usize = 16_384;
/// Peers that can be named though they are no neighbours any more; beyond, all go.
const MAX_MET: usize = 1024;

/// See the module comment.
#[derive(Default)]
pub(super) struct Known {
    topics: BTreeMap<Topic, (Digest, RepositoryName)>,
    met: BTreeMap<NodeId, Arc<Contact>>,
}

impl Known {
    /// A peer speaks about a blob in the name of a repository.
    pub(super) fn speaks(
        &mut self,
        topic: Topic,
        name: (Digest, RepositoryName),
        is_held: impl Fn(&Key) -> bool,
    ) {
        if self.topics.len() >= MAX_TOPICS {
            self.topics.retain(|(_, key), _| is_held(key));
        }
        if self.topics.len() >= MAX_TOPICS {
            self.topics.clear();
        }
        self.topics.insert(topic, name);
    }

    /// In whose name the peer speaks about the blob.
    pub(super) fn name(&self, topic: &Topic) -> Option<(Digest, RepositoryName)> {
        self.topics.get(topic).cloned()
    }

    /// Where this peer is.
    pub(super) fn meet(&mut self, contact: &Arc<Contact>) {
        if self.met.len() >= MAX_MET {
            self.met.clear();
        }
        self.met.insert(contact.id, Arc::clone(contact));
    }

    pub(super) fn contact(&self, node: &NodeId) -> Option<&Arc<Contact>> {
        self.met.get(node)
    }
}
