//! Whom this node serves: slots, newcomers first among equals, and an immediate "busy, ask these".

use super::blob::BlobIx;
use super::io::{Blame, Class, Output, Refusal, UploadId};
use super::peers::PeerIx;
use super::source::Source;
use super::{
    GREEDY_REFUSALS, MAX_SOURCES, MAX_UPLOADS_PER_NODE, NEWCOMER_PIECES, NEWCOMER_SLOTS, Swarm,
    TOLD_HOLDERS,
};
use crate::id::{Key, NodeId};
use crate::wire::BusyAnswer;

/// A piece that is being served.
#[derive(Copy, Clone, Debug)]
pub(super) struct Upload {
    pub(super) node: NodeId,
    /// `None` when the blob has been forgotten.
    pub(super) blob: Option<BlobIx>,
    piece: usize,
    /// This node chose the piece.
    chosen: bool,
}

impl Swarm {
    pub(super) fn on_hold(&mut self, key: Key, size: u64, sources: &[NodeId]) {
        let known = self.find(&key).is_some();
        let Some(ix) = self.admit_blob(key, size) else { return };
        self.end_fetch(ix);
        let own = self.own.id;
        let mut all: Vec<NodeId> = sources.iter().copied().take(MAX_SOURCES).collect();
        all.push(own);
        all.sort_unstable();
        all.dedup();
        let rank = all.iter().position(|node| *node == own).unwrap_or(0);
        let blob = self.blob_mut(ix);
        let pieces = blob.pieces();
        match &mut blob.source {
            Some(source) => source.share(rank, all.len()),
            // What was fetched through the swarm is not given away as if it were new to it.
            None if !known => blob.source = Some(Source::new(pieces, rank, all.len())),
            None => {}
        }
        for piece in 0..pieces {
            blob.gain(piece);
        }
        self.touch(ix);
    }

    pub(super) fn on_request(
        &mut self,
        id: UploadId,
        from: NodeId,
        key: &Key,
        piece: Option<u32>,
        class: Class,
    ) {
        let Some(ix) = self.find(key) else { return self.refuse(id, Refusal::NotHere) };
        let now = self.now;
        self.blob_mut(ix).used_at = now;
        let asked = piece.map(|piece| piece as usize);
        let chosen = match asked {
            Some(piece) => Some(piece).filter(|piece| self.blob(ix).have.has(*piece)),
            None => self.choose(ix, &from),
        };
        let Some(piece) = chosen else { return self.refuse(id, Refusal::NotHere) };
        if !self.has_slot(&from, class) {
            return self.refuse_busy(id, ix, &from, asked);
        }
        let chosen = asked.is_none();
        self.uploads.insert(id, Upload { node: from, blob: Some(ix), piece, chosen });
        let blob = *key;
        self.outputs.push_back(Output::Serve { upload: id, blob, piece: piece as u32 });
        if chosen {
            self.gave(ix, piece);
        }
    }

    /// The piece that this source gives to a node next.
    fn choose(&self, ix: BlobIx, node: &NodeId) -> Option<usize> {
        let blob = self.blob(ix);
        let peer = self.peers.find(node);
        let theirs = peer.and_then(|peer| blob.link(peer)).map(|link| &link.have);
        blob.source.as_ref()?.choose(theirs, &blob.rarity)
    }

    /// A source has handed a piece out. When all are out it says that it no longer chooses.
    fn gave(&mut self, ix: BlobIx, piece: usize) {
        let blob = self.blob_mut(ix);
        let Some(source) = &mut blob.source else { return };
        source.gave(piece);
        if source.has_more(&blob.rarity) {
            return;
        }
        blob.source = None;
        let up: Vec<PeerIx> = blob.up().map(|link| link.peer).collect();
        up.into_iter().for_each(|peer| self.say_hello(ix, peer, false));
    }

    /// Whether a slot is free for this node.
    fn has_slot(&self, node: &NodeId, class: Class) -> bool {
        let peer = self.peers.find(node).map(|peer| self.peers.get(peer));
        let newcomer = peer.is_none_or(|peer| peer.given < NEWCOMER_PIECES);
        let slots = match (class, newcomer) {
            (Class::Background, _) => self.cfg.uploads / 2,
            (Class::Pull, true) => self.cfg.uploads,
            (Class::Pull, false) => self.cfg.uploads.saturating_sub(NEWCOMER_SLOTS),
        };
        self.uploads.len() < slots && self.uploads_of(node) < MAX_UPLOADS_PER_NODE
    }

    fn uploads_of(&self, node: &NodeId) -> usize {
        self.uploads.values().filter(|upload| upload.node == *node).count()
    }

    fn refuse_busy(&mut self, id: UploadId, ix: BlobIx, from: &NodeId, piece: Option<usize>) {
        let others = self.some_holders(ix, from, piece, TOLD_HOLDERS);
        self.refuse(id, Refusal::Busy(BusyAnswer { load: self.load(), others }));
        let Some(peer) = self.peers.find(from) else { return };
        if self.uploads_of(from) < MAX_UPLOADS_PER_NODE {
            return;
        }
        let state = self.peers.get_mut(peer);
        state.refusals += 1;
        if state.refusals >= GREEDY_REFUSALS {
            state.refusals = 0;
            self.strike(peer, Blame::Greedy);
        }
    }

    fn refuse(&mut self, upload: UploadId, refusal: Refusal) {
        self.outputs.push_back(Output::Refuse { upload, refusal });
    }

    pub(super) fn on_uploaded(&mut self, id: UploadId, whole: bool) {
        let Some(upload) = self.uploads.remove(&id) else { return };
        if whole && let Some(peer) = self.peers.find(&upload.node) {
            let state = self.peers.get_mut(peer);
            state.given = state.given.saturating_add(1);
            state.refusals = 0;
        }
        let Some(ix) = upload.blob else { return };
        let blob = self.blob_mut(ix);
        if let (false, true, Some(source)) = (whole, upload.chosen, &mut blob.source) {
            source.failed(upload.piece);
        }
        self.touch(ix);
    }
}
