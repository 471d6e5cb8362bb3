//! Who is a neighbour: greeting, being greeted, peer exchange, parting.

use std::sync::Arc;

use super::bits::Bits;
use super::blob::{BlobIx, Candidate, Link, salt_of};
use super::crossing::Crossing;
use super::io::{Blame, Output};
use super::peers::PeerIx;
use super::{
    EVICT_MS, LOOK_MS, MAX_DISSENTERS, MAX_LOOK_MS, MAX_SHRINKS, SHED_NEIGHBOURS, Swarm,
    TOLD_HOLDERS,
};
use crate::id::{Key, NodeId};
use crate::wire::{Contact, HaveMap, Holder, SwarmBody, SwarmMessage};

/// What a `Hello` says.
struct Hello {
    size: u64,
    have: HaveMap,
    chooses: bool,
    load: u16,
    reply: bool,
}

impl Swarm {
    pub(super) fn on_neighbour(
        &mut self,
        key: &Key,
        contact: Arc<Contact>,
        complete: bool,
        rtt_us: u32,
    ) {
        let Some(ix) = self.find(key) else { return };
        if let Some(peer) = self.peers.find(&contact.id)
            && rtt_us > 0
        {
            self.peers.get_mut(peer).rtt_us = rtt_us;
        }
        self.add_candidate(ix, contact, complete, rtt_us);
        self.greet(ix);
        self.touch(ix);
    }

    fn add_candidate(&mut self, ix: BlobIx, contact: Arc<Contact>, complete: bool, rtt_us: u32) {
        let known = self.peers.find(&contact.id);
        let linked = known.is_some_and(|peer| self.blob(ix).link(peer).is_some());
        let usable = contact.id != self.own.id && contact.check_limits().is_ok();
        if linked || !usable || !self.blob(ix).is_fetching() {
            return;
        }
        let near = contact.zone == self.own.zone;
        let salt = salt_of(&contact.id);
        if let (true, false, Some(crossing)) = (near, complete, &mut self.blob_mut(ix).crossing) {
            crossing.add_rival(salt);
        }
        self.blob_mut(ix).add_candidate(Candidate { contact, salt, complete, near, rtt_us });
    }

    /// Others told of holders.
    pub(super) fn hear_of(&mut self, ix: BlobIx, holders: Vec<Holder>) {
        for holder in holders {
            self.add_candidate(ix, Arc::new(holder.contact), holder.complete, 0);
        }
        self.greet(ix);
    }

    /// Says `Hello` to holders until there are enough neighbours.
    pub(super) fn greet(&mut self, ix: BlobIx) {
        while self.blob(ix).is_fetching() {
            let Some(candidate) = self.next_candidate(ix) else { return };
            let zone = &self.own.zone;
            let Some(peer) = self.peers.admit(&candidate.contact, zone) else { return };
            let now = self.now;
            let state = self.peers.get_mut(peer);
            state.links += 1;
            if candidate.rtt_us > 0 {
                state.rtt_us = candidate.rtt_us;
            }
            self.blob_mut(ix).add_link(peer, candidate.near, now);
            self.say_hello(ix, peer, true);
        }
    }

    /// A holder to greet: of the own zone for one half of the neighbours, else any, at random. With enough
    /// neighbours only one of the own zone, while those of other zones take the places of such.
    fn next_candidate(&mut self, ix: BlobIx) -> Option<Candidate> {
        let (now, degree) = (self.now, self.cfg.degree);
        let peers = &self.peers;
        let blob = self.blobs[ix].as_mut()?;
        let near_links = blob.links.iter().filter(|link| link.near).count();
        let enough = blob.links.len() >= degree;
        if near_links >= degree || blob.candidates.is_empty() {
            return None;
        }
        blob.pass_over(now, |node| peers.is_avoided(node, now));
        let near = blob.candidates.iter().filter(|candidate| candidate.near).count();
        if blob.candidates.is_empty() || enough && near == 0 {
            return None;
        }
        if (enough || near_links < degree / 2) && near > 0 {
            let drawn = self.chance.below(near as u64) as usize;
            let places = blob.candidates.iter().enumerate().filter(|(_, c)| c.near);
            let at = places.map(|(at, _)| at).nth(drawn)?;
            return Some(blob.candidates.swap_remove(at));
        }
        let at = self.chance.below(blob.candidates.len() as u64) as usize;
        Some(blob.candidates.swap_remove(at))
    }

