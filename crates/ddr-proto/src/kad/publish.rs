//! The keys that this node provides, and telling the nodes near them.
//!
//! One kind of job does all publishing: look up the nodes closest to one key, then send them the
//! records of that key and of its neighbours in key order that belong to the same nodes. A job is
//! started for a key that the driver wants published or withdrawn now, and by the sweep, which walks
//! the key space once in `republish_ms` (Kademlia, section 2.5) and advances with each batch by the
//! batch's share of all keys: the load is even, however many keys there are.
//!
//! This file holds what is published; `publishing.rs` lets the core act on it.

use std::collections::{BTreeMap, BTreeSet};

use super::config::KadConfig;
use super::io::OpId;
use super::search::MAX_JOINED_OPS;
use crate::id::{ID_BITS, ID_BYTES, Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, MAX_RECORDS_PER_PUT, ProviderRecord, Signer, Terms};

/// Most keys that one node provides.
pub(super) const MAX_PROVIDED: usize = 1_048_576;
/// Most withdrawals that wait to be published; the rest is left to expiry.
const MAX_WITHDRAWING: usize = 65_536;
/// Most publishing jobs at the same time.
const MAX_JOBS: usize = 8;

#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) struct JobId(u64);

/// The own record of one key, without what all own records share.
#[derive(Copy, Clone, Debug)]
pub(super) struct OwnRecord {
    complete: bool,
    /// Most storing nodes have plenty of holders; the next record is signed for longer.
    hot: bool,
    /// It is, and was signed for longer: the next sweep passes it over.
    rests: bool,
    issued_ms: u64,
    expires_ms: u64,
    signature: [u8; 64],
}

/// Publishing of a batch.
#[derive(Debug)]
pub(super) struct Job {
    /// Found by the sweep, not asked for; then the number of keys that it passed over.
    sweep: Option<usize>,
    /// The keys; the nodes closest to the first one are looked up.
    pub(super) items: Vec<Item>,
    /// Which items were sent to a node that has not answered yet.
    pub(super) parcels: BTreeMap<NodeId, Vec<usize>>,
}

/// One key of a job.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) key: Key,
    pub(super) ops: Vec<OpId>,
    /// Nodes that keep its record now.
    pub(super) stored: usize,
    /// Nodes that were sent its record.
    pub(super) sent: usize,
    /// Nodes that said they have plenty of holders.
    pub(super) not_soon: usize,
}

