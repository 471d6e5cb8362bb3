//! Acting on what is to be published: jobs, records on their way, last words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::calls::Purpose;
use super::publish::JobId;
use super::{Kad, MAX_FAREWELL_KEYS, OpId, Output};
use crate::id::{Key, NodeId};
use crate::wire::{Contact, MAX_RECORDS_PER_PUT, NotSoon, ProviderRecord, Request};

/// What one node gets of a batch.
struct Parcel {
    to: Arc<Contact>,
    records: Vec<ProviderRecord>,
    items: Vec<usize>,
}

impl Parcel {
    const fn new(to: Arc<Contact>) -> Self {
        Self { to, records: Vec::new(), items: Vec::new() }
    }
}

impl Kad {
    pub(super) fn on_provide(&mut self, op: OpId, key: Key, complete: bool) {
        self.answers.forget(&key);
        if self.stopped || !self.publisher.provide(op, key, complete, self.now) {
            self.outputs.push_back(Output::Provided { op, stored: 0 });
        }
    }

    pub(super) fn on_withdraw(&mut self, key: Key) {
        self.answers.forget(&key);
        self.publisher.withdraw(&key, self.now);
    }

    /// Starts the jobs that are due, as far as there is room.
    pub(super) fn run_publisher(&mut self) {
        while self.searches.has_room()
            && let Some((job, key)) =
                self.publisher.start_sweep(self.now).or_else(|| self.publisher.start_urgent())
        {
            // Where a record is given to liars only, nobody finds it before it is published again.
            let is_thorough = self.publisher.is_urgent(job);
            self.look_up_for(job, key, is_thorough);
            self.run_searches();
        }
    }

    /// The closest nodes of a job's first key are known: send out the batch.
    ///
    /// The first key goes to exactly these nodes; the others, each to those of these nodes and of
    /// the routing table that are closest to it.
    pub(super) fn on_publish_lookup(&mut self, id: JobId, closest: &[Arc<Contact>]) {
        let near: Vec<Key> = closest.iter().map(|contact| contact.id.to_key()).collect();
        let keys = self.publisher.fill(id, &near, self.cfg.k, self.now);
        let mut parcels: BTreeMap<NodeId, Parcel> = BTreeMap::new();
        for (index, key) in keys.iter().enumerate() {
            let Some(record) = self.sign(key) else {
                continue;
            };
            let targets = if index == 0 { closest.to_vec() } else { self.nearest(key, closest) };
            for contact in targets {
                let parcel = parcels.entry(contact.id).or_insert_with(|| Parcel::new(contact));
                parcel.records.push(record.clone());
                parcel.items.push(index);
            }
        }
        if let Some(job) = self.publisher.jobs.get_mut(&id) {
            let items = |parcel: &Parcel| (parcel.to.id, parcel.items.clone());
            job.parcels = parcels.values().map(items).collect();
            for item in parcels.values().flat_map(|parcel| &parcel.items) {
                job.items[*item].sent += 1;
            }
        }
        if parcels.is_empty() {
            return self.finish_job(id);
        }
        for parcel in parcels.into_values() {
            let request = Request::PutProviders { records: parcel.records };
            self.call(parcel.to, Purpose::Publish(id), request);
        }
    }

    /// One node of a job answered that it keeps `accepted` records, or failed.
    pub(super) fn on_published(
        &mut self,
        id: JobId,
        node: &NodeId,
        accepted: usize,
        not_soon: &[NotSoon],
    ) {
        let Some(job) = self.publisher.jobs.get_mut(&id) else {
            return;
        };
        let items = job.parcels.remove(node).unwrap_or_default();
        if accepted >= items.len() {
            items.iter().for_each(|item| job.items[*item].stored += 1);
        }
        let interval_s = self.cfg.republish_ms / 1_000;
        let wanted = not_soon.iter().filter(|hint| u64::from(hint.wait_s) >= interval_s);
        let places: BTreeSet<usize> = wanted.map(|hint| usize::from(hint.record)).collect();
        for item in places.into_iter().filter_map(|place| items.get(place)) {
            job.items[*item].not_soon += 1;
        }
        if job.parcels.is_empty() {
            self.finish_job(id);
        }
    }

    fn nearest(&self, key: &Key, found: &[Arc<Contact>]) -> Vec<Arc<Contact>> {
        let mut nearest = self.table.closest(key, self.cfg.k, None);
        nearest.extend_from_slice(found);
        nearest.sort_by_key(|contact| contact.id.distance(key));
        nearest.dedup_by_key(|contact| contact.id);
        nearest.truncate(self.cfg.k);
        nearest
    }

    /// Withdraws everything, straight to the closest nodes known: there is no time for lookups.
    pub(super) fn on_shutdown(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        let (keys, ops) = self.publisher.withdraw_all(MAX_FAREWELL_KEYS, self.now);
        for op in ops {
            self.outputs.push_back(Output::Provided { op, stored: 0 });
        }
        let mut parcels: BTreeMap<NodeId, (Arc<Contact>, Vec<ProviderRecord>)> = BTreeMap::new();
        for key in keys {
            let Some(record) = self.sign(&key) else {
                continue;
            };
            for contact in self.table.closest(&key, self.cfg.k, None) {
                let (_, records) =
                    parcels.entry(contact.id).or_insert_with(|| (Arc::clone(&contact), Vec::new()));
                records.push(record.clone());
                if records.len() == MAX_RECORDS_PER_PUT {
                    let records = std::mem::take(records);
                    self.say_farewell(contact, records);
                }
            }
        }
        for (contact, records) in parcels.into_values() {
            self.say_farewell(contact, records);
        }
    }

    fn say_farewell(&mut self, to: Arc<Contact>, records: Vec<ProviderRecord>) {
        if !records.is_empty() && !self.calls.is_full() {
            self.call(to, Purpose::Farewell, Request::PutProviders { records });
        }
    }

    fn sign(&mut self, key: &Key) -> Option<ProviderRecord> {
        self.publisher.sign(key, &self.signer, &self.own, self.now)
    }

    fn finish_job(&mut self, id: JobId) {
        let Some(job) = self.publisher.finish(id) else {
            return;
        };
        for item in job.items {
            for op in item.ops {
                self.outputs.push_back(Output::Provided { op, stored: item.stored });
            }
        }
    }
}
