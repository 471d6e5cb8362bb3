//! Telling neighbours what is new here: a few pieces at a time, or after a moment.

use std::sync::Arc;

use super::Swarm;
use super::blob::BlobIx;
use super::io::Output;
use crate::swarm::limits::ENDGAME_PIECES;
use crate::wire::{MAX_HAVE_PIECES, SwarmBody, SwarmMessage};

impl Swarm {
    /// Tells new pieces if there are enough of them, or if nothing was told for a while.
    pub(super) fn tell(&mut self, ix: BlobIx) {
        let blob = self.blob(ix);
        let quiet_ms = self.now.since_ms(blob.told_at);
        let last = blob.pieces() - blob.count < ENDGAME_PIECES;
        let due = blob.news.len() >= self.cfg.have_batch || quiet_ms >= self.cfg.have_delay_ms;
        if !blob.news.is_empty() && (due || last) {
            self.flush(ix);
        }
    }

    /// Tells all new pieces to the neighbours that lack some of them.
    pub(super) fn flush(&mut self, ix: BlobIx) {
        let (now, load) = (self.now, self.load());
        let blob = self.blob_mut(ix);
        blob.told_at = now;
        let key = blob.key;
        let news = std::mem::take(&mut blob.news);
        for pieces in news.chunks(MAX_HAVE_PIECES) {
            let body = SwarmBody::Have { pieces: pieces.to_vec(), load };
            let message = Arc::new(SwarmMessage { blob: key, body });
            let Some(blob) = self.blobs[ix].as_ref() else { return };
            for link in blob.up() {
                let lacks = |piece: &u16| !link.have.has(usize::from(*piece));
                if link.chooses || pieces.iter().any(lacks) {
                    let to = self.peers.get(link.peer).contact.id;
                    self.outputs.push_back(Output::Send { to, message: Arc::clone(&message) });
                }
            }
        }
    }
}
