//! Whom to ask for what: fills the window of a group.
//!
//! Neighbours come in the order of their queue, sources that choose first; of each the rarest piece
//! that is due. Must never ask for what is here, under way, or not wanted, and never ask more of
//! one neighbour or in one group than the limits say.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

use super::bits::Bits;
use super::blob::{Blob, BlobIx, Link, salt_of};
use super::io::{AskId, Class, GroupId, Output};
use super::pace::Pace;
use super::peers::PeerIx;
use super::picker::{Choice, Pick, mix};
use super::{
    ENDGAME_PIECES, HEDGE_BUDGET, HEDGE_FLOOR_MS, LEAST_CROSS_MS, LEAST_WINDOW, LEFT_BEHIND,
    MAX_CROSS_MS, MAX_NEIGHBOURS, MAX_UPLOADS_PER_NODE, Swarm,
};
use crate::time::Timestamp;

/// An ask of this node counts as so many uploads that the neighbour told of: those are old news, and all
/// neighbours hear them, so that who follows them runs after the others.
const OWN_ASK: usize = 16;

/// Blobs that share one window.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) class: Class,
    /// Not complete, in the order in which they were asked for.
    pub(super) blobs: Vec<BlobIx>,
    /// Asks under way.
    pub(super) asks: usize,
    pub(super) pace: Pace,
    /// Pieces that came since the last time one was asked for twice because it was slow.
    pub(super) since_hedge: u32,
    /// The window has not been full since.
    pub(super) hungry_since: Option<Timestamp>,
}

/// A request for a piece that is under way.
#[derive(Copy, Clone, Debug)]
pub(super) struct Ask {
    pub(super) blob: BlobIx,
    pub(super) group: GroupId,
    pub(super) peer: PeerIx,
    /// `None` while a source chooses.
    pub(super) piece: Option<usize>,
    pub(super) sent: Timestamp,
}

/// How a neighbour is preferred: least first.
type Rank = (u8, usize, u32);

/// What to ask a neighbour for.
#[derive(Copy, Clone, Debug)]
enum Target {
    Piece(BlobIx, usize),
    Any(BlobIx),
}

/// How far to look for pieces.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Reach {
    /// Only past the gaps before the readers.
    Window,
    /// Anywhere.
    All,
}

impl Group {
    pub(super) fn new(class: Class) -> Self {
        Self {
            class,
            blobs: Vec::new(),
            asks: 0,
            pace: Pace::default(),
            since_hedge: 0,
            hungry_since: None,
        }
    }
}

impl Swarm {
    /// Fills the window of every group in which something has changed.
    pub(super) fn ask_what_is_due(&mut self) {
        while let Some(group) = self.dirty.pop() {
            if self.groups.contains_key(&group) {
                self.fill(group);
                let row: Vec<BlobIx> = self.row(group).collect();
                row.into_iter().for_each(|ix| self.touch(ix));
            }
        }
    }

    fn fill(&mut self, group: GroupId) {
        let window = self.window(group);
        let mut room = window.saturating_sub(self.groups[&group].asks);
        room -= self.ask_deciding_pieces(group, room);
        for reach in [Reach::Window, Reach::All] {
            if room > 0 {
                room -= self.ask_in_order(group, room, reach);
            }
        }
        if room > 0 {
            room -= self.double_the_last(group, room);
        }
        self.hedge(group);
        let now = self.now;
        if let Some(group) = self.groups.get_mut(&group) {
            group.hungry_since = (room > 0).then(|| group.hungry_since.unwrap_or(now));
        }
    }

    /// Asks that may be under way in a group.
    pub(super) fn window(&self, group: GroupId) -> usize {
        let row = &self.groups[&group];
        let pull_runs =
            || self.groups.values().any(|other| other.class == Class::Pull && other.asks > 0);
        if row.class == Class::Background && pull_runs() {
            return LEAST_WINDOW;
        }
        let largest = row.blobs.iter().map(|ix| self.blob(*ix).piece_bytes).max();
        row.pace.window(&self.cfg, largest.unwrap_or(1))
    }

    /// Asks neighbours in the order of their queue; returns how many asks were made.
    fn ask_in_order(&mut self, group: GroupId, room: usize, reach: Reach) -> usize {
        self.refresh_crossing(group);
        let limit = self.per_neighbour(group);
        let salt = self.chance.number();
        let mut queue = BinaryHeap::from(self.ranked(group, limit, reach, salt));
        let mut asked = 0;
        while asked < room
            && let Some(mut best) = queue.peek_mut()
        {
            let Reverse((rank, peer)) = &mut *best;
            let target = self.target(group, *peer, reach, salt.wrapping_add(asked as u64));
            if let Some(target) = target {
                self.ask(group, *peer, target);
                asked += 1;
                rank.1 += OWN_ASK;
            }
            if target.is_none() || self.peers.get(*peer).asks >= limit {
                PeekMut::pop(best);
            }
        }
        asked
    }

