//! One blob: which pieces are here, and which the neighbours have.

use std::ops::Range;
use std::sync::Arc;

use ddr_oci::PieceChain;

use super::bits::Bits;
use super::claims::Claims;
use super::io::{Class, GroupId, Wanted};
use super::limits::{LOOK_MS, MAX_CANDIDATES, MAX_RANGES, MAX_READERS};
use super::peers::PeerIx;
use super::picker::mix;
use super::source::Source;
use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::Contact;

/// The place of a blob in the core.
pub(super) type BlobIx = usize;

/// A neighbour, or a node that was asked to become one.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: PeerIx,
    /// Of the zone of this node.
    pub(super) near: bool,
    /// It said `Hello`. Before that it has nothing.
    pub(super) up: bool,
    pub(super) have: Bits,
    pub(super) complete: bool,
    /// It chooses the pieces that it gives.
    pub(super) chooses: bool,
    /// Its choice was of no use: until then it is asked by name.
    pub(super) named_until: Timestamp,
    /// How often it told fewer pieces than before.
    pub(super) shrunk: u32,
    /// It gave a piece that was wrong, if the chain is right.
    pub(super) suspect: bool,
    /// When `Hello` was said to it.
    pub(super) since: Timestamp,
}

/// What is being fetched of a blob.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) group: GroupId,
    pub(super) class: Class,
    pub(super) wanted: Bits,
    /// Where clients read, in order.
    pub(super) readers: Vec<usize>,
    /// Pieces that are asked for.
    pub(super) flying: Bits,
    /// The furthest piece that a source has chosen.
    pub(super) furthest: usize,
    /// Pieces that are asked for twice.
    pub(super) doubled: Vec<usize>,
}

/// A holder that is no neighbour yet.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) contact: Arc<Contact>,
    pub(super) complete: bool,
    pub(super) near: bool,
    pub(super) rtt_us: u32,
}

#[derive(Debug)]
pub(super) struct Blob {
    pub(super) key: Key,
    pub(super) size: u64,
    pub(super) piece_bytes: u64,
    pub(super) have: Bits,
    /// Number of pieces that are here.
    pub(super) count: usize,
    pub(super) fetch: Option<Fetch>,
    pub(super) source: Option<Source>,
    pub(super) links: Vec<Link>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) claims: Claims,
    /// Nodes that said to have the whole blob, of another size.
    pub(super) dissenters: Vec<NodeId>,
    /// Neighbours without all pieces that have each piece, and those of them that are near.
    pub(super) rarity: Vec<u8>,
    near_rarity: Vec<u8>,
    /// The pieces that this node may ask of other zones, while it is known.
    mine: Option<Bits>,
    /// Pieces that were not told yet.
    pub(super) news: Vec<u16>,
    pub(super) told_at: Timestamp,
    /// When a neighbour had to make room for a newcomer.
    pub(super) evicted_at: Timestamp,
    /// Holders are looked for at this time, and after this wait again.
    pub(super) look_at: Timestamp,
    pub(super) look_wait_ms: u64,
    /// When it was last of use.
    pub(super) used_at: Timestamp,
    /// The entry of the timer.
    pub(super) wake: Timestamp,
}

impl Blob {
    pub(super) fn new(key: Key, size: u64, now: Timestamp) -> Self {
        let piece_bytes = PieceChain::piece_len_for(size);
        let pieces = usize::try_from(size.div_ceil(piece_bytes).max(1)).unwrap_or(usize::MAX);
        Self {
            key,
            size,
            piece_bytes,
            have: Bits::new(pieces),
            count: 0,
            fetch: None,
            source: None,
            links: Vec::new(),
            candidates: Vec::new(),
            claims: Claims::default(),
            dissenters: Vec::new(),
            rarity: vec![0; pieces],
            near_rarity: vec![0; pieces],
            mine: None,
            news: Vec::new(),
            told_at: Timestamp::default(),
            evicted_at: Timestamp::default(),
            look_at: Timestamp::default(),
            look_wait_ms: LOOK_MS,
            used_at: now,
            wake: Timestamp(u64::MAX),
        }
    }

    pub(super) const fn pieces(&self) -> usize {
        self.have.len()
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.count == self.have.len()
    }

