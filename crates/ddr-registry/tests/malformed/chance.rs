//! Choices that follow from a seed.

use crate::server::Noise;

/// The source of all choices of a run.
pub(crate) struct Chance(Noise);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Noise(seed))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(&mut self.0).for_each(|(byte, noise)| *byte = noise);
        (u64::from_le_bytes(bytes) % end as u64) as usize
    }

    pub(crate) fn range(&mut self, range: std::ops::Range<usize>) -> usize {
        range.start + self.below(range.end - range.start)
    }

    pub(crate) fn one_of<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }

    /// `len` characters of `alphabet`.
    pub(crate) fn text(&mut self, alphabet: &str, len: usize) -> String {
        let bytes = alphabet.as_bytes();
        (0..len).map(|_| char::from(bytes[self.below(bytes.len())])).collect()
    }

    /// `text` with `piece` somewhere in it.
    pub(crate) fn insert(&mut self, text: &str, piece: &str) -> String {
        let at = self.below(text.len() + 1);
        format!("{}{piece}{}", &text[..at], &text[at..])
    }
}
