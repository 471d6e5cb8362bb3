//! A mesh after Kraken, to set the core beside: large pieces, few connections, no super-seeding.
//!
//! Parameters as read in its source and listed in `docs/simulator.md`: pieces of 4 MiB, 10 connections,
//! 3 requests to each peer and 5 to a source, rarest first with random ties, endgame at 3 pieces.

use std::collections::BTreeMap;

use ddr_proto::swarm::{Bits, Choice};

use super::config::SwarmSetup;
use super::copy::Marks;
use super::fabric::{Fabric, Step, TransferId};
use super::report::{Counts, SwarmReport};
use crate::dice::Dice;

const QUANTUM: u64 = 256 << 10;

/// The rules of the mesh.
#[derive(Copy, Clone, Debug)]
pub struct MeshRules {
    /// Bytes of a piece.
    pub piece_bytes: u64,
    /// Connections of each node.
    pub degree: usize,
    /// Requests to one peer at a time.
    pub pipeline: usize,
    /// Requests to one source at a time.
    pub source_pipeline: usize,
    /// With so few pieces missing, each is asked of everybody.
    pub endgame: usize,
}

impl Default for MeshRules {
    fn default() -> Self {
        Self { piece_bytes: 4 << 20, degree: 10, pipeline: 3, source_pipeline: 5, endgame: 3 }
    }
}

#[derive(Debug)]
struct MeshNode {
    have: Bits,
    flying: Bits,
    links: BTreeMap<usize, (Bits, usize)>,
    rarity: Vec<u8>,
    marks: Marks,
    useful: u64,
    read: usize,
}

enum Mail {
    Start,
    Have(usize, usize),
    Ask(usize, usize),
    Cancel(usize, usize),
}

struct Mesh {
    setup: SwarmSetup,
    rules: MeshRules,
    pieces: usize,
    fabric: Fabric<Mail, usize>,
    /// Transfers that run, by sender, receiver and piece.
    running: BTreeMap<(usize, usize, usize), TransferId>,
    nodes: Vec<MeshNode>,
    dice: Dice,
    waiting: usize,
}

/// Runs the same content through a mesh.
#[must_use]
pub fn run_mesh(setup: &SwarmSetup, rules: MeshRules) -> SwarmReport {
    let mut mesh = Mesh::new(setup, rules);
    let end = setup.nanos(50.0) + 1;
    while mesh.waiting > 0 {
        let Some(step) = mesh.fabric.step(end) else { break };
        match step {
            Step::Message(node, Mail::Start) => mesh.fill(node),
            Step::Message(node, Mail::Have(from, piece)) => mesh.heard(node, from, piece),
            Step::Message(node, Mail::Ask(from, piece)) => mesh.serve(node, from, piece),
            Step::Message(node, Mail::Cancel(from, piece)) => mesh.cancelled(node, from, piece),
            Step::Sent(_) => {}
            Step::Arrived(transfer) => mesh.arrived(transfer.from, transfer.to, transfer.tag),
        }
    }
    mesh.report()
}

impl Mesh {
    fn new(setup: &SwarmSetup, rules: MeshRules) -> Self {
        let total = setup.nodes + setup.sources;
        let pieces = setup.bytes().div_ceil(rules.piece_bytes).max(1) as usize;
        let mut dice = Dice::new(setup.seed, 1);
        let rates = vec![setup.link_mbit as f64; total];
        let quantum = QUANTUM.min(rules.piece_bytes);
        let mut fabric = Fabric::new(&rates, setup.latency_us * 1_000, quantum);
        let node = |number: usize| MeshNode {
            have: if number < setup.sources { Bits::full(pieces) } else { Bits::new(pieces) },
            flying: Bits::new(pieces),
            links: BTreeMap::new(),
            rarity: vec![0; pieces],
            marks: Marks::default(),
            useful: 0,
            read: 0,
        };
        let mut nodes: Vec<MeshNode> = (0..total).map(node).collect();
        for number in 0..total {
            // Half of the connections are made by each end.
            for other in dice.sample(total, rules.degree / 2 + 1) {
                if other != number {
                    let (a, b) = (nodes[number].have.clone(), nodes[other].have.clone());
                    nodes[number].links.insert(other, (b, 0));
                    nodes[other].links.insert(number, (a, 0));
                }
            }
            let wait = dice.below(setup.nanos(setup.spread).max(1));
            fabric.later(number, wait, Mail::Start);
        }
        let setup = setup.clone();
        let running = BTreeMap::new();
        Self { waiting: setup.nodes, setup, rules, pieces, fabric, running, nodes, dice }
    }

