//! What happens at a node when something reaches it, and what its core then wants done.

use std::sync::Arc;

use ddr_proto::swarm::{AskId, ClaimId, Class, Failure, Input, Output, Refusal, UploadId};

use super::fabric::Nanos;
use super::host::{Mail, Role, Tag, key_of, layer_of, number_of};
use super::lies::{Chain, Lie};
use super::run::{LOOKUP_NANOS, Net};

/// Head of a request's answer in bytes.
const HEAD_BYTES: u64 = 250;
/// Holders that a lookup gives.
const FOUND_HOLDERS: usize = 20;

impl Net {
    pub(super) fn deliver(&mut self, to: usize, mail: Mail) {
        match mail {
            Mail::Start => self.start(to),
            Mail::Wake { at } => self.wake(to, at),
            Mail::Said { from, message } => {
                let message = Arc::try_unwrap(message).unwrap_or_else(|shared| (*shared).clone());
                let from = Arc::clone(&self.hosts[from].contact);
                self.input(to, Input::Message { from, message });
            }
            Mail::Ask { from, ask, layer, piece } => self.asked(to, from, ask, layer, piece),
            Mail::Chosen { ask, piece } => self.input(to, Input::Chosen { ask, piece }),
            Mail::Refused { ask, refusal } => self.refused(to, ask, refusal),
            Mail::Cancel { from, ask } => self.cancelled(to, from, ask),
            Mail::AskChain { from, layer } => self.asked_chain(to, from, layer),
            Mail::NoChain { from, layer } => {
                let from = self.hosts[from].contact.id;
                self.input(to, Input::NoChain { blob: key_of(layer), from, wrong: false });
            }
            Mail::Lookup { layer } => self.looked_up(to, layer),
            Mail::Broken { ask } => {
                if self.hosts[to].asks.remove(&ask).is_some() {
                    self.input(to, Input::Failed { ask, failure: Failure::Broken });
                }
            }
            Mail::Gone { node } => {
                let node = self.hosts[node].contact.id;
                self.input(to, Input::Lost { node });
            }
            Mail::Kill { part } => self.kill_some(part),
        }
    }

    fn wake(&mut self, node: usize, at: Nanos) {
        // A later alarm that an earlier one has replaced.
        if self.hosts[node].wake_at == at {
            self.hosts[node].wake_at = u64::MAX;
            self.input(node, Input::Tick);
        }
    }

    /// Hands an input to a core and does what it wants done.
    pub(super) fn input(&mut self, node: usize, input: Input) {
        let now = self.now();
        self.hosts[node].core.handle(now, input);
        while let Some(output) = self.hosts[node].core.poll_output() {
            self.act(node, output);
        }
        self.set_alarm(node);
    }

    fn act(&mut self, node: usize, output: Output) {
        match output {
            Output::Ask { ask, node: server, blob, piece, class: _ } => {
                let (server, layer) = (number_of(&server), layer_of(&blob));
                self.hosts[node].asks.insert(ask, server);
                self.post(node, server, Mail::Ask { from: node, ask, layer, piece });
            }
            Output::Cancel { ask } => {
                if let Some(server) = self.hosts[node].asks.remove(&ask) {
                    self.post(node, server, Mail::Cancel { from: node, ask });
                }
            }
            Output::AskChain { blob, node: server } => {
                let (server, layer) = (number_of(&server), layer_of(&blob));
                self.post(node, server, Mail::AskChain { from: node, layer });
            }
            Output::UseChain { blob, claim, settled, .. } => {
                self.use_chain(node, layer_of(&blob), claim, settled);
            }
            Output::Doubt { blob, piece, other } => {
                let layer = layer_of(&blob);
                self.hosts[node].doubts[layer] = Some((piece, other));
                self.hosts[node].copies[layer].settled = false;
            }
            Output::Send { to, message } => {
                self.messages += 1;
                self.post(node, number_of(&to), Mail::Said { from: node, message });
            }
            Output::Serve { upload, blob, piece } => {
                self.serve(node, upload, layer_of(&blob), piece);
            }
            Output::Refuse { refusal, .. } => self.serving_refused = Some(refusal),
            Output::WantHolders { blob } => {
                let layer = layer_of(&blob);
                self.fabric.later(node, LOOKUP_NANOS, Mail::Lookup { layer });
            }
            Output::Struck { .. } => self.hosts[node].strikes += 1,
            Output::Complete { .. } => self.completed(node),
        }
    }