    /// Sees which pieces may be asked of other zones.
    fn refresh_crossing(&mut self, group: GroupId) {
        let median_ms = self.groups[&group].pace.median_ms();
        // Time for a piece to come here, and for the zone to hear of it.
        let step_ms = 4 * (median_ms + self.cfg.have_delay_ms);
        let step_ms = step_ms.clamp(LEAST_CROSS_MS, MAX_CROSS_MS);
        let now = self.now;
        let spread = |ix: &BlobIx| self.blob(*ix).crossing.is_some();
        let spread: Vec<BlobIx> = self.row(group).filter(spread).collect();
        spread.into_iter().for_each(|ix| self.blob_mut(ix).refresh_crossing(now, step_ms));
    }

    /// Asks that may be under way to one neighbour.
    fn per_neighbour(&self, group: GroupId) -> usize {
        // One more than this is asked for the sake of the last pieces, and that must not be too much.
        self.cfg.per_neighbour.max(self.window(group) / 8).min(MAX_UPLOADS_PER_NODE - 1)
    }

    /// The neighbours that may be asked and have something within reach, each once.
    fn ranked(
        &self,
        group: GroupId,
        limit: usize,
        reach: Reach,
        salt: u64,
    ) -> Vec<Reverse<(Rank, PeerIx)>> {
        let mut ranked: Vec<Reverse<(Rank, PeerIx)>> = Vec::new();
        let mut ahead = self.cfg.look_ahead;
        let several = self.groups[&group].blobs.len() > 1;
        for ix in self.row(group) {
            let blob = self.blob(ix);
            let Some(open) = blob.open_within(reach, ahead) else { continue };
            let open = open.parts();
            ahead = ahead.saturating_sub(blob.pieces() - blob.count);
            for link in blob.up().filter(|link| link.chooses || link.have.meets(&open)) {
                let Some(rank) = self.rank(link, limit, salt) else { continue };
                let same = |entry: &&mut Reverse<(Rank, PeerIx)>| entry.0.1 == link.peer;
                match ranked.iter_mut().find(|entry| several && same(entry)) {
                    Some(Reverse(known)) => known.0 = known.0.min(rank),
                    None => ranked.push(Reverse((rank, link.peer))),
                }
            }
        }
        ranked
    }

    fn rank(&self, link: &Link, limit: usize, salt: u64) -> Option<Rank> {
        let peer = self.peers.get(link.peer);
        if peer.asks >= limit || peer.busy_until > self.now {
            return None;
        }
        let kind = match link {
            Link { suspect: true, .. } => 3,
            Link { chooses: true, .. } => 0,
            // It is asked for what falls to this node only, and the zone waits for that.
            Link { near: false, .. } => 1,
            Link { near: true, .. } => 2,
        };
        let queue = OWN_ASK * (peer.asks + peer.distance()) + usize::from(peer.load);
        Some((kind, queue, mix(salt, link.peer as u64)))
    }

    /// What to ask this neighbour for.
    fn target(&self, group: GroupId, peer: PeerIx, reach: Reach, salt: u64) -> Option<Target> {
        let mut ahead = self.cfg.look_ahead;
        let mut best: Option<(BlobIx, Pick)> = None;
        for ix in self.row(group) {
            let blob = self.blob(ix);
            if !blob.is_fetching() || !blob.may_ask() {
                continue;
            }
            let Some(link) = blob.link(peer).filter(|link| link.up) else {
                ahead = ahead.saturating_sub(blob.pieces() - blob.count);
                continue;
            };
            if link.chooses && link.named_until <= self.now && blob.wants_any() {
                return Some(self.of_source(ix));
            }
            let pick = blob.pick(link, (reach, ahead), salt);
            if let Some(pick) = pick
                && best.is_none_or(|(_, best)| pick.rank < best.rank)
            {
                best = Some((ix, pick));
            }
            ahead = ahead.saturating_sub(blob.pieces() - blob.count);
            if ahead == 0 && reach == Reach::Window {
                break;
            }
        }
        best.map(|(ix, pick)| Target::Piece(ix, pick.piece))
    }

    /// What to ask a source for that chooses: its choice, unless it has left the first gap behind and
    /// nobody else has that piece. Then it was lost with who got it, and a few nodes ask for it by
    /// name: the more, the longer it is missing.
    fn of_source(&self, ix: BlobIx) -> Target {
        let blob = self.blob(ix);
        let gap = blob.fetch.as_ref().and_then(|fetch| {
            let gap = fetch.first_gap(&blob.have)?;
            let open = blob.rarity[gap] == 0 && !fetch.flying.has(gap);
            let left_behind = fetch.furthest.saturating_sub(gap) / LEFT_BEHIND;
            let draw = mix(salt_of(&self.own.id), gap as u64) as usize % MAX_NEIGHBOURS;
            (open && draw < left_behind).then_some(gap)
        });
        gap.map_or(Target::Any(ix), |gap| Target::Piece(ix, gap))
    }

