//! What lookups of holders found lately, so that the same question is answered at once.
//!
//! Holders hold for [`POSITIVE_MS`]. "Nobody" holds for [`NEGATIVE_MS`], and only where this node
//! would be told of a new holder itself, because it is one of the k closest to the key: so what is
//! pushed anywhere is found at once. Whatever this node hears about a key in between, be it a record
//! to store, its own word or the driver's, ends the memory of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lookup::Lookup;
use super::{Kad, LookupKind, OpId, Output};
use crate::id::Key;
use crate::time::Timestamp;
use crate::wire::{Contact, ProviderRecord};

/// How long an answer with holders holds.
const POSITIVE_MS: u64 = 5_000;
/// How long "nobody" holds.
const NEGATIVE_MS: u64 = 500;
/// Most answers that are remembered; the oldest goes.
pub(super) const MAX_ANSWERS: usize = 64;
/// Most holders that are remembered of one answer; one with more is remembered in part.
const MAX_HOLDERS: usize = 64;

#[derive(Debug)]
struct Answer {
    until: Timestamp,
    closest: Vec<Arc<Contact>>,
    holders: Vec<ProviderRecord>,
}

/// Empty until the first lookup of holders, and again soon after the last.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_key: BTreeMap<Key, Answer>,
}

impl Answers {
    pub(super) fn forget_all(&mut self) {
        self.by_key.clear();
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.by_key.remove(key);
    }

    pub(super) fn drop_expired(&mut self, now: Timestamp) {
        self.by_key.retain(|_, answer| answer.until > now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn put(&mut self, key: Key, answer: Answer) {
        if self.by_key.len() >= MAX_ANSWERS && !self.by_key.contains_key(&key) {
            let first = self.by_key.iter().min_by_key(|(_, answer)| answer.until);
            if let Some(key) = first.map(|(key, _)| *key) {
                self.by_key.remove(&key);
            }
        }
        self.by_key.insert(key, answer);
    }

    /// The closest nodes and the holders that were found, when that is worth something still.
    fn get(&self, key: &Key, now: Timestamp) -> Option<(Vec<Contact>, Vec<ProviderRecord>)> {
        let answer = self.by_key.get(key).filter(|answer| answer.until > now)?;
        let holds = |record: &&ProviderRecord| record.expires_ms > now.0;
        let holders: Vec<ProviderRecord> = answer.holders.iter().filter(holds).cloned().collect();
        if holders.is_empty() && !answer.holders.is_empty() {
            return None;
        }
        let closest = answer.closest.iter().map(|contact| Contact::clone(contact)).collect();
        Some((closest, holders))
    }
}

impl Kad {
    /// Answers from memory. Returns false when a lookup is needed.
    pub(super) fn answer_at_once(&mut self, op: OpId, kind: LookupKind, key: &Key) -> bool {
        if kind != LookupKind::Providers {
            return false;
        }
        let Some((closest, holders)) = self.answers.get(key, self.now) else {
            return false;
        };
        let providers = self.nearest_first(holders);
        self.tell(&[op], providers.clone());
        self.outputs.push_back(Output::LookupDone { op, closest, providers });
        true
    }

    /// Remembers what a lookup of the driver found.
    pub(super) fn remember_answer(
        &mut self,
        lookup: &Lookup,
        closest: &[Arc<Contact>],
        holders: &[ProviderRecord],
    ) {
        let nobody = holders.is_empty();
        if lookup.kind != LookupKind::Providers || nobody && !self.is_sure(lookup, closest) {
            return;
        }
        let until = self.now.after_ms(if nobody { NEGATIVE_MS } else { POSITIVE_MS });
        let holders = holders.iter().take(MAX_HOLDERS).cloned().collect();
        let answer = Answer { until, closest: closest.to_vec(), holders };
        self.answers.put(lookup.target, answer);
        self.upkeep.expect_expiry(self.now);
    }

    /// Whether "nobody" is a proper answer, of which this node would hear the end.
    fn is_sure(&self, lookup: &Lookup, closest: &[Arc<Contact>]) -> bool {
        self.is_near(&lookup.target, closest)
            && self.now < lookup.deadline
            && lookup.most_answered()
    }
}
