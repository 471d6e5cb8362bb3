//! One fetch as the driver sees it: whether it gets on.
//!
//! Decides when holders are looked for beside what the core wants, and when a fetch has failed. It
//! must never end a fetch for which something is under way, or which waits for the others of its group
//! or for the bandwidth of this node, but for one that gets no piece at all.

use std::sync::Arc;
use std::time::Duration;

use ddr_oci::PieceChain;
use ddr_proto::swarm::{BlobView, GroupId};
use tokio::time::Instant;

use super::gathering::Gathering;
use crate::throttle::MIN_RATE;

/// A fetch for which nothing was under way for so long, in spite of lookups, has failed.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Holders are looked for when nothing was under way for so long, even if the core would wait longer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Such lookups of one fetch in a row.
const MAX_LOOKUPS: u32 = 3;
/// A fetch that got no piece for so long, and for as long as a piece takes at the least limit of
/// bandwidth that a holder may have, has failed, whatever is under way.
const NO_PIECE: Duration = Duration::from_secs(60);

/// A blob on its way here.
pub(super) struct Entry {
    pub(super) gathering: Arc<Gathering>,
    /// Whose window it shares.
    pub(super) group: GroupId,
    /// Lookups that were begun.
    lookups: u32,
    is_looking: bool,
    /// Lookups that ended since anything was under way.
    in_vain: u32,
    /// When something was last under way.
    busy_at: Instant,
    /// Pieces that are here, and when there were last more of them.
    pieces: usize,
    piece_at: Instant,
    /// This node was too short of memory or bandwidth to ask for a piece, since the last look.
    is_held_back: bool,
}

/// How a fetch gets on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Course {
    Fine,
    /// Look for holders.
    Lost,
    /// Nobody is left.
    Failed,
}

impl Entry {
    pub(super) fn new(gathering: Arc<Gathering>, group: GroupId, now: Instant) -> Self {
        Self {
            gathering,
            group,
            lookups: 0,
            is_looking: false,
            in_vain: 0,
            busy_at: now,
            pieces: 0,
            piece_at: now,
            is_held_back: false,
        }
    }

    /// Nobody was asked for a piece, because this node is short of memory or bandwidth: that time does
    /// not count.
    pub(super) fn is_held_back(&mut self) {
        self.is_held_back = true;
    }

    /// Something is under way.
    pub(super) fn is_busy(&mut self, now: Instant) {
        (self.busy_at, self.in_vain) = (now, 0);
    }

    /// A lookup begins; whether it is not the first one. `None`: one runs.
    pub(super) fn begin_lookup(&mut self) -> Option<bool> {
        if std::mem::replace(&mut self.is_looking, true) {
            return None;
        }
        self.lookups += 1;
        Some(self.lookups > 1)
    }

    /// A lookup has ended.
    pub(super) fn looked_up(&mut self) {
        self.is_looking = false;
        self.in_vain += 1;
    }

    /// How it gets on, as the core sees it now.
    pub(super) fn course(&mut self, view: &BlobView, now: Instant) -> Course {
        // A client that reads a part has what it reads.
        let waits = view.missing == 0 || waits_its_turn(view);
        if view.asks > 0 || waits {
            self.is_busy(now);
        }
        let is_held_back = std::mem::take(&mut self.is_held_back);
        if self.pieces != view.have || waits || is_held_back {
            (self.pieces, self.piece_at) = (view.have, now);
        }
        let idle = now - self.busy_at;
        if (idle >= GIVE_UP && self.in_vain > 0)
            || now - self.piece_at >= patience(self.gathering.size)
        {
            Course::Failed
        } else if idle >= LOOK_AGAIN && self.in_vain < MAX_LOOKUPS {
            Course::Lost
        } else {
            Course::Fine
        }
    }
}

/// The window of its group is taken up by blobs that come before it.
fn waits_its_turn(view: &BlobView) -> bool {
    view.asks == 0 && view.group_asks > 0 && !view.neighbours.is_empty()
}

