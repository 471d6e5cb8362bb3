//! The chaining value of a hash between two blocks.
//!
//! Decides nothing: it is the one place that knows in which numbers SHA-256 and SHA-512 differ
//! (FIPS 180-4: words, block, initial value, width of the length field).

use sha2::block_api::{compress256, compress512};

use crate::digest::{Algorithm, Digest};

/// Block of SHA-256, bytes.
const BLOCK256_BYTES: usize = 64;
/// Block of SHA-512, bytes.
const BLOCK512_BYTES: usize = 128;
/// The larger of the two blocks, bytes.
pub(super) const MAX_BLOCK_BYTES: usize = BLOCK512_BYTES;
/// The longer of the two chaining values, bytes.
pub(super) const MAX_STATE_BYTES: usize = 64;

/// FIPS 180-4, section 5.3.3.
const INITIAL256: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// FIPS 180-4, section 5.3.5.
const INITIAL512: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// Bytes that the algorithm compresses at once.
pub(super) const fn block_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Sha256 => BLOCK256_BYTES,
        Algorithm::Sha512 => BLOCK512_BYTES,
    }
}

#[derive(Copy, Clone, Debug)]
pub(super) enum Midstate {
    Sha256([u32; 8]),
    Sha512([u64; 8]),
}

impl Midstate {
    /// Before the first byte.
    pub(super) const fn initial(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(INITIAL256),
            Algorithm::Sha512 => Self::Sha512(INITIAL512),
        }
    }

    /// Reads what [`Midstate::push_to`] wrote; `bytes` has the length of a digest.
    pub(super) fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut state = Self::initial(algorithm);
        match &mut state {
            Self::Sha256(words) => {
                for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
                    *word = u32::from_be_bytes(*bytes);
                }
            }
            Self::Sha512(words) => {
                for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
                    *word = u64::from_be_bytes(*bytes);
                }
            }
        }
        state
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(super) const fn block_bytes(&self) -> usize {
        block_bytes(self.algorithm())
    }

    /// Takes whole blocks; what is left over at the end is not taken.
    pub(super) fn compress(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(words) => compress256(words, bytes.as_chunks().0),
            Self::Sha512(words) => compress512(words, bytes.as_chunks().0),
        }
    }

    /// Appends the words, big-endian: as many bytes as a digest has.
    pub(super) fn push_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sha256(words) => out.extend(words.iter().flat_map(|word| word.to_be_bytes())),
            Self::Sha512(words) => out.extend(words.iter().flat_map(|word| word.to_be_bytes())),
        }
    }

    /// The digest: `tail` are the bytes after this state, `len` the bytes of the whole message
    /// (FIPS 180-4, section 5.1). `len - tail.len()` must be a multiple of the block.
    pub(super) fn close(mut self, tail: &[u8], len: u64) -> Digest {
        let block = self.block_bytes();
        let (blocks, rest) = tail.split_at(tail.len() - tail.len() % block);
        self.compress(blocks);
        let mut padding = [0_u8; 2 * MAX_BLOCK_BYTES];
        padding[..rest.len()].copy_from_slice(rest);
        padding[rest.len()] = 0x80;
        // The length field is an eighth of the block wide, and a length in bits has 64 here.
        let end = if rest.len() < block - block / 8 { block } else { 2 * block };
        padding[end - 8..end].copy_from_slice(&(len * 8).to_be_bytes());
        self.compress(&padding[..end]);
        let mut words = Vec::with_capacity(MAX_STATE_BYTES);
        self.push_to(&mut words);
        Digest::from_parts(self.algorithm(), &words).expect("a state is as long as a digest")
    }
}
