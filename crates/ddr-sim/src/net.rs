//! The network: cores, messages between them, and time.

mod deliver;
mod setup;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ddr_proto::kad::{CallId, Input, Kad, OpId, RequestId};
use ddr_proto::wire::{Contact, Request, Response};
use ddr_proto::{NodeId, Timestamp};

use crate::attack::Adversary;
use crate::config::SimConfig;
use crate::dice::Dice;
use crate::identity::{self, Secret};
use crate::latency::Micros;
use crate::ops::{NO_OP, Ops, Tag};
use crate::queue::Queue;
use crate::ring::Ring;
use crate::transcript::Transcript;

/// Unix milliseconds at which every simulation begins.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// What is on its way.
#[derive(Debug)]
pub(crate) enum Event {
    Request {
        from: u32,
        to: u32,
        call: CallId,
        tag: Tag,
        request: Request,
    },
    Response {
        from: u32,
        to: u32,
        call: CallId,
        tag: Tag,
        response: Response,
    },
    Failed {
        to: u32,
        call: CallId,
    },
    Wake {
        node: u32,
    },
    Probe {
        from: u32,
        to: u32,
    },
    Probed {
        to: u32,
        node: u32,
    },
    /// The scenario's own steps.
    Step(Step),
}

/// What the scenario does to the network.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Step {
    /// The holder of a key publishes it.
    Provide { key: usize },
    /// A random honest node looks something up.
    Lookup,
    /// A node found holders, and all of them proved false: it looks again, harder.
    LookHarder { op: OpId },
    /// A node crashes, another joins.
    Replace { node: u32 },
    /// A node joins through three others.
    Join { node: u32 },
    /// An adversarial identity makes itself known.
    Announce { node: u32 },
}

/// One node.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) contact: Arc<Contact>,
    pub(crate) secret: Secret,
    pub(crate) adversary: bool,
    pub(crate) up: bool,
    pub(crate) dialable: bool,
    /// Whether calls to it fail at once when it is down.
    pub(crate) refuses: bool,
    pub(crate) region: u8,
    pub(crate) kad: Option<Box<Kad>>,
    /// Bytes of its calls and of the answers to them.
    pub(crate) caused_bytes: u64,
    /// When its core is called back; `Micros::MAX` means never.
    wake: Micros,
}

/// Messages and bytes that were sent.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// All nodes and what is on its way between them.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) cfg: SimConfig,
    pub(crate) now: Micros,
    pub(crate) members: Vec<Member>,
    pub(crate) queue: Queue<Event>,
    pub(crate) ops: Ops,
    pub(crate) adversary: Adversary,
    /// Honest nodes that are up and can be dialled.
    pub(crate) honest: Ring,
    pub(crate) traffic: Traffic,
    pub(crate) transcript: Transcript,
    /// Misbehaviour that honest nodes reported.
    pub(crate) reports: u64,
    pub(crate) dice: Dice,
    /// Whose answer is being taken in.
    answering: Option<u32>,
    /// While the network comes about, the adversary's nodes behave.
    joining: bool,
    /// Identities that share a host with another.
    shared: BTreeMap<SocketAddr, u32>,
}

impl Net {
    /// The simulated time as the cores see it.
    pub(crate) const fn timestamp(&self) -> Timestamp {
        Timestamp(START_MS + self.now / 1_000)
    }

    pub(crate) fn member(&self, node: u32) -> &Member {
        &self.members[node as usize]
    }

    pub(crate) fn at(&mut self, delay: Micros, step: Step) {
        self.queue.push(self.now + delay, Event::Step(step));
    }

    /// A random honest node that is up and can be dialled.
    pub(crate) fn random_honest(&mut self) -> Option<u32> {
        let place = self.dice.index(self.honest.len());
        self.honest.get(place).map(|(_, node)| node)
    }

    /// Adds a node without a core.
    pub(crate) fn add(&mut self, secret: Secret, adversary: bool, addr: SocketAddr) -> u32 {
        let node = self.members.len() as u32;
        let region = self.cfg.latency.region(&mut self.dice);
        let dialable = adversary || !self.dice.hits(self.cfg.nat);
        let zone = self.cfg.latency.zone(region);
        let contact = identity::contact(secret.signer().node_id(), addr, zone);
        if identity::host_of(&addr) != Some((node, true)) {
            self.shared.insert(addr, node);
        }
        let id = contact.id;
        let member = Member {
            contact,
            secret,
            adversary,
            up: true,
            dialable,
            refuses: self.dice.hits(0.5),
            region,
            kad: None,
            caused_bytes: 0,
            wake: Micros::MAX,
        };
        self.members.push(member);
        if adversary {
            self.adversary.ring.insert(id, node);
        } else if dialable {
            self.honest.insert(id, node);
        }
        node
    }

