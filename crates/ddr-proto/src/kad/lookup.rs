//! Iterative lookup over d disjoint paths (S/Kademlia, section 4.4; Kademlia, section 2.3).
//!
//! Invariants:
//! - a node is asked by one path only, and at most once;
//! - what one path hears never steers another; results are merged when the lookup ends;
//! - a lookup asks at most [`MAX_QUERIES`] nodes and ends at its deadline at the latest;
//! - no record is believed before its signature is verified.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::io::{LookupKind, OpId, Reason};
use super::path::{Path, Rules};
use super::publish::JobId;
use crate::id::{Distance, Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, ProviderRecord, Request};

/// Most nodes that one lookup asks.
pub(super) const MAX_QUERIES: usize = 256;
/// Most paths of one lookup.
const MAX_PATHS: usize = 8;
/// A quick lookup of holders ends when holders were named on so many paths.
const ENOUGH_PATHS: u32 = 2;
/// Most holders that one lookup keeps.
const MAX_PROVIDERS: usize = 256;

#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) struct LookupId(pub(super) u64);

/// For whom a lookup runs.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// Operations of the driver, all with the same target and kind.
    Ops(Vec<OpId>),
    /// A publishing job.
    Publish(JobId),
    /// The own ID was looked up to learn the siblings.
    Siblings,
    /// A bucket is refreshed.
    Refresh,
}

#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) target: Key,
    pub(super) kind: LookupKind,
    pub(super) owner: Owner,
    pub(super) started: Timestamp,
    pub(super) deadline: Timestamp,
    /// When time alone changes the state of this lookup.
    pub(super) wake: Timestamp,
    paths: Vec<Path>,
    /// Which path took which node, at seeding or when it asked.
    taken: BTreeMap<NodeId, u8>,
    /// How many of the nearest nodes must have answered.
    pub(super) breadth: usize,
    /// Whether what each node said is followed up.
    pub(super) is_thorough: bool,
    /// Whether the second round runs.
    pub(super) is_second_round: bool,
    /// Nodes asked, those that failed and those that answered, in this round.
    queries: usize,
    failed: usize,
    answers: usize,
    answered: Vec<(Distance, Arc<Contact>)>,
    /// The paths on which holders were named, as bits.
    paths_with_holders: u8,
    providers: BTreeMap<NodeId, ProviderRecord>,
}

/// What an answer brought.
#[derive(Debug, Default)]
pub(super) struct Learned {
    pub(super) new: Vec<ProviderRecord>,
    /// Whether a holder was named, new or not.
    pub(super) named: bool,
    pub(super) fault: Option<Reason>,
}

impl Lookup {
    /// A lookup of the `breadth` nearest nodes that starts from `seeds`, nearest first, dealt out to
    /// `paths` paths.
    pub(super) fn new(
        target: Key,
        kind: LookupKind,
        owner: Owner,
        seeds: Vec<Arc<Contact>>,
        (paths, breadth): (usize, usize),
        (started, deadline): (Timestamp, Timestamp),
    ) -> Self {
        let mut lookup = Self {
            target,
            kind,
            owner,
            started,
            deadline,
            wake: deadline,
            paths: Vec::new(),
            taken: BTreeMap::new(),
            breadth,
            is_thorough: false,
            is_second_round: false,
            queries: 0,
            failed: 0,
            answers: 0,
            answered: Vec::new(),
            paths_with_holders: 0,
            providers: BTreeMap::new(),
        };
        lookup.start(seeds, paths);
        lookup
    }

    /// A second round with more paths and other starts; what was found so far is kept.
    pub(super) fn widen(&mut self, seeds: Vec<Arc<Contact>>, paths: usize, breadth: usize) {
        (self.queries, self.failed, self.answers) = (0, 0, 0);
        (self.breadth, self.is_second_round) = (breadth, true);
        self.is_thorough = true;
        self.taken.clear();
        self.start(seeds, paths);
    }

