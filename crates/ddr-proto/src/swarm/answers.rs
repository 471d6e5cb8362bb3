//! What became of the requests for pieces.

use super::blob::BlobIx;
use super::io::{AskId, Blame, ClaimId, Failure, Output};
use super::peers::PeerIx;
use super::{STALL_MS, Swarm};
use crate::id::Key;
use crate::swarm::limits::{BUSY_MS, MAX_ASK_MS, MAX_BUSY_MS, MAX_SETBACKS, NAMED_MS};
use crate::wire::BusyAnswer;

impl Swarm {
    /// A source has chosen.
    pub(super) fn on_chosen(&mut self, id: AskId, piece: usize) {
        let Some(ask) = self.asks.get(&id).copied() else { return };
        if ask.piece == Some(piece) {
            return;
        }
        let blob = self.blob(ask.blob);
        let flying = blob.fetch.as_ref().is_some_and(|fetch| fetch.flying.has(piece));
        if ask.piece.is_some() || piece >= blob.pieces() {
            return self.on_failed(id, Failure::Nonsense);
        }
        let have = blob.have.has(piece);
        if let Some(fetch) = &mut self.blob_mut(ask.blob).fetch {
            fetch.furthest = fetch.furthest.max(piece);
        }
        if flying || have {
            // It would choose the same again.
            let until = self.now.after_ms(NAMED_MS);
            if let Some(link) = self.blob_mut(ask.blob).link_mut(ask.peer) {
                link.named_until = until;
            }
            return self.cancel(id);
        }
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.piece = Some(piece);
        }
        self.takes_off(ask.blob, piece);
    }

    /// A piece is here, and right by `claim`.
    pub(super) fn on_arrived(
        &mut self,
        id: AskId,
        piece: usize,
        claim: ClaimId,
        load: Option<u16>,
    ) {
        let Some(ask) = self.expected(id, piece) else { return };
        let blob = self.blob(ask.blob);
        let doubt = blob.claims.doubt.filter(|doubt| doubt.piece == piece);
        let decides = doubt.is_some_and(|doubt| doubt.other == claim);
        if blob.pieces() > 1 && blob.claims.used() != Some(claim) && !decides {
            return self.on_failed(id, Failure::Unchecked);
        }
        self.end_ask(id);
        self.credit(ask.peer, ask.blob, load);
        let waited_ms = self.now.since_ms(ask.sent);
        let (bytes, rtt_us) =
            (self.blob(ask.blob).bytes_of(piece), self.peers.get(ask.peer).rtt_us);
        let now = self.now;
        if let Some(group) = self.groups.get_mut(&ask.group) {
            group.pace.arrived(now, waited_ms, bytes, rtt_us);
            group.since_hedge = group.since_hedge.saturating_add(1);
        }
        self.cancel_others(ask.blob, piece);
        if self.blob_mut(ask.blob).gain(piece) {
            self.blob_mut(ask.blob).news.push(piece as u16);
            self.vindicate(ask.blob, piece, ask.peer);
        }
        if doubt.is_some() {
            self.decide(ask.blob, claim);
        }
        self.peers.release(ask.peer);
        self.tell(ask.blob);
        self.see_whether_complete(ask.blob);
    }

    /// The ask, if this piece answers it.
    fn expected(&mut self, id: AskId, piece: usize) -> Option<super::asking::Ask> {
        self.on_chosen_if_open(id, piece);
        let ask = self.asks.get(&id).copied()?;
        if ask.piece == Some(piece) {
            return Some(ask);
        }
        self.on_failed(id, Failure::Nonsense);
        None
    }

    fn on_chosen_if_open(&mut self, id: AskId, piece: usize) {
        if self.asks.get(&id).is_some_and(|ask| ask.piece.is_none()) {
            self.on_chosen(id, piece);
        }
    }

    /// A peer gave a good piece.
    fn credit(&mut self, peer: PeerIx, ix: BlobIx, load: Option<u16>) {
        let peer = self.peers.get_mut(peer);
        peer.setbacks = 0;
        peer.busy_until = self.now;
        peer.load = load.unwrap_or(peer.load);
        self.blob_mut(ix).used_at = self.now;
    }

    /// Nobody else needs to bring this piece.
    fn cancel_others(&mut self, ix: BlobIx, piece: usize) {
        let fetch = self.blob(ix).fetch.as_ref();
        if !fetch.is_some_and(|fetch| fetch.flying.has(piece)) {
            return;
        }
        let same = self.asks.iter().filter(|(_, ask)| ask.blob == ix && ask.piece == Some(piece));
        let same: Vec<AskId> = same.map(|(id, _)| *id).collect();
        same.into_iter().for_each(|id| self.cancel(id));
    }

    pub(super) fn see_whether_complete(&mut self, ix: BlobIx) {
        let blob = self.blob(ix);
        let unsure = blob.claims.doubt.is_some() || blob.claims.checking;
        if !blob.is_complete() || blob.fetch.is_none() || unsure {
            return;
        }
        let key = blob.key;
        self.flush(ix);
        self.end_fetch(ix);
        self.outputs.push_back(Output::Complete { blob: key });
        let complete = self.blob(ix).links.iter().filter(|link| link.complete || !link.up);
        let complete: Vec<PeerIx> = complete.map(|link| link.peer).collect();
        for peer in complete {
            self.part_from(ix, peer, Vec::new());
        }
        let liars = std::mem::take(&mut self.blob_mut(ix).dissenters);
        self.strike_all(&liars, Blame::BadMap);
    }

    pub(super) fn on_failed(&mut self, id: AskId, failure: Failure) {
        let Some(ask) = self.end_ask(id) else { return };
        match failure {
            Failure::NotThere => self.not_there(ask.blob, ask.peer, ask.piece),
            Failure::Broken => self.set_back(ask.peer),
            Failure::Unchecked => {
                self.peers.get_mut(ask.peer).busy_until = self.now.after_ms(BUSY_MS);
            }
            Failure::Nonsense => self.strike(ask.peer, Blame::Nonsense),
        }
        self.peers.release(ask.peer);
    }

    /// A neighbour has not what it was asked for.
    fn not_there(&mut self, ix: BlobIx, peer: PeerIx, piece: Option<usize>) {
        match (piece, self.blob_mut(ix).link_mut(peer)) {
            (Some(piece), _) => self.blob_mut(ix).take_piece(peer, piece),
            (None, Some(link)) => link.chooses = false,
            (None, None) => {}
        }
    }

    /// A request to this node broke off: it is left alone a little, and after a few times for longer.
    fn set_back(&mut self, peer: PeerIx) {
        let state = self.peers.get_mut(peer);
        state.setbacks += 1;
        state.busy_until = self.now.after_ms(BUSY_MS << state.setbacks.min(4));
        if state.setbacks >= MAX_SETBACKS {
            let id = state.contact.id;
            self.on_lost(&id);
        }
    }

    pub(super) fn on_busy(&mut self, id: AskId, answer: BusyAnswer) {
        let Some(ask) = self.end_ask(id) else { return };
        let median_ms = self.groups.get(&ask.group).map_or(0, |group| group.pace.median_ms());
        let state = self.peers.get_mut(ask.peer);
        let base_ms = (median_ms / 8).max(1) << state.setbacks.min(2);
        let wait_ms = self.chance.jitter_ms(base_ms.min(MAX_BUSY_MS));
        state.setbacks = (state.setbacks + 1).min(MAX_SETBACKS - 1);
        state.load = answer.load;
        state.busy_until = self.now.after_ms(wait_ms.max(1));
        self.peers.release(ask.peer);
        self.hear_of(ask.blob, answer.others);
    }

    /// Pieces are not here that were thought to be.
    pub(super) fn on_void(&mut self, key: &Key, pieces: &[u32]) {
        let Some(ix) = self.find(key) else { return };
        for piece in pieces {
            self.blob_mut(ix).lose(*piece as usize);
        }
        self.blob_mut(ix).claims.checking = false;
        self.see_whether_complete(ix);
        self.stir(ix);
        self.touch(ix);
    }

    /// Gives up asks that have waited too long.
    pub(super) fn give_up_stalled(&mut self) {
        let oldest = self.asks.first_key_value().map(|(_, ask)| ask.sent);
        if oldest.is_none_or(|sent| self.now.since_ms(sent) < STALL_MS) {
            return;
        }
        let stalled: Vec<(AskId, PeerIx)> = self
            .asks
            .iter()
            .filter(|(_, ask)| {
                let median_ms = self.groups.get(&ask.group).map_or(0, |g| g.pace.median_ms());
                let patience_ms = (20 * median_ms).clamp(STALL_MS, MAX_ASK_MS);
                self.now.since_ms(ask.sent) >= patience_ms
            })
            .map(|(id, ask)| (*id, ask.peer))
            .collect();
        for (id, peer) in stalled {
            if self.asks.contains_key(&id) {
                self.peers.get_mut(peer).asks += 1;
                self.cancel(id);
                self.strike(peer, Blame::Stalled);
                self.peers.get_mut(peer).asks -= 1;
                self.peers.release(peer);
            }
        }
    }
}
