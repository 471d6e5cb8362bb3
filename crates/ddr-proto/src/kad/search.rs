//! Running lookups: start, queue, feed with answers, wake, end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::calls::Purpose;
use super::lookup::{Lookup, LookupId, Owner};
use super::path::Rules;
use super::{Effort, Kad, LookupKind, OpId, Output, Reason};
use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, MAX_RECORDS_PER_ANSWER, ProviderRecord, Response};

/// Most lookups that run at the same time.
pub const MAX_LOOKUPS: usize = 128;
/// Most lookups of the driver that wait for their turn; more end at once with nothing found.
pub const MAX_QUEUED_LOOKUPS: usize = 4_096;

/// A round trip that takes less hardly counts: nodes of one LAN.
const SHORT_MS: u32 = 5;
/// Most operations that share one lookup or wait for one key; more end at once.
pub const MAX_JOINED_OPS: usize = 4_096;

type Question = (LookupKind, Key);

/// Who waits for a lookup to start.
#[derive(Debug, Default)]
struct Waiting {
    ops: Vec<OpId>,
    is_thorough: bool,
}

#[derive(Debug, Default)]
pub(super) struct Searches {
    next: u64,
    running: BTreeMap<LookupId, Box<Lookup>>,
    /// Lookups of the driver that run, to let a second one of the same question join.
    asked: BTreeMap<Question, LookupId>,
    queue: VecDeque<Question>,
    waiting: BTreeMap<Question, Waiting>,
    wakes: BTreeSet<(Timestamp, LookupId)>,
    /// Lookups to look at before the next input.
    changed: BTreeSet<LookupId>,
    /// Lookups that went on with more paths.
    pub(super) doubted: u64,
}

impl Searches {
    pub(super) fn next_wake(&self) -> Option<Timestamp> {
        self.wakes.first().map(|(at, _)| *at)
    }

    pub(super) fn has_room(&self) -> bool {
        self.running.len() < MAX_LOOKUPS
    }

    /// Takes a lookup out to work on it.
    fn take(&mut self, id: LookupId) -> Option<Box<Lookup>> {
        let lookup = self.running.remove(&id)?;
        self.wakes.remove(&(lookup.wake, id));
        Some(lookup)
    }

    /// Puts a lookup back that is to be looked at again.
    pub(super) fn put_changed(&mut self, id: LookupId, lookup: Box<Lookup>) {
        self.put(id, lookup);
        self.changed.insert(id);
    }

    /// Puts a lookup back that goes on.
    fn put(&mut self, id: LookupId, lookup: Box<Lookup>) {
        self.wakes.insert((lookup.wake, id));
        self.running.insert(id, lookup);
    }
}

impl Kad {
    pub(super) fn on_lookup(&mut self, op: OpId, target: Key, kind: LookupKind, effort: Effort) {
        if effort == Effort::Cached && self.answer_at_once(op, kind, &target) {
            return;
        }
        let is_thorough = effort == Effort::Thorough || kind == LookupKind::Nodes;
        let is_known = kind == LookupKind::Nodes || !is_thorough;
        if is_known && !self.stopped && self.answer_as_known(op, kind, &target) {
            return;
        }
        let question = (kind, target);
        if let Some(id) = self.searches.asked.get(&question)
            && let Some(lookup) = self.searches.running.get_mut(id)
            && let Owner::Ops(ops) = &mut lookup.owner
        {
            if ops.len() >= MAX_JOINED_OPS {
                return self.end_with_nothing(op);
            }
            ops.push(op);
            lookup.is_thorough |= is_thorough;
            let records = lookup.providers();
            let records = self.nearest_first(records);
            return self.tell(&[op], records);
        }
        if let Some(waiting) = self.searches.waiting.get_mut(&question)
            && waiting.ops.len() < MAX_JOINED_OPS
        {
            waiting.is_thorough |= is_thorough;
            return waiting.ops.push(op);
        }
        let full = self.searches.queue.len() >= MAX_QUEUED_LOOKUPS;
        if self.stopped || full || self.searches.waiting.contains_key(&question) {
            return self.end_with_nothing(op);
        }
        self.searches.queue.push_back(question);
        self.searches.waiting.insert(question, Waiting { ops: vec![op], is_thorough });
    }