    /// Pieces that decide between two chains come before all others.
    fn ask_deciding_pieces(&mut self, group: GroupId, room: usize) -> usize {
        let disputed = |ix: &BlobIx| self.blob(*ix).claims.doubt.is_some();
        let row: Vec<BlobIx> = self.row(group).filter(disputed).collect();
        let mut asked = 0;
        for ix in row {
            let blob = self.blob(ix);
            let (Some(doubt), Some(fetch)) = (blob.claims.doubt, &blob.fetch) else { continue };
            if asked < room && !fetch.flying.has(doubt.piece) && !blob.have.has(doubt.piece) {
                asked += usize::from(self.ask_another(ix, doubt.piece));
            }
        }
        asked
    }

    /// Asks a neighbour for a piece that is not under way to it; false when there is none.
    fn ask_another(&mut self, ix: BlobIx, piece: usize) -> bool {
        let blob = self.blob(ix);
        let Some(group) = blob.fetch.as_ref().map(|fetch| fetch.group) else { return false };
        let (limit, salt) = (self.per_neighbour(group), 0);
        let asked = |peer: PeerIx| {
            let same = |ask: &&Ask| ask.blob == ix && ask.peer == peer && ask.piece == Some(piece);
            self.asks.values().any(|ask| same(&ask))
        };
        // Who stands for a chain can be told by the piece whether it is true to it.
        let disputed = blob.claims.doubt.is_some_and(|doubt| doubt.piece == piece);
        let stranger = |peer: PeerIx| {
            let id = &self.peers.get(peer).contact.id;
            disputed && !blob.claims.is_signer(id)
        };
        // What the zone has does not cross once more.
        let near = blob.up().any(|link| link.near && link.have.has(piece) && !link.chooses);
        let able = blob.up().filter(|link| link.have.has(piece) && !asked(link.peer));
        let able = able.filter(|link| disputed || link.near || !near);
        let ranked = able.filter_map(|link| {
            let rank = self.rank(link, limit + 1, salt)?;
            Some((stranger(link.peer), rank, link.peer))
        });
        let Some((_, _, peer)) = ranked.min() else { return false };
        self.ask(group, peer, Target::Piece(ix, piece));
        true
    }

    /// When only a few pieces are missing and all of them are under way, asks for each once more.
    fn double_the_last(&mut self, group: GroupId, room: usize) -> usize {
        let mut last: Vec<(BlobIx, usize)> = Vec::new();
        for ix in self.row(group) {
            let blob = self.blob(ix);
            let Some(fetch) = &blob.fetch else { continue };
            if last.len() + fetch.missing(&blob.have) > ENDGAME_PIECES {
                return 0;
            }
            let missing = fetch.wanted.iter().filter(|piece| !blob.have.has(*piece));
            last.extend(missing.map(|piece| (ix, piece)));
        }
        let once = |(ix, piece): &(BlobIx, usize)| {
            let fetch = self.blob(*ix).fetch.as_ref();
            fetch.is_some_and(|f| f.flying.has(*piece) && !f.doubled.contains(piece))
        };
        last.retain(once);
        let mut asked = 0;
        for (ix, piece) in last.into_iter().take(room) {
            asked += usize::from(self.ask_another(ix, piece));
        }
        asked
    }

    /// Asks once more for the first gap when its ask is slow and the budget allows it.
    fn hedge(&mut self, group: GroupId) {
        let Some((ix, piece, at)) = self.slow_gap(group) else { return };
        if at > self.now {
            return;
        }
        let doubled = self.ask_another(ix, piece);
        if let Some(group) = self.groups.get_mut(&group) {
            // Nobody else has it: that will not change at once.
            group.since_hedge = if doubled { 0 } else { HEDGE_BUDGET / 2 };
        }
    }

    /// The ask for the first gap of a group, if it may be doubled, and when it counts as slow.
    pub(super) fn slow_gap(&self, group: GroupId) -> Option<(BlobIx, usize, Timestamp)> {
        let row = self.groups.get(&group)?;
        let slow_ms = row.pace.p90_ms()?.max(HEDGE_FLOOR_MS);
        if row.since_hedge < HEDGE_BUDGET {
            return None;
        }
        let ix = *row.blobs.first()?;
        let blob = self.blob(ix);
        let fetch = blob.fetch.as_ref()?;
        let gap = fetch.first_gap(&blob.have)?;
        if !fetch.flying.has(gap) || fetch.doubled.contains(&gap) {
            return None;
        }
        let ask = self.asks.values().find(|ask| ask.blob == ix && ask.piece == Some(gap))?;
        Some((ix, gap, ask.sent.after_ms(slow_ms)))
    }

