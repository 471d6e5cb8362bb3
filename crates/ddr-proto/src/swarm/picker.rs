//! Which piece to ask a neighbour for: the rarest of those that are due, equals at random.
//!
//! A pure function of what is known. Must never choose a piece that is here, under way, not wanted or
//! not at the neighbour. Equals are told apart by a salt that differs from node to node and from ask to
//! ask: with one order for all, every node would ask for the same piece at the same time.

use std::ops::Range;

use super::bits::{Bits, WORD, ones, within};

/// What is known about the pieces of one blob, as one neighbour's turn comes.
#[derive(Copy, Clone, Debug)]
pub struct Choice<'a> {
    /// Pieces of the neighbour.
    pub theirs: &'a Bits,
    /// Pieces that are here.
    pub have: &'a Bits,
    /// Pieces that are under way.
    pub flying: &'a Bits,
    /// Pieces that are to be fetched.
    pub wanted: &'a Bits,
    /// Only these, unless `None`.
    pub only: Option<&'a Bits>,
    /// How many neighbours have each piece.
    pub rarity: &'a [u8],
}

/// A piece that was picked, with what it was picked for: the least [`Pick::rank`] is the best.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Pick {
    /// The piece.
    pub piece: usize,
    /// Rarity, then chance.
    pub rank: (u8, u32),
}

impl Choice<'_> {
    /// The best piece of `range`, if there is one. `salt` decides between equals.
    #[must_use]
    pub fn pick(&self, range: Range<usize>, salt: u64) -> Option<Pick> {
        let end = range.end.min(self.have.len());
        let mut best: Option<Pick> = None;
        for at in range.start / WORD..end.div_ceil(WORD) {
            for bit in ones(self.word(at) & within(at, range.start, end)) {
                let piece = at * WORD + bit;
                let rarity = self.rarity[piece];
                if best.is_some_and(|best| rarity > best.rank.0) {
                    continue;
                }
                let rank = (rarity, mix(salt, piece as u64));
                if best.is_none_or(|best| rank < best.rank) {
                    best = Some(Pick { piece, rank });
                }
            }
        }
        best
    }

    /// The pieces of word `at` that may be picked.
    fn word(&self, at: usize) -> u64 {
        let due = self.wanted.word(at) & !self.have.word(at) & !self.flying.word(at);
        due & self.theirs.word(at) & self.only.map_or(u64::MAX, |only| only.word(at))
    }
}

/// A number that looks random, from two numbers (the finaliser of SplitMix64).
pub(super) const fn mix(salt: u64, number: u64) -> u32 {
    let mut z = salt ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// One piece of a blob: at the neighbour, here, under way, wanted, allowed; how rare.
    type Piece = ((bool, bool, bool, bool, bool), u8);

    fn piece() -> impl Strategy<Value = Piece> {
        let flag = prop::bool::weighted;
        ((flag(0.7), flag(0.3), flag(0.2), flag(0.9), flag(0.8)), 0_u8..4)
    }

    fn bits(pieces: &[Piece], flag: impl Fn(&Piece) -> bool) -> Bits {
        let mut bits = Bits::new(pieces.len());
        for (at, piece) in pieces.iter().enumerate() {
            if flag(piece) {
                bits.insert(at);
            }
        }
        bits
    }

    fn allowed((theirs, have, flying, wanted, only): (bool, bool, bool, bool, bool)) -> bool {
        theirs && !have && !flying && wanted && only
    }

    proptest! {
        #[test]
        fn it_picks_as_a_list_would(
            pieces in vec(piece(), 1..300),
            start in 0_usize..320,
            len in 0_usize..320,
            salt: u64,
        ) {
            let (theirs, have) = (bits(&pieces, |p| p.0.0), bits(&pieces, |p| p.0.1));
            let (flying, wanted) = (bits(&pieces, |p| p.0.2), bits(&pieces, |p| p.0.3));
            let only = bits(&pieces, |p| p.0.4);
            let rarity: Vec<u8> = pieces.iter().map(|p| p.1).collect();
            let choice = Choice {
                theirs: &theirs, have: &have, flying: &flying, wanted: &wanted,
                only: Some(&only), rarity: &rarity,
            };
            let model = pieces.iter().enumerate()
                .filter(|(at, piece)| (start..start + len).contains(at) && allowed(piece.0))
                .map(|(at, piece)| ((piece.1, mix(salt, at as u64)), at))
                .min();
            let pick = choice.pick(start..start + len, salt);
            prop_assert_eq!(pick.map(|pick| (pick.rank, pick.piece)), model);
        }
    }

    #[test]
    fn equals_are_picked_equally_often() {
        let (all, none) = (Bits::full(100), Bits::new(100));
        let choice = Choice {
            theirs: &all,
            have: &none,
            flying: &none,
            wanted: &all,
            only: None,
            rarity: &[1; 100],
        };
        let mut counts = [0_u32; 10];
        for salt in 0..10_000 {
            counts[choice.pick(0..100, salt).expect("there is one").piece / 10] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
