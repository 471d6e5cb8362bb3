//! What the core wants done: each output becomes a task, a message or a verdict.

use std::sync::Arc;

use ddr_proto::id::{Key, NodeId};
use ddr_proto::swarm::{Blame, Output, Refusal, UploadId};
use ddr_proto::wire::{Contact, SwarmMessage};
use ddr_store::PartialError;
use tokio::time::Instant;

use super::{Done, Driver};
use crate::swarm::errands::Ask;
use crate::swarm::gathering::End;
use crate::swarm::outbox::Topic;
use crate::swarm::{Upload, Verdict};

impl Driver {
    pub(super) fn output(&mut self, output: Output) {
        match output {
            Output::Ask { ask, node, blob, piece, class } => {
                self.ask(Ask { id: ask, piece, class }, node, &blob);
            }
            Output::Cancel { ask } => {
                if let Some(task) = self.asks.remove(&ask) {
                    task.abort();
                }
            }
            Output::AskChain { blob, node } => self.ask_chain(blob, node),
            Output::UseChain { blob, claim, settled, vouched } => {
                let gathering = self.entries.get(&blob).map(|entry| Arc::clone(&entry.gathering));
                if let Some(gathering) = gathering
                    && gathering.use_chain(claim, (settled, vouched))
                {
                    self.tasks.spawn(async move {
                        let applied = crate::blocking(move || gathering.apply()).await;
                        let void = applied.map_err(PartialError::Io).and_then(|applied| applied);
                        Done::Applied { key: blob, void }
                    });
                }
            }
            Output::Doubt { blob, piece, other } => {
                if let Some(entry) = self.entries.get(&blob) {
                    entry.gathering.doubt(piece, other);
                }
            }
            Output::Send { to, message } => self.send(to, message),
            Output::Serve { upload, blob: _, piece } => {
                let notices = self.errands.notices.clone();
                let guard = Upload { id: upload, is_whole: false, notices };
                if let Some(verdict) = self.uploads.remove(&upload) {
                    // Who is gone meanwhile drops the guard.
                    let _ = verdict.send(Verdict::Serve(piece, guard));
                }
            }
            Output::Refuse { upload, refusal } => self.refuse(upload, refusal),
            Output::WantHolders { blob } => self.look_up(blob),
            Output::Struck { node, blame, .. } => self.struck(node, blame),
            Output::Complete { blob } => {
                if let Some(entry) = self.entries.get(&blob) {
                    entry.gathering.end(End::Complete);
                }
            }
        }
    }

    fn refuse(&mut self, upload: UploadId, refusal: Refusal) {
        if let Some(verdict) = self.uploads.remove(&upload) {
            let _ = verdict.send(Verdict::Refuse(refusal));
        }
    }

    pub(super) fn contact(&self, node: &NodeId) -> Option<Arc<Contact>> {
        self.core.contact(node).or_else(|| self.known.contact(node)).cloned()
    }

    fn ask(&mut self, ask: Ask, node: NodeId, blob: &Key) {
        let contact = self.contact(&node);
        let entry = self.entries.get_mut(blob);
        let (Some(entry), Some(contact)) = (entry, contact) else {
            // The fetch was given up a moment ago.
            return;
        };
        entry.is_busy(Instant::now());
        let (errands, gathering) = (Arc::clone(&self.errands), Arc::clone(&entry.gathering));
        let (met, id) = (Arc::clone(&contact), ask.id);
        let task = self.tasks.spawn(async move {
            let answer = errands.ask(&gathering, &contact, ask).await;
            Done::Asked { ask: id, contact, answer }
        });
        self.asks.insert(id, task);
        self.known.meet(&met);
    }

    fn ask_chain(&mut self, key: Key, from: NodeId) {
        let (Some(entry), Some(contact)) = (self.entries.get(&key), self.contact(&from)) else {
            return;
        };
        let (errands, gathering) = (Arc::clone(&self.errands), Arc::clone(&entry.gathering));
        self.tasks.spawn(async move {
            let answer = errands.chain(&gathering, &contact).await;
            Done::Chain { key, from, answer }
        });
    }

    fn send(&mut self, to: NodeId, message: Arc<SwarmMessage>) {
        let key = message.blob;
        if !self.outbox.push(to, message) {
            tracing::debug!(peer = %to, ?key, "a peer hears too slowly");
        }
    }

    pub(super) fn post(&mut self, topic: Topic, messages: Vec<SwarmMessage>) {
        let (to, key) = topic;
        let of_entry = || {
            let gathering = &self.entries.get(&key)?.gathering;
            Some((gathering.digest, gathering.repository.clone()))
        };
        let name = self.known.name(&topic).or_else(of_entry);
        let (Some(name), Some(contact)) = (name, self.contact(&to)) else {
            return self.outbox.posted(&topic, false);
        };
        let errands = Arc::clone(&self.errands);
        self.tasks.spawn(async move {
            let reached = errands.post(&contact, name, messages).await;
            Done::Posted { topic, reached }
        });
    }

    pub(super) fn look_up(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Some(anew) = entry.begin_lookup() else { return };
        let digest = entry.gathering.digest;
        let errands = Arc::clone(&self.errands);
        self.tasks.spawn(async move {
            errands.look_up(&digest, anew).await;
            Done::LookedUp { key }
        });
    }

    fn struck(&self, node: NodeId, blame: Blame) {
        let why = match blame {
            Blame::WrongPiece => "a piece that it gave was wrong",
            Blame::WrongChain => "a piece chain that it signed was wrong",
            Blame::Nonsense => "it answered a request for a piece with something else",
            Blame::BadMap => "what it said about its pieces was wrong",
            // Slow, or too eager, is no lie: only the core leaves it alone.
            Blame::Stalled | Blame::Greedy => {
                return tracing::debug!(peer = %node, ?blame, "a peer is left alone");
            }
        };
        let addr = self.contact(&node).and_then(|contact| contact.addrs.first().copied());
        if let Some(addr) = addr {
            self.errands.peers.strike(node, addr, why);
        }
    }
}
