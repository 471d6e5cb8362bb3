//! A set of pieces as bits.

use std::ops::Range;

/// A set of the numbers below a fixed length.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bits {
    len: usize,
    words: Box<[u64]>,
}

/// Bits of one word.
pub(super) const WORD: usize = 64;

impl Bits {
    /// The empty set of numbers below `len`.
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self { len, words: vec![0; len.div_ceil(WORD)].into() }
    }

    /// All numbers below `len`.
    #[must_use]
    pub fn full(len: usize) -> Self {
        let mut bits = Self { len, words: vec![u64::MAX; len.div_ceil(WORD)].into() };
        if let Some(last) = bits.words.last_mut()
            && !len.is_multiple_of(WORD)
        {
            *last = (1 << (len % WORD)) - 1;
        }
        bits
    }

    /// Reads a bitmap of exactly as many bytes as `len` bits need, with no bit set past `len`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], len: usize) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) {
            return None;
        }
        let mut bits = Self::new(len);
        for (word, chunk) in bits.words.iter_mut().zip(bytes.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(eight);
        }
        let past_the_end = !len.is_multiple_of(WORD)
            && bits.words.last().is_some_and(|last| last >> (len % WORD) != 0);
        (!past_the_end).then_some(bits)
    }

    /// The bitmap that [`Self::from_bytes`] reads.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    /// One more than the largest number that could be in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no number is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether every number below the length is in it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let rest = self.len % WORD;
        let last = if rest == 0 { u64::MAX } else { (1 << rest) - 1 };
        // The end is what most sets lack.
        let (end, others) = self.words.split_last().unzip();
        let whole = |words: &[u64]| words.iter().all(|word| *word == u64::MAX);
        end.is_none_or(|end| *end == last) && others.is_none_or(whole)
    }

    /// How many numbers are in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether `index` is in it; false past the length.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.words.get(index / WORD).is_some_and(|word| word >> (index % WORD) & 1 == 1)
    }

    /// Puts `index` in; true when it was not there. Past the length nothing happens.
    pub fn insert(&mut self, index: usize) -> bool {
        let new = index < self.len && !self.has(index);
        if new {
            self.words[index / WORD] |= 1 << (index % WORD);
        }
        new
    }

    /// Takes `index` out; true when it was there.
    pub fn remove(&mut self, index: usize) -> bool {
        let old = self.has(index);
        if old {
            self.words[index / WORD] &= !(1 << (index % WORD));
        }
        old
    }

    /// Whether all numbers of `other`, of the same length, are in this one.
    #[must_use]
    pub fn contains_all(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).all(|(mine, other)| other & !mine == 0)
    }

    /// Puts these numbers in; those past the length are ignored.
    pub fn insert_range(&mut self, range: Range<usize>) {
        let end = range.end.min(self.len);
        for at in range.start / WORD..end.div_ceil(WORD) {
            self.words[at] |= within(at, range.start, end);
        }
    }

    /// Takes the numbers of `other`, of the same length, out.
    pub fn remove_all(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(mine, other)| *mine &= !other);
    }

    /// Takes all out that are not in `other`, of the same length.
    pub fn keep_all(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(mine, other)| *mine &= other);
    }

    /// The words in which there is a number, each with its place.
    pub(super) fn parts(&self) -> Vec<(usize, u64)> {
        self.words.iter().copied().enumerate().filter(|(_, word)| *word != 0).collect()
    }

    /// Whether one of the numbers is in it of which `parts` are the [`Self::parts`].
    pub(super) fn meets(&self, parts: &[(usize, u64)]) -> bool {
        parts.iter().any(|(at, word)| self.word(*at) & word != 0)
    }

    /// How many of its numbers are not in `other`, of the same length.
    #[must_use]
    pub fn count_without(&self, other: &Self) -> usize {
        let pairs = self.words.iter().zip(&other.words);
        pairs.map(|(mine, other)| (mine & !other).count_ones() as usize).sum()
    }

    /// The first number of `wanted` from `from` on that is not in this one.
    #[must_use]
    pub fn first_missing(&self, wanted: &Self, from: usize) -> Option<usize> {
        let first = from / WORD;
        (first..self.words.len()).find_map(|at| {
            let mut word = wanted.word(at) & !self.words[at];
            if at == first {
                word &= u64::MAX << (from % WORD);
            }
            (word != 0).then(|| at * WORD + word.trailing_zeros() as usize)
        })
    }

    /// The numbers in it, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| ones(*word).map(move |i| at * WORD + i))
    }

    /// Word number `at`, 0 past the end.
    pub(super) fn word(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }
}

/// The bits of word `at` that stand for numbers of `start..end`.
pub(super) fn within(at: usize, start: usize, end: usize) -> u64 {
    let first = start.saturating_sub(at * WORD).min(WORD);
    let last = end.saturating_sub(at * WORD).min(WORD);
    let below = |bits: usize| if bits == WORD { u64::MAX } else { (1 << bits) - 1 };
    below(last) & !below(first)
}

/// The places of the bits that are set, lowest first.
pub(super) fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let place = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(place)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn bits(len: usize, members: &BTreeSet<usize>) -> Bits {
        let mut bits = Bits::new(len);
        members.iter().for_each(|member| {
            bits.insert(*member);
        });
        bits
    }

    proptest! {
        #[test]
        fn it_is_a_set(len in 1_usize..200, members in btree_set(0_usize..220, 0..60), from in 0_usize..220) {
            let inside: BTreeSet<usize> = members.iter().copied().filter(|m| *m < len).collect();
            let set = bits(len, &members);
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), inside.clone());
            prop_assert_eq!(set.count(), inside.len());
            prop_assert_eq!(set.is_empty(), inside.is_empty());
            prop_assert_eq!(set.is_full(), inside.len() == len);
            let missing = (from..len).find(|i| !inside.contains(i));
            prop_assert_eq!(set.first_missing(&Bits::full(len), from), missing);
            prop_assert_eq!(Bits::from_bytes(&set.to_bytes(), len), Some(set.clone()));
            prop_assert!(Bits::full(len).contains_all(&set));
            prop_assert_eq!(set.meets(&set.parts()), !inside.is_empty());
            let mut rest = Bits::full(len);
            rest.remove_all(&set);
            prop_assert_eq!(rest.count(), len - inside.len());
            prop_assert!(!set.meets(&rest.parts()));
            let mut other = set.clone();
            if let Some(member) = inside.first() {
                prop_assert!(other.remove(*member) && !other.remove(*member));
                prop_assert_eq!(other.meets(&set.parts()), inside.len() > 1);
                let mut both = set.clone();
                both.keep_all(&other);
                prop_assert_eq!(&both, &other);
                prop_assert!(!other.contains_all(&set) && set.contains_all(&other));
            }
        }

        #[test]
        fn a_range_is_its_numbers(len in 1_usize..300, start in 0_usize..320, count in 0_usize..320) {
            let mut set = Bits::new(len);
            set.insert_range(start..start + count);
            prop_assert!(set.iter().eq((start..start + count).filter(|number| *number < len)));
        }

        #[test]
        fn a_bitmap_has_one_form(bytes in vec(any::<u8>(), 0..40), len in 1_usize..300) {
            if let Some(set) = Bits::from_bytes(&bytes, len) {
                prop_assert_eq!(set.to_bytes(), bytes);
                prop_assert!(set.iter().all(|member| member < len));
            } else {
                let fits = bytes.len() == len.div_ceil(8);
                let past = fits && bytes.last().is_some_and(|last| !len.is_multiple_of(8) && last >> (len % 8) != 0);
                prop_assert!(!fits || past);
            }
        }
    }
}