    fn end_with_nothing(&mut self, op: OpId) {
        let (closest, providers) = (Vec::new(), Vec::new());
        self.outputs.push_back(Output::LookupDone { op, closest, providers });
    }

    /// Starts a lookup. The caller has seen to it that there is room.
    pub(super) fn start_lookup(
        &mut self,
        target: Key,
        kind: LookupKind,
        owner: Owner,
        is_thorough: bool,
    ) -> LookupId {
        let id = LookupId(self.searches.next);
        self.searches.next += 1;
        self.upkeep.touch_bucket(self.table.bucket_of(&target), self.now);
        // Where the nearest nodes named false holders, others have to be asked as well.
        let mut seeds = if is_thorough && kind == LookupKind::Providers {
            self.scattered_seeds(&target)
        } else {
            self.table.closest(&target, self.cfg.k, None)
        };
        if seeds.is_empty() {
            // Better to ask nodes that were silent than nobody.
            let all = self.table.all().map(|(_, peer)| Arc::clone(&peer.contact));
            seeds = all.take(self.cfg.k).collect();
        }
        let deadline = self.now.after_ms(self.cfg.lookup_ceiling_ms);
        let shape = (self.cfg.paths, self.cfg.k);
        let mut lookup = Lookup::new(target, kind, owner, seeds, shape, (self.now, deadline));
        lookup.is_thorough = is_thorough;
        self.searches.put(id, Box::new(lookup));
        self.searches.changed.insert(id);
        id
    }

    pub(super) fn on_lookup_answer(
        &mut self,
        id: LookupId,
        from: &Arc<Contact>,
        response: Response,
    ) {
        let Some(mut lookup) = self.searches.take(id) else {
            return;
        };
        let (records, nodes) = match (lookup.kind, response) {
            (LookupKind::Nodes, Response::Nodes { nodes }) => (Vec::new(), nodes),
            (LookupKind::Providers, Response::Providers { records, nodes }) => (records, nodes),
            (_, Response::Refused { .. }) => {
                lookup.failed(&from.id);
                return self.searches.put_changed(id, lookup);
            }
            _ => {
                self.report(from.id, Reason::WrongAnswer);
                lookup.failed(&from.id);
                return self.searches.put_changed(id, lookup);
            }
        };
        let mut learned = lookup.learn(records, &self.own.id, self.now);
        if nodes.iter().any(Contact::has_impossible_address) {
            learned.fault.get_or_insert(Reason::BadAddress);
        }
        if let Owner::Ops(ops) = &lookup.owner {
            let ops = ops.clone();
            let new = self.nearest_first(learned.new);
            self.tell(&ops, new);
        }
        if let Some(fault) = learned.fault {
            self.report(from.id, fault);
            self.mark_failed(from, self.now);
            lookup.failed(&from.id);
        } else {
            if learned.named {
                lookup.named_holders(&from.id);
            }
            lookup.answered(from, nodes, self.cfg.k, |contact| self.candidate(contact));
        }
        self.searches.put_changed(id, lookup);
    }

    pub(super) fn on_lookup_failure(&mut self, id: LookupId, node: &NodeId) {
        if let Some(mut lookup) = self.searches.take(id) {
            lookup.failed(node);
            self.searches.put_changed(id, lookup);
        }
    }

    /// Moves every lookup on that an input or the time has changed.
    pub(super) fn run_searches(&mut self) {
        self.start_queued();
        loop {
            let due = self.searches.wakes.first().filter(|(at, _)| *at <= self.now);
            let next = due.map(|(_, id)| *id).or_else(|| self.searches.changed.first().copied());
            let Some(id) = next else {
                return;
            };
            self.searches.changed.remove(&id);
            self.advance(id);
            self.start_queued();
        }
    }

    pub(super) fn start_queued(&mut self) {
        while self.searches.has_room()
            && let Some(question) = self.searches.queue.pop_front()
        {
            let Waiting { ops, is_thorough } =
                self.searches.waiting.remove(&question).unwrap_or_default();
            let (kind, target) = question;
            if kind == LookupKind::Providers {
                self.tell_kept_records(&ops, &target);
            }
            let id = self.start_lookup(target, kind, Owner::Ops(ops), is_thorough);
            self.searches.asked.insert(question, id);
        }
    }