    fn ask(&mut self, group: GroupId, peer: PeerIx, target: Target) {
        let (ix, piece) = match target {
            Target::Piece(ix, piece) => (ix, Some(piece)),
            Target::Any(ix) => (ix, None),
        };
        let id = AskId(self.next_ask);
        self.next_ask += 1;
        self.asks.insert(id, Ask { blob: ix, group, peer, piece, sent: self.now });
        if let Some(piece) = piece {
            self.takes_off(ix, piece);
        }
        let class = self.groups.get_mut(&group).map_or(Class::Pull, |row| {
            row.asks += 1;
            row.class
        });
        let peer = self.peers.get_mut(peer);
        peer.asks += 1;
        let node = peer.contact.id;
        let blob = self.blob(ix).key;
        let piece = piece.map(|piece| piece as u32);
        self.outputs.push_back(Output::Ask { ask: id, node, blob, piece, class });
    }

    /// A piece is under way, once or once more.
    pub(super) fn takes_off(&mut self, ix: BlobIx, piece: usize) {
        if let Some(fetch) = &mut self.blob_mut(ix).fetch
            && !fetch.flying.insert(piece)
        {
            fetch.doubled.push(piece);
        }
    }

    /// An ask is under way no more. Returns what it was.
    pub(super) fn end_ask(&mut self, id: AskId) -> Option<Ask> {
        let ask = self.asks.remove(&id)?;
        self.peers.get_mut(ask.peer).asks -= 1;
        let drained = self.groups.get_mut(&ask.group).is_some_and(|group| {
            group.asks -= 1;
            group.asks == 0 && group.blobs.is_empty()
        });
        if drained {
            self.groups.remove(&ask.group);
        }
        if let (Some(piece), Some(fetch)) = (ask.piece, &mut self.blob_mut(ask.blob).fetch) {
            match fetch.doubled.iter().position(|doubled| *doubled == piece) {
                Some(at) => {
                    fetch.doubled.swap_remove(at);
                }
                None => {
                    fetch.flying.remove(piece);
                }
            }
        }
        self.stir(ask.blob);
        self.touch(ask.blob);
        Some(ask)
    }

    /// Breaks an ask off.
    pub(super) fn cancel(&mut self, id: AskId) {
        if let Some(ask) = self.end_ask(id) {
            self.outputs.push_back(Output::Cancel { ask: id });
            self.peers.release(ask.peer);
        }
    }
}

impl Blob {
    /// Whether there is something to check pieces against. A blob of one piece needs only its digest.
    pub(super) fn may_ask(&self) -> bool {
        self.pieces() == 1 || self.claims.used().is_some()
    }

    /// Whether a source may choose: everything is wanted, and something is missing that is not under
    /// way.
    fn wants_any(&self) -> bool {
        let Some(fetch) = &self.fetch else { return false };
        fetch.wanted.is_full() && self.pieces() - self.count > fetch.flying.count()
    }

    /// The pieces to ask for, in the windows or past them; `None` when it is not the time.
    fn open_within(&self, reach: Reach, ahead: usize) -> Option<Bits> {
        let fetch = self.fetch.as_ref().filter(|_| self.is_fetching() && self.may_ask())?;
        let mut open = self.open_pieces(fetch);
        let mut windows = Bits::new(self.pieces());
        fetch.windows(&self.have, ahead).for_each(|window| windows.insert_range(window));
        match reach {
            Reach::Window => open.keep_all(&windows),
            Reach::All => open.remove_all(&windows),
        }
        Some(open)
    }

    /// The rarest piece of a neighbour that it may be asked for.
    fn pick(&self, link: &Link, (reach, ahead): (Reach, usize), salt: u64) -> Option<Pick> {
        match reach {
            Reach::Window => {
                let mut windows = self.fetch.as_ref()?.windows(&self.have, ahead);
                windows.find_map(|range| self.rarest(link, range, salt))
            }
            Reach::All => self.rarest(link, 0..self.pieces(), salt),
        }
    }

    /// The rarest piece in `range` that this neighbour can give and may be asked for.
    fn rarest(&self, link: &Link, range: Range<usize>, salt: u64) -> Option<Pick> {
        let fetch = self.fetch.as_ref()?;
        let crossing = self.crossing.as_ref().filter(|_| !link.near);
        let choice = Choice {
            theirs: &link.have,
            have: &self.have,
            flying: &fetch.flying,
            wanted: &fetch.wanted,
            only: crossing.map(|crossing| crossing.due()),
            rarity: &self.rarity,
        };
        choice.pick(range, salt)
    }
}
