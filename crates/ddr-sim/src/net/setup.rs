//! How the network comes about: who is in it, and what each node knows at first.

use std::collections::BTreeMap;
use std::sync::Arc;

use ddr_proto::Key;
use ddr_proto::id::ID_BITS;
use ddr_proto::kad::Input;
use ddr_proto::wire::Contact;

use super::{Net, Step, Traffic};
use crate::attack::{Adversary, Attack};
use crate::config::{Setup, SimConfig};
use crate::dice::Dice;
use crate::identity::{self, Secret};
use crate::latency::Micros;
use crate::ops::{NO_OP, Ops};
use crate::queue::Queue;
use crate::ring::Ring;
use crate::transcript::Transcript;

/// Bootstrap addresses of a node that joins.
const BOOTSTRAP: usize = 3;
/// Joins of a whole network: this many at the same time, in waves.
const WAVE: usize = 50;
/// Time between two waves.
const WAVE_US: Micros = 200_000;
/// A Sybil identity makes itself known to this many of the nodes closest to it, and as many others.
const ANNOUNCED_TO: usize = 20;

impl Net {
    /// A network as the settings want it. `targets` are the keys that the adversary attacks.
    pub(crate) fn build(cfg: SimConfig, targets: &[Key]) -> Self {
        let adversary = Adversary {
            attack: cfg.attack,
            ring: Ring::default(),
            k: cfg.kad.k,
            dice: Dice::new(cfg.seed, 2),
            targets: Vec::new(),
        };
        let mut net = Self {
            dice: Dice::new(cfg.seed, 1),
            cfg,
            now: 0,
            members: Vec::new(),
            queue: Queue::default(),
            ops: Ops::default(),
            adversary,
            honest: Ring::default(),
            traffic: Traffic::default(),
            transcript: Transcript::default(),
            reports: 0,
            answering: None,
            joining: false,
            shared: BTreeMap::new(),
        };
        net.populate(targets.first());
        match net.cfg.setup {
            Setup::Settled => net.settle(),
            Setup::Join => net.join_in_waves(),
        }
        if net.cfg.attack == Attack::Sybil {
            net.flood_with_identities();
        }
        net
    }

    fn populate(&mut self, target: Option<&Key>) {
        let (nodes, bad) = (self.cfg.nodes, self.cfg.adversaries());
        let mut is_bad = vec![false; nodes];
        self.dice.sample(nodes, bad).into_iter().for_each(|node| is_bad[node] = true);
        let mut keys = Dice::new(self.cfg.seed, 3);
        for (node, bad) in is_bad.into_iter().enumerate() {
            let grinds = bad && self.cfg.attack == Attack::Eclipse;
            let secret = match target {
                Some(target) if grinds => Secret::ground(&mut keys, target, self.cfg.grind),
                _ => Secret::random(&mut keys),
            };
            self.add(secret, bad, identity::host_addr(node as u32));
        }
    }

    /// Gives every node the table that a settled network would have given it.
    fn settle(&mut self) {
        let members = self.members.iter().enumerate();
        let dialable = members.filter(|(_, member)| member.dialable);
        let all: Ring = dialable.map(|(node, m)| (m.contact.id, node as u32)).collect();
        for node in 0..self.members.len() as u32 {
            let member = self.member(node);
            if member.adversary && !self.cfg.attack.acts_honest() {
                continue;
            }
            let peers = self.settled_table(node, &all);
            self.start_core(node);
            let now = self.timestamp();
            if let Some(kad) = &mut self.members[node as usize].kad {
                kad.resume(now, peers);
                let deadline = kad.next_deadline();
                self.plan_wake(node, deadline);
            }
        }
    }

    /// The siblings of a node, then from each bucket k random nodes, or all there are; nearest
    /// first.
    fn settled_table(&mut self, node: u32, all: &Ring) -> Vec<Arc<Contact>> {
        let own = self.id_of(node).to_key();
        let mut nodes = all.closest(&own, self.cfg.kad.siblings, |other| other != node);
        let (mut bits, mut deeper) = (0, all.len());
        // The own place is in the last bucket of all, which is never reached.
        while deeper > 1 && bits < ID_BITS {
            let range = all.bucket(&own, bits);
            let places = self.dice.sample(range.len(), self.cfg.kad.k);
            let chosen = places.into_iter().filter_map(|place| all.get(range.start + place));
            nodes.extend(chosen.map(|(_, other)| other));
            (bits, deeper) = (bits + 1, deeper - range.len());
        }
        nodes.sort_by_key(|other| self.id_of(*other).distance(&own));
        nodes.dedup();
        nodes.iter().map(|other| Arc::clone(&self.member(*other).contact)).collect()
    }

    /// Everybody joins with an honest core; those that the adversary does not need are dropped
    /// when all have settled.
    fn join_in_waves(&mut self) {
        for node in 0..self.members.len() {
            let wave = (node / WAVE) as Micros;
            self.at(wave * WAVE_US, Step::Join { node: node as u32 });
        }
        let waves = self.members.len().div_ceil(WAVE) as Micros;
        self.joining = true;
        self.run_until(waves * WAVE_US + 60_000_000, |net, step| {
            if let Step::Join { node } = step {
                net.join(node, node);
            }
        });
        self.joining = false;
        if !self.cfg.attack.acts_honest() {
            let bad = self.members.iter_mut().filter(|member| member.adversary);
            bad.for_each(|member| member.kad = None);
        }
        self.traffic = Traffic::default();
    }

    /// Starts a node that bootstraps from a few of the nodes below `known`.
    pub(crate) fn join(&mut self, node: u32, known: u32) {
        self.start_core(node);
        let mut addrs = Vec::new();
        for _ in 0..4 * BOOTSTRAP {
            let other = self.dice.index(known as usize) as u32;
            let member = self.member(other);
            let usable = member.up && member.dialable && other != node;
            if usable && addrs.len() < BOOTSTRAP && known > 0 {
                addrs.push(member.contact.addrs[0]);
            }
        }
        self.input(node, Input::Bootstrap { addrs }, NO_OP);
    }

    /// The adversary's hosts come up with all the identities that their work has bought.
    fn flood_with_identities(&mut self) {
        let per_host = self.cfg.sybil.identities_per_host();
        let bad = self.members.iter().enumerate().filter(|(_, member)| member.adversary);
        let hosts: Vec<u32> = bad.map(|(host, _)| host as u32).collect();
        let mut keys = Dice::new(self.cfg.seed, 4);
        for (host, number) in hosts.iter().flat_map(|host| (0..per_host).map(move |n| (host, n))) {
            let addr = identity::shared_addr(*host, number as u16);
            let node = self.add(Secret::random(&mut keys), true, addr);
            let delay = self.dice.below(5_000_000);
            self.at(delay, Step::Announce { node });
        }
    }

    /// An adversarial identity pings the honest nodes closest to it, and others, so that they look
    /// at it and take it in if they have room.
    pub(crate) fn announce(&mut self, node: u32) {
        let own = self.id_of(node).to_key();
        let mut told = self.honest.closest(&own, ANNOUNCED_TO, |_| true);
        let others = self.dice.sample(self.honest.len(), ANNOUNCED_TO);
        told.extend(others.into_iter().filter_map(|place| self.honest.get(place)).map(|e| e.1));
        for to in told {
            let contact = Contact::clone(&self.member(node).contact);
            self.input(to, Input::Heard { contact }, NO_OP);
        }
    }
}