    /// Whether there is something to ask for, for the time being.
    pub(super) fn is_fetching(&self) -> bool {
        self.fetch.is_some() && !self.is_complete()
    }

    /// A piece is here now; false when it was before.
    pub(super) fn gain(&mut self, piece: usize) -> bool {
        let new = self.have.insert(piece);
        self.count += usize::from(new);
        new
    }

    pub(super) fn lose(&mut self, piece: usize) {
        self.count -= usize::from(self.have.remove(piece));
    }

    pub(super) fn link(&self, peer: PeerIx) -> Option<&Link> {
        self.links.iter().find(|link| link.peer == peer)
    }

    pub(super) fn link_mut(&mut self, peer: PeerIx) -> Option<&mut Link> {
        self.links.iter_mut().find(|link| link.peer == peer)
    }

    /// Adds a node that is not on the list.
    pub(super) fn add_link(&mut self, peer: PeerIx, near: bool, now: Timestamp) {
        let have = Bits::new(self.pieces());
        let (complete, chooses) = (false, false);
        self.links.push(Link {
            peer,
            near,
            up: false,
            have,
            complete,
            chooses,
            named_until: Timestamp::default(),
            shrunk: 0,
            suspect: false,
            since: now,
        });
        self.mine = None;
    }

    pub(super) fn remove_link(&mut self, peer: PeerIx) -> bool {
        let Some(at) = self.links.iter().position(|link| link.peer == peer) else { return false };
        self.uncount(at);
        self.links.swap_remove(at);
        self.mine = None;
        true
    }

    /// A neighbour has exactly these pieces.
    pub(super) fn set_pieces(&mut self, peer: PeerIx, have: Bits) {
        let Some(at) = self.links.iter().position(|link| link.peer == peer) else { return };
        self.uncount(at);
        let link = &mut self.links[at];
        if !link.up {
            self.mine = None;
        }
        (link.up, link.complete) = (true, have.is_full());
        link.have = have;
        if link.complete {
            return;
        }
        for piece in link.have.iter() {
            self.rarity[piece] += 1;
            self.near_rarity[piece] += u8::from(link.near);
        }
    }

    /// A neighbour has one more piece, or one less.
    pub(super) fn change_piece(&mut self, peer: PeerIx, piece: usize, has: bool) {
        let Some(link) = self.links.iter_mut().find(|link| link.peer == peer) else { return };
        if link.complete {
            if !has {
                let mut have = link.have.clone();
                have.remove(piece);
                self.set_pieces(peer, have);
            }
            return;
        }
        let changed = if has { link.have.insert(piece) } else { link.have.remove(piece) };
        if !changed {
            return;
        }
        let near = u8::from(link.near);
        let (rarity, near_rarity) = (&mut self.rarity[piece], &mut self.near_rarity[piece]);
        if has {
            (*rarity, *near_rarity) = (*rarity + 1, *near_rarity + near);
        } else {
            (*rarity, *near_rarity) = (*rarity - 1, *near_rarity - near);
        }
    }

    /// Sees whether a neighbour has become complete.
    pub(super) fn check_complete(&mut self, peer: PeerIx) {
        let full = |link: &&Link| link.peer == peer && !link.complete && link.have.is_full();
        if let Some(link) = self.links.iter().find(full) {
            self.set_pieces(peer, link.have.clone());
        }
    }

    /// Takes what a neighbour has out of the counts.
    fn uncount(&mut self, at: usize) {
        let link = &self.links[at];
        if link.complete {
            return;
        }
        for piece in link.have.iter() {
            self.rarity[piece] -= 1;
            self.near_rarity[piece] -= u8::from(link.near);
        }
    }

    /// The pieces that fall to this node: of its near neighbours none has a lesser hash of node and
    /// piece. A fraction of them may have come near meanwhile.
    pub(super) fn mine(&mut self, own: &NodeId, id_of: impl Fn(PeerIx) -> NodeId) -> &Bits {
        let pieces = self.pieces();
        if self.mine.is_none() {
            let near = self.links.iter().filter(|link| link.near && link.up && !link.complete);
            let rivals: Vec<u64> = near.map(|link| salt_of(&id_of(link.peer))).collect();
            let own = salt_of(own);
            let mut mine = Bits::new(pieces);
            for piece in 0..pieces {
                let rank = |salt: &u64| (mix(*salt, piece as u64), *salt);
                if rivals.iter().all(|rival| rank(&own) <= rank(rival)) {
                    mine.insert(piece);
                }
            }
            self.mine = Some(mine);
        }
        self.mine.get_or_insert_with(|| Bits::new(pieces))
    }

