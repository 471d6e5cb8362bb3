//! Provider records that this node keeps for others.
//!
//! Invariants:
//! - only records whose signature was verified are kept, one for each key and holder, the newest;
//! - a withdrawn record stays until it expires, so that an older one passed on late cannot revive;
//! - a key has at most `max_holders_per_key` records, a signer `max_records_per_signer`, all
//!   together `max_records`; a full key gives up the holder that came last of its most frequent zone,
//!   so a flood of holders cannot push out those that were there before it;
//! - nothing here has a timer: an expired record is never given out, and a sweep over all keys that
//!   looks at a bounded number each time drops it.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::config::KadConfig;
use crate::chance::Chance;
use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, ProviderRecord, RecordError};

/// A record may hold at most this many times the configured lifetime.
const MAX_LIFETIMES: u64 = 2;
/// A holder of a key with plenty of them is asked to stay away for so many republish intervals.
const STAY_AWAY_INTERVALS: u64 = 2;
/// Least number of keys that one step of the expiry sweep looks at.
const SWEEP_KEYS: usize = 256;
/// The expiry sweep passes all keys in about this many steps.
const SWEEP_STEPS: usize = 60;

/// Of an answer this many go to the holders kept longest: a flood of later ones cannot hide them.
const OLDEST_IN_ANSWER: usize = 4;

/// What became of an offered record.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Kept {
    /// It, or a newer one of the same holder, is kept.
    Yes,
    /// It is expired, from the future, over a quota, of a node that is gone, or leads nowhere.
    No,
}

#[derive(Debug)]
pub(super) struct Records {
    max_holders: usize,
    max_total: usize,
    max_per_signer: usize,
    max_lifetime_ms: u64,
    republish_ms: u64,
    /// The records of each key, in the order in which their holders came.
    keys: BTreeMap<Key, Vec<ProviderRecord>>,
    per_signer: BTreeMap<NodeId, usize>,
    total: usize,
    swept: Option<Key>,
}

