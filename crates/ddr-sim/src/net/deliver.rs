//! Carrying out what cores want, and delivering what arrives.

use ddr_proto::RequestEnvelope;
use ddr_proto::kad::{CallId, Input, LookupKind, Output};
use ddr_proto::wire::{Contact, ProviderRecord, Request, Response};

use super::{Event, Net, START_MS, Step};
use crate::attack::Reaction;
use crate::latency::Micros;
use crate::ops::{NO_OP, Tag};
use crate::size::{OVERHEAD_BYTES, request_bytes, response_bytes};

/// How long the false record of an adversary claims to hold.
const CLAIM_MS: u64 = 3_600_000;

impl Net {
    /// Carries out one output of a node's core, made while an input of operation `from_op` was
    /// taken in.
    pub(super) fn carry_out(&mut self, node: u32, output: Output, from_op: Tag) {
        self.transcript.note(self.now, node, &output);
        match output {
            Output::Call { call, to, request } => self.send_call(node, call, &to, request),
            Output::Probe { addr } => {
                if let Some(to) = self.at_addr(&addr) {
                    self.count(node, OVERHEAD_BYTES);
                    let delay = self.one_way(node, to);
                    self.queue.push(self.now + delay, Event::Probe { from: node, to });
                }
            }
            Output::Reply { id, response } => {
                let (to, call) = Self::asker(id);
                let answer = Event::Response { from: node, to, call, tag: from_op, response };
                self.send_answer(answer, 0);
            }
            Output::Providers { op, records } => {
                let by = if from_op == Some(op) { self.answering } else { None };
                for record in &records {
                    self.ops.on_holder(op, &record.provider.id, by, self.now);
                }
            }
            Output::LookupDone { op, closest, providers } => {
                for record in &providers {
                    // Reported before unless this node kept it itself.
                    self.ops.on_holder(op, &record.provider.id, None, self.now);
                }
                if !providers.is_empty() && self.ops.on_false_holders(op) {
                    let round_trip = 2 * self.one_way(node, node);
                    return self.at(round_trip, Step::LookHarder { op });
                }
                let closest: Vec<_> =
                    closest.iter().map(|contact| (contact.id, self.listener(contact))).collect();
                self.ops.on_done(op, &closest, self.now);
            }
            Output::Provided { stored, .. } => self.ops.stored.add(stored as u64),
            Output::Misbehaviour { .. } => self.reports += 1,
        }
    }

    fn send_call(&mut self, node: u32, call: CallId, to: &Contact, request: Request) {
        let listener = self.listener(to);
        let tag = match &request {
            Request::FindNode { target } => {
                self.ops.on_call(node, LookupKind::Nodes, *target, listener)
            }
            Request::FindProviders { key } => {
                self.ops.on_call(node, LookupKind::Providers, *key, listener)
            }
            _ => NO_OP,
        };
        let bytes = request_bytes(&self.member(node).contact, &request);
        self.count(node, bytes + OVERHEAD_BYTES);
        let Some(listener) = listener else {
            return; // nobody there, or somebody else: no connection comes about
        };
        if !self.is_lost() {
            let delay = self.one_way(node, listener);
            let event = Event::Request { from: node, to: listener, call, tag, request };
            self.queue.push(self.now + delay, event);
        }
    }

    /// Sends an answer, which its sender has held back so long.
    fn send_answer(&mut self, answer: Event, held_back: Micros) {
        let Event::Response { from, to, response, .. } = &answer else {
            return;
        };
        let (from, to) = (*from, *to);
        self.count(to, response_bytes(response) + OVERHEAD_BYTES);
        if !self.is_lost() {
            let delay = self.one_way(from, to) + held_back;
            self.queue.push(self.now + delay, answer);
        }
    }

    pub(super) fn deliver(&mut self, event: Event) {
        match event {
            Event::Request { from, to, call, tag, request } => {
                self.on_request(from, to, call, tag, request);
            }
            Event::Response { from, to, call, tag, response } => {
                self.note_named(tag, from, &response);
                self.answering = Some(from);
                self.input(to, Input::Response { call, response }, tag);
                self.answering = None;
            }
            Event::Failed { to, call } => self.input(to, Input::Failed { call }, NO_OP),
            Event::Probe { from, to } => self.on_probe(from, to),
            Event::Probed { to, node } => {
                let contact = Contact::clone(&self.member(node).contact);
                self.input(to, Input::Probed { contact }, NO_OP);
            }
            Event::Wake { .. } | Event::Step(_) => {}
        }
    }

    fn on_request(&mut self, from: u32, to: u32, call: CallId, tag: Tag, request: Request) {
        let member = self.member(to);
        if !member.up || !member.dialable {
            if !member.up && member.refuses {
                let delay = self.one_way(to, from);
                self.queue.push(self.now + delay, Event::Failed { to: from, call });
            }
            return;
        }
        let reaction = if member.adversary && !self.joining {
            self.react(to, &request)
        } else {
            Reaction::Honest
        };
        match reaction {
            Reaction::Honest => {
                let sender = Contact::clone(&self.member(from).contact);
                let envelope = RequestEnvelope { sender, puzzle: [0; 32], body: request };
                let (id, from) = (Self::request_id(from, call), self.id_of(from));
                self.input(to, Input::Request { id, from, envelope }, tag);
            }
            Reaction::Silence => {}
            Reaction::Answer(response, held_back) => {
                let answer = Event::Response { from: to, to: from, call, tag, response: *response };
                self.send_answer(answer, held_back);
            }
        }
    }

    fn react(&mut self, node: u32, request: &Request) -> Reaction {
        let now_ms = START_MS + self.now / 1_000;
        let members = &self.members;
        let own = &members[node as usize];
        let contact_of = |node: u32| Contact::clone(&members[node as usize].contact);
        let sign = |key: &_| {
            let expires_ms = now_ms + CLAIM_MS;
            let signer = own.secret.signer();
            ProviderRecord::sign(&signer, &own.contact, *key, true, now_ms, expires_ms)
        };
        self.adversary.react(request, contact_of, sign)
    }

    fn on_probe(&mut self, from: u32, to: u32) {
        if !self.member(to).up || !self.member(to).dialable {
            return;
        }
        self.count(from, OVERHEAD_BYTES);
        let delay = self.one_way(to, from);
        self.queue.push(self.now + delay, Event::Probed { to: from, node: to });
        let contact = Contact::clone(&self.member(from).contact);
        self.input(to, Input::Heard { contact }, NO_OP);
    }

    fn note_named(&mut self, tag: Tag, from: u32, response: &Response) {
        let (Some(_), Response::Nodes { nodes } | Response::Providers { nodes, .. }) =
            (tag, response)
        else {
            return;
        };
        let named: Vec<u32> = nodes.iter().filter_map(|contact| self.listener(contact)).collect();
        self.ops.on_named(tag, from, named.into_iter());
    }

    fn one_way(&mut self, from: u32, to: u32) -> Micros {
        let (from, to) = (self.member(from).region, self.member(to).region);
        self.cfg.latency.one_way(from, to, &mut self.dice)
    }

    fn is_lost(&mut self) -> bool {
        let loss = self.cfg.loss;
        self.dice.hits(loss)
    }

    fn count(&mut self, cause: u32, bytes: u64) {
        self.traffic.messages += 1;
        self.traffic.bytes += bytes;
        self.members[cause as usize].caused_bytes += bytes;
    }
}