    /// Sends something to a node; if it is dead the sender hears of it.
    fn post(&mut self, from: usize, to: usize, mail: Mail) {
        let lost = self.dice.hits(self.setup.loss);
        if !lost && !self.fabric.is_dead(to) {
            return self.fabric.message(to, mail);
        }
        match mail {
            Mail::Ask { ask, .. } => self.fabric.message(from, Mail::Broken { ask }),
            Mail::Refused { ask, .. } => self.fabric.message(to, Mail::Broken { ask }),
            Mail::AskChain { layer, .. } => {
                self.fabric.message(from, Mail::NoChain { from: to, layer });
            }
            Mail::NoChain { .. } => self.fabric.message(to, mail),
            Mail::Said { .. } => self.fabric.message(from, Mail::Gone { node: to }),
            _ => {}
        }
        if !lost {
            self.fabric.message(from, Mail::Gone { node: to });
        }
    }

    /// How a node lies, if it does.
    fn lie_of(&self, node: usize) -> Option<Lie> {
        let lies = [Lie::Chain, Lie::Silence, Lie::Nothing, Lie::Bytes];
        let which = if self.setup.mixed_lies { node % lies.len() } else { 0 };
        (self.hosts[node].role == Role::Liar).then(|| lies[which])
    }

    /// A request for a piece has reached a node.
    fn asked(&mut self, node: usize, from: usize, ask: AskId, layer: usize, piece: Option<u32>) {
        if !self.hosts[from].asks.contains_key(&ask) {
            return;
        }
        match self.lie_of(node) {
            Some(Lie::Silence) => return,
            Some(Lie::Nothing) => {
                return self.post(node, from, Mail::Refused { ask, refusal: Refusal::NotHere });
            }
            Some(Lie::Chain | Lie::Bytes) | None => {}
        }
        self.asking = Some((from, ask, piece.is_none()));
        let upload = UploadId(self.hosts[node].next_upload);
        self.hosts[node].next_upload += 1;
        let id = self.hosts[from].contact.id;
        let blob = key_of(layer);
        self.input(node, Input::Request { upload, from: id, blob, piece, class: Class::Pull });
        self.asking = None;
        if let Some(refusal) = self.serving_refused.take() {
            self.busy_answers += u64::from(matches!(refusal, Refusal::Busy(_)));
            self.post(node, from, Mail::Refused { ask, refusal });
        }
    }

    fn refused(&mut self, node: usize, ask: AskId, refusal: Refusal) {
        if self.hosts[node].asks.remove(&ask).is_none() {
            return;
        }
        self.input(
            node,
            match refusal {
                Refusal::Busy(answer) => Input::Busy { ask, answer },
                Refusal::NotHere => Input::Failed { ask, failure: Failure::NotThere },
            },
        );
    }

    fn serve(&mut self, node: usize, upload: UploadId, layer: usize, piece: u32) {
        let Some((to, ask, chosen)) = self.asking else { return };
        if chosen {
            self.post(node, to, Mail::Chosen { ask, piece });
        }
        let host = &self.hosts[node];
        let load = u16::try_from(host.uploads.len()).unwrap_or(u16::MAX);
        let copy = &host.copies[layer];
        let made_by = match host.role {
            Role::Liar => Some(node),
            Role::Source => None,
            Role::Puller if copy.bad.has(piece as usize) => {
                copy.chain.and_then(|chain| Chain::from_id(chain).liar())
            }
            Role::Puller => None,
        };
        let bytes = HEAD_BYTES + self.piece_bytes(piece as usize);
        if self.hosts[node].contact.zone != self.hosts[to].contact.zone {
            self.cross_bytes += bytes;
        }
        let tag = Tag::Piece { ask, upload, layer, piece, load, made_by };
        let transfer = self.fabric.send(node, to, bytes, tag);
        self.hosts[node].uploads.insert((to, ask), (upload, transfer));
    }

    /// Who asked does not want it any more.
    fn cancelled(&mut self, node: usize, from: usize, ask: AskId) {
        if let Some((upload, transfer)) = self.hosts[node].uploads.remove(&(from, ask)) {
            self.fabric.break_off(transfer);
            self.input(node, Input::Uploaded { upload, whole: false });
        }
    }

    /// A transfer has left its sender.
    pub(super) fn sent(&mut self, from: usize, to: usize, tag: &Tag) {
        if let Tag::Piece { ask, upload, .. } = tag
            && self.hosts[from].uploads.remove(&(to, *ask)).is_some()
        {
            self.input(from, Input::Uploaded { upload: *upload, whole: true });
            self.kill_sources_that_gave_enough(from);
        }
    }

