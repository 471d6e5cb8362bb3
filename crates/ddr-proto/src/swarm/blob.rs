//! One blob: which pieces are here, and which the neighbours have.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use ddr_oci::PieceChain;

use super::bits::Bits;
use super::claims::Claims;
use super::crossing::Crossing;
use super::io::{Class, GroupId, Wanted};
use super::limits::{LOOK_MS, LOST_MS, MAX_CANDIDATES, MAX_PARTED, MAX_RANGES, MAX_READERS};
use super::peers::PeerIx;
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
    /// Of its ID: told apart by this at one glance.
    pub(super) salt: u64,
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
    /// Who said goodbye, the first of them first, and until when it is not greeted again: at most [`MAX_PARTED`].
    parted: VecDeque<(NodeId, Timestamp)>,
    pub(super) claims: Claims,
    /// Nodes that said to have the whole blob, of another size.
    pub(super) dissenters: Vec<NodeId>,
    /// Neighbours without all pieces that have each piece, and those of them that are near.
    pub(super) rarity: Vec<u8>,
    near_rarity: Vec<u8>,
    /// Pieces that are counted at least once.
    counted: Bits,
    /// Who of the zone asks other zones for what; from the first neighbour there on.
    pub(super) crossing: Option<Box<Crossing>>,
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
            parted: VecDeque::new(),
            claims: Claims::default(),
            dissenters: Vec::new(),
            rarity: vec![0; pieces],
            near_rarity: vec![0; pieces],
            counted: Bits::new(pieces),
            crossing: None,
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
    }

    pub(super) fn remove_link(&mut self, peer: PeerIx) -> bool {
        let Some(at) = self.links.iter().position(|link| link.peer == peer) else { return false };
        self.uncount(at);
        self.links.swap_remove(at);
        true
    }

    /// A node said goodbye: it would only say so again for a while.
    pub(super) fn note_parted(&mut self, node: NodeId, now: Timestamp) {
        self.parted.retain(|(parted, _)| *parted != node);
        if self.parted.len() >= MAX_PARTED {
            self.parted.pop_front();
        }
        self.parted.push_back((node, now.after_ms(LOST_MS)));
    }

    /// Forgets candidates that are not to be greeted now.
    pub(super) fn pass_over(&mut self, now: Timestamp, is_avoided: impl Fn(&NodeId) -> bool) {
        let parted = &self.parted;
        let has_parted =
            |id: &NodeId| parted.iter().any(|(node, until)| node == id && *until > now);
        self.candidates.retain(|candidate| {
            let id = &candidate.contact.id;
            !is_avoided(id) && !has_parted(id)
        });
    }

    /// A neighbour has exactly these pieces.
    pub(super) fn set_pieces(&mut self, peer: PeerIx, have: Bits) {
        let Some(at) = self.links.iter().position(|link| link.peer == peer) else { return };
        self.uncount(at);
        let link = &mut self.links[at];
        (link.up, link.complete) = (true, have.is_full());
        link.have = have;
        if link.complete {
            return;
        }
        for piece in link.have.iter() {
            self.rarity[piece] += 1;
            self.near_rarity[piece] += u8::from(link.near);
            self.counted.insert(piece);
        }
    }

    /// The neighbour at this place has these pieces too. Returns whether one of them is news: neither
    /// here nor under way.
    pub(super) fn add_pieces(&mut self, at: usize, pieces: impl Iterator<Item = usize>) -> bool {
        let link = &mut self.links[at];
        let (complete, near) = (link.complete, u8::from(link.near));
        let mut news = false;
        for piece in pieces {
            if !complete && link.have.insert(piece) {
                self.rarity[piece] += 1;
                self.near_rarity[piece] += near;
                self.counted.insert(piece);
            }
            let flying = self.fetch.as_ref().is_none_or(|fetch| fetch.flying.has(piece));
            news |= !flying && !self.have.has(piece);
        }
        if !complete && link.have.is_full() {
            self.uncount(at);
            self.links[at].complete = true;
        }
        news
    }

    /// A neighbour has this piece after all.
    pub(super) fn restore_piece(&mut self, peer: PeerIx, piece: usize) {
        if let Some(at) = self.links.iter().position(|link| link.peer == peer) {
            self.add_pieces(at, std::iter::once(piece));
        }
    }

    /// A neighbour has one piece less than it told.
    pub(super) fn take_piece(&mut self, peer: PeerIx, piece: usize) {
        let Some(link) = self.links.iter_mut().find(|link| link.peer == peer) else { return };
        if link.complete {
            let mut have = link.have.clone();
            have.remove(piece);
            self.set_pieces(peer, have);
        } else if link.have.remove(piece) {
            let near = link.near;
            self.uncount_piece(piece, near);
        }
    }

    /// Takes what a neighbour has out of the counts.
    fn uncount(&mut self, at: usize) {
        let link = &mut self.links[at];
        if link.complete {
            return;
        }
        let (near, have) = (link.near, std::mem::take(&mut link.have));
        have.iter().for_each(|piece| self.uncount_piece(piece, near));
        self.links[at].have = have;
    }

    fn uncount_piece(&mut self, piece: usize, near: bool) {
        self.rarity[piece] -= 1;
        self.near_rarity[piece] -= u8::from(near);
        if self.rarity[piece] == 0 {
            self.counted.remove(piece);
        }
    }

    /// The pieces that may be asked for and that a neighbour has.
    pub(super) fn open_pieces(&self, fetch: &Fetch) -> Bits {
        let mut open = fetch.wanted.clone();
        open.remove_all(&self.have);
        open.remove_all(&fetch.flying);
        if !self.up().any(|link| link.complete) {
            open.keep_all(&self.counted);
        }
        open
    }

    /// Sees which pieces may be asked of other zones: of those that are open the ones that nobody of the
    /// own zone gives. A source that chooses gives what it likes, so it does not count.
    pub(super) fn refresh_crossing(&mut self, now: Timestamp, step_ms: u64) {
        let Some(fetch) = &self.fetch else { return };
        let Some(mut crossing) = self.crossing.take() else { return };
        let near = self.up().any(|link| link.near && link.complete && !link.chooses);
        let open = self.open_pieces(fetch);
        let missing = open.iter().filter(|piece| !near && self.near_rarity[*piece] == 0);
        crossing.refresh(missing, now, step_ms);
        self.crossing = Some(crossing);
    }

    /// A node of the own zone does not fetch the blob any more, or cannot be reached.
    pub(super) fn remove_rival(&mut self, node: &NodeId) {
        if let Some(crossing) = &mut self.crossing {
            crossing.remove_rival(salt_of(node));
        }
    }

    /// Remembers a holder; one that is known as such is brought up to date.
    pub(super) fn add_candidate(&mut self, candidate: Candidate) -> bool {
        let same = |known: &&mut Candidate| {
            known.salt == candidate.salt && known.contact.id == candidate.contact.id
        };
        if let Some(known) = self.candidates.iter_mut().find(same) {
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
