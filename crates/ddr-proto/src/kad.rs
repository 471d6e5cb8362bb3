//! The S/Kademlia overlay as a pure state machine: who is near, and who holds what.
//!
//! After Baumgart and Mies, "S/Kademlia: A Practicable Approach Towards Secure Key-Based Routing"
//! (ICPADS 2007), on Maymounkov and Mazieres, "Kademlia" (IPTPS 2002). `docs/overlay.md` states the
//! rules with their sections.
//!
//! The driver hands inputs to [`Kad::handle`], then takes outputs from [`Kad::poll_output`] until
//! there are none, and calls again with [`Input::Tick`] at [`Kad::next_deadline`]. The core never
//! waits, never reads a clock, draws chance only from its seed, and keeps every list and map below
//! a named limit; the output queue alone grows with what the driver hands in between two drains.

mod admission;
mod answer;
mod answers;
mod bucket;
mod calls;
mod config;
mod doubt;
mod gone;
mod handover;
mod io;
mod known;
mod lookup;
mod maintain;
mod nearest;
mod path;
mod peers;
mod publish;
mod publishing;
mod records;
mod restore;
mod rtt;
mod search;
mod siblings;
mod size;
mod sync;
mod table;
#[cfg(test)]
mod tests_model;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use self::admission::may_be_dialled;
use self::answers::Answers;
use self::calls::{Call, Calls, DeadMemory, Purpose};
pub use self::config::KadConfig;
use self::gone::GoneMemory;
use self::handover::HandOvers;
pub use self::io::{CallId, Effort, Input, LookupKind, OpId, Output, PeerView, Reason, RequestId};
pub use self::known::EVERYBODY_MS;
use self::known::Everybody;
pub use self::maintain::MAX_BOOTSTRAP;
use self::maintain::Upkeep;
pub use self::path::MAX_FOLLOWED;
use self::publish::Publisher;
use self::records::Records;
pub use self::restore::MAX_KEPT_PEERS;
use self::restore::Restore;
use self::rtt::Rtt;
use self::search::Searches;
pub use self::search::{MAX_JOINED_OPS, MAX_LOOKUPS, MAX_QUEUED_LOOKUPS};
use self::size::Density;
use self::sync::Sync;
use self::table::{Admitted, Lost, Table};
use crate::chance::Chance;
use crate::id::{Key, NodeId, dynamic_puzzle_holds, static_puzzle_holds};
use crate::time::Timestamp;
use crate::wire::{Contact, MAX_NODES, Request, Response, Signer};

/// Most pings at the same time to nodes that want to be admitted.
const MAX_VERIFYING: usize = 64;
/// Most keys that are withdrawn one by one when the node leaves; the rest expires.
const MAX_FAREWELL_KEYS: usize = 16_384;
/// Outputs for which room is kept between two inputs.
const KEPT_OUTPUTS: usize = 4;

/// The overlay core of one node.
#[derive(Debug)]
pub struct Kad {
    cfg: KadConfig,
    own: Arc<Contact>,
    signer: Signer,
    /// The X of the own dynamic puzzle.
    puzzle: [u8; 32],
    chance: Chance,
    now: Timestamp,
    table: Table,
    dead: DeadMemory,
    gone: GoneMemory,
    calls: Calls,
    /// Nodes that are being pinged before they are admitted, or to see whether they still live.
    verifying: BTreeSet<NodeId>,
    rtt: Rtt,
    searches: Searches,
    density: Density,
    answers: Answers,
    everybody: Everybody,
    records: Records,
    publisher: Publisher,
    upkeep: Upkeep,
    restore: Restore,
    hand_overs: HandOvers,
    sync: Sync,
    stopped: bool,
    outputs: VecDeque<Output>,
}

