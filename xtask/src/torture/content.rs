//! The bytes of the blobs: made from a number, so that nothing has to be kept to know them again.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::e2e::Random;

/// Sizes that are pushed, in bytes, small ones more often: empty, one byte, around the buffers and
/// pieces that a registry may have, and some that take longer than a kill is away.
const SIZES: &[usize] = &[
    0,
    1,
    17,
    1_000,
    4_096,
    20_000,
    65_536,
    100_001,
    262_144,
    300_000,
    1 << 20,
    (1 << 20) + 1,
    3_500_000,
    9_000_000,
];

/// The last sizes are drawn rarely: one of so many draws looks at the whole list.
const LARGE_ONE_IN: usize = 12;

/// Sizes above this are large. Bytes.
const LARGE_BYTES: usize = 300_000;

/// One blob's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    seed: u64,
    pub(crate) len: usize,
    pub(crate) digest: String,
}

impl Content {
    pub(crate) fn new(seed: u64, len: usize) -> Self {
        let mut content = Self { seed, len, digest: String::new() };
        content.digest = digest_of(&content.bytes());
        content
    }

    /// A content of a size that is drawn.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let seed = random.next();
        let all = random.below(LARGE_ONE_IN) == 0;
        let sizes = SIZES.iter().filter(|len| all || **len <= LARGE_BYTES);
        let sizes: Vec<usize> = sizes.copied().collect();
        Self::new(seed, sizes[random.below(sizes.len())])
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        Random::new(self.seed).bytes(self.len)
    }
}

/// `sha256:…` of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    shown(Sha256::new_with_prefix(bytes))
}

/// `sha256:…` of what was hashed.
pub(crate) fn shown(hash: Sha256) -> String {
    let mut text = String::from("sha256:");
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_comes_from_its_number() {
        let content = Content::new(7, 1000);
        assert_eq!(digest_of(&content.bytes()), content.digest);
        assert_ne!(Content::new(8, 1000).digest, content.digest);
        assert_eq!(
            digest_of(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
