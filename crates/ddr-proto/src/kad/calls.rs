//! Calls that wait for an answer, and the nodes that gave none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::io::CallId;
use super::lookup::LookupId;
use super::publish::JobId;
use crate::id::NodeId;
use crate::time::Timestamp;
use crate::wire::Contact;

/// Most calls that wait at the same time; more are not made.
pub(super) const MAX_CALLS: usize = 4_096;
/// Most calls that were given up and may still be answered.
const MAX_LATE: usize = 256;
/// Most nodes that are remembered as dead.
const MAX_DEAD_MEMORY: usize = 4_096;

/// Whose call it is.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// A query of a lookup.
    Lookup(LookupId),
    /// A `Ping` that decides whether the node is admitted, or still alive.
    Verify,
    /// Records of a publishing job.
    Publish(JobId),
    /// Records for a node that came near.
    HandOver,
    /// A comparison with a sibling.
    Sync,
    /// Last words; nobody waits for the answer.
    Farewell,
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) to: Arc<Contact>,
    pub(super) purpose: Purpose,
    pub(super) sent: Timestamp,
    timeout: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    next: u64,
    pending: BTreeMap<CallId, Call>,
    timeouts: BTreeSet<(Timestamp, CallId)>,
    /// Calls that were given up: a late answer still proves life, and teaches the true round trip.
    late: BTreeMap<CallId, Call>,
}

impl Calls {
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= MAX_CALLS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn start(
        &mut self,
        to: Arc<Contact>,
        purpose: Purpose,
        now: Timestamp,
        timeout_ms: u64,
    ) -> CallId {
        let id = CallId(self.next);
        self.next += 1;
        let timeout = now.after_ms(timeout_ms);
        self.pending.insert(id, Call { to, purpose, sent: now, timeout });
        self.timeouts.insert((timeout, id));
        id
    }

    /// Ends a call; `None` when it has already ended.
    pub(super) fn end(&mut self, id: CallId) -> Option<Call> {
        let call = self.pending.remove(&id)?;
        self.timeouts.remove(&(call.timeout, id));
        Some(call)
    }

    pub(super) fn pop_timed_out(&mut self, now: Timestamp) -> Option<Call> {
        let (_, id) = *self.timeouts.first().filter(|(at, _)| *at <= now)?;
        let call = self.end(id)?;
        if self.late.len() >= MAX_LATE {
            self.late.pop_first();
        }
        self.late.insert(id, call.clone());
        Some(call)
    }

    /// Ends the wait for a late answer.
    pub(super) fn take_late(&mut self, id: CallId) -> Option<Call> {
        self.late.remove(&id)
    }

    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.timeouts.first().map(|(at, _)| *at)
    }
}

/// Nodes that failed lately, with the addresses at which they did: the same node at another
/// address is not dead, so nobody can make a node look dead by spreading wrong addresses of it.
#[derive(Debug, Default)]
pub(super) struct DeadMemory {
    until: BTreeMap<NodeId, (Timestamp, Vec<SocketAddr>)>,
}

impl DeadMemory {
    pub(super) fn remember(&mut self, contact: &Contact, until: Timestamp) {
        if self.until.len() >= MAX_DEAD_MEMORY && !self.until.contains_key(&contact.id) {
            let first = self.until.iter().min_by_key(|(_, (until, _))| *until);
            if let Some(id) = first.map(|(id, _)| *id) {
                self.until.remove(&id);
            }
        }
        self.until.insert(contact.id, (until, contact.addrs.clone()));
    }

    pub(super) fn forgive(&mut self, id: &NodeId) {
        self.until.remove(id);
    }

    pub(super) fn contains(&self, contact: &Contact, now: Timestamp) -> bool {
        let entry = self.until.get(&contact.id);
        entry.is_some_and(|(until, addrs)| *until > now && *addrs == contact.addrs)
    }

    pub(super) fn drop_expired(&mut self, now: Timestamp) {
        self.until.retain(|_, (until, _)| *until > now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
}