    pub(super) fn say_hello(&mut self, ix: BlobIx, peer: PeerIx, reply: bool) {
        let blob = self.blob(ix);
        let have =
            if blob.is_complete() { HaveMap::All } else { HaveMap::Bits(blob.have.to_bytes()) };
        let chooses = blob.source.is_some();
        let (key, size) = (blob.key, blob.size);
        let body = SwarmBody::Hello { size, have, chooses, load: self.load(), reply };
        self.send(self.peers.get(peer).contact.id, key, body);
    }

    pub(super) fn on_message(&mut self, from: &Arc<Contact>, message: SwarmMessage) {
        let SwarmMessage { blob: key, body } = message;
        if from.id == self.own.id || body.check_limits().is_err() || from.check_limits().is_err() {
            return;
        }
        let Some(ix) = self.find(&key) else {
            if let SwarmBody::Hello { .. } = body {
                self.send(from.id, key, SwarmBody::Goodbye { others: Vec::new() });
            }
            return;
        };
        if !matches!(body, SwarmBody::Have { .. }) {
            self.touch(ix);
        }
        match body {
            // The most frequent: it changes no timer of its own.
            SwarmBody::Have { pieces, load } => self.on_have(ix, &from.id, &pieces, load),
            SwarmBody::Hello { size, have, chooses, load, reply } => {
                self.on_hello(ix, from, Hello { size, have, chooses, load, reply });
            }
            SwarmBody::Holders { holders } => {
                if self.linked(ix, &from.id).is_some() {
                    self.hear_of(ix, holders);
                }
            }
            SwarmBody::Goodbye { others } => self.on_goodbye(ix, &from.id, others),
        }
    }

    /// The place of a node that is on the list of a blob.
    fn linked(&self, ix: BlobIx, node: &NodeId) -> Option<PeerIx> {
        let peer = self.peers.find(node)?;
        self.blob(ix).link(peer).map(|link| link.peer)
    }

    fn on_hello(&mut self, ix: BlobIx, from: &Arc<Contact>, hello: Hello) {
        let pieces = self.blob(ix).pieces();
        if hello.size != self.blob(ix).size {
            return self.on_other_size(ix, from, &hello.have);
        }
        let have = match hello.have {
            HaveMap::All => Some(Bits::full(pieces)),
            HaveMap::Bits(bytes) => Bits::from_bytes(&bytes, pieces),
        };
        let known = self.linked(ix, &from.id);
        let Some(have) = have.filter(|have| self.may_have(ix, known, have)) else {
            return self.strike_node(from, Blame::BadMap);
        };
        let Some(peer) = known.or_else(|| self.accept(ix, from, have.count())) else {
            return self.refuse_neighbour(ix, from.id);
        };
        let new = self.blob(ix).link(peer).is_none_or(|link| !link.up);
        self.blob_mut(ix).set_pieces(peer, have);
        if let Some(link) = self.blob_mut(ix).link_mut(peer) {
            link.chooses = hello.chooses && link.complete;
        }
        self.heed_zone(ix, peer);
        self.peers.get_mut(peer).load = hello.load;
        if hello.reply {
            self.say_hello(ix, peer, false);
            self.tell_of_others(ix, peer);
        }
        if new {
            self.blob_mut(ix).look_wait_ms = LOOK_MS;
            self.ask_for_chains(ix);
        }
        self.drop_if_useless(ix, peer);
        self.stir(ix);
    }