impl Kad {
    /// A core of the node `own`. The same `seed` and inputs give the same outputs.
    ///
    /// # Panics
    /// When `own.id` is not the ID of the signer: its records would be worth nothing.
    #[must_use]
    pub fn new(cfg: KadConfig, own: Contact, signer: Signer, seed: u64) -> Self {
        assert_eq!(own.id, signer.node_id(), "the contact must carry the signer's node ID");
        let cfg = KadConfig { k: cfg.k.clamp(1, MAX_NODES), alpha: cfg.alpha.max(1), ..cfg };
        Self {
            chance: Chance::new(seed),
            now: Timestamp::default(),
            table: Table::new(own.id, &cfg),
            dead: DeadMemory::default(),
            gone: GoneMemory::default(),
            calls: Calls::default(),
            verifying: BTreeSet::new(),
            rtt: Rtt::default(),
            searches: Searches::default(),
            density: Density::default(),
            answers: Answers::default(),
            everybody: Everybody::default(),
            records: Records::new(&cfg),
            publisher: Publisher::new(&cfg),
            upkeep: Upkeep::default(),
            restore: Restore::default(),
            hand_overs: HandOvers::default(),
            sync: Sync::default(),
            stopped: false,
            outputs: VecDeque::new(),
            own: Arc::new(own),
            signer,
            puzzle: [0; 32],
            cfg,
        }
    }

    /// Sets the X with which this node solves the dynamic puzzle; its answers to pings carry it. Not
    /// needed in a swarm without one.
    pub const fn set_puzzle(&mut self, x: [u8; 32]) {
        self.puzzle = x;
    }

    /// Fills the routing table with peers that answered this node before, and continues upkeep in
    /// mid-cycle instead of joining anew.
    ///
    /// For a node that lived in a settled swarm a moment ago: `peers` are taken as alive until a
    /// call to them fails, and no record is handed over to them. The first upkeep falls at a random
    /// moment of its interval, so that many nodes that resume together do not act together.
    pub fn resume(&mut self, now: Timestamp, peers: impl IntoIterator<Item = Arc<Contact>>) {
        self.now = self.now.max(now);
        for contact in peers {
            let solved = static_puzzle_holds(&contact.id, self.cfg.static_puzzle_bits);
            if solved && contact.check_limits().is_ok() && contact.is_dialable() {
                self.table.answered(&contact, self.now);
            }
        }
        self.table.pack();
        self.resume_upkeep();
    }