    /// A transfer is here.
    pub(super) fn arrived(&mut self, from: usize, to: usize, tag: Tag) {
        match tag {
            Tag::Piece { ask, layer, piece, load, made_by, .. } => {
                if self.dice.hits(self.setup.loss) {
                    self.deliver(to, Mail::Broken { ask });
                } else if self.hosts[to].asks.remove(&ask).is_some() {
                    self.check(to, ask, (layer, piece), load, made_by);
                }
            }
            Tag::Chain { layer, signer, chain } => {
                let (used, claim) = (self.hosts[to].copies[layer].chain, chain.id());
                let differs = used.and_then(|used| Chain::from_id(used).differs(chain));
                self.hosts[to].signers.entry((layer, claim)).or_insert(signer);
                let id = |node: usize| self.hosts[node].contact.id;
                let (from, signer, blob) = (id(from), id(signer), key_of(layer));
                self.input(to, Input::Chain { blob, from, signer, claim, differs });
            }
        }
    }

    /// Holds a piece against the chains that are believed.
    fn check(
        &mut self,
        node: usize,
        ask: AskId,
        (layer, piece): (usize, u32),
        load: u16,
        made_by: Option<usize>,
    ) {
        let host = &mut self.hosts[node];
        let copy = &mut host.copies[layer];
        let other = host.doubts[layer].filter(|doubt| doubt.0 == piece).map(|doubt| doubt.1);
        let passes = |id| Chain::from_id(id).passes(piece, made_by);
        let alone = copy.have.len() == 1 && made_by.is_none();
        let claim = copy.chain.or(alone.then(|| Chain::TRUE.id()));
        let Some(used) = claim else {
            return self.input(node, Input::Failed { ask, failure: Failure::Unchecked });
        };
        let Some(claim) = [Some(used), other].into_iter().flatten().find(|id| passes(*id)) else {
            return self.input(node, Input::PieceWrong { ask, piece });
        };
        if copy.have.insert(piece as usize) {
            host.useful += self.layout.bytes_of(piece as usize);
        }
        if made_by.is_some() {
            copy.bad.insert(piece as usize);
        }
        self.input(node, Input::PieceArrived { ask, piece, claim, load: Some(load) });
        self.read_on(node, layer);
    }

    fn asked_chain(&mut self, node: usize, from: usize, layer: usize) {
        let host = &self.hosts[node];
        let used = host.copies[layer].chain;
        let signed = match host.role {
            Role::Source => Some((node, Chain::TRUE)),
            Role::Liar if self.lie_of(node) == Some(Lie::Bytes) => Some((node, Chain::TRUE)),
            Role::Liar => {
                let chance = self.salt.rotate_left(node as u32 % 64);
                Some((node, Chain::of_liar(node, self.pieces(), chance)))
            }
            Role::Puller => used.and_then(|used| {
                host.signers.get(&(layer, used)).map(|signer| (*signer, Chain::from_id(used)))
            }),
        };
        match signed {
            Some((signer, chain)) => {
                let bytes = HEAD_BYTES + 32 * self.pieces() as u64;
                self.fabric.send(node, from, bytes, Tag::Chain { layer, signer, chain });
            }
            None => self.post(node, from, Mail::NoChain { from: node, layer }),
        }
    }

    fn use_chain(&mut self, node: usize, layer: usize, claim: ClaimId, settled: bool) {
        let host = &mut self.hosts[node];
        host.doubts[layer] = None;
        let copy = &mut host.copies[layer];
        copy.settled = settled;
        let old = copy.chain.replace(claim);
        if old != Some(claim) && !copy.have.is_empty() {
            let author = old.and_then(|old| Chain::from_id(old).liar());
            let chain = Chain::from_id(claim);
            let fails = |piece: &usize| {
                let made_by = if copy.bad.has(*piece) { author } else { None };
                !chain.passes(*piece as u32, made_by)
            };
            let void: Vec<usize> = copy.have.iter().filter(fails).collect();
            for piece in &void {
                copy.have.remove(*piece);
                copy.bad.remove(*piece);
            }
            let pieces = void.into_iter().map(|piece| piece as u32).collect();
            let now = self.now();
            self.hosts[node].core.handle(now, Input::Void { blob: key_of(layer), pieces });
        }
        self.read_on(node, layer);
    }

    /// A lookup is answered: some of those that announced themselves.
    fn looked_up(&mut self, node: usize, layer: usize) {
        for at in self.dice.sample(self.announced.len(), FOUND_HOLDERS) {
            let found = self.announced[at];
            let host = &self.hosts[found];
            let (contact, complete) = (Arc::clone(&host.contact), host.role != Role::Puller);
            let rtt_us = (2 * self.latency_us) as u32;
            let blob = key_of(layer);
            self.input(node, Input::Neighbour { blob, contact, complete, rtt_us });
        }
    }
}