/// How long a fetch of a blob of this size goes on without a piece.
fn patience(size: u64) -> Duration {
    NO_PIECE + Duration::from_secs(PieceChain::piece_len_for(size) / MIN_RATE)
}

#[cfg(test)]
mod tests {
    use ddr_proto::id::{Key, NodeId};

    use super::*;
    use crate::swarm::gathering::tests::Bench;

    /// Of the blob of the bench, in bytes.
    const SIZE: u64 = crate::swarm::gathering::tests::LEN as u64;

    fn view(asks: usize, have: usize) -> BlobView {
        let (blob, pieces, neighbours) = (Key([0; 32]), 9, Vec::new());
        let missing = pieces - have;
        let group_asks = asks;
        BlobView { blob, pieces, have, missing, neighbours, asks, group_asks, fetching: true }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_for_which_nothing_is_under_way_fails() {
        let bench = Bench::new(1);
        let mut entry = Entry::new(Arc::clone(&bench.gathering), GroupId(1), Instant::now());
        assert_eq!(entry.course(&view(0, 0), Instant::now()), Course::Fine);
        tokio::time::advance(LOOK_AGAIN).await;
        assert_eq!(entry.course(&view(0, 0), Instant::now()), Course::Lost);
        assert_eq!((entry.begin_lookup(), entry.begin_lookup()), (Some(false), None));
        tokio::time::advance(GIVE_UP).await;
        assert_eq!(entry.course(&view(0, 0), Instant::now()), Course::Lost, "it still looks");
        entry.looked_up();
        assert_eq!(entry.course(&view(1, 0), Instant::now()), Course::Fine, "one is asked");
        tokio::time::advance(GIVE_UP).await;
        entry.looked_up();
        assert_eq!(entry.course(&view(0, 0), Instant::now()), Course::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_gets_no_piece_fails_whatever_is_under_way() {
        let bench = Bench::new(1);
        let mut entry = Entry::new(Arc::clone(&bench.gathering), GroupId(1), Instant::now());
        for have in 0..3 {
            assert_eq!(entry.course(&view(5, have), Instant::now()), Course::Fine);
            tokio::time::advance(patience(SIZE) - Duration::from_secs(1)).await;
        }
        assert_eq!(entry.course(&view(5, 2), Instant::now()), Course::Fine);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(entry.course(&view(5, 2), Instant::now()), Course::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_waits_its_turn_while_somebody_has_it() {
        let bench = Bench::new(1);
        let mut entry = Entry::new(Arc::clone(&bench.gathering), GroupId(1), Instant::now());
        let behind = |neighbours| BlobView { group_asks: 16, neighbours, ..view(0, 0) };
        for _ in 0..100 {
            let view = behind(vec![(NodeId([1; 32]), true)]);
            assert_eq!(entry.course(&view, Instant::now()), Course::Fine);
            tokio::time::advance(GIVE_UP).await;
        }
        entry.looked_up();
        assert_eq!(entry.course(&behind(Vec::new()), Instant::now()), Course::Failed);
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_bandwidth_of_its_own_does_not_count() {
        let bench = Bench::new(1);
        let mut entry = Entry::new(Arc::clone(&bench.gathering), GroupId(1), Instant::now());
        for _ in 0..100 {
            entry.is_held_back();
            assert_eq!(entry.course(&view(5, 0), Instant::now()), Course::Fine);
            tokio::time::advance(patience(SIZE) - Duration::from_secs(1)).await;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(entry.course(&view(5, 0), Instant::now()), Course::Failed);
    }

    #[test]
    fn a_piece_has_the_time_that_it_takes_at_the_least_limit() {
        for size in [SIZE, 1 << 30, 8 << 30, 64 << 30] {
            let piece = PieceChain::piece_len_for(size);
            assert!(patience(size) > Duration::from_secs_f64(piece as f64 / MIN_RATE as f64));
        }
        assert_eq!(patience(8 << 30), NO_PIECE + Duration::from_secs(64), "pieces of 4 MiB");
    }
}