impl Item {
    const fn new(key: Key, ops: Vec<OpId>) -> Self {
        Self { key, ops, stored: 0, sent: 0, not_soon: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Publisher {
    ttl_ms: u64,
    republish_ms: u64,
    provided: BTreeMap<Key, OwnRecord>,
    /// Withdrawn keys and when the withdrawal was issued.
    withdrawing: BTreeMap<Key, u64>,
    /// Keys to publish now and who waits for it.
    urgent: BTreeMap<Key, Vec<OpId>>,
    pub(super) jobs: BTreeMap<JobId, Job>,
    next_job: u64,
    /// Where the sweep goes on.
    sweep_from: Key,
    pub(super) sweep_at: Timestamp,
    last_withdrawn_ms: u64,
}

impl Publisher {
    pub(super) const fn new(cfg: &KadConfig) -> Self {
        Self {
            ttl_ms: cfg.provider_ttl_ms,
            republish_ms: cfg.republish_ms,
            provided: BTreeMap::new(),
            withdrawing: BTreeMap::new(),
            urgent: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next_job: 0,
            sweep_from: Key([0; ID_BYTES]),
            sweep_at: Timestamp(u64::MAX),
            last_withdrawn_ms: 0,
        }
    }

    pub(super) fn provided(&self) -> impl Iterator<Item = (Key, bool)> {
        self.provided.iter().map(|(key, own)| (*key, own.complete))
    }

    /// The first provided key after `after`, in key order.
    pub(super) fn next_key(&self, after: Option<&Key>) -> Option<Key> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.provided.range((from, Unbounded)).next().map(|(key, _)| *key)
    }

    /// Adds a key to publish at once. Returns false when there are too many.
    pub(super) fn provide(&mut self, op: OpId, key: Key, complete: bool, now: Timestamp) -> bool {
        let is_new = !self.provided.contains_key(&key);
        let waiting = self.urgent.get(&key).map_or(0, Vec::len);
        if is_new && self.provided.len() >= MAX_PROVIDED || waiting >= MAX_JOINED_OPS {
            return false;
        }
        if self.provided.is_empty() {
            self.sweep_from = key;
            self.sweep_at = now.after_ms(self.republish_ms);
        }
        self.withdrawing.remove(&key);
        let before = self.provided.get(&key).map_or(self.last_withdrawn_ms, |own| own.issued_ms);
        let issued_ms = before.max(now.0.saturating_sub(1));
        // Signed when it is first sent; until then expired.
        let own = OwnRecord::unsigned(complete, issued_ms);
        self.provided.insert(key, own);
        self.urgent.entry(key).or_default().push(op);
        true
    }

    /// Takes a key back. Returns false when it was not provided.
    pub(super) fn withdraw(&mut self, key: &Key, now: Timestamp) -> bool {
        let Some(own) = self.provided.remove(key) else {
            return false;
        };
        let issued_ms = now.0.max(own.issued_ms + 1);
        self.last_withdrawn_ms = self.last_withdrawn_ms.max(issued_ms);
        if self.withdrawing.len() < MAX_WITHDRAWING {
            self.withdrawing.insert(*key, issued_ms);
            self.urgent.entry(*key).or_default();
        }
        true
    }

    /// The own record of a provided key, signed anew when it is not signed or half used up.
    pub(super) fn own_record(
        &mut self,
        key: &Key,
        signer: &Signer,
        contact: &Contact,
        now: Timestamp,
    ) -> Option<ProviderRecord> {
        let fresh_until = now.0.saturating_add(self.ttl_ms / 2);
        let own = self.provided.get(key)?;
        if own.expires_ms < fresh_until {
            return self.sign(key, signer, contact, now);
        }
        let terms = own.terms(*key);
        Some(ProviderRecord::from_terms(signer, contact, terms, own.signature))
    }

    /// What to publish about a key: a new record, or a withdrawal.
    pub(super) fn sign(
        &mut self,
        key: &Key,
        signer: &Signer,
        contact: &Contact,
        now: Timestamp,
    ) -> Option<ProviderRecord> {
        if let Some(&issued_ms) = self.withdrawing.get(key) {
            let expires_ms = issued_ms.saturating_add(self.ttl_ms);
            let record =
                ProviderRecord::sign_withdrawn(signer, contact, *key, issued_ms, expires_ms);
            return Some(record);
        }
        let own = self.provided.get_mut(key)?;
        own.issued_ms = now.0.max(own.issued_ms + 1);
        own.expires_ms = own.issued_ms.saturating_add(own.lifetime_ms(self.ttl_ms));
        let record = ProviderRecord::sign_terms(signer, contact, own.terms(*key));
        own.signature = record.signature;
        Some(record)
    }

    /// Starts a job for the next key that must be published now.
    pub(super) fn start_urgent(&mut self) -> Option<(JobId, Key)> {
        if self.jobs.len() >= MAX_JOBS {
            return None;
        }
        let (key, ops) = self.urgent.pop_first()?;
        Some((self.start(key, ops, None), key))
    }

    /// Whether a job was asked for, not found by the sweep.
    pub(super) fn is_urgent(&self, id: JobId) -> bool {
        self.jobs.get(&id).is_some_and(|job| job.sweep.is_none())
    }

    /// Starts the job of the next sweep step when it is due.
    pub(super) fn start_sweep(&mut self, now: Timestamp) -> Option<(JobId, Key)> {
        if now < self.sweep_at || self.jobs.len() >= MAX_JOBS {
            return None;
        }
        let (passed, key) = self.next_to_sweep()?;
        let Some(key) = key else {
            self.sweep_at = now.after_ms(self.share_ms(passed));
            return None;
        };
        // Not again before this job is done; its batch decides when the next step is due.
        self.sweep_at = now.after_ms(self.republish_ms);
        Some((self.start(key, Vec::new(), Some(passed)), key))
    }

    /// The next key of the sweep that does not rest, and how many were passed over before it. Looks
    /// at a bounded number of keys.
    fn next_to_sweep(&mut self) -> Option<(usize, Option<Key>)> {
        if self.provided.is_empty() {
            self.sweep_at = Timestamp(u64::MAX);
            return None;
        }
        for passed in 0..MAX_RECORDS_PER_PUT.min(self.provided.len()) {
            if self.provided.range(self.sweep_from..).next().is_none() {
                self.sweep_from = Key([0; ID_BYTES]);
            }
            let (key, own) = self.provided.range_mut(self.sweep_from..).next()?;
            if !std::mem::take(&mut own.rests) {
                return Some((passed, Some(*key)));
            }
            self.sweep_from = successor(*key);
        }
        Some((MAX_RECORDS_PER_PUT.min(self.provided.len()), None))
    }

    /// The share of the interval that so many keys are worth.
    fn share_ms(&self, keys: usize) -> u64 {
        let share_ms = self.republish_ms.saturating_mul(keys as u64);
        (share_ms / self.provided.len().max(1) as u64).max(1)
    }

    /// Chooses the batch of a job whose closest nodes are known, and returns its keys.
    pub(super) fn fill(
        &mut self,
        id: JobId,
        closest: &[Key],
        k: usize,
        now: Timestamp,
    ) -> Vec<Key> {
        let Some(job) = self.jobs.get_mut(&id) else {
            return Vec::new();
        };
        let Some(key) = job.items.first().map(|item| item.key) else {
            return Vec::new();
        };
        let (start, end) = region(&key, closest, k);
        let room = MAX_RECORDS_PER_PUT - 1;
        if let Some(passed) = job.sweep {
            let (mut last, mut passed) = (key, passed + 1);
            for (near, own) in self.provided.range_mut(successor(key)..).take(2 * room) {
                if *near < key || *near > end || job.items.len() > room {
                    break;
                }
                (last, passed) = (*near, passed + 1);
                if !std::mem::take(&mut own.rests) {
                    job.items.push(Item::new(*near, Vec::new()));
                }
            }
            let keys = job.items.iter().map(|item| item.key).collect();
            self.sweep_from = successor(last);
            self.sweep_at = now.after_ms(self.share_ms(passed));
            return keys;
        } else {
            let near = self.urgent.range(start..=end).take(room).map(|(key, _)| *key);
            for near in near.collect::<Vec<Key>>() {
                let ops = self.urgent.remove(&near).unwrap_or_default();
                job.items.push(Item::new(near, ops));
            }
        }
        job.items.iter().map(|item| item.key).collect()
    }

    /// Ends a job.
    pub(super) fn finish(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(&id)?;
        for item in &job.items {
            if let Some(own) = self.provided.get_mut(&item.key) {
                own.published(2 * item.not_soon > item.sent);
            }
            // A withdrawal that was asked for meanwhile is urgent and must stay.
            if !self.urgent.contains_key(&item.key) {
                self.withdrawing.remove(&item.key);
            }
        }
        Some(job)
    }

    /// Takes everything back at once, for the last words: up to `limit` keys.
    pub(super) fn withdraw_all(&mut self, limit: usize, now: Timestamp) -> (Vec<Key>, Vec<OpId>) {
        let keys: Vec<Key> = self.provided.keys().copied().take(limit).collect();
        for key in &keys {
            self.withdraw(key, now);
        }
        let jobs = std::mem::take(&mut self.jobs);
        let urgent = std::mem::take(&mut self.urgent);
        let items = jobs.into_values().flat_map(|job| job.items);
        let waiting = items.flat_map(|item| item.ops);
        let ops = waiting.chain(urgent.into_values().flatten()).collect();
        self.provided.clear();
        self.sweep_at = Timestamp(u64::MAX);
        let keys: BTreeSet<Key> = self.withdrawing.keys().copied().collect();
        (keys.into_iter().take(limit).collect(), ops)
    }

    fn start(&mut self, key: Key, ops: Vec<OpId>, sweep: Option<usize>) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        let items = vec![Item::new(key, ops)];
        self.jobs.insert(id, Job { sweep, items, parcels: BTreeMap::new() });
        id
    }
}

impl OwnRecord {
    const fn unsigned(complete: bool, issued_ms: u64) -> Self {
        let signature = [0; 64];
        Self { complete, hot: false, rests: false, issued_ms, expires_ms: 0, signature }
    }

