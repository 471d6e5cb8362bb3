//! A network of overlay cores in one thread: an event queue, latency, loss, kills.
//!
//! Everything follows from the seed; a failing test prints it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ddr_proto::kad::{
    CallId, Effort, Input, Kad, KadConfig, LookupKind, OpId, Output, Reason, RequestId,
};
use ddr_proto::wire::{Contact, ProviderRecord, Request, RequestEnvelope, Response, Signer};
use ddr_proto::{Key, NodeId, Timestamp};
use ed25519_dalek::SigningKey;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

pub(crate) const START: Timestamp = Timestamp(1_700_000_000_000);

/// What happens to messages for a node that was killed.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Grave {
    /// The caller learns at once: connection refused.
    Refuses,
    /// Nothing ever comes back.
    Silent,
}

#[derive(Clone, Debug)]
pub(crate) struct NetConfig {
    pub(crate) seed: u64,
    pub(crate) latency_ms: (u64, u64),
    /// Lost messages in a thousand; a lost request or answer is simply gone.
    pub(crate) loss_permille: u64,
    pub(crate) grave: Grave,
    /// Every so many-th node takes so much longer to answer.
    pub(crate) slow: Option<(usize, u64)>,
    /// Whether messages go through their bytes.
    pub(crate) codec: bool,
    pub(crate) kad: KadConfig,
}

impl NetConfig {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self {
            seed,
            latency_ms: (1, 5),
            loss_permille: 0,
            grave: Grave::Refuses,
            slow: None,
            codec: false,
            kad: KadConfig::default(),
        }
    }
}

#[derive(Debug)]
enum Event {
    Request { from: usize, to: SocketAddr, call: CallId, request: Request },
    Response { to: usize, call: CallId, response: Response },
    Failed { to: usize, call: CallId },
    Probe { from: usize, to: SocketAddr },
    Probed { to: usize, contact: Contact },
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) kad: Kad,
    pub(crate) contact: Contact,
    pub(crate) signer: Signer,
    pub(crate) alive: bool,
    /// Calls that it has made.
    pub(crate) calls: u64,
    wake: Option<Timestamp>,
    requests: BTreeMap<RequestId, (usize, CallId)>,
    next_request: u64,
}

/// What an operation brought.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) first_provider_at: Option<Timestamp>,
    pub(crate) done_at: Option<Timestamp>,
    pub(crate) closest: Vec<Contact>,
    pub(crate) providers: Vec<ProviderRecord>,
    pub(crate) stored: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) cfg: NetConfig,
    pub(crate) now: Timestamp,
    pub(crate) members: Vec<Member>,
    pub(crate) ops: BTreeMap<OpId, Found>,
    pub(crate) misbehaviour: Vec<(usize, NodeId, Reason)>,
    pub(crate) calls_sent: u64,
    /// Every output of every node in order, when recording.
    pub(crate) transcript: Option<Vec<(u64, usize, String)>>,
    by_addr: BTreeMap<SocketAddr, usize>,
    queue: BTreeMap<(Timestamp, u64), Event>,
    wakes: BTreeSet<(Timestamp, usize)>,
    sequence: u64,
    next_op: u64,
    /// The answer to [`Self::tell`].
    told: Option<Response>,
    rng: ChaCha8Rng,
}

pub(crate) fn signer(seed: u64) -> Signer {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed_5eed);
    let mut secret = [0; 32];
    rng.fill_bytes(&mut secret);
    Signer::from(SigningKey::from_bytes(&secret))
}

pub(crate) fn contact(signer: &Signer, index: usize) -> Contact {
    let [_, a, b, c] = (index as u32).to_be_bytes();
    let addr = SocketAddr::from(([10, a, b, c], 5001));
    Contact { id: signer.node_id(), addrs: vec![addr], zone: String::new() }
}

pub(crate) fn key(number: u64) -> Key {
    Key::of_content(&ddr_oci::Digest::sha256(&number.to_be_bytes()))
}

