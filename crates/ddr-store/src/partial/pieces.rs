//! Which pieces of a blob are here.
//!
//! Decides the difference that all of `partial` rests on: a *present* piece was verified against
//! the chain by this process, a *claimed* one merely lies in the file by somebody's word (a
//! sidecar of an earlier process, or another chain). Must never count a claimed piece as present.

use ddr_oci::piece_chain::PieceChain;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const WORD_BITS: usize = u64::BITS as usize;

/// Some of the pieces of a blob: a snapshot. At most `MAX_PIECES` bits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PieceSet {
    len: usize,
    words: Vec<u64>,
}

impl PieceSet {
    /// None of `len` pieces.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { len, words: vec![0; len.div_ceil(WORD_BITS)] }
    }

    /// Pieces that the blob has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Pieces in the set.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether all are in the set.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count() == self.len
    }

    /// Whether piece `index` is in the set.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        index < self.len && self.words[index / WORD_BITS] >> (index % WORD_BITS) & 1 == 1
    }

    /// Adds piece `index`; one that the blob does not have is left out.
    pub fn insert(&mut self, index: usize) {
        if index < self.len {
            self.words[index / WORD_BITS] |= 1 << (index % WORD_BITS);
        }
    }

    /// The set as 64-bit words: piece `i` is bit `i % 64` of word `i / 64`. Bits past the last
    /// piece are 0.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The pieces in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|index| self.contains(*index))
    }
}

/// A set that many threads change at once. Bits are set after what they stand for was done
/// (`Release`), and seen before it is used (`Acquire`).
#[derive(Debug)]
struct Bits(Vec<AtomicU64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self((0..len.div_ceil(WORD_BITS)).map(|_| AtomicU64::new(0)).collect())
    }

    fn has(&self, index: usize) -> bool {
        let word = self.0.get(index / WORD_BITS);
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (index % WORD_BITS) & 1 == 1)
    }

    /// Whether it was not there before.
    fn insert(&self, index: usize) -> bool {
        let bit = 1 << (index % WORD_BITS);
        self.0[index / WORD_BITS].fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    fn remove(&self, index: usize) {
        self.0[index / WORD_BITS].fetch_and(!(1 << (index % WORD_BITS)), Ordering::AcqRel);
    }
}

/// The pieces of a blob under one chain.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) chain: PieceChain,
    present: Bits,
    present_count: AtomicUsize,
    claimed: Bits,
    /// The next piece that [`Pieces::next_claimed`] looks at.
    unchecked: AtomicUsize,
}

impl Pieces {
    /// None is here.
    pub(super) fn new(chain: PieceChain) -> Self {
        let (present, claimed) = (Bits::new(chain.pieces()), Bits::new(chain.pieces()));
        let (present_count, unchecked) = Default::default();
        Self { chain, present, present_count, claimed, unchecked }
    }

    /// Those in the set may be here.
    pub(super) fn claiming(chain: PieceChain, claimed: &PieceSet) -> Self {
        let pieces = Self::new(chain);
        for index in claimed.iter().take_while(|index| *index < pieces.chain.pieces()) {
            pieces.claimed.insert(index);
        }
        pieces
    }

    /// The same bytes under another chain. A piece on which both agree stays what it was; any
    /// other is claimed if all its bytes are here.
    pub(super) fn rechained(&self, chain: PieceChain) -> Self {
        let next = Self::new(chain);
        for index in 0..next.chain.pieces() {
            if !self.chain.agrees_on(&next.chain, index) {
                if next.chain.piece_range(index).is_some_and(|range| self.holds(range)) {
                    next.claimed.insert(index);
                }
            } else if self.is_present(index) {
                next.insert(index);
            } else if self.claimed.has(index) {
                next.claimed.insert(index);
            }
        }
        next
    }

    /// Whether all these bytes are here, verified or not.
    fn holds(&self, range: Range<u64>) -> bool {
        let first = self.index_of(range.start);
        let end = usize::try_from(range.end.div_ceil(self.chain.piece_len())).unwrap_or(usize::MAX);
        let mut indices = first..end.max(first + 1);
        range.end <= self.chain.size()
            && indices.all(|index| self.is_present(index) || self.claimed.has(index))
    }

    pub(super) fn is_present(&self, index: usize) -> bool {
        self.present.has(index)
    }

    /// Counts a verified piece as here; whether it was not before.
    pub(super) fn insert(&self, index: usize) -> bool {
        let is_new = self.present.insert(index);
        if is_new {
            self.present_count.fetch_add(1, Ordering::AcqRel);
        }
        is_new
    }

    pub(super) fn is_complete(&self) -> bool {
        self.present_count.load(Ordering::Acquire) == self.chain.pieces()
    }

    /// The next claimed piece, each once.
    pub(super) fn next_claimed(&self) -> Option<usize> {
        loop {
            let index = self.unchecked.fetch_add(1, Ordering::AcqRel);
            if index >= self.chain.pieces() {
                // So that it cannot run over.
                self.unchecked.store(self.chain.pieces(), Ordering::Release);
                return None;
            }
            if self.claimed.has(index) && !self.is_present(index) {
                return Some(index);
            }
        }
    }

    /// A claimed piece was looked at.
    pub(super) fn settle(&self, index: usize) {
        self.claimed.remove(index);
    }

    /// Those that are here.
    pub(super) fn present(&self) -> PieceSet {
        self.set(|index| self.is_present(index))
    }

    /// Those that are claimed and not verified yet.
    pub(super) fn claimed(&self) -> PieceSet {
        self.set(|index| self.claimed.has(index) && !self.is_present(index))
    }

    /// Those that a later process should look for.
    pub(super) fn held(&self) -> PieceSet {
        self.set(|index| self.is_present(index) || self.claimed.has(index))
    }

    fn set(&self, has: impl Fn(usize) -> bool) -> PieceSet {
        let mut set = PieceSet::new(self.chain.pieces());
        (0..set.len).filter(|index| has(*index)).for_each(|index| set.insert(index));
        set
    }

    /// The end of the present bytes that begin at `offset`, looking no further than `most`:
    /// `offset` itself where there are none.
    pub(super) fn readable_from(&self, offset: u64, most: u64) -> u64 {
        let mut end = offset;
        let mut index = self.index_of(offset);
        while end < most && end < self.chain.size() && self.is_present(index) {
            end = self.chain.piece_range(index).map_or(end, |range| range.end);
            index += 1;
        }
        end.min(most).max(offset)
    }

    fn index_of(&self, offset: u64) -> usize {
        usize::try_from(offset / self.chain.piece_len()).unwrap_or(usize::MAX)
    }
}

/// Bytes in the pieces of a set.
pub(super) fn bytes_in(chain: &PieceChain, set: &PieceSet) -> u64 {
    set.iter()
        .filter_map(|index| chain.piece_range(index))
        .map(|range| range.end - range.start)
        .sum()
}
