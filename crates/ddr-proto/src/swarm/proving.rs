//! Which chain is believed, and who is struck for what.
//!
//! A wrong piece makes a suspect; the right piece from another convicts. Two wrong pieces make the
//! chain doubtful, and more holders are asked for theirs. A chain is convicted only by the piece that
//! decides between it and another.

use std::sync::Arc;

use super::blob::BlobIx;
use super::claims::{News, SIGNERS};
use super::io::{AskId, Blame, ClaimId, Output};
use super::peers::PeerIx;
use super::{BUSY_MS, CHAIN_MS, MAX_SUSPECTS, SETTLE_MS, Swarm};
use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::Contact;

impl Swarm {
    /// Asks neighbours for their chains while more are wanted.
    pub(super) fn ask_for_chains(&mut self, ix: BlobIx) {
        while let Some(node) = self.next_voucher(ix) {
            let now = self.now;
            let claims = &mut self.blob_mut(ix).claims;
            claims.pending.push((node, now));
            claims.asked.push(node);
            let blob = self.blob(ix).key;
            self.outputs.push_back(Output::AskChain { blob, node });
        }
        self.settle(ix);
    }

    /// A neighbour that can be asked for a chain now, at random.
    fn next_voucher(&mut self, ix: BlobIx) -> Option<NodeId> {
        let blob = self.blobs[ix].as_ref()?;
        if !blob.is_fetching() || blob.pieces() == 1 || !blob.claims.wants_more() {
            return None;
        }
        let id = |peer: PeerIx| self.peers.get(peer).contact.id;
        let able = blob.up().filter(|link| !link.have.is_empty()).map(|link| id(link.peer));
        let mut able: Vec<NodeId> = able.filter(|id| !blob.claims.asked.contains(id)).collect();
        self.chance.choose(&mut able, 1);
        able.first().copied()
    }

    pub(super) fn on_chain(
        &mut self,
        key: &Key,
        from: &NodeId,
        signer: NodeId,
        claim: ClaimId,
        differs: Option<u32>,
    ) {
        let Some(ix) = self.find(key) else { return };
        let blob = self.blob_mut(ix);
        blob.claims.answered(from);
        if blob.fetch.is_none() {
            return;
        }
        let differs = differs.map(|piece| piece as usize).filter(|piece| *piece < blob.pieces());
        let have = &blob.have;
        let news = blob.claims.heard(signer, claim, differs, |piece| have.has(piece));
        match news {
            News::Nothing | News::Agrees => {}
            News::Use => self.take_up_chain(ix, false),
            News::Disputed(doubt) => {
                // It was held against one chain, and now counts against two.
                self.restore(ix, |piece| piece == doubt.piece);
                let (piece, other) = (doubt.piece as u32, doubt.other);
                self.blob_mut(ix).claims.settled = false;
                self.outputs.push_back(Output::Doubt { blob: *key, piece, other });
            }
            News::Wrong(signers) => self.strike_all(&signers, Blame::WrongChain),
        }
        if let Some(ix) = self.find(key) {
            self.ask_for_chains(ix);
            self.stir(ix);
            self.touch(ix);
        }
    }

    pub(super) fn on_no_chain(&mut self, key: &Key, from: &NodeId, wrong: bool) {
        let Some(ix) = self.find(key) else { return };
        self.blob_mut(ix).claims.answered(from);
        if let (true, Some(peer)) = (wrong, self.peers.find(from)) {
            self.strike(peer, Blame::WrongChain);
        }
        self.ask_for_chains(ix);
        self.touch(ix);
    }

    /// Another chain than before is in use: pieces that are here have to be held against it.
    fn take_up_chain(&mut self, ix: BlobIx, settled: bool) {
        let now = self.now;
        let blob = self.blob_mut(ix);
        let used = blob.claims.used();
        if blob.claims.told != used {
            blob.claims.checking = blob.count > 0;
            blob.claims.told = used;
        }
        blob.claims.since = now;
        self.use_chain(ix, settled);
    }

    fn use_chain(&mut self, ix: BlobIx, settled: bool) {
        let vouched = settled && self.is_vouched(ix);
        let blob = self.blob_mut(ix);
        (blob.claims.settled, blob.claims.vouched) = (settled, vouched);
        let key = blob.key;
        if let Some(claim) = blob.claims.used() {
            self.outputs.push_back(Output::UseChain { blob: key, claim, settled, vouched });
        }
    }

    /// Whether enough nodes signed the chain in use.
    fn is_vouched(&self, ix: BlobIx) -> bool {
        let signers = self.blob(ix).claims.signers();
        signers.len() >= SIGNERS || signers.contains(&self.own.id)
    }