impl Records {
    pub(super) const fn new(cfg: &KadConfig) -> Self {
        Self {
            max_holders: cfg.max_holders_per_key,
            max_total: cfg.max_records,
            max_per_signer: cfg.max_records_per_signer,
            max_lifetime_ms: cfg.provider_ttl_ms.saturating_mul(MAX_LIFETIMES),
            republish_ms: cfg.republish_ms,
            keys: BTreeMap::new(),
            per_signer: BTreeMap::new(),
            total: 0,
            swept: None,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.total
    }

    /// Offers a record. Cheap checks come first, the signature last; an error is a proven lie.
    pub(super) fn offer(
        &mut self,
        record: ProviderRecord,
        now: Timestamp,
    ) -> Result<Kept, RecordError> {
        let lifetime_ms = record.expires_ms.saturating_sub(record.issued_ms);
        let leads_nowhere = record.provider.has_impossible_address();
        if !record.is_timely(now) || lifetime_ms > self.max_lifetime_ms || leads_nowhere {
            return Ok(Kept::No);
        }
        let (key, signer) = (record.key, record.provider.id);
        let holders = self.keys.get(&key).map_or(&[][..], Vec::as_slice);
        let place = holders.iter().position(|kept| kept.provider.id == signer);
        if let Some(place) = place {
            let kept = &holders[place];
            if !is_newer(&record, kept) {
                return Ok(if *kept == record || is_newer(kept, &record) {
                    Kept::Yes
                } else {
                    Kept::No
                });
            }
            record.verify()?;
            if let Some(kept) = self.keys.get_mut(&key).and_then(|holders| holders.get_mut(place)) {
                *kept = record;
            }
            return Ok(Kept::Yes);
        }
        let quota = self.per_signer.get(&signer).copied().unwrap_or(0);
        if quota >= self.max_per_signer || self.total >= self.max_total {
            return Ok(Kept::No);
        }
        record.verify()?;
        if holders.len() >= self.max_holders && !self.give_up_one(&key, &record) {
            return Ok(Kept::No);
        }
        self.insert(record);
        Ok(Kept::Yes)
    }

    /// Whether some record is of this node.
    pub(super) fn has_of(&self, node: &NodeId) -> bool {
        self.per_signer.contains_key(node)
    }

    /// A node as one of its records names it.
    pub(super) fn provider(&self, node: &NodeId) -> Option<Contact> {
        let mut all = self.has_of(node).then(|| self.keys.values().flatten())?;
        all.find(|record| record.provider.id == *node).map(|record| record.provider.clone())
    }

    /// How long a holder of `key` need not publish again, when there are plenty: the key is full,
    /// and all of its records came within half a republish interval, so it fills up twice as fast
    /// as it has to.
    pub(super) fn stay_away_ms(&self, key: &Key, now: Timestamp) -> Option<u64> {
        let holders = self.keys.get(key).filter(|holders| holders.len() >= self.max_holders)?;
        let oldest = holders.iter().map(|record| record.issued_ms).min()?;
        let fresh = now.0.saturating_sub(oldest) < self.republish_ms / 2;
        fresh.then(|| self.republish_ms.saturating_mul(STAY_AWAY_INTERVALS))
    }

    /// Up to `limit` records of `key` that hold now, but for some that are left out: the few kept longest,
    /// the rest chosen at random. Those of the dead come last: a holder's records outlive it by an hour.
    pub(super) fn choose(
        &self,
        key: &Key,
        limit: usize,
        is_left_out: impl Fn(&NodeId) -> bool,
        is_dead: impl Fn(&Contact) -> bool,
        (now, chance): (Timestamp, &mut Chance),
    ) -> Vec<ProviderRecord> {
        let Some(holders) = self.keys.get(key) else {
            return Vec::new();
        };
        let holds = |record: &&ProviderRecord| {
            !record.withdrawn && record.expires_ms > now.0 && !is_left_out(&record.provider.id)
        };
        let (mut alive, mut dead): (Vec<&ProviderRecord>, Vec<&ProviderRecord>) =
            holders.iter().filter(holds).partition(|record| !is_dead(&record.provider));
        let oldest = OLDEST_IN_ANSWER.min(limit).min(alive.len());
        chance.choose(&mut alive[oldest..], limit - oldest);
        chance.choose(&mut dead, limit.saturating_sub(alive.len()));
        alive.into_iter().chain(dead).take(limit).cloned().collect()
    }

    /// The first kept key after `after` in key order, with its records.
    pub(super) fn next_key(&self, after: Option<&Key>) -> Option<(&Key, &[ProviderRecord])> {
        let from = after.map_or(Unbounded, Excluded);
        let next = self.keys.range((from, Unbounded)).next();
        next.map(|(key, records)| (key, records.as_slice()))
    }

    /// The kept keys from `first` on in key order, with their records.
    pub(super) fn keys_from(&self, first: Key) -> impl Iterator<Item = (&Key, &[ProviderRecord])> {
        self.keys.range(first..).map(|(key, records)| (key, records.as_slice()))
    }

    /// One step of the sweep: drops the expired records of the next keys.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        for _ in 0..SWEEP_KEYS.max(self.keys.len() / SWEEP_STEPS) {
            let from = self.swept.map_or(Unbounded, Excluded);
            let next = self.keys.range((from, Unbounded)).next().map(|(key, _)| *key);
            self.swept = next;
            let Some(key) = next else {
                return;
            };
            self.drop_expired(&key, now);
        }
    }

    fn drop_expired(&mut self, key: &Key, now: Timestamp) {
        let Some(holders) = self.keys.get_mut(key) else {
            return;
        };
        let expired: Vec<NodeId> =
            holders.iter().filter(|r| r.expires_ms <= now.0).map(|r| r.provider.id).collect();
        holders.retain(|record| record.expires_ms > now.0);
        if holders.is_empty() {
            self.keys.remove(key);
        }
        expired.iter().for_each(|signer| self.count_removed(signer));
    }

    fn insert(&mut self, record: ProviderRecord) {
        let signer = record.provider.id;
        // Most keys have one holder.
        let holders = self.keys.entry(record.key).or_insert_with(|| Vec::with_capacity(1));
        if holders.iter().all(|kept| kept.provider.id != signer) {
            holders.push(record);
            self.total += 1;
            *self.per_signer.entry(signer).or_default() += 1;
        }
    }

    /// Makes room in a full key: of the zone that has most holders, counting the newcomer, the one
    /// that came last goes. Returns false when every zone has one holder only.
    fn give_up_one(&mut self, key: &Key, newcomer: &ProviderRecord) -> bool {
        let Some(holders) = self.keys.get_mut(key) else {
            return true;
        };
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        for record in holders.iter().chain([newcomer]) {
            *zones.entry(&record.provider.zone).or_default() += 1;
        }
        let Some((zone, count)) = zones.into_iter().max_by_key(|(_, count)| *count) else {
            return true;
        };
        let last = holders.iter().rposition(|record| record.provider.zone == zone);
        let Some(last) = last.filter(|_| count > 1) else {
            return false;
        };
        let leaving = holders.remove(last).provider.id;
        self.count_removed(&leaving);
        true
    }

    fn count_removed(&mut self, signer: &NodeId) {
        self.total -= 1;
        if let Some(count) = self.per_signer.get_mut(signer) {
            *count -= 1;
            if *count == 0 {
                self.per_signer.remove(signer);
            }
        }
    }
}

/// Of two records of one holder the one issued later holds; at the same moment, the withdrawal.
fn is_newer(record: &ProviderRecord, than: &ProviderRecord) -> bool {
    (record.issued_ms, record.withdrawn) > (than.issued_ms, than.withdrawn)
}