    fn bytes_of(&self, piece: usize) -> u64 {
        let start = piece as u64 * self.rules.piece_bytes;
        self.rules.piece_bytes.min(self.setup.bytes() - start)
    }

    /// Fills the pipelines of a node, in random order of its peers.
    fn fill(&mut self, number: usize) {
        let mut peers: Vec<usize> = self.nodes[number].links.keys().copied().collect();
        let count = peers.len();
        self.dice.choose(&mut peers, count);
        for peer in peers {
            let source = peer < self.setup.sources;
            let limit = if source { self.rules.source_pipeline } else { self.rules.pipeline };
            while self.nodes[number].links[&peer].1 < limit && self.ask(number, peer) {}
        }
    }

    /// Asks a peer for its rarest piece; false when it has nothing of use.
    fn ask(&mut self, number: usize, peer: usize) -> bool {
        let salt = self.dice.number();
        let all = Bits::full(self.pieces);
        let none = Bits::new(self.pieces);
        let node = &mut self.nodes[number];
        let endgame = self.pieces - node.have.count() <= self.rules.endgame;
        let (theirs, _) = &node.links[&peer];
        let choice = Choice {
            theirs,
            have: &node.have,
            flying: if endgame { &none } else { &node.flying },
            wanted: &all,
            only: None,
            rarity: &node.rarity,
        };
        let Some(pick) = choice.pick(0..self.pieces, salt) else { return false };
        node.flying.insert(pick.piece);
        if let Some(link) = node.links.get_mut(&peer) {
            link.1 += 1;
        }
        self.fabric.message(peer, Mail::Ask(number, pick.piece));
        true
    }

    fn serve(&mut self, number: usize, from: usize, piece: usize) {
        let bytes = self.bytes_of(piece);
        let transfer = self.fabric.send(number, from, bytes, piece);
        self.running.insert((number, from, piece), transfer);
    }

    /// Who asked has the piece from another by now.
    fn cancelled(&mut self, number: usize, from: usize, piece: usize) {
        if let Some(transfer) = self.running.remove(&(number, from, piece))
            && self.fabric.break_off(transfer).is_some()
            && let Some(link) = self.nodes[from].links.get_mut(&number)
        {
            link.1 -= 1;
        }
    }

    fn heard(&mut self, number: usize, from: usize, piece: usize) {
        let node = &mut self.nodes[number];
        if let Some((have, _)) = node.links.get_mut(&from)
            && have.insert(piece)
        {
            node.rarity[piece] += 1;
        }
        if number >= self.setup.sources && !node.have.is_full() {
            self.fill(number);
        }
    }

    fn arrived(&mut self, from: usize, number: usize, piece: usize) {
        let (now, bytes, pieces) = (self.fabric.now, self.bytes_of(piece), self.pieces);
        self.running.remove(&(from, number, piece));
        let node = &mut self.nodes[number];
        if let Some(link) = node.links.get_mut(&from) {
            link.1 -= 1;
        }
        node.flying.remove(piece);
        if node.have.insert(piece) {
            node.useful += bytes;
            node.read = node.have.first_missing(&Bits::full(pieces), node.read).unwrap_or(pieces);
            if 10 * node.read >= pieces {
                node.marks.tenth.get_or_insert(now);
            }
            if 2 * node.read >= pieces {
                node.marks.half.get_or_insert(now);
            }
            let peers: Vec<usize> = node.links.keys().copied().collect();
            if node.have.is_full() {
                node.marks.done = Some(now);
                self.waiting -= 1;
            }
            let left = pieces - node.have.count();
            for peer in peers {
                self.fabric.message(peer, Mail::Have(number, piece));
                if left < self.rules.endgame {
                    self.fabric.message(peer, Mail::Cancel(number, piece));
                }
            }
        }
        if !self.nodes[number].have.is_full() {
            self.fill(number);
        }
    }

    fn report(&self) -> SwarmReport {
        let pullers = || self.nodes.iter().enumerate().skip(self.setup.sources);
        let marks: Vec<Marks> = pullers().map(|(_, node)| node.marks).collect();
        let counts = Counts {
            fast: marks.clone(),
            unfinished: marks.iter().filter(|marks| marks.done.is_none()).count(),
            marks,
            dead: 0,
            source_bytes: (0..self.setup.sources).map(|source| self.fabric.sent(source)).sum(),
            received: pullers().map(|(number, _)| self.fabric.received(number)).sum(),
            useful: pullers().map(|(_, node)| node.useful).sum(),
        };
        SwarmReport::new(&self.setup, self.pieces, "mesh", &counts)
    }
}
