//! A whole swarm, from the start until everybody has everything.

use std::collections::BTreeMap;
use std::sync::Arc;

use ddr_oci::PieceChain;
use ddr_proto::Timestamp;
use ddr_proto::swarm::{AskId, Class, GroupId, Input, Refusal, Swarm, Wanted};
use ddr_proto::wire::Contact;

use super::config::SwarmSetup;
use super::copy::{Copy, Marks};
use super::fabric::{Fabric, Nanos, Step};
use super::host::{Host, Mail, Role, Tag, id_of, key_of};
use super::report::SwarmReport;
use crate::dice::Dice;

/// Time that a lookup of holders takes.
pub(super) const LOOKUP_NANOS: Nanos = 2_000_000;
/// Holders that the overlay keeps for a key.
const KEPT_HOLDERS: usize = 256;
/// Largest quantum of a link in bytes.
const QUANTUM: u64 = 256 << 10;
/// A run ends after this many F/b and ten minutes, whatever has not been done.
const PATIENCE: f64 = 50.0;
const NANOS_PER_MS: u64 = 1_000_000;

/// Sizes of the pieces of a layer.
#[derive(Copy, Clone, Debug)]
pub(super) struct Layout {
    size: u64,
    piece_bytes: u64,
}

impl Layout {
    pub(super) fn of(size: u64) -> Self {
        Self { size, piece_bytes: PieceChain::piece_len_for(size) }
    }

    pub(super) fn bytes_of(self, piece: usize) -> u64 {
        self.piece_bytes.min(self.size - piece as u64 * self.piece_bytes)
    }
}

/// All nodes and the network between them.
pub(super) struct Net {
    pub(super) setup: SwarmSetup,
    pub(super) fabric: Fabric<Mail, Tag>,
    pub(super) hosts: Vec<Host>,
    pub(super) dice: Dice,
    pub(super) layout: Layout,
    pub(super) latency_us: u64,
    pub(super) salt: u64,
    /// Who is known to the overlay as a holder.
    pub(super) announced: Vec<usize>,
    /// The request that is being handed in: who made it, its number, whether the choice is free.
    pub(super) asking: Option<(usize, AskId, bool)>,
    pub(super) serving_refused: Option<Refusal>,
    pub(super) messages: u64,
    pub(super) busy_answers: u64,
    /// Bytes of pieces that crossed a border of zones.
    pub(super) cross_bytes: u64,
    /// Pullers that are alive and not done.
    pub(super) waiting: usize,
    /// When the sources had sent one copy together.
    pub(super) first_copy: Nanos,
    sources_dead: bool,
}

/// Runs one swarm.
#[must_use]
pub fn run_swarm(setup: &SwarmSetup) -> SwarmReport {
    let mut net = Net::new(setup);
    let end = setup.nanos(PATIENCE) + 600_000 * NANOS_PER_MS;
    while net.waiting > 0 {
        let Some(step) = net.fabric.step(end) else { break };
        match step {
            Step::Message(to, mail) => {
                if !net.fabric.is_dead(to) || matches!(mail, Mail::Kill { .. }) {
                    net.deliver(to, mail);
                }
            }
            Step::Sent(transfer) => net.sent(transfer.from, transfer.to, &transfer.tag),
            Step::Arrived(transfer) => {
                if !net.fabric.is_dead(transfer.to) {
                    net.arrived(transfer.from, transfer.to, transfer.tag);
                }
            }
        }
    }
    SwarmReport::of_core(&net)
}