    fn start(&mut self, seeds: Vec<Arc<Contact>>, paths: usize) {
        let paths = paths.clamp(1, MAX_PATHS).min(seeds.len().max(1));
        self.paths = (0..paths).map(|_| Path::default()).collect();
        let seed_count = seeds.len();
        for (index, contact) in seeds.into_iter().enumerate() {
            let path = index % paths;
            self.taken.insert(contact.id, path as u8);
            let distance = contact.id.distance(&self.target);
            self.paths[path].offer(distance, contact, None, seed_count);
        }
    }

    pub(super) const fn request(&self) -> Request {
        match self.kind {
            LookupKind::Nodes => Request::FindNode { target: self.target },
            LookupKind::Providers => Request::FindProviders { key: self.target },
        }
    }

    /// Takes the next node to ask, if any path may ask one now.
    pub(super) fn next_query(&mut self, rules: &Rules) -> Option<Arc<Contact>> {
        if self.queries >= MAX_QUERIES {
            return None;
        }
        let taken = &self.taken;
        let (path, contact) = self.paths.iter().enumerate().find_map(|(index, path)| {
            let next = path.next(rules, |contact| is_elsewhere(taken, contact, index));
            next.map(|contact| (index, contact))
        })?;
        let distance = contact.id.distance(&self.target);
        self.taken.insert(contact.id, path as u8);
        self.paths[path].asked(&distance, rules.now);
        self.queries += 1;
        Some(contact)
    }

    /// A node of the lookup cannot be asked, or gave no proper answer.
    pub(super) fn failed(&mut self, node: &NodeId) {
        self.failed += 1;
        if let Some(path) = self.taken.get(node) {
            self.paths[usize::from(*path)].failed(&node.distance(&self.target));
        }
    }

    /// A node answered and named `nodes`; only nodes that `usable` accepts become candidates.
    pub(super) fn answered(
        &mut self,
        from: &Arc<Contact>,
        nodes: Vec<Contact>,
        k: usize,
        usable: impl Fn(&Contact) -> Option<Arc<Contact>>,
    ) {
        let Some(&path) = self.taken.get(&from.id) else {
            return;
        };
        let distance = from.id.distance(&self.target);
        let path = &mut self.paths[usize::from(path)];
        path.answered(&distance);
        self.answers += 1;
        if let Err(place) = self.answered.binary_search_by_key(&distance, |(d, _)| *d) {
            self.answered.insert(place, (distance, Arc::clone(from)));
        }
        for contact in nodes.iter().filter_map(usable) {
            path.offer(contact.id.distance(&self.target), contact, Some(&from.id), k);
        }
    }

    /// Checks records that a node sent and keeps the newest of each holder.
    ///
    /// Stops at the first record that proves a lie. `own` is skipped: a node never needs itself.
    pub(super) fn learn(
        &mut self,
        records: Vec<ProviderRecord>,
        own: &NodeId,
        now: Timestamp,
    ) -> Learned {
        let mut learned = Learned::default();
        for record in records {
            if record.key != self.target {
                learned.fault = Some(Reason::ForeignRecord);
                break;
            }
            let holder = record.provider.id;
            let holds = record.is_timely(now) && !record.withdrawn && holder != *own;
            let holds = holds && record.provider.is_dialable();
            let known = self.providers.get(&holder);
            learned.named |= holds && known.is_some();
            if !holds || known.is_some_and(|known| *known == record) {
                continue;
            }
            let full = self.providers.len() >= MAX_PROVIDERS && known.is_none();
            if full || known.is_some_and(|known| known.issued_ms >= record.issued_ms) {
                continue;
            }
            if let Err(error) = record.verify() {
                learned.fault = Some(Reason::BadRecord(error));
                break;
            }
            self.providers.insert(holder, record.clone());
            learned.named = true;
            learned.new.push(record);
        }
        learned
    }

    /// `node` named holders.
    pub(super) fn named_holders(&mut self, node: &NodeId) {
        if let Some(path) = self.taken.get(node) {
            self.paths_with_holders |= 1 << path;
        }
    }