    /// Clients may read when two signers agree, or when nobody else can be asked.
    fn settle(&mut self, ix: BlobIx) {
        let (claims, vouched) = (&self.blob(ix).claims, self.is_vouched(ix));
        if claims.used().is_none() || claims.doubt.is_some() {
            return;
        }
        if claims.settled && (claims.vouched || !vouched) {
            return;
        }
        let alone = claims.pending.is_empty() && self.settles_at(ix) <= self.now;
        if vouched || alone {
            self.use_chain(ix, true);
        }
    }

    /// When a chain of one signer may be settled: greetings were answered by then.
    fn settles_at(&self, ix: BlobIx) -> Timestamp {
        self.blob(ix).claims.since.after_ms(SETTLE_MS)
    }

    /// When to look at the chains of a blob again: a node has not answered, or one signer has to do.
    pub(super) fn proof_wakes_at(&self, ix: BlobIx) -> Option<Timestamp> {
        let claims = &self.blob(ix).claims;
        let waits = claims.pending.first().map(|(_, since)| since.after_ms(CHAIN_MS));
        let settles = claims.used().is_some() && !claims.settled && claims.doubt.is_none();
        let alone = settles && claims.pending.is_empty();
        waits.or_else(|| alone.then(|| self.settles_at(ix)))
    }

    /// Nodes that do not answer with a chain are not waited for.
    pub(super) fn give_up_chains(&mut self, ix: BlobIx) {
        let now = self.now;
        let claims = &mut self.blob_mut(ix).claims;
        claims.pending.retain(|(_, since)| now.since_ms(*since) < CHAIN_MS);
    }

    /// The piece that decides between two chains passed under this one.
    pub(super) fn decide(&mut self, ix: BlobIx, winner: ClaimId) {
        if Some(winner) != self.blob(ix).claims.used() {
            self.restore(ix, |_| true);
        }
        let claims = &mut self.blob_mut(ix).claims;
        let (liars, changed) = claims.decide(winner);
        let wronged = if changed { std::mem::take(&mut claims.struck) } else { Vec::new() };
        for node in wronged {
            self.peers.forgive(&node);
        }
        let enough = self.blob(ix).claims.signers().len() >= SIGNERS;
        if changed {
            self.take_up_chain(ix, enough);
        } else {
            self.use_chain(ix, enough);
        }
        self.strike_all(&liars, Blame::WrongChain);
        self.ask_for_chains(ix);
    }

    /// Forgets who gave these pieces wrong: they may be asked for them again.
    fn restore(&mut self, ix: BlobIx, which: impl Fn(usize) -> bool) {
        let suspects = std::mem::take(&mut self.blob_mut(ix).claims.suspects);
        let (cleared, kept): (Vec<_>, Vec<_>) = suspects.into_iter().partition(|s| which(s.0));
        for (piece, node) in &cleared {
            let Some(peer) = self.peers.find(node) else { continue };
            let still = kept.iter().any(|(_, other)| other == node);
            let blob = self.blob_mut(ix);
            blob.restore_piece(peer, *piece);
            if let Some(link) = blob.link_mut(peer) {
                link.suspect = still;
            }
        }
        self.blob_mut(ix).claims.suspects = kept;
    }

    /// Leaves nodes alone for a time, neighbours or not.
    pub(super) fn strike_all(&mut self, nodes: &[NodeId], blame: Blame) {
        for node in nodes {
            match self.peers.find(node) {
                Some(peer) => self.strike(peer, blame),
                None => self.strike_unknown(*node, blame),
            }
        }
    }

    /// A piece passes under no chain that is believed.
    pub(super) fn on_wrong(&mut self, id: AskId, piece: usize) {
        let Some(ask) = self.asks.get(&id).copied() else { return };
        self.end_ask(id);
        let (ix, node) = (ask.blob, self.peers.get(ask.peer).contact.id);
        if self.blob(ix).pieces() == 1 {
            // Held against the digest itself: no chain to blame.
            return self.strike(ask.peer, Blame::WrongPiece);
        }
        if self.blob(ix).claims.is_signer(&node) {
            // Its own chain says that it lies.
            self.strike(ask.peer, Blame::WrongPiece);
            return self.disown(ix, &node);
        }
        let blob = self.blob_mut(ix);
        if let Some(link) = blob.link_mut(ask.peer) {
            link.suspect = true;
        }
        // It has not got that one, whatever it says.
        blob.take_piece(ask.peer, piece);
        let claims = &mut blob.claims;
        let known = claims.suspects.contains(&(piece, node));
        let others = claims.suspects.iter().filter(|(other, who)| *other == piece && *who != node);
        let second = others.count() > 0;
        if !known && claims.suspects.len() < MAX_SUSPECTS {
            claims.suspects.push((piece, node));
        }
        if second {
            self.doubt_chain(ix, piece);
        }
        self.judge_lone_suspect(ix, piece, ask.peer);
        self.peers.release(ask.peer);
    }