impl Net {
    fn new(setup: &SwarmSetup) -> Self {
        let mut dice = Dice::new(setup.seed, 0);
        let total = setup.nodes + setup.sources;
        let liars = (setup.nodes as f64 * setup.liars).round() as usize;
        let mut rates = vec![setup.link_mbit as f64; total];
        if let Some((part, times)) = setup.slow {
            let slow = (setup.nodes as f64 * part).round() as usize;
            // Liars come right behind the sources, slow nodes last.
            rates[total - slow..].iter_mut().for_each(|rate| *rate /= times);
        }
        let layout = Layout::of(setup.blob);
        let quantum = QUANTUM.min(layout.piece_bytes);
        let mut fabric = Fabric::new(&rates, setup.latency_us * 1_000, quantum);
        let mut hosts = Vec::with_capacity(total);
        let spread = setup.nanos(setup.spread).max(1);
        for number in 0..total {
            let role = match number {
                n if n < setup.sources => Role::Source,
                n if n < setup.sources + liars => Role::Liar,
                _ => Role::Puller,
            };
            let host = Host::new(setup, &mut dice, number, role);
            hosts.push(host);
            let wait = if role == Role::Source { 0 } else { dice.below(spread) };
            fabric.later(number, wait, Mail::Start);
        }
        if let Some((part, at)) = setup.kill {
            fabric.later(0, setup.nanos(at), Mail::Kill { part });
        }
        Self {
            waiting: hosts.iter().filter(|host| host.role == Role::Puller).count(),
            salt: dice.number(),
            latency_us: setup.latency_us,
            setup: setup.clone(),
            fabric,
            hosts,
            dice,
            layout,
            announced: Vec::new(),
            asking: None,
            serving_refused: None,
            messages: 0,
            busy_answers: 0,
            cross_bytes: 0,
            first_copy: 0,
            sources_dead: false,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp(self.fabric.now / NANOS_PER_MS)
    }

    pub(super) fn pieces(&self) -> usize {
        self.setup.pieces()
    }

    pub(super) fn piece_bytes(&self, piece: usize) -> u64 {
        self.layout.bytes_of(piece)
    }

    /// A node begins: it announces itself and fetches, or holds.
    pub(super) fn start(&mut self, node: usize) {
        if self.announced.len() < KEPT_HOLDERS {
            self.announced.push(node);
        } else {
            let at = self.dice.index(KEPT_HOLDERS);
            if self.hosts[self.announced[at]].role != Role::Source {
                self.announced[at] = node;
            }
        }
        self.hosts[node].marks.started = self.fabric.now;
        let size = self.setup.blob;
        let sources = (0..self.setup.sources).map(|source| self.hosts[source].contact.id).collect();
        let sources: Vec<_> =
            if self.hosts[node].role == Role::Source { sources } else { Vec::new() };
        for layer in 0..self.setup.layers {
            let blob = key_of(layer);
            let input = if self.hosts[node].role == Role::Puller {
                let (group, class) = (GroupId(1), Class::Pull);
                Input::Fetch { blob, size, group, class, wanted: Wanted::All, have: Vec::new() }
            } else {
                Input::Hold { blob, size, sources: sources.clone() }
            };
            self.input(node, input);
        }
    }

    /// Sees to it that the core is called at its deadline.
    pub(super) fn set_alarm(&mut self, node: usize) {
        let Some(at) = self.hosts[node].core.next_deadline() else { return };
        let at = at.0 * NANOS_PER_MS;
        let host = &mut self.hosts[node];
        if at < host.wake_at {
            host.wake_at = at;
            let wait = at.saturating_sub(self.fabric.now).max(1_000);
            self.fabric.later(node, wait, Mail::Wake { at });
        }
    }

    /// Lets the client of a node read on, and notes when it got how far.
    pub(super) fn read_on(&mut self, node: usize, layer: usize) {
        let now = self.fabric.now;
        let total = self.pieces() * self.setup.layers;
        let host = &mut self.hosts[node];
        host.copies[layer].read_on();
        let mut read = 0;
        for copy in &host.copies {
            read += copy.read;
            if copy.read < copy.have.len() {
                break;
            }
        }
        if 10 * read >= total {
            host.marks.tenth.get_or_insert(now);
        }
        if 2 * read >= total {
            host.marks.half.get_or_insert(now);
        }
    }

    pub(super) fn completed(&mut self, node: usize) {
        let now = self.fabric.now;
        let layers = self.setup.layers;
        let host = &mut self.hosts[node];
        host.complete += 1;
        if host.complete == layers && host.marks.done.is_none() {
            host.marks.done = Some(now);
            self.waiting -= 1;
        }
    }

    pub(super) fn kill_some(&mut self, part: f64) {
        let of_role = |node: &usize| self.hosts[*node].role == Role::Puller;
        let mut pullers: Vec<usize> = (0..self.hosts.len()).filter(of_role).collect();
        let count = (pullers.len() as f64 * part).round() as usize;
        self.dice.choose(&mut pullers, count);
        pullers.truncate(count);
        pullers.into_iter().for_each(|node| self.kill(node));
    }

    pub(super) fn kill_sources_that_gave_enough(&mut self, node: usize) {
        if self.sources_dead || self.hosts[node].role != Role::Source {
            return;
        }
        let sources = 0..self.setup.sources;
        let sent: u64 = sources.clone().map(|source| self.fabric.sent(source)).sum();
        if self.first_copy == 0 && sent >= self.setup.bytes() {
            self.first_copy = self.fabric.now;
        }
        let Some(death) = self.setup.kill_source else { return };
        if sent as f64 >= death.copies * self.setup.bytes() as f64 {
            self.sources_dead = true;
            sources.for_each(|source| self.kill(source));
        }
    }

    fn kill(&mut self, node: usize) {
        self.fabric.kill(node);
        let host = &mut self.hosts[node];
        if host.role == Role::Puller && host.marks.done.is_none() {
            self.waiting -= 1;
        }
        self.announced.retain(|other| *other != node);
        let uploads = std::mem::take(&mut self.hosts[node].uploads);
        for (_, transfer) in uploads.into_values() {
            self.fabric.break_off(transfer);
        }
        for other in 0..self.hosts.len() {
            if !self.fabric.is_dead(other) {
                self.forget_dead(other, node);
            }
        }
    }

    /// A living node sees its connections to a dead one break.
    fn forget_dead(&mut self, other: usize, dead: usize) {
        let host = &mut self.hosts[other];
        let asks = host.asks.iter().filter(|(_, server)| **server == dead);
        let asks: Vec<AskId> = asks.map(|(ask, _)| *ask).collect();
        let uploads: Vec<_> = host.uploads.keys().filter(|key| key.0 == dead).copied().collect();
        let broken: Vec<_> = uploads.iter().filter_map(|key| host.uploads.remove(key)).collect();
        for ask in asks {
            self.fabric.message(other, Mail::Broken { ask });
        }
        for (upload, transfer) in broken {
            self.fabric.break_off(transfer);
            self.input(other, Input::Uploaded { upload, whole: false });
        }
    }
}

impl Host {
    fn new(setup: &SwarmSetup, dice: &mut Dice, number: usize, role: Role) -> Self {
        let id = id_of(number, dice.bytes());
        let address = [10, (number >> 16) as u8, (number >> 8) as u8, number as u8];
        let zone = match setup.zones {
            0 | 1 => String::new(),
            zones => format!("z{}", number % zones),
        };
        let contact = Arc::new(Contact { id, addrs: vec![(address, 5_001).into()], zone });
        let pieces = setup.pieces();
        Self {
            role,
            core: Swarm::new(setup.core.clone(), Arc::clone(&contact), dice.number()),
            contact,
            copies: (0..setup.layers).map(|_| Copy::new(pieces)).collect(),
            doubts: vec![None; setup.layers],
            signers: BTreeMap::new(),
            marks: Marks::default(),
            complete: 0,
            asks: BTreeMap::new(),
            uploads: BTreeMap::new(),
            next_upload: 0,
            wake_at: u64::MAX,
            useful: 0,
            strikes: 0,
        }
    }
}