    /// A record that a sweep may pass over holds for half as long again, so that it never lapses.
    const fn lifetime_ms(&self, ttl_ms: u64) -> u64 {
        if self.hot { ttl_ms.saturating_add(ttl_ms / 2) } else { ttl_ms }
    }

    /// What the storing nodes said when it was published.
    const fn published(&mut self, plenty: bool) {
        self.rests = plenty && self.hot;
        self.hot = plenty;
    }

    const fn terms(&self, key: Key) -> Terms {
        Terms {
            key,
            complete: self.complete,
            issued_ms: self.issued_ms,
            expires_ms: self.expires_ms,
            withdrawn: false,
        }
    }
}

/// The keys around `key` that belong to the same nodes, as first and last key.
///
/// Let p be the least prefix that `key` shares with its k closest nodes. All nodes that share more
/// than p bits are among them, so for a key that shares more than p bits they are the closest, too.
/// When there are fewer than k nodes, they are all there are, and every key belongs to them.
fn region(key: &Key, closest: &[Key], k: usize) -> (Key, Key) {
    let farthest = closest.iter().map(|node| node.shared_bits(key)).min();
    let bits = match farthest {
        Some(shared) if closest.len() >= k => (shared + 1).min(ID_BITS),
        _ => 0,
    };
    let (mut start, mut end) = (key.0, key.0);
    for bit in bits..ID_BITS {
        let (byte, mask) = (bit as usize / 8, 0x80 >> (bit % 8));
        start[byte] &= !mask;
        end[byte] |= mask;
    }
    (Key(start), Key(end))
}

/// The next key in key order; after the last one, the first.
fn successor(mut key: Key) -> Key {
    for byte in key.0.iter_mut().rev() {
        let (next, wrapped) = byte.overflowing_add(1);
        *byte = next;
        if !wrapped {
            break;
        }
    }
    key
}
