//! The measured lookups: how deep, how many messages, how long, with what success.

use std::collections::BTreeMap;

use ddr_proto::kad::{LookupKind, OpId};
use ddr_proto::{Key, NodeId};

use crate::latency::Micros;
use crate::tally::Samples;

/// The measured lookup that a message belongs to.
pub(crate) type Tag = Option<OpId>;

/// The message belongs to upkeep or publishing.
pub(crate) const NO_OP: Tag = None;

/// One running lookup.
#[derive(Debug)]
pub(crate) struct Op {
    node: u32,
    target: Key,
    kind: LookupKind,
    /// What it must find: the holder, or the closest node.
    wanted: NodeId,
    started: Micros,
    messages: u64,
    /// Steps from the asking node, by node: 1 for those of its own table that it asks.
    depth: BTreeMap<u32, u32>,
    /// Whether it was told to look harder.
    is_thorough: bool,
    /// When it had what it must find, and at which depth.
    found: Option<(Micros, u32)>,
}

/// All measured lookups.
#[derive(Debug, Default)]
pub(crate) struct Ops {
    next: u64,
    running: BTreeMap<OpId, Op>,
    questions: BTreeMap<(u32, LookupKind, Key), OpId>,
    pub(crate) done: usize,
    pub(crate) succeeded: usize,
    /// Of successful lookups.
    pub(crate) hops: Samples,
    /// Of successful lookups, in microseconds, until the wanted answer came.
    pub(crate) latency: Samples,
    /// Of successful lookups, in microseconds, until they ended.
    pub(crate) duration: Samples,
    /// Requests of each ended lookup.
    pub(crate) messages: Samples,
    /// Publications that ended, and how many nodes said that they keep the record.
    pub(crate) stored: Samples,
    /// By key: lookups that failed, to tell unlucky keys from unlucky lookups.
    pub(crate) failed_keys: BTreeMap<Key, u64>,
}

impl Ops {
    /// A number for an operation that is not measured.
    pub(crate) fn unmeasured(&mut self) -> OpId {
        self.next += 1;
        OpId(self.next)
    }

    /// Starts a lookup; `None` when this node runs the same one already.
    pub(crate) fn start(
        &mut self,
        node: u32,
        target: Key,
        kind: LookupKind,
        wanted: NodeId,
        now: Micros,
    ) -> Option<OpId> {
        let question = (node, kind, target);
        if self.questions.contains_key(&question) {
            return None;
        }
        let id = self.unmeasured();
        self.questions.insert(question, id);
        let depth = BTreeMap::new();
        let (messages, is_thorough, found) = (0, false, None);
        let op =
            Op { node, target, kind, wanted, started: now, messages, depth, is_thorough, found };
        self.running.insert(id, op);
        Some(id)
    }

    /// A node sends a request; tells whether it belongs to a measured lookup.
    pub(crate) fn on_call(&mut self, node: u32, kind: LookupKind, target: Key, to: Tagged) -> Tag {
        let id = *self.questions.get(&(node, kind, target))?;
        let op = self.running.get_mut(&id)?;
        op.messages += 1;
        if let Some(to) = to {
            op.depth.entry(to).or_insert(1);
        }
        Some(id)
    }

    /// An answer names nodes.
    pub(crate) fn on_named(&mut self, tag: Tag, by: u32, named: impl Iterator<Item = u32>) {
        let Some(op) = tag.and_then(|id| self.running.get_mut(&id)) else {
            return;
        };
        let depth = op.depth.get(&by).copied().unwrap_or(1) + 1;
        for node in named.filter(|node| *node != op.node) {
            let known = op.depth.entry(node).or_insert(depth);
            *known = depth.min(*known);
        }
    }

    /// Holders were reported while an answer of `by` was taken in; `None` means the own records.
    pub(crate) fn on_holder(&mut self, id: OpId, holder: &NodeId, by: Tagged, now: Micros) {
        let Some(op) = self.running.get_mut(&id) else {
            return;
        };
        if op.wanted == *holder && op.found.is_none() {
            let depth = by.map_or(0, |by| op.depth.get(&by).copied().unwrap_or(1));
            op.found = Some((now, depth));
        }
    }

    /// Who runs a lookup, and what for.
    pub(crate) fn question(&self, id: OpId) -> Option<(u32, Key, LookupKind)> {
        self.running.get(&id).map(|op| (op.node, op.target, op.kind))
    }

    /// A lookup found holders, and none of them has it. Returns whether it has yet to look harder.
    pub(crate) fn on_false_holders(&mut self, id: OpId) -> bool {
        let op = self.running.get_mut(&id).filter(|op| op.found.is_none());
        op.is_some_and(|op| !std::mem::replace(&mut op.is_thorough, true))
    }

    /// A lookup ended; `closest` are the closest nodes that it found.
    pub(crate) fn on_done(&mut self, id: OpId, closest: &[(NodeId, Tagged)], now: Micros) {
        let Some(mut op) = self.running.remove(&id) else {
            return;
        };
        self.questions.remove(&(op.node, op.kind, op.target));
        if op.kind == LookupKind::Nodes
            && let Some((_, node)) = closest.iter().find(|(id, _)| *id == op.wanted)
        {
            let depth = node.and_then(|node| op.depth.get(&node)).copied();
            op.found = Some((now, depth.unwrap_or(0)));
        }
        self.done += 1;
        self.messages.add(op.messages);
        if let Some((at, hops)) = op.found {
            self.succeeded += 1;
            self.hops.add(u64::from(hops));
            self.latency.add(at - op.started);
            self.duration.add(now - op.started);
        } else {
            *self.failed_keys.entry(op.target).or_default() += 1;
        }
    }
}

/// A node, if it exists at all.
pub(crate) type Tagged = Option<u32>;
