//! The nodes that share parts with this one: where they are, whether they live, how much room they have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ddr_proto::id::NodeId;
use ddr_proto::replica::{Candidate, MAX_WATCHED, Vigil};
use ddr_proto::wire::Contact;

use crate::clock::Clock;

/// See the module comment.
pub(super) struct Watch {
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    vigil: Vigil,
    /// At most [`MAX_WATCHED`].
    known: BTreeMap<NodeId, Known>,
}

struct Known {
    contact: Contact,
    free: Option<u64>,
}

impl Watch {
    pub(super) fn new(clock: Clock, grace_ms: u64) -> Self {
        let state = State { vigil: Vigil::new(grace_ms), known: BTreeMap::new() };
        Self { clock, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a node is.
    pub(super) fn knows(&self, contact: &Contact) {
        let mut state = self.state();
        if let Some(known) = state.known.get_mut(&contact.id) {
            if known.contact != *contact {
                known.contact = contact.clone();
            }
        } else if state.known.len() < MAX_WATCHED {
            let known = Known { contact: contact.clone(), free: None };
            state.known.insert(contact.id, known);
        }
    }

    /// A node spoke, and perhaps said how much room it has.
    pub(super) fn heard(&self, contact: &Contact, free: Option<u64>) {
        self.knows(contact);
        let now = self.clock.now();
        let mut state = self.state();
        state.vigil.heard(now, &contact.id);
        if let (Some(known), Some(free)) = (state.known.get_mut(&contact.id), free) {
            known.free = Some(free);
        }
    }

    /// A node does not come back.
    pub(super) fn gone(&self, node: &NodeId) {
        let mut state = self.state();
        state.known.remove(node);
        state.vigil.gone(node);
    }

    /// Whether a node itself was heard lately.
    pub(super) fn is_proven(&self, node: &NodeId) -> bool {
        let now = self.clock.now();
        self.state().vigil.is_proven(now, node)
    }

    pub(super) fn contact(&self, node: &NodeId) -> Option<Contact> {
        self.state().known.get(node).map(|known| known.contact.clone())
    }

    /// What the plan has to know of nodes.
    pub(super) fn candidates<'n>(
        &self,
        nodes: impl IntoIterator<Item = &'n NodeId>,
    ) -> Vec<Candidate> {
        let state = self.state();
        let candidate = |id: &NodeId| {
            let known = state.known.get(id);
            let zone = known.map(|known| known.contact.zone.clone()).unwrap_or_default();
            Candidate { id: *id, zone, free: known.and_then(|known| known.free) }
        };
        nodes.into_iter().map(candidate).collect()
    }

    /// Whom to watch from now on.
    pub(super) fn watch(&self, nodes: &BTreeSet<NodeId>) {
        let now = self.clock.now();
        let mut state = self.state();
        state.vigil.watch(now, nodes);
        if state.known.len() >= MAX_WATCHED {
            state.known.retain(|node, _| nodes.contains(node));
        }
    }

    /// One more to watch.
    pub(super) fn add(&self, node: NodeId) {
        let now = self.clock.now();
        self.state().vigil.add(now, node);
    }

    /// Who is to be asked for a sign of life.
    pub(super) fn due(&self) -> Vec<NodeId> {
        let now = self.clock.now();
        self.state().vigil.due(now)
    }

    pub(super) fn ask_every_ms(&self) -> u64 {
        self.state().vigil.ask_every_ms()
    }

    /// Who has to be replaced.
    pub(super) fn lost(&self) -> BTreeSet<NodeId> {
        let now = self.clock.now();
        self.state().vigil.lost(now)
    }

    /// Those of `nodes` that are not lost. Where hardly any would be left, who is silent does not count
    /// either, be it a storm.
    pub(super) fn alive(&self, nodes: &[NodeId], lost: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let now = self.clock.now();
        let state = self.state();
        let heard = nodes.iter().filter(|node| !state.vigil.is_silent(now, node));
        let heard: Vec<NodeId> = heard.copied().collect();
        if heard.len() <= 1 {
            return heard;
        }
        nodes.iter().filter(|node| !lost.contains(node)).copied().collect()
    }
}
