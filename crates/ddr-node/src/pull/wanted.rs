//! Which pieces of a blob on its way are wanted, by what its readers want.
//!
//! Decides how far ahead of a reader of a part is asked for, when a fetch wants the whole blob, and
//! when one that nobody reads ends.

use std::ops::Range;
use std::time::Duration;

use ddr_oci::PieceChain;
use ddr_proto::swarm::{Class, Wanted};
use tokio::time::Instant;

use super::fetch::ABANDON_AFTER;
use super::places::Wish;
use crate::swarm::Interest;

/// How long a fetch of parts only goes on without a reader. Those who read parts come back soon, and
/// nothing is asked for until they do.
pub(super) const PARTS_STAY: Duration = Duration::from_secs(10);
/// Pieces that are asked for ahead of one who reads a part...
const AHEAD_PIECES: u64 = 8;
/// ... but at least, and at most, so many bytes, and never past the end of the part.
const LEAST_AHEAD: u64 = 1 << 20;
const MOST_AHEAD: u64 = 16 << 20;

/// See the module comment.
pub(super) struct Wants {
    size: u64,
    piece_len: u64,
    /// Somebody wanted the whole blob. It is of use to others, so it is fetched to its end.
    whole: bool,
    read_at: Instant,
}

impl Wants {
    pub(super) fn new(size: u64, now: Instant) -> Self {
        Self { size, piece_len: PieceChain::piece_len_for(size), whole: false, read_at: now }
    }

    /// What to ask for. `vouched`: parts can be proven without the rest.
    pub(super) fn interest(
        &mut self,
        wish: Option<&Wish>,
        vouched: bool,
        now: Instant,
    ) -> Interest {
        let none = Wish::default();
        let wish = wish.inspect(|_| self.read_at = now).unwrap_or(&none);
        let all = |left: &Range<u64>| *left == (0..self.size);
        self.whole |= wish.whole || wish.left.iter().any(all);
        // A single node's word for the chain is proven by the whole blob alone.
        let needs_proof = !vouched && !wish.left.is_empty();
        let wanted = if self.whole || needs_proof {
            Wanted::All
        } else {
            Wanted::Ranges(wish.left.iter().map(|left| self.ahead(left)).collect())
        };
        let class = if wish.is_read { Class::Pull } else { Class::Background };
        let readers = wish.left.iter().map(|left| self.piece(left.start)).collect();
        Interest { readers, wanted, class }
    }

    /// Whether nobody has read it for too long.
    pub(super) fn is_abandoned(&self, is_read: bool, now: Instant) -> bool {
        let stays = if self.whole { ABANDON_AFTER } else { PARTS_STAY };
        !is_read && now - self.read_at >= stays
    }

    fn ahead(&self, left: &Range<u64>) -> Range<u32> {
        let ahead = (AHEAD_PIECES * self.piece_len).clamp(LEAST_AHEAD, MOST_AHEAD);
        let end = left.end.min(left.start.saturating_add(ahead));
        self.piece(left.start)..self.piece(end.saturating_sub(1)).saturating_add(1)
    }

    fn piece(&self, at: u64) -> u32 {
        u32::try_from(at / self.piece_len).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn part(left: Range<u64>) -> Wish {
        Wish { whole: false, is_read: true, left: vec![left] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_asked_for_a_little_ahead_and_no_further_than_its_end() {
        let now = Instant::now();
        // Pieces of 64 KiB.
        let mut wants = Wants::new(32 * MIB, now);
        let ranges = |interest: Interest| match interest.wanted {
            Wanted::Ranges(ranges) => ranges,
            Wanted::All => panic!("all of it"),
        };
        let wish = part(4 * MIB..20 * MIB);
        let asked = ranges(wants.interest(Some(&wish), true, now));
        assert_eq!(asked, std::iter::once(64..80).collect::<Vec<_>>());
        let wish = part(4 * MIB..4 * MIB + 1);
        let asked = ranges(wants.interest(Some(&wish), true, now));
        assert_eq!(asked, std::iter::once(64..65).collect::<Vec<_>>());
        assert_eq!(ranges(wants.interest(None, true, now)), []);
        assert_eq!(wants.interest(None, true, now).class, Class::Background);
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_is_fetched_where_someone_wants_it_or_only_it_is_a_proof() {
        let now = Instant::now();
        let mut wants = Wants::new(32 * MIB, now);
        let wish = part(0..MIB);
        assert_eq!(wants.interest(Some(&wish), false, now).wanted, Wanted::All);
        assert_ne!(wants.interest(Some(&wish), true, now).wanted, Wanted::All);
        assert!(!wants.is_abandoned(false, now));
        assert!(wants.is_abandoned(false, now + PARTS_STAY));
        assert!(!wants.is_abandoned(true, now + PARTS_STAY));
        let wish = part(0..32 * MIB);
        assert_eq!(wants.interest(Some(&wish), true, now).wanted, Wanted::All);
        assert_eq!(wants.interest(None, true, now).wanted, Wanted::All, "it goes on");
        assert!(!wants.is_abandoned(false, now + PARTS_STAY));
        assert!(wants.is_abandoned(false, now + ABANDON_AFTER));
    }
}
