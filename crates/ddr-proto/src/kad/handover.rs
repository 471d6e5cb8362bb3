//! Records for a node that came near (Kademlia, section 2.5).
//!
//! When a node learns of a new one, it passes on the records of those keys to which the new node is
//! among the k closest. Only the few nodes closest to a key do so, otherwise each record would
//! arrive k times. A record carries its holder's signature, so passing it on is safe. Without this a
//! record published while the swarm was small would be missed after it grew, until it is published
//! again.
//!
//! The work is cut in steps: a step looks at [`SCAN_KEYS`] keys and sends at most one message.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Kad;
use super::calls::Purpose;
use crate::id::Key;
use crate::time::Timestamp;
use crate::wire::{Contact, MAX_RECORDS_PER_PUT, ProviderRecord, Request};

/// Most new nodes that wait for their records; more have to wait until those are published again.
const MAX_WAITING: usize = 64;
/// Keys that one step looks at.
const SCAN_KEYS: usize = 256;
/// Pause after a step that sent nothing.
const STEP_MS: u64 = 5;
/// So many nodes closest to a key pass its records on.
const SENDERS: usize = 3;

const NEVER: Timestamp = Timestamp(u64::MAX);

/// Where the walk over the keys goes on: first the own keys, then those kept for others.
#[derive(Copy, Clone, Debug)]
enum Cursor {
    Own(Option<Key>),
    Kept(Option<Key>),
}

#[derive(Debug)]
pub(super) struct HandOvers {
    queue: VecDeque<(Arc<Contact>, Cursor)>,
    sending: bool,
    pub(super) next_step: Timestamp,
}

impl Default for HandOvers {
    fn default() -> Self {
        Self { queue: VecDeque::new(), sending: false, next_step: NEVER }
    }
}

impl Kad {
    /// Queues a node that entered the table.
    pub(super) fn hand_over_to(&mut self, contact: &Arc<Contact>) {
        let nothing = self.records.len() == 0 && self.publisher.next_key(None).is_none();
        let queue = &mut self.hand_overs.queue;
        if nothing
            || queue.len() >= MAX_WAITING
            || queue.iter().any(|(waiting, _)| waiting.id == contact.id)
        {
            return;
        }
        queue.push_back((Arc::clone(contact), Cursor::Own(None)));
        if !self.hand_overs.sending {
            self.hand_overs.next_step = self.now;
        }
    }

    /// The node took the records, or not; either way the next step is due.
    pub(super) fn on_handed_over(&mut self) {
        self.hand_overs.sending = false;
        self.hand_overs.next_step = self.now;
    }

    pub(super) fn run_hand_overs(&mut self) {
        if self.now < self.hand_overs.next_step || self.hand_overs.sending {
            return;
        }
        self.hand_overs.next_step = NEVER;
        let Some((contact, cursor)) = self.hand_overs.queue.pop_front() else {
            return;
        };
        let alive = self.table.get(&contact.id).is_some_and(super::table::Peer::alive);
        let (records, rest) = if alive { self.scan(&contact, cursor) } else { (Vec::new(), None) };
        if let Some(rest) = rest {
            self.hand_overs.queue.push_front((Arc::clone(&contact), rest));
        }
        if !records.is_empty() && !self.calls.is_full() {
            self.hand_overs.sending = true;
            self.call(contact, Purpose::HandOver, Request::PutProviders { records });
        } else if !self.hand_overs.queue.is_empty() {
            self.hand_overs.next_step = self.now.after_ms(STEP_MS);
        }
    }

    /// Looks at the next keys; returns the records to send and where to go on, if anywhere.
    fn scan(&mut self, to: &Contact, mut cursor: Cursor) -> (Vec<ProviderRecord>, Option<Cursor>) {
        let mut found = Vec::new();
        for _ in 0..SCAN_KEYS {
            let next = match cursor {
                Cursor::Own(after) => self.publisher.next_key(after.as_ref()),
                Cursor::Kept(after) => self.records.next_key(after.as_ref()).map(|(key, _)| *key),
            };
            let Some(key) = next else {
                match cursor {
                    Cursor::Own(_) => cursor = Cursor::Kept(None),
                    Cursor::Kept(_) => return (found, None),
                }
                continue;
            };
            if self.is_ours_to_hand_over(&key, to) {
                let records = match cursor {
                    Cursor::Own(_) => self.own_record(&key).into_iter().collect(),
                    Cursor::Kept(after) => self.kept_for(after.as_ref(), to),
                };
                if !found.is_empty() && found.len() + records.len() > MAX_RECORDS_PER_PUT {
                    return (found, Some(cursor));
                }
                found.extend(records);
            }
            cursor = match cursor {
                Cursor::Own(_) => Cursor::Own(Some(key)),
                Cursor::Kept(_) => Cursor::Kept(Some(key)),
            };
        }
        (found, Some(cursor))
    }

    /// Whether the node is among the k closest to the key, and this one among the few closest.
    fn is_ours_to_hand_over(&self, key: &Key, to: &Contact) -> bool {
        let others = self.table.closest(key, self.cfg.k, Some(&to.id));
        let closer = |than: &Contact| {
            let distance = than.id.distance(key);
            others.iter().filter(|other| other.id.distance(key) < distance).count()
        };
        // The own node is one of the others of the newcomer, but not in the table.
        let own_closer = usize::from(self.own.id.distance(key) < to.id.distance(key));
        closer(&self.own) < SENDERS && closer(to) + own_closer < self.cfg.k
    }

    fn own_record(&mut self, key: &Key) -> Option<ProviderRecord> {
        self.publisher.own_record(key, &self.signer, &self.own, self.now)
    }

    /// The records of the key after `after`: the newest that fit one message, withdrawals included.
    fn kept_for(&self, after: Option<&Key>, to: &Contact) -> Vec<ProviderRecord> {
        let Some((_, records)) = self.records.next_key(after) else {
            return Vec::new();
        };
        let wanted = |record: &&ProviderRecord| {
            let holder = &record.provider.id;
            *holder != to.id && record.expires_ms > self.now.0 && !self.gone.contains(holder)
        };
        let mut records: Vec<&ProviderRecord> = records.iter().filter(wanted).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.issued_ms));
        records.into_iter().take(MAX_RECORDS_PER_PUT).cloned().collect()
    }
}