    /// A node stands for its chain of a blob no more.
    fn disown(&mut self, ix: BlobIx, node: &NodeId) {
        let used = self.blob(ix).claims.used();
        if !self.blob_mut(ix).claims.disown(node) {
            return;
        }
        let new = self.blob(ix).claims.used();
        if new != used {
            self.restore(ix, |_| true);
            self.blob_mut(ix).claims.settled = false;
        }
        match new {
            Some(_) if new == used => self.use_chain(ix, false),
            Some(_) => self.take_up_chain(ix, false),
            None => self.blob_mut(ix).claims.asked.clear(),
        }
        self.ask_for_chains(ix);
        self.see_whether_complete(ix);
        self.stir(ix);
        self.touch(ix);
    }

    /// A piece was wrong from two peers: ask more holders for their chains. If it is the piece that
    /// decides a dispute, both chains are put aside.
    fn doubt_chain(&mut self, ix: BlobIx, piece: usize) {
        let claims = &mut self.blob_mut(ix).claims;
        claims.uneasy = true;
        if claims.doubt.is_some_and(|doubt| doubt.piece == piece) {
            claims.put_aside();
            claims.asked.clear();
            self.restore(ix, |_| true);
        }
        self.ask_for_chains(ix);
    }

    /// Nobody else can give the piece: who gave it wrong is asked for its chain, and struck if that
    /// does not clear it.
    fn judge_lone_suspect(&mut self, ix: BlobIx, piece: usize, peer: PeerIx) {
        let others = self.blob(ix).up().any(|link| link.peer != peer && link.have.has(piece));
        if others || self.blob(ix).link(peer).is_none() {
            return;
        }
        let node = self.peers.get(peer).contact.id;
        let claims = &self.blob(ix).claims;
        let answered = claims.asked.contains(&node) && !claims.awaits(&node);
        if claims.doubt.is_none() && answered {
            return self.strike(peer, Blame::WrongPiece);
        }
        self.peers.get_mut(peer).busy_until = self.now.after_ms(BUSY_MS);
        self.blob_mut(ix).claims.uneasy = true;
        self.ask_for_chains(ix);
    }

    /// A piece is right from this peer: whoever gave it wrong lied, if the chain is right.
    pub(super) fn vindicate(&mut self, ix: BlobIx, piece: usize, by: PeerIx) {
        let giver = self.peers.get(by).contact.id;
        let claims = &mut self.blob_mut(ix).claims;
        if claims.suspects.is_empty() {
            return;
        }
        let liars: Vec<NodeId> = claims
            .suspects
            .iter()
            .filter(|(at, who)| *at == piece && *who != giver)
            .map(|s| s.1)
            .collect();
        claims.suspects.retain(|(at, _)| *at != piece);
        if claims.suspects.is_empty() {
            claims.uneasy = false;
        }
        claims.struck.extend(&liars);
        claims.struck.truncate(MAX_SUSPECTS);
        self.strike_all(&liars, Blame::WrongPiece);
    }

    /// Leaves a node alone for a time.
    pub(super) fn strike(&mut self, peer: PeerIx, blame: Blame) {
        let node = self.peers.get(peer).contact.id;
        self.strike_unknown(node, blame);
        self.leave_alone(peer);
    }

    pub(super) fn strike_node(&mut self, contact: &Arc<Contact>, blame: Blame) {
        self.strike_all(&[contact.id], blame);
    }

    fn strike_unknown(&mut self, node: NodeId, blame: Blame) {
        if node == self.own.id {
            return;
        }
        let until = self.peers.strike(node, self.now);
        self.outputs.push_back(Output::Struck { node, blame, until });
        // A dispute does not wait for who is not asked any more.
        let disputed = |ix: &BlobIx| self.blob(*ix).claims.doubt.is_some();
        let disputed: Vec<BlobIx> = self.by_key.values().copied().filter(disputed).collect();
        for ix in disputed {
            if !self.blob(ix).claims.signers().contains(&node) {
                self.disown(ix, &node);
            }
        }
    }
}