    /// A neighbour told what it has: that counts for who of the own zone asks another zone for what.
    fn heed_zone(&mut self, ix: BlobIx, peer: PeerIx) {
        let (own, now, node) = (self.own.id, self.now, self.peers.get(peer).contact.id);
        let blob = self.blob_mut(ix);
        let Some(link) = blob.link(peer) else { return };
        let (near, fetches) = (link.near, !link.complete);
        let told = (!near && !link.chooses).then(|| link.have.clone());
        if !near && blob.crossing.is_none() {
            self.begin_crossing(ix, salt_of(&own));
        }
        let Some(crossing) = &mut self.blob_mut(ix).crossing else { return };
        if near && fetches {
            crossing.add_rival(salt_of(&node));
        }
        told.iter().flat_map(Bits::iter).for_each(|piece| crossing.see(piece, now));
    }

    /// The first neighbour of another zone: from now on it matters who fetches the blob in the own one.
    fn begin_crossing(&mut self, ix: BlobIx, own: u64) {
        let blob = self.blob(ix);
        let mut crossing = Crossing::new(blob.pieces(), own);
        let links = blob.up().filter(|link| link.near && !link.complete);
        let links = links.map(|link| salt_of(&self.peers.get(link.peer).contact.id));
        let candidates = blob.candidates.iter().filter(|known| known.near && !known.complete);
        let candidates = candidates.map(|candidate| candidate.salt);
        links.chain(candidates).for_each(|salt| crossing.add_rival(salt));
        self.blob_mut(ix).crossing = Some(Box::new(crossing));
    }

    /// A node told another size. With the whole blob it knows better or lies, which the end of the chain
    /// proves; with less it may have been misled itself.
    fn on_other_size(&mut self, ix: BlobIx, from: &Arc<Contact>, have: &HaveMap) {
        let blob = self.blob_mut(ix);
        if *have == HaveMap::All && blob.is_complete() && blob.fetch.is_none() {
            return self.strike_node(from, Blame::BadMap);
        }
        let room = blob.dissenters.len() < MAX_DISSENTERS;
        if *have == HaveMap::All && room && !blob.dissenters.contains(&from.id) {
            blob.dissenters.push(from.id);
        }
        self.refuse_neighbour(ix, from.id);
    }

    /// Takes a node that said `Hello` first, and has so many pieces, as a neighbour if there is room.
    fn accept(&mut self, ix: BlobIx, from: &Arc<Contact>, pieces: usize) -> Option<PeerIx> {
        if self.peers.is_struck(&from.id, self.now) {
            return None;
        }
        // Those that were greeted and have not answered take nobody's place.
        let full = self.blob(ix).up().count() >= self.cfg.max_neighbours;
        if full && !self.make_room(ix, pieces) {
            return None;
        }
        let peer = self.peers.admit(from, &self.own.zone)?;
        let (near, now) = (self.peers.get(peer).near, self.now);
        self.peers.get_mut(peer).links += 1;
        let blob = self.blob_mut(ix);
        blob.add_link(peer, near, now);
        blob.candidates.retain(|candidate| candidate.contact.id != from.id);
        blob.used_at = now;
        Some(peer)
    }

    /// Parts from the neighbour that needs this node least, for a newcomer with few pieces: or those
    /// that came late would find each other only.
    fn make_room(&mut self, ix: BlobIx, pieces: usize) -> bool {
        let now = self.now;
        let blob = self.blob(ix);
        let needs = pieces + blob.pieces() / 16 < blob.count;
        if !needs || now.since_ms(blob.evicted_at) < EVICT_MS {
            return false;
        }
        let idle = |link: &&Link| !link.chooses && self.peers.get(link.peer).asks == 0;
        let idle = blob.up().filter(idle);
        let Some(victim) = idle.max_by_key(|link| (link.have.count(), link.peer)) else {
            return false;
        };
        let (victim, id) = (victim.peer, self.peers.get(victim.peer).contact.id);
        self.blob_mut(ix).evicted_at = now;
        let others = self.some_holders(ix, &id, None, TOLD_HOLDERS);
        self.part_from(ix, victim, others);
        true
    }

