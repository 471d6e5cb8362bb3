//! Keeping the routing table true: bootstrap, self-lookup, bucket refresh, second looks, expiry.
//!
//! Kademlia, section 2.3: a node joins by looking up its own ID through a node it knows, then
//! refreshes the buckets farther away than its nearest peer; later it refreshes buckets that saw no
//! lookup. The self-lookup is repeated, often while the siblings change and seldom when they do
//! not, so that nodes that joined at the same moment soon know each other. At most one self-lookup
//! and one refresh run at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::lookup::Owner;
use super::{Kad, LookupKind, Output};
use crate::id::{ID_BITS, Key, NodeId};
use crate::time::Timestamp;
use crate::wire::Contact;

/// Most bootstrap addresses that are kept.
pub const MAX_BOOTSTRAP: usize = 64;
/// First and longest wait before a lonely node probes its bootstrap addresses again.
const BOOTSTRAP_WAIT_MS: (u64, u64) = (1_000, 30_000);
/// Wait before the self-lookup that follows a change of the siblings; it doubles each time.
const SIBLINGS_WAIT_MS: u64 = 2_000;
/// Wait between two steps of the expiry sweep.
const EXPIRY_STEP_MS: u64 = 5_000;
/// Quiet buckets are searched for this many times in one refresh interval.
const REFRESH_CHECKS: u64 = 8;

const NEVER: Timestamp = Timestamp(u64::MAX);

#[derive(Debug)]
pub(super) struct Upkeep {
    bootstrap: Vec<SocketAddr>,
    bootstrap_at: Timestamp,
    bootstrap_wait_ms: u64,
    siblings_at: Timestamp,
    siblings_wait_ms: u64,
    siblings_running: bool,
    /// Whether the first self-lookup has ended.
    joined: bool,
    refresh_queue: BTreeSet<u32>,
    refresh_running: bool,
    refresh_check_at: Timestamp,
    /// When a lookup last went into a bucket.
    touched: BTreeMap<u32, Timestamp>,
    looks: BTreeSet<(Timestamp, NodeId)>,
    look_at: BTreeMap<NodeId, Timestamp>,
    expiry_at: Timestamp,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            bootstrap_at: NEVER,
            bootstrap_wait_ms: BOOTSTRAP_WAIT_MS.0,
            siblings_at: NEVER,
            siblings_wait_ms: SIBLINGS_WAIT_MS,
            siblings_running: false,
            joined: false,
            refresh_queue: BTreeSet::new(),
            refresh_running: false,
            refresh_check_at: NEVER,
            touched: BTreeMap::new(),
            looks: BTreeSet::new(),
            look_at: BTreeMap::new(),
            expiry_at: NEVER,
        }
    }
}

impl Upkeep {
    pub(super) fn next_deadline(&self) -> Timestamp {
        let siblings = if self.siblings_running { NEVER } else { self.siblings_at };
        let look = self.looks.first().map_or(NEVER, |(at, _)| *at);
        let fixed = [self.bootstrap_at, siblings, self.refresh_check_at, self.expiry_at, look];
        fixed.into_iter().min().unwrap_or(NEVER)
    }

    /// Remembers that a lookup goes into a bucket.
    pub(super) fn touch_bucket(&mut self, bucket: u32, now: Timestamp) {
        self.touched.insert(bucket, now);
    }

    /// Pings a dead peer at the given time to see whether it is back.
    pub(super) fn look_again(&mut self, id: NodeId, at: Timestamp) {
        if let Some(before) = self.look_at.insert(id, at) {
            self.looks.remove(&(before, id));
        }
        self.looks.insert((at, id));
    }

    /// There is something that may expire.
    pub(super) fn expect_expiry(&mut self, now: Timestamp) {
        self.expiry_at = self.expiry_at.min(now.after_ms(EXPIRY_STEP_MS));
    }

    fn pop_look(&mut self, now: Timestamp) -> Option<NodeId> {
        let (at, id) = *self.looks.first().filter(|(at, _)| *at <= now)?;
        self.looks.remove(&(at, id));
        self.look_at.remove(&id);
        Some(id)
    }
}

