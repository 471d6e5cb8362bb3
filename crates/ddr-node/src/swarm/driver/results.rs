//! What came of the tasks, and whether fetches get on.

use std::sync::Arc;

use ddr_proto::id::{Key, NodeId};
use ddr_proto::swarm::{AskId, Input};
use ddr_proto::wire::Contact;
use tokio::time::Instant;

use super::{Done, Driver};
use crate::swarm::entry::Course;
use crate::swarm::errands::{Answer, ChainAnswer};
use crate::swarm::gathering::End;

impl Driver {
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Asked { ask, contact, answer } => self.asked(ask, contact, answer),
            Done::Chain { key, from, answer } => self.chain_came(key, from, answer),
            Done::Posted { topic, reached } => {
                self.outbox.posted(&topic, reached);
                // Also says what waited meanwhile.
                self.input(match reached {
                    true => Input::Tick,
                    false => Input::Lost { node: topic.0 },
                });
            }
            Done::LookedUp { key } => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.looked_up();
                }
                self.judge(key);
            }
            Done::Sources { hold, blob } => {
                if self.core.view(&blob).is_some() && !self.entries.contains_key(&blob) {
                    self.input(hold);
                }
            }
            Done::Applied { key, void: Ok(pieces) } => {
                self.input(Input::Void { blob: key, pieces });
            }
            Done::Applied { key, void: Err(error) } => {
                if let Some(entry) = self.entries.get(&key) {
                    entry.gathering.end(End::Failed(error.to_string().into()));
                }
            }
        }
    }

    fn asked(&mut self, ask: AskId, contact: Arc<Contact>, answer: Answer) {
        if self.asks.remove(&ask).is_none() {
            return;
        }
        let Answer { blob, input, head_us, is_put_off } = answer;
        if let Some(entry) = self.entries.get_mut(&blob).filter(|_| is_put_off) {
            entry.is_held_back();
        }
        let node = contact.id;
        match head_us {
            Some(head_us) => {
                let rtt_us = self.paths.heard(node, head_us);
                self.input(Input::Neighbour { blob, contact, complete: false, rtt_us });
                self.input(input);
            }
            None => {
                self.input(input);
                self.input(Input::Lost { node });
            }
        }
    }

    fn chain_came(&mut self, key: Key, from: NodeId, answer: ChainAnswer) {
        let Some(entry) = self.entries.get(&key) else { return };
        let wrong = match answer {
            ChainAnswer::Signed { signer, signed } => match entry.gathering.hear(*signed) {
                Some((claim, differs)) => {
                    let blob = key;
                    return self.input(Input::Chain { blob, from, signer, claim, differs });
                }
                None => true,
            },
            ChainAnswer::Wrong => true,
            ChainAnswer::None => false,
        };
        self.input(Input::NoChain { blob: key, from, wrong });
    }

    /// Looks whether fetches get on.
    pub(super) fn sweep(&mut self) {
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        for key in keys {
            self.judge(key);
        }
    }

    fn judge(&mut self, key: Key) {
        let (Some(entry), Some(view)) = (self.entries.get_mut(&key), self.core.view(&key)) else {
            return;
        };
        entry.gathering.tally.has_neighbours(view.neighbours.len());
        match entry.course(&view, Instant::now()) {
            Course::Fine => {}
            Course::Lost => self.look_up(key),
            Course::Failed => {
                entry.gathering.end(End::Failed("no holder is left".into()));
            }
        }
    }
}
