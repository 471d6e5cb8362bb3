//! Random choices from the seed that the core was given; nothing else in it is random.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

use crate::id::ID_BYTES;

#[derive(Debug)]
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The bias of the remainder is below 2^-32 for every bound used here.
        self.0.next_u64() % bound
    }

    pub(crate) fn point(&mut self) -> [u8; ID_BYTES] {
        let mut point = [0; ID_BYTES];
        self.0.fill_bytes(&mut point);
        point
    }

    /// `ms` give or take a quarter, so that nodes that started together drift apart.
    pub(crate) fn jitter_ms(&mut self, ms: u64) -> u64 {
        ms - ms / 4 + self.below(ms / 2 + 1)
    }

    /// Moves `count` random items to the front, in random order (Fisher and Yates, stopped early).
    pub(crate) fn choose<T>(&mut self, items: &mut [T], count: usize) {
        for place in 0..count.min(items.len()) {
            let other = place + self.below((items.len() - place) as u64) as usize;
            items.swap(place, other);
        }
    }
}