    fn advance(&mut self, id: LookupId) {
        let Some(mut lookup) = self.searches.take(id) else {
            return;
        };
        let rules = Rules {
            k: lookup.breadth,
            followed: if lookup.is_thorough { self.cfg.followed } else { 0 },
            alpha: self.alpha(&lookup),
            now: self.now,
            pace: self.rtt.pace(&self.cfg),
        };
        let mut done = lookup.is_done(&rules);
        while !done
            && !self.calls.is_full()
            && let Some(contact) = lookup.next_query(&rules)
        {
            self.call(contact, Purpose::Lookup(id), lookup.request());
            done = lookup.is_done(&rules);
        }
        if done {
            if lookup.has_holders() {
                return self.finish(*lookup);
            }
            if lookup.found_nobody() && !lookup.is_thorough && self.now < lookup.deadline {
                lookup.is_thorough = true;
                return self.searches.put_changed(id, lookup);
            }
            if let Some(lookup) = self.look_again_in_doubt(id, lookup, &rules) {
                self.finish(*lookup);
            }
            return;
        }
        lookup.wake = lookup.next_wake(&rules);
        self.searches.put(id, lookup);
    }

    /// Calls in flight on each path. Where a round trip costs less than the work of the nodes that are
    /// asked in vain, a quick lookup asks one after the other.
    fn alpha(&self, lookup: &Lookup) -> usize {
        let is_quick = lookup.kind == LookupKind::Providers && !lookup.is_thorough;
        if is_quick && self.rtt.smoothed_ms() < SHORT_MS { 1 } else { self.cfg.alpha }
    }

    fn finish(&mut self, lookup: Lookup) {
        self.note_everybody(&lookup);
        let closest = lookup.closest(self.cfg.k);
        match lookup.owner {
            Owner::Ops(ref ops) => {
                self.searches.asked.remove(&(lookup.kind, lookup.target));
                let providers = self.with_kept_records(&lookup);
                self.remember_answer(&lookup, &closest, &providers);
                let closest: Vec<Contact> = closest.iter().map(|c| Contact::clone(c)).collect();
                for &op in ops {
                    let (closest, providers) = (closest.clone(), providers.clone());
                    self.outputs.push_back(Output::LookupDone { op, closest, providers });
                }
            }
            // Past a crowd of IDs around the key there are honest nodes to store it.
            Owner::Publish(job) => self.on_publish_lookup(job, &lookup.closest(lookup.breadth)),
            Owner::Siblings => {
                self.density.joined();
                self.on_siblings_known();
            }
            Owner::Refresh => {
                self.note_density(&lookup.target, &closest);
                self.on_refreshed();
            }
        }
    }

    /// Which node that an answer named may be asked, and how it is best reached.
    fn candidate(&self, contact: &Contact) -> Option<Arc<Contact>> {
        if !self.is_usable(contact) {
            return None;
        }
        // An address at which the node itself has answered beats what others say.
        if let Some(peer) = self.table.get(&contact.id) {
            if peer.alive() {
                return Some(Arc::clone(&peer.contact));
            }
            if peer.contact.addrs == contact.addrs {
                return None;
            }
        }
        (!self.dead.contains(contact, self.now)).then(|| Arc::new(contact.clone()))
    }

    pub(super) fn tell(&mut self, ops: &[OpId], records: Vec<ProviderRecord>) {
        if records.is_empty() {
            return;
        }
        for &op in ops {
            self.outputs.push_back(Output::Providers { op, records: records.clone() });
        }
    }

    /// What this node keeps itself is the first answer of a lookup.
    fn tell_kept_records(&mut self, ops: &[OpId], key: &Key) {
        let records = self.kept_records(key);
        let records = self.nearest_first(records);
        self.tell(ops, records);
    }

    /// The holders that a lookup found, and those that only this node itself knew.
    fn with_kept_records(&mut self, lookup: &Lookup) -> Vec<ProviderRecord> {
        let mut providers = lookup.providers();
        if lookup.kind == LookupKind::Providers {
            let found: BTreeSet<NodeId> = providers.iter().map(|r| r.provider.id).collect();
            let kept = self.kept_records(&lookup.target);
            providers.extend(kept.into_iter().filter(|r| !found.contains(&r.provider.id)));
        }
        self.nearest_first(providers)
    }

    fn kept_records(&mut self, key: &Key) -> Vec<ProviderRecord> {
        let own = self.own.id;
        self.choose_kept(key, MAX_RECORDS_PER_ANSWER, &own)
    }
}