    /// A node that gets nothing parts from some neighbours that have nothing for it.
    pub(super) fn shed_useless(&mut self, ix: BlobIx) {
        if !self.is_starving(ix) {
            return;
        }
        let blob = self.blob(ix);
        let useless = blob.up().filter(|link| blob.have.contains_all(&link.have));
        let useless: Vec<PeerIx> = useless.map(|link| link.peer).take(SHED_NEIGHBOURS).collect();
        for peer in useless {
            self.part_from(ix, peer, Vec::new());
        }
    }

    fn refuse_neighbour(&mut self, ix: BlobIx, node: NodeId) {
        let others = self.some_holders(ix, &node, None, TOLD_HOLDERS);
        let key = self.blob(ix).key;
        self.send(node, key, SwarmBody::Goodbye { others });
    }

    /// Up to `count` neighbours at random, of those that have `piece`, without `but`.
    pub(super) fn some_holders(
        &mut self,
        ix: BlobIx,
        but: &NodeId,
        piece: Option<usize>,
        count: usize,
    ) -> Vec<Holder> {
        let Some(blob) = self.blobs[ix].as_ref() else { return Vec::new() };
        let able = blob.up().filter(|link| piece.is_none_or(|piece| link.have.has(piece)));
        let mut able: Vec<(PeerIx, bool)> = able.map(|link| (link.peer, link.complete)).collect();
        self.chance.choose(&mut able, count + 1);
        able.truncate(count + 1);
        let holder = |(peer, complete): (PeerIx, bool)| {
            let contact = Contact::clone(&self.peers.get(peer).contact);
            (contact.id != *but).then_some(Holder { contact, complete })
        };
        able.into_iter().filter_map(holder).take(count).collect()
    }

    fn tell_of_others(&mut self, ix: BlobIx, peer: PeerIx) {
        let node = self.peers.get(peer).contact.id;
        let holders = self.some_holders(ix, &node, None, TOLD_HOLDERS);
        if !holders.is_empty() {
            let key = self.blob(ix).key;
            self.send(node, key, SwarmBody::Holders { holders });
        }
    }

    /// Whether a neighbour's new have-map is believed. One that crashed comes back with fewer pieces
    /// than it told, which is no lie; one that always does so is no use.
    fn may_have(&mut self, ix: BlobIx, known: Option<PeerIx>, have: &Bits) -> bool {
        let Some(link) = known.and_then(|peer| self.blob_mut(ix).link_mut(peer)) else {
            return true;
        };
        if !have.contains_all(&link.have) {
            link.shrunk += 1;
        }
        link.shrunk <= MAX_SHRINKS
    }

    fn on_have(&mut self, ix: BlobIx, from: &NodeId, pieces: &[u16], load: u16) {
        let Some(peer) = self.peers.find(from) else { return };
        let now = self.now;
        let blob = self.blob_mut(ix);
        let Some(at) = blob.links.iter().position(|link| link.peer == peer) else { return };
        let count = blob.pieces();
        if pieces.iter().any(|piece| usize::from(*piece) >= count) {
            return self.strike(peer, Blame::BadMap);
        }
        if !blob.links[at].up {
            return;
        }
        let told = || pieces.iter().map(|piece| usize::from(*piece));
        let news = blob.add_pieces(at, told());
        if let (false, Some(crossing)) = (blob.links[at].near, &mut blob.crossing) {
            told().for_each(|piece| crossing.see(piece, now));
        }
        let useless = blob.is_complete() && blob.links[at].complete;
        self.peers.get_mut(peer).load = load;
        if useless {
            self.unlink(ix, peer);
        }
        if self.blob(ix).claims.wants_more() {
            // It may have had nothing, and so no chain, before.
            self.ask_for_chains(ix);
            self.touch(ix);
        }
        if news {
            self.stir_if_hungry(ix);
        }
    }