impl Kad {
    pub(super) fn on_bootstrap(&mut self, addrs: Vec<SocketAddr>) {
        for addr in addrs {
            if self.upkeep.bootstrap.len() < MAX_BOOTSTRAP
                && !self.upkeep.bootstrap.contains(&addr)
                && !self.own.addrs.contains(&addr)
            {
                self.upkeep.bootstrap.push(addr);
            }
        }
        self.upkeep.bootstrap_wait_ms = BOOTSTRAP_WAIT_MS.0;
        self.probe_all();
    }

    pub(super) fn on_probed(&mut self, contact: Contact) {
        let usable = contact.check_limits().is_ok() && contact.is_dialable();
        if usable && contact.id != self.own.id && !self.stopped {
            if self.cfg.dynamic_puzzle_bits == 0 {
                self.admit(&Arc::new(contact));
            } else {
                self.verify(Arc::new(contact));
            }
        }
    }

    /// A node entered the table, or came back.
    pub(super) fn on_new_peer(&mut self, contact: &Arc<Contact>) {
        let upkeep = &mut self.upkeep;
        upkeep.bootstrap_at = NEVER;
        upkeep.bootstrap_wait_ms = BOOTSTRAP_WAIT_MS.0;
        if upkeep.refresh_check_at == NEVER {
            upkeep.refresh_check_at = self.now.after_ms(self.cfg.refresh_ms / REFRESH_CHECKS);
        }
        if !upkeep.joined && !upkeep.siblings_running {
            upkeep.siblings_at = self.now;
        } else if self.table.is_sibling(&contact.id) {
            self.expect_sibling_change();
        }
        self.hand_over_to(contact);
        self.expect_sync();
    }

    /// The table was filled from what an earlier life of the node knew.
    pub(super) fn resume_upkeep(&mut self) {
        let Some(deepest) = self.table.deepest_bucket() else {
            return;
        };
        let (refresh_ms, siblings_ms) = (self.cfg.refresh_ms, self.cfg.sibling_refresh_ms);
        let mut within = |ms: u64| self.now.after_ms(self.chance.below(ms.max(1)));
        let siblings_at = within(siblings_ms);
        let refresh_check_at = within(refresh_ms / REFRESH_CHECKS);
        let touched = (0..=deepest.min(ID_BITS - 1)).map(|bucket| {
            let ago_ms = within(refresh_ms).since_ms(self.now);
            (bucket, Timestamp(self.now.0.saturating_sub(ago_ms)))
        });
        self.upkeep.touched = touched.collect();
        self.upkeep.joined = true;
        self.upkeep.siblings_wait_ms = siblings_ms;
        self.upkeep.siblings_at = siblings_at;
        self.upkeep.refresh_check_at = refresh_check_at;
    }

    /// A peer died; alone, the node goes back to where it came from.
    pub(super) fn on_peer_lost(&mut self) {
        self.upkeep.expect_expiry(self.now);
        let alone = self.table.live().next().is_none();
        if alone && self.upkeep.bootstrap_at == NEVER && !self.upkeep.bootstrap.is_empty() {
            self.upkeep.bootstrap_at = self.now.after_ms(BOOTSTRAP_WAIT_MS.0);
        }
    }

    pub(super) fn on_siblings_known(&mut self) {
        let first = !std::mem::replace(&mut self.upkeep.joined, true);
        self.upkeep.siblings_running = false;
        let wait_ms = self.upkeep.siblings_wait_ms;
        self.upkeep.siblings_at = self.now.after_ms(self.chance.jitter_ms(wait_ms));
        self.upkeep.siblings_wait_ms = (2 * wait_ms).min(self.cfg.sibling_refresh_ms);
        if first && let Some(deepest) = self.table.deepest_bucket() {
            self.upkeep.refresh_queue.extend(0..=deepest.min(ID_BITS - 1));
        }
    }

    pub(super) const fn on_refreshed(&mut self) {
        self.upkeep.refresh_running = false;
    }