impl Net {
    pub(crate) fn new(cfg: NetConfig) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(cfg.seed);
        Self {
            cfg,
            now: START,
            members: Vec::new(),
            ops: BTreeMap::new(),
            misbehaviour: Vec::new(),
            calls_sent: 0,
            transcript: None,
            by_addr: BTreeMap::new(),
            queue: BTreeMap::new(),
            wakes: BTreeSet::new(),
            sequence: 0,
            next_op: 0,
            told: None,
            rng,
        }
    }

    /// A swarm of `count` nodes that joined through the first one, 20 ms apart, and settled.
    pub(crate) fn swarm(cfg: NetConfig, count: usize) -> Self {
        let mut net = Self::new(cfg);
        for index in 0..count {
            net.join(index);
            net.run_ms(20);
        }
        net.run_ms(20_000);
        net
    }

    /// Adds a node that bootstraps from up to three earlier ones chosen at random.
    pub(crate) fn join(&mut self, index: usize) -> usize {
        assert_eq!(index, self.members.len(), "nodes are numbered in order");
        let signer = signer(self.cfg.seed.wrapping_mul(1_000_003).wrapping_add(index as u64));
        let contact = contact(&signer, index);
        self.add(signer, contact);
        let known: Vec<usize> = (0..index).filter(|other| self.members[*other].alive).collect();
        let count = known.len().min(3);
        let addrs = (0..count).map(|_| {
            let other = known[self.rng.next_u64() as usize % known.len()];
            self.members[other].contact.addrs[0]
        });
        let addrs = addrs.collect();
        self.input(index, Input::Bootstrap { addrs });
        index
    }

    /// Adds a node that knows nobody.
    pub(crate) fn add(&mut self, signer: Signer, contact: Contact) {
        let seed = self.rng.next_u64();
        let kad = Kad::new(self.cfg.kad.clone(), contact.clone(), signer.clone(), seed);
        self.by_addr.insert(contact.addrs[0], self.members.len());
        self.members.push(Member {
            kad,
            contact,
            signer,
            alive: true,
            wake: None,
            calls: 0,
            requests: BTreeMap::new(),
            next_request: 0,
        });
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.members[index].alive = false;
        self.wake_at(index, None);
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|index| self.members[*index].alive).collect()
    }

    pub(crate) fn random(&mut self, bound: usize) -> usize {
        (self.rng.next_u64() % bound as u64) as usize
    }

    pub(crate) fn start_lookup(&mut self, index: usize, target: Key, kind: LookupKind) -> OpId {
        let op = self.new_op();
        self.input(index, Input::Lookup { op, target, kind, effort: Effort::Cached });
        op
    }

    pub(crate) fn start_provide(&mut self, index: usize, key: Key) -> OpId {
        let op = self.new_op();
        self.input(index, Input::Provide { op, key, complete: true });
        op
    }

    /// Publishes a key and waits until that is done; returns how many nodes store it.
    pub(crate) fn provide(&mut self, index: usize, key: Key) -> usize {
        let op = self.start_provide(index, key);
        self.run_until(10_000, |net| net.ops[&op].stored.is_some());
        self.ops[&op].stored.expect("waited for it")
    }

    /// Asks a node in the name of a stranger; returns its answer.
    pub(crate) fn tell(&mut self, index: usize, body: Request) -> Option<Response> {
        let sender = contact(&signer(0xfeed), 60_000);
        let (id, from) = (RequestId(u64::MAX), sender.id);
        let envelope = RequestEnvelope { sender, puzzle: [0; 32], body };
        self.told = None;
        self.input(index, Input::Request { id, from, envelope });
        self.told.take()
    }

    /// Looks a key up and waits until that is done.
    pub(crate) fn lookup(&mut self, index: usize, key: Key, kind: LookupKind) -> Found {
        let op = self.start_lookup(index, key, kind);
        self.run_until(10_000, |net| net.ops[&op].done_at.is_some());
        self.ops[&op].clone()
    }

    pub(crate) fn holders(&mut self, index: usize, key: Key) -> Vec<NodeId> {
        let found = self.lookup(index, key, LookupKind::Providers);
        found.providers.iter().map(|record| record.provider.id).collect()
    }

    pub(crate) fn run_ms(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        while self.next_moment().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until the condition holds; panics with the seed when it does not in `limit_ms`.
    pub(crate) fn run_until(&mut self, limit_ms: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now.after_ms(limit_ms);
        while !done(self) {
            let in_time = self.next_moment().is_some_and(|at| at <= end);
            assert!(in_time, "condition not met in {limit_ms} ms, seed {}", self.cfg.seed);
            self.step();
        }
    }

    /// Hands an input to a node and carries out what it wants.
    pub(crate) fn input(&mut self, index: usize, input: Input) {
        if !self.members[index].alive {
            return;
        }
        self.members[index].kad.handle(self.now, input);
        while let Some(output) = self.members[index].kad.poll_output() {
            if let Some(transcript) = &mut self.transcript {
                transcript.push((self.now.0, index, format!("{output:?}")));
            }
            self.carry_out(index, output);
        }
        let deadline = self.members[index].kad.next_deadline();
        self.wake_at(index, deadline);
    }

    fn new_op(&mut self) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.ops.insert(op, Found::default());
        op
    }

    fn next_moment(&self) -> Option<Timestamp> {
        let event = self.queue.keys().next().map(|(at, _)| *at);
        let wake = self.wakes.first().map(|(at, _)| *at);
        [event, wake].into_iter().flatten().min()
    }

    fn step(&mut self) {
        let Some(at) = self.next_moment() else {
            return;
        };
        self.now = self.now.max(at);
        if let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= at
        {
            let event = entry.remove();
            return self.deliver(event);
        }
        if let Some((_, index)) = self.wakes.pop_first() {
            self.members[index].wake = None;
            self.input(index, Input::Tick);
        }
    }

    fn wake_at(&mut self, index: usize, at: Option<Timestamp>) {
        if let Some(before) = self.members[index].wake.take() {
            self.wakes.remove(&(before, index));
        }
        // A deadline in the past must still let the network move on.
        let at = at.map(|at| at.max(self.now.after_ms(1)));
        if let Some(at) = at {
            self.wakes.insert((at, index));
        }
        self.members[index].wake = at;
    }

    fn carry_out(&mut self, index: usize, output: Output) {
        match output {
            Output::Call { call, to, request } => {
                self.calls_sent += 1;
                self.members[index].calls += 1;
                self.post(Event::Request { from: index, to: to.addrs[0], call, request });
            }
            Output::Probe { addr } => self.post(Event::Probe { from: index, to: addr }),
            Output::Reply { id: RequestId(u64::MAX), response } => self.told = Some(response),
            Output::Reply { id, response } => {
                let (to, call) = self.members[index].requests.remove(&id).expect("one reply each");
                let response = self.through_bytes(response);
                let slow = self.cfg.slow.filter(|(every, _)| index.is_multiple_of(*every));
                let extra_ms = slow.map_or(0, |(_, extra_ms)| extra_ms);
                self.post_late(extra_ms, Event::Response { to, call, response });
            }
            Output::Providers { op, .. } => {
                let now = self.now;
                let found = self.ops.get_mut(&op).expect("known operation");
                found.first_provider_at.get_or_insert(now);
            }
            Output::LookupDone { op, closest, providers } => {
                let now = self.now;
                let found = self.ops.get_mut(&op).expect("known operation");
                assert!(found.done_at.is_none(), "a lookup ends once");
                (found.done_at, found.closest, found.providers) = (Some(now), closest, providers);
            }
            Output::Provided { op, stored } => {
                self.ops.get_mut(&op).expect("known operation").stored = Some(stored);
            }
            Output::Misbehaviour { peer, reason } => self.misbehaviour.push((index, peer, reason)),
        }
    }

    fn through_bytes(&self, response: Response) -> Response {
        if !self.cfg.codec {
            return response;
        }
        Response::decode(&response.encode()).expect("an answer of the core is within all limits")
    }

    fn post(&mut self, event: Event) {
        self.post_late(0, event);
    }

    fn post_late(&mut self, extra_ms: u64, event: Event) {
        if self.rng.next_u64() % 1_000 < self.cfg.loss_permille {
            return;
        }
        let (low, high) = self.cfg.latency_ms;
        let latency_ms = low + self.rng.next_u64() % (high - low + 1) + extra_ms;
        self.sequence += 1;
        self.queue.insert((self.now.after_ms(latency_ms), self.sequence), event);
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Request { from, to, call, request } => {
                let sender = self.members[from].contact.clone();
                let Some(to) = self.reachable(to) else {
                    if self.cfg.grave == Grave::Refuses {
                        self.post(Event::Failed { to: from, call });
                    }
                    return;
                };
                let from_id = sender.id;
                let mut envelope = RequestEnvelope { sender, puzzle: [0; 32], body: request };
                if self.cfg.codec {
                    envelope = RequestEnvelope::decode(&envelope.encode())
                        .expect("a request of the core is within all limits");
                }
                let member = &mut self.members[to];
                let id = RequestId(member.next_request);
                member.next_request += 1;
                member.requests.insert(id, (from, call));
                self.input(to, Input::Request { id, from: from_id, envelope });
            }
            Event::Response { to, call, response } => {
                self.input(to, Input::Response { call, response });
            }
            Event::Failed { to, call } => self.input(to, Input::Failed { call }),
            Event::Probe { from, to } => {
                if let Some(to) = self.reachable(to) {
                    let contact = self.members[to].contact.clone();
                    self.post(Event::Probed { to: from, contact });
                    let contact = self.members[from].contact.clone();
                    self.input(to, Input::Heard { contact });
                }
            }
            Event::Probed { to, contact } => self.input(to, Input::Probed { contact }),
        }
    }

    fn reachable(&self, addr: SocketAddr) -> Option<usize> {
        self.by_addr.get(&addr).copied().filter(|index| self.members[*index].alive)
    }
}