    /// A window that is full has no use for news.
    fn stir_if_hungry(&mut self, ix: BlobIx) {
        let group = self.blob(ix).fetch.as_ref().map(|fetch| fetch.group);
        let group = group.and_then(|group| self.groups.get(&group));
        if group.is_some_and(|group| group.hungry_since.is_some()) {
            self.stir(ix);
        }
    }

    /// Two complete holders have nothing to say to each other.
    fn drop_if_useless(&mut self, ix: BlobIx, peer: PeerIx) {
        let blob = self.blob(ix);
        if blob.is_complete() && blob.link(peer).is_some_and(|link| link.complete) {
            self.unlink(ix, peer);
        }
    }

    fn on_goodbye(&mut self, ix: BlobIx, from: &NodeId, others: Vec<Holder>) {
        if let Some(peer) = self.linked(ix, from) {
            self.unlink(ix, peer);
            let now = self.now;
            self.blob_mut(ix).note_parted(*from, now);
            self.hear_of(ix, others);
            self.stir(ix);
        }
    }

    /// Takes a node off the list of a blob.
    pub(super) fn unlink(&mut self, ix: BlobIx, peer: PeerIx) {
        if self.blob_mut(ix).remove_link(peer) {
            let id = self.peers.get(peer).contact.id;
            self.blob_mut(ix).claims.answered(&id);
            self.peers.get_mut(peer).links -= 1;
            self.peers.release(peer);
            self.touch(ix);
        }
    }

    /// Takes a node off the list of a blob and says so.
    pub(super) fn part_from(&mut self, ix: BlobIx, peer: PeerIx, others: Vec<Holder>) {
        let (node, key) = (self.peers.get(peer).contact.id, self.blob(ix).key);
        self.unlink(ix, peer);
        self.send(node, key, SwarmBody::Goodbye { others });
    }

    /// A node cannot be reached any more.
    pub(super) fn on_lost(&mut self, node: &NodeId) {
        self.peers.lost(*node, self.now);
        if let Some(peer) = self.peers.find(node) {
            self.leave_alone(peer);
        }
    }

    /// Breaks off everything that is under way to a node, and takes it off all lists.
    pub(super) fn leave_alone(&mut self, peer: PeerIx) {
        // Keeps the place of the node until the end.
        self.peers.get_mut(peer).asks += 1;
        let asks: Vec<_> = self.asks.iter().filter(|(_, a)| a.peer == peer).map(|a| *a.0).collect();
        asks.into_iter().for_each(|ask| self.cancel(ask));
        let linked: Vec<BlobIx> = self
            .by_key
            .values()
            .copied()
            .filter(|ix| self.blob(*ix).link(peer).is_some())
            .collect();
        let node = self.peers.get(peer).contact.id;
        for ix in linked {
            self.unlink(ix, peer);
            self.blob_mut(ix).remove_rival(&node);
            self.greet(ix);
            self.stir(ix);
        }
        self.peers.get_mut(peer).asks -= 1;
        self.peers.release(peer);
    }

    /// Looks for holders now, and again later.
    pub(super) fn look_for_holders(&mut self, ix: BlobIx) {
        let now = self.now;
        let blob = self.blob_mut(ix);
        let key = blob.key;
        blob.look_at = now.after_ms(blob.look_wait_ms);
        blob.look_wait_ms = (2 * blob.look_wait_ms).min(MAX_LOOK_MS);
        self.outputs.push_back(Output::WantHolders { blob: key });
    }

    /// Whether holders are to be looked for: too few neighbours, or none that has anything new.
    pub(super) fn lacks_neighbours(&self, ix: BlobIx) -> bool {
        let blob = self.blob(ix);
        blob.is_fetching() && (self.is_starving(ix) || 2 * blob.up().count() < self.cfg.degree)
    }

    /// Whether nothing is under way though pieces are missing.
    fn is_starving(&self, ix: BlobIx) -> bool {
        let fetch = self.blob(ix).fetch.as_ref();
        let group = fetch.and_then(|fetch| self.groups.get(&fetch.group));
        group.is_some_and(|group| group.asks == 0)
    }
}