    /// Does whatever is due.
    pub(super) fn run_upkeep(&mut self) {
        if self.now >= self.upkeep.bootstrap_at {
            self.probe_all();
        }
        if self.now >= self.upkeep.expiry_at {
            self.records.sweep(self.now);
            self.dead.drop_expired(self.now);
            self.answers.drop_expired(self.now);
            let kept = !self.dead.is_empty() || !self.answers.is_empty();
            let more = self.records.len() > 0 || kept;
            self.upkeep.expiry_at = if more { self.now.after_ms(EXPIRY_STEP_MS) } else { NEVER };
        }
        while let Some(id) = self.upkeep.pop_look(self.now) {
            let dead = self.table.get(&id).filter(|peer| !peer.alive());
            if let Some(contact) = dead.map(|peer| Arc::clone(&peer.contact)) {
                self.verify(contact);
            }
        }
        self.look_up_siblings();
        self.refresh_buckets();
        self.run_searches();
    }

    fn look_up_siblings(&mut self) {
        let due = self.now >= self.upkeep.siblings_at && !self.upkeep.siblings_running;
        if !due || !self.searches.has_room() {
            return;
        }
        self.upkeep.siblings_running = true;
        self.start_lookup(self.own.id.to_key(), LookupKind::Nodes, Owner::Siblings, false);
    }

    fn refresh_buckets(&mut self) {
        if self.now >= self.upkeep.refresh_check_at {
            let pause_ms = self.cfg.refresh_ms / REFRESH_CHECKS;
            self.upkeep.refresh_check_at = self.now.after_ms(pause_ms.max(1));
            let deepest = self.table.deepest_bucket().map_or(0, |b| b.min(ID_BITS - 1) + 1);
            let quiet = (0..deepest).filter(|bucket| {
                let touched = self.upkeep.touched.get(bucket);
                touched.is_none_or(|at| self.now.since_ms(*at) >= self.cfg.refresh_ms)
            });
            let quiet: Vec<u32> = quiet.collect();
            self.upkeep.refresh_queue.extend(quiet);
        }
        while !self.upkeep.refresh_running
            && self.searches.has_room()
            && let Some(bucket) = self.upkeep.refresh_queue.pop_first()
        {
            self.upkeep.refresh_running = true;
            let target = self.point_in_bucket(bucket);
            self.start_lookup(target, LookupKind::Nodes, Owner::Refresh, false);
            self.run_searches();
        }
    }

    /// A random point that shares exactly `bucket` leading bits with the own ID.
    fn point_in_bucket(&mut self, bucket: u32) -> Key {
        let (own, mut point) = (self.own.id.0, self.chance.point());
        let (byte, bit) = (bucket as usize / 8, bucket % 8);
        point[..byte].copy_from_slice(&own[..byte]);
        let above = !(0xff_u8 >> bit);
        let flipped = 0x80 >> bit;
        let kept = own[byte] & above | !own[byte] & flipped;
        point[byte] = kept | point[byte] & !(above | flipped);
        Key(point)
    }

    /// The sibling list changed: look soon, and then ever more seldom again.
    fn expect_sibling_change(&mut self) {
        self.upkeep.siblings_wait_ms = SIBLINGS_WAIT_MS;
        let soon = self.now.after_ms(self.chance.jitter_ms(SIBLINGS_WAIT_MS));
        self.upkeep.siblings_at = self.upkeep.siblings_at.min(soon);
    }

    fn probe_all(&mut self) {
        if self.stopped || self.upkeep.bootstrap.is_empty() {
            self.upkeep.bootstrap_at = NEVER;
            return;
        }
        let mut addrs = self.upkeep.bootstrap.clone();
        let count = addrs.len();
        self.chance.choose(&mut addrs, count);
        self.outputs.extend(addrs.into_iter().map(|addr| Output::Probe { addr }));
        let alone = self.table.live().next().is_none();
        let wait_ms = self.upkeep.bootstrap_wait_ms;
        self.upkeep.bootstrap_wait_ms = (2 * wait_ms).min(BOOTSTRAP_WAIT_MS.1);
        let again = self.now.after_ms(self.chance.jitter_ms(wait_ms));
        self.upkeep.bootstrap_at = if alone { again } else { NEVER };
    }
}