    /// Pieces of `range` that no neighbour of the own zone gives: all of them, or those that fall to
    /// this node. A source that chooses gives what it likes, so it does not count.
    pub(super) fn far_pieces(&self, range: &Range<usize>, only_mine: bool) -> Bits {
        let mut pieces = Bits::new(self.pieces());
        if self.up().any(|link| link.near && link.complete && !link.chooses) {
            return pieces;
        }
        let mine = self.mine.as_ref().filter(|_| only_mine);
        for piece in range.start..range.end.min(self.pieces()) {
            if self.near_rarity[piece] == 0 && mine.is_none_or(|mine| mine.has(piece)) {
                pieces.insert(piece);
            }
        }
        pieces
    }

    /// Remembers a holder; one that is known as such is brought up to date.
    pub(super) fn add_candidate(&mut self, candidate: Candidate) -> bool {
        let id = candidate.contact.id;
        if let Some(known) = self.candidates.iter_mut().find(|known| known.contact.id == id) {
            known.complete |= candidate.complete;
            known.rtt_us = known.rtt_us.max(candidate.rtt_us);
            return false;
        }
        let room = self.candidates.len() < MAX_CANDIDATES;
        if room {
            self.candidates.push(candidate);
        }
        room
    }

    /// Links whose node said what it has.
    pub(super) fn up(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(|link| link.up)
    }

    pub(super) fn bytes_of(&self, piece: usize) -> u64 {
        let start = piece as u64 * self.piece_bytes;
        self.piece_bytes.min(self.size.saturating_sub(start))
    }
}

impl Fetch {
    pub(super) fn new(group: GroupId, class: Class, wanted: Bits) -> Self {
        let flying = Bits::new(wanted.len());
        let (readers, doubled) = (Vec::new(), Vec::new());
        Self { group, class, wanted, readers, flying, furthest: 0, doubled }
    }

    pub(super) fn read_at(&mut self, readers: &[u32]) {
        self.readers = readers.iter().take(MAX_READERS).map(|piece| *piece as usize).collect();
        self.readers.sort_unstable();
        self.readers.dedup();
    }

    /// The first gap that any reader comes to: past the first reader, else anywhere.
    pub(super) fn first_gap(&self, have: &Bits) -> Option<usize> {
        let from = self.readers.first().copied().unwrap_or(0);
        have.first_missing(&self.wanted, from).or_else(|| have.first_missing(&self.wanted, 0))
    }

    /// Where to look for pieces first: `ahead` pieces past the gap before each reader.
    pub(super) fn windows(&self, have: &Bits, ahead: usize) -> impl Iterator<Item = Range<usize>> {
        let first = self.first_gap(have);
        let others = self.readers.iter().skip(1).map(|at| have.first_missing(&self.wanted, *at));
        let mut last = None;
        std::iter::once(first).chain(others).flatten().filter_map(move |gap| {
            let new = last != Some(gap);
            last = Some(gap);
            new.then(|| gap..gap.saturating_add(ahead))
        })
    }

    /// Wanted pieces that are missing.
    pub(super) fn missing(&self, have: &Bits) -> usize {
        self.wanted.count_without(have)
    }
}

/// The pieces that are wanted, as bits.
pub(super) fn wanted_bits(wanted: &Wanted, pieces: usize) -> Bits {
    let Wanted::Ranges(ranges) = wanted else { return Bits::full(pieces) };
    let mut bits = Bits::new(pieces);
    for range in ranges.iter().take(MAX_RANGES) {
        let end = (range.end as usize).min(pieces);
        (range.start as usize..end).for_each(|piece| {
            bits.insert(piece);
        });
    }
    bits
}

/// A number of its own for each node.
pub(super) fn salt_of(id: &NodeId) -> u64 {
    id.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
