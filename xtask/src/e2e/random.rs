//! Chance that can be repeated: the same seed gives the same choices and the same bytes.

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): small, and good enough to choose by.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// Starts at a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is above 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("smaller than a usize")
    }

    /// So many bytes that no compressor makes smaller.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// So many different numbers below `bound`, in random order.
    pub(crate) fn distinct(&mut self, count: usize, bound: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..bound).collect();
        for i in 0..count.min(bound) {
            let j = i + self.below(bound - i);
            all.swap(i, j);
        }
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats() {
        assert_eq!(Random::new(7).bytes(33), Random::new(7).bytes(33));
        assert_ne!(Random::new(7).bytes(33), Random::new(8).bytes(33));
        assert_eq!(Random::new(7).bytes(33).len(), 33);
    }

    #[test]
    fn distinct_numbers_are_distinct() {
        let mut numbers = Random::new(1).distinct(21, 64);
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 21);
        assert!(numbers.iter().all(|n| *n < 64));
    }
}