    /// Takes an input in. Besides [`Self::resume`] the only way to change state; never fails, never
    /// blocks.
    ///
    /// A `now` before an earlier one counts as that earlier one.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Request { id, from, envelope } => self.on_request(id, from, envelope),
            Input::Response { call, response } => self.on_response(call, response),
            Input::Failed { call } => {
                self.calls.take_late(call);
                if let Some(call) = self.calls.end(call) {
                    self.on_call_failed(&call);
                }
            }
            Input::Heard { contact } => self.on_heard(contact),
            Input::Gone { node } => self.on_gone(&node),
            Input::Bootstrap { addrs } => self.on_bootstrap(addrs),
            Input::Probed { contact } => self.on_probed(contact),
            Input::Restore { peers } => self.on_restore(peers),
            Input::Lookup { op, target, kind, effort } => {
                self.on_lookup(op, target, kind, effort);
            }
            Input::Provide { op, key, complete } => self.on_provide(op, key, complete),
            Input::Withdraw { key } => self.on_withdraw(key),
            Input::Tick => {}
            Input::Shutdown => self.on_shutdown(),
        }
        while let Some(call) = self.calls.pop_timed_out(self.now) {
            self.on_call_failed(&call);
        }
        self.run_searches();
        if !self.stopped {
            self.run_publisher();
            self.run_upkeep();
            self.run_restore();
            self.run_hand_overs();
            self.run_sync();
        }
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        let next = self.outputs.pop_front();
        if next.is_none() {
            // A burst of outputs is no reason to hold its memory until the next one.
            self.outputs.shrink_to(KEPT_OUTPUTS);
        }
        next
    }

    /// When to hand in [`Input::Tick`] at the latest; `None` when only inputs change anything.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let searches = self.searches.next_wake();
        let moments = [self.calls.next_timeout(), searches];
        let (sweep, hand_over) = (self.publisher.sweep_at, self.hand_overs.next_step);
        let upkeep = [self.upkeep.next_deadline(), sweep, hand_over, self.sync.next];
        let upkeep = upkeep.into_iter().filter(|at| !self.stopped && *at < Timestamp(u64::MAX));
        moments.into_iter().flatten().chain(upkeep).min()
    }

    /// True when the routing table is empty.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.table.all().next().is_none()
    }

    /// True when a peer of the routing table is alive.
    #[must_use]
    pub fn has_live_peer(&self) -> bool {
        self.table.live().next().is_some()
    }

    /// Every peer of the routing table, nearest first.
    #[must_use]
    pub fn contacts(&self) -> Vec<PeerView> {
        let siblings: BTreeSet<NodeId> =
            self.table.siblings().map(|peer| peer.contact.id).collect();
        let view = |(bucket, peer): (u32, &table::Peer)| PeerView {
            contact: Contact::clone(&peer.contact),
            last_seen: peer.last_seen,
            alive: peer.alive(),
            sibling: siblings.contains(&peer.contact.id),
            bucket,
            round_trip_ms: peer.round_trip_ms(),
        };
        self.table.all().map(view).collect()
    }

    /// Number of provider records that this node keeps for others.
    #[must_use]
    pub const fn stored_records(&self) -> usize {
        self.records.len()
    }

    /// The keys that this node provides, and whether completely, in key order.
    pub fn provided(&self) -> impl Iterator<Item = (Key, bool)> + '_ {
        self.publisher.provided()
    }

    /// Whether no call waits for an answer; after [`Input::Shutdown`] the driver may then stop.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    fn on_response(&mut self, id: CallId, response: Response) {
        let Some(call) = self.calls.end(id) else {
            if let Some(late) = self.calls.take_late(id) {
                self.admit_after(&late, &response);
                self.timed(&late);
            }
            return;
        };
        if let Err(error) = response.check_limits() {
            self.report(call.to.id, Self::limit_reason(error));
            return self.on_call_failed(&call);
        }
        self.admit_after(&call, &response);
        self.timed(&call);
        match call.purpose {
            Purpose::Lookup(lookup) => self.on_lookup_answer(lookup, &call.to, response),
            Purpose::Verify => {
                self.verifying.remove(&call.to.id);
                if !matches!(response, Response::Pong { .. } | Response::Refused { .. }) {
                    self.report(call.to.id, Reason::WrongAnswer);
                }
            }
            Purpose::Publish(job) => {
                let (accepted, not_soon) = match response {
                    Response::Stored { accepted, not_soon } => (accepted as usize, not_soon),
                    Response::Refused { .. } => (0, Vec::new()),
                    _ => {
                        self.report(call.to.id, Reason::WrongAnswer);
                        (0, Vec::new())
                    }
                };
                self.on_published(job, &call.to.id, accepted, &not_soon);
            }
            Purpose::HandOver => self.on_handed_over(),
            Purpose::Sync => self.on_sync_answer(&call.to.id, response),
            Purpose::Farewell => {}
        }
    }

    /// A call got no answer: no connection, no time left, or an answer that is none.
    fn on_call_failed(&mut self, call: &Call) {
        self.mark_failed(&call.to, call.sent);
        match call.purpose {
            Purpose::Lookup(lookup) => self.on_lookup_failure(lookup, &call.to.id),
            Purpose::Verify => {
                self.verifying.remove(&call.to.id);
                self.on_silent(&call.to);
            }
            Purpose::Publish(job) => self.on_published(job, &call.to.id, 0, &[]),
            Purpose::HandOver => self.on_handed_over(),
            Purpose::Sync => self.on_sync_failed(),
            Purpose::Farewell => {}
        }
    }

    /// Measures the round trip of a call that was answered.
    fn timed(&mut self, call: &Call) {
        let ms = self.now.since_ms(call.sent);
        self.rtt.sample(ms);
        self.table.timed(&call.to.id, ms);
    }

    /// A call was answered. Where the swarm has a dynamic puzzle, a node enters a bucket only with an
    /// X that solves it, which the answer to a ping carries.
    fn admit_after(&mut self, call: &Call, response: &Response) {
        let id = call.to.id;
        let c2 = self.cfg.dynamic_puzzle_bits;
        if c2 == 0 || self.table.get(&id).is_some() {
            return self.admit(&call.to);
        }
        match response {
            Response::Pong { puzzle, .. } if dynamic_puzzle_holds(&id, puzzle, c2) => {
                self.admit(&call.to);
            }
            Response::Pong { .. } => {
                self.dead.remember(&call.to, self.now.after_ms(self.cfg.dead_ms));
                self.report(id, Reason::PuzzleUnsolved);
            }
            _ if call.purpose != Purpose::Verify => self.verify(Arc::clone(&call.to)),
            _ => {}
        }
    }

    /// A node answered at this contact: it may enter its bucket.
    fn admit(&mut self, contact: &Arc<Contact>) {
        self.dead.forgive(&contact.id);
        self.gone.forgive(&contact.id);
        if !static_puzzle_holds(&contact.id, self.cfg.static_puzzle_bits) {
            return;
        }
        if self.table.answered(contact, self.now) == Admitted::New {
            self.on_new_peer(contact);
        }
    }

    /// A node said something; it is pinged when it could be admitted, so that it answers first.
    fn on_heard(&mut self, contact: Contact) {
        if contact.check_limits().is_err() || contact.id == self.own.id {
            return;
        }
        if !static_puzzle_holds(&contact.id, self.cfg.static_puzzle_bits) {
            return self.report(contact.id, Reason::PuzzleUnsolved);
        }
        if contact.has_impossible_address() {
            return self.report(contact.id, Reason::BadAddress);
        }
        if !self.is_usable(&contact) {
            return;
        }
        self.gone.forgive(&contact.id);
        let known = self.table.get(&contact.id);
        if known.is_some_and(|peer| peer.alive() && *peer.contact == contact) {
            return self.table.touch(&contact.id, self.now);
        }
        self.dead.forgive(&contact.id);
        let contact = Arc::new(contact);
        if self.table.has_place_for(&contact.id) {
            self.verify(contact);
        } else {
            self.table.wait(&contact);
        }
    }

    /// Whether a contact that others tell of may be used at all.
    fn is_usable(&self, contact: &Contact) -> bool {
        contact.check_limits().is_ok()
            && contact.id != self.own.id
            && contact.is_dialable()
            && may_be_dialled(contact, &self.own)
            && static_puzzle_holds(&contact.id, self.cfg.static_puzzle_bits)
    }

    /// Pings a node; when it answers it is admitted.
    fn verify(&mut self, contact: Arc<Contact>) {
        let full = self.verifying.len() >= MAX_VERIFYING || self.calls.is_full();
        if full || self.stopped || !self.verifying.insert(contact.id) {
            return;
        }
        self.call(contact, Purpose::Verify, Request::Ping);
    }

    /// Leaves a node alone for a while, and sees after it when it was in the table.
    fn mark_failed(&mut self, contact: &Arc<Contact>, sent: Timestamp) {
        // A failure at an address that is not the one we know says nothing about the node.
        let other = |peer: &table::Peer| peer.contact.addrs != contact.addrs;
        self.dead.remember(contact, self.now.after_ms(self.cfg.dead_ms));
        if self.table.get(&contact.id).is_some_and(other) {
            return;
        }
        match self.table.failed(&contact.id, sent, self.now) {
            Lost::Unknown | Lost::Already | Lost::Gone { waiting: None } => {}
            Lost::Dead { failures } => {
                // The first time it may have been an accident: look again at once.
                let wait_ms = if failures == 1 { 0 } else { self.cfg.dead_ms };
                self.upkeep.look_again(contact.id, self.now.after_ms(wait_ms));
            }
            Lost::Gone { waiting: Some(waiting) } => self.verify(waiting),
        }
        self.on_peer_lost();
    }

    fn call(&mut self, to: Arc<Contact>, purpose: Purpose, request: Request) {
        let contact = Contact::clone(&to);
        let timeout_ms = self.rtt.timeout_ms(&self.cfg);
        let call = self.calls.start(to, purpose, self.now, timeout_ms);
        self.outputs.push_back(Output::Call { call, to: contact, request });
    }

    fn report(&mut self, peer: NodeId, reason: Reason) {
        self.outputs.push_back(Output::Misbehaviour { peer, reason });
    }
}