    /// Whether holders were named on two paths, so that no single liar ends the lookup. Should all of
    /// them prove false, the driver asks for a thorough one.
    pub(super) fn has_holders(&self) -> bool {
        let enough = ENOUGH_PATHS.min(self.paths.len() as u32);
        !self.is_thorough && self.paths_with_holders.count_ones() >= enough
    }

    /// Whether the lookup has ended.
    pub(super) fn is_done(&self, rules: &Rules) -> bool {
        if rules.now >= self.deadline || self.has_holders() {
            return true;
        }
        let may_ask = self.queries < MAX_QUERIES;
        let patience_ms = self.patience_ms(rules);
        self.paths.iter().enumerate().all(|(index, path)| {
            let elsewhere = |contact: &Contact| is_elsewhere(&self.taken, contact, index);
            let settled = path.waiting().all(|at| rules.now.since_ms(at) >= patience_ms);
            settled && (!may_ask || path.next_unasked(rules, elsewhere).is_none())
        })
    }

    /// When the next waiting call becomes slow or runs out of patience.
    pub(super) fn next_wake(&self, rules: &Rules) -> Timestamp {
        let patience_ms = self.patience_ms(rules);
        let moments = self
            .paths
            .iter()
            .flat_map(Path::waiting)
            .flat_map(|at| [at.after_ms(rules.pace.slow_ms), at.after_ms(patience_ms)]);
        moments.filter(|at| *at > rules.now).min().unwrap_or(self.deadline).min(self.deadline)
    }

    /// Whether this looks for holders and has found none.
    pub(super) fn found_nobody(&self) -> bool {
        self.kind == LookupKind::Providers && self.providers.is_empty()
    }

    /// Whether more nodes answered than failed.
    pub(super) const fn most_answered(&self) -> bool {
        self.answers > self.failed
    }

    /// Whether each node that was asked has answered or failed.
    pub(super) const fn has_heard_all(&self) -> bool {
        self.queries <= self.answers + self.failed
    }

    /// Whether each node that was asked has answered.
    pub(super) const fn has_heard_from_all(&self) -> bool {
        self.queries <= self.answers
    }

    /// Whether this node has answered.
    pub(super) fn was_answered_by(&self, node: &NodeId) -> bool {
        let distance = node.distance(&self.target);
        self.answered.binary_search_by_key(&distance, |(at, _)| *at).is_ok()
    }

    /// Whether at least half of the paths know at least half of the nearest nodes that answered.
    pub(super) fn most_paths_agree(&self, k: usize) -> bool {
        let nearest = &self.answered[..self.answered.len().min(k.div_ceil(2))];
        let agrees = |path: &&Path| {
            let known = nearest.iter().filter(|(distance, _)| path.knows(distance)).count();
            2 * known >= nearest.len()
        };
        2 * self.paths.iter().filter(agrees).count() >= self.paths.len()
    }

    /// The distance of the k-th nearest node that answered.
    pub(super) fn kth_distance(&self, k: usize) -> Option<Distance> {
        self.answered.get(k.checked_sub(1)?).map(|(distance, _)| *distance)
    }

    /// The nearest nodes that answered.
    pub(super) fn closest(&self, k: usize) -> Vec<Arc<Contact>> {
        self.answered.iter().take(k).map(|(_, contact)| Arc::clone(contact)).collect()
    }

    pub(super) fn providers(&self) -> Vec<ProviderRecord> {
        self.providers.values().cloned().collect()
    }

    /// How long this lookup waits for a call. One that found too few answers, or that must know
    /// the exact closest set, waits until the call itself is given up.
    fn patience_ms(&self, rules: &Rules) -> u64 {
        let unanswered = self.queries.saturating_sub(self.failed + self.answers);
        let enough = self.answers >= unanswered.max(1);
        if self.kind == LookupKind::Providers && enough { rules.pace.patience_ms } else { u64::MAX }
    }
}

fn is_elsewhere(taken: &BTreeMap<NodeId, u8>, contact: &Contact, path: usize) -> bool {
    taken.get(&contact.id).is_some_and(|taken_by| usize::from(*taken_by) != path)
}
