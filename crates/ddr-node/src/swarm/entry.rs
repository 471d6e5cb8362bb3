//! One fetch as the driver sees it: whether it gets on.
//!
//! Decides when holders are looked for beside what the core wants, and when a fetch has failed. It
//! must never end a fetch for which something is under way, but for one that gets no piece at all.

use std::sync::Arc;
use std::time::Duration;

use ddr_proto::swarm::{BlobView, GroupId};
use tokio::time::Instant;

use super::gathering::Gathering;

/// A fetch for which nothing was under way for so long, in spite of lookups, has failed.
const GIVE_UP: Duration = Duration::from_secs(5);
/// Holders are looked for when nothing was under way for so long, even if the core would wait longer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Such lookups of one fetch in a row.
const MAX_LOOKUPS: u32 = 3;
/// A fetch that got no piece for so long has failed, whatever is under way.
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
        }
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
        if view.asks > 0 || view.missing == 0 {
            self.is_busy(now);
        }
        if self.pieces != view.have || view.missing == 0 {
            (self.pieces, self.piece_at) = (view.have, now);
        }
        let idle = now - self.busy_at;
        if (idle >= GIVE_UP && self.in_vain > 0) || now - self.piece_at >= NO_PIECE {
            Course::Failed
        } else if idle >= LOOK_AGAIN && self.in_vain < MAX_LOOKUPS {
            Course::Lost
        } else {
            Course::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use ddr_proto::id::Key;

    use super::*;
    use crate::swarm::gathering::tests::Bench;

    fn view(asks: usize, have: usize) -> BlobView {
        let (blob, pieces, neighbours) = (Key([0; 32]), 9, Vec::new());
        let missing = pieces - have;
        BlobView { blob, pieces, have, missing, neighbours, asks, fetching: true }
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
            tokio::time::advance(NO_PIECE - Duration::from_secs(1)).await;
        }
        assert_eq!(entry.course(&view(5, 2), Instant::now()), Course::Fine);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(entry.course(&view(5, 2), Instant::now()), Course::Failed);
    }
}
