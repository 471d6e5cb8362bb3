//! What is to be said to peers, and in which order.
//!
//! Decides that one post about a blob is on its way to a peer at a time, so messages arrive in order.
//! What a peer is too slow to hear is dropped with everything behind it: the peer counts as lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ddr_proto::id::{Key, NodeId};
use ddr_proto::wire::{MAX_SWARM_MESSAGES, SwarmMessage};

/// Messages about one blob that wait for one peer.
const MAX_WAITING: usize = 256;

/// A peer, and a blob that it is told of.
pub(super) type Topic = (NodeId, Key);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Arc<SwarmMessage>>,
    is_posting: bool,
}

/// See the module comment.
#[derive(Default)]
pub(super) struct Outbox(BTreeMap<Topic, Queue>);

impl Outbox {
    /// False: too much waits, and was dropped.
    pub(super) fn push(&mut self, to: NodeId, message: Arc<SwarmMessage>) -> bool {
        let queue = self.0.entry((to, message.blob)).or_default();
        if queue.waiting.len() >= MAX_WAITING {
            queue.waiting.clear();
            return false;
        }
        queue.waiting.push_back(message);
        true
    }

    /// The next post to each peer to which none is on its way.
    pub(super) fn due(&mut self) -> Vec<(Topic, Vec<SwarmMessage>)> {
        let idle = self.0.iter_mut().filter(|(_, queue)| !queue.is_posting);
        let due = idle.filter(|(_, queue)| !queue.waiting.is_empty());
        due.map(|(topic, queue)| {
            queue.is_posting = true;
            let count = queue.waiting.len().min(MAX_SWARM_MESSAGES);
            let messages = queue.waiting.drain(..count).map(Arc::unwrap_or_clone).collect();
            (*topic, messages)
        })
        .collect()
    }

    /// A post has arrived, or failed with all that waited behind it.
    pub(super) fn posted(&mut self, topic: &Topic, arrived: bool) {
        let Some(queue) = self.0.get_mut(topic) else { return };
        queue.is_posting = false;
        if !arrived || queue.waiting.is_empty() {
            self.0.remove(topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use ddr_proto::wire::SwarmBody;

    use super::*;

    const PEER: NodeId = NodeId([1; 32]);
    const BLOB: Key = Key([2; 32]);

    fn message(load: u16) -> Arc<SwarmMessage> {
        Arc::new(SwarmMessage { blob: BLOB, body: SwarmBody::Have { pieces: Vec::new(), load } })
    }

    #[test]
    fn one_post_at_a_time_in_order() {
        let mut outbox = Outbox::default();
        for load in 0..20 {
            assert!(outbox.push(PEER, message(load)));
        }
        let loads = |due: Vec<(Topic, Vec<SwarmMessage>)>| -> Vec<u16> {
            let messages = due.into_iter().flat_map(|(_, messages)| messages);
            messages
                .map(|message| match message.body {
                    SwarmBody::Have { load, .. } => load,
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(loads(outbox.due()), (0..16).collect::<Vec<_>>());
        assert!(outbox.due().is_empty(), "the first is on its way");
        outbox.posted(&(PEER, BLOB), true);
        assert_eq!(loads(outbox.due()), [16, 17, 18, 19]);
        outbox.posted(&(PEER, BLOB), true);
        assert!(outbox.0.is_empty());
    }

    #[test]
    fn what_a_slow_peer_does_not_hear_has_an_end() {
        let mut outbox = Outbox::default();
        let taken = (0..=MAX_WAITING).filter(|_| outbox.push(PEER, message(0))).count();
        assert_eq!(taken, MAX_WAITING);
        assert!(outbox.due().is_empty());
    }
}