    /// Gives a node its core.
    pub(crate) fn start_core(&mut self, node: u32) {
        let seed = self.dice.number();
        let member = &mut self.members[node as usize];
        let own = Contact::clone(&member.contact);
        let kad = Kad::new(self.cfg.kad.clone(), own, member.secret.signer(), seed);
        member.kad = Some(Box::new(kad));
    }

    /// The node crashes.
    pub(crate) fn crash(&mut self, node: u32) {
        let member = &mut self.members[node as usize];
        (member.up, member.kad, member.wake) = (false, None, Micros::MAX);
        let id = member.contact.id;
        self.honest.remove(id, node);
    }

    /// Hands an input to a node's core and carries out what it wants.
    pub(crate) fn input(&mut self, node: u32, input: Input, from_op: Tag) {
        // The core is out of its place meanwhile: nothing that is carried out here reaches it.
        let Some(mut kad) = self.members[node as usize].kad.take() else {
            return;
        };
        kad.handle(self.timestamp(), input);
        while let Some(output) = kad.poll_output() {
            self.carry_out(node, output, from_op);
        }
        let deadline = kad.next_deadline();
        self.members[node as usize].kad = Some(kad);
        self.plan_wake(node, deadline);
    }

    /// Sees to it that a core is called back in time; too early does no harm.
    pub(crate) fn plan_wake(&mut self, node: u32, deadline: Option<Timestamp>) {
        let Some(deadline) = deadline else {
            return;
        };
        let this_ms = self.now / 1_000;
        let at_ms = deadline.0.saturating_sub(START_MS).max(this_ms + 1);
        let (at, member) = (at_ms.saturating_mul(1_000), &mut self.members[node as usize]);
        if at < member.wake {
            member.wake = at;
            self.queue.push(at, Event::Wake { node });
        }
    }

    /// Runs everything until `end`, or until nothing is left to do.
    pub(crate) fn run_until(&mut self, end: Micros, mut step: impl FnMut(&mut Self, Step)) {
        while let Some((at, event)) = self.queue.pop(end) {
            self.now = at;
            match event {
                Event::Step(what) => step(self, what),
                Event::Wake { node } => self.wake(node),
                event => self.deliver(event),
            }
        }
        self.now = end;
    }

    fn wake(&mut self, node: u32) {
        let member = &mut self.members[node as usize];
        if member.wake != self.now {
            return; // planned anew, or down
        }
        member.wake = Micros::MAX;
        let due = member.kad.as_ref().and_then(|kad| kad.next_deadline());
        if due.is_some_and(|due| due <= self.timestamp()) {
            self.input(node, Input::Tick, NO_OP);
        } else {
            self.plan_wake(node, due);
        }
    }

    /// The node that listens at a contact's first address, if it is the one that is meant.
    fn listener(&self, contact: &Contact) -> Option<u32> {
        let node = self.at_addr(contact.addrs.first()?)?;
        (self.member(node).contact.id == contact.id).then_some(node)
    }

    fn at_addr(&self, addr: &SocketAddr) -> Option<u32> {
        let (host, own) = identity::host_of(addr)?;
        let node = if own { host } else { *self.shared.get(addr)? };
        ((node as usize) < self.members.len()).then_some(node)
    }

    /// The number of the operation of a request, hidden in its ID: calls are answered at once.
    const fn request_id(from: u32, call: CallId) -> RequestId {
        RequestId((from as u64) << 40 | call.0 & ((1 << 40) - 1))
    }

    const fn asker(id: RequestId) -> (u32, CallId) {
        ((id.0 >> 40) as u32, CallId(id.0 & ((1 << 40) - 1)))
    }

    pub(crate) fn op_input(&mut self, node: u32, op: OpId, input: Input) {
        self.input(node, input, Some(op));
    }

    pub(crate) fn id_of(&self, node: u32) -> NodeId {
        self.member(node).contact.id
    }
}
