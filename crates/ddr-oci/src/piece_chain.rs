//! SHA-256 that also records the chaining value at every piece border.
//!
//! A SHA-256 digest is a chain: the state after a block depends only on the state before it and
//! the block. So from the state at the start of a piece and the bytes of the piece anyone
//! computes the state at its end, in any order and on any core, and a complete chain whose last
//! piece ends in the digest proves every byte without a second pass.
//!
//! Decides where the borders are: the piece length is the smallest power of two of at least
//! [`MIN_PIECE_BYTES`] that gives at most [`MAX_PIECES`] pieces, so that a chain is a function of
//! the content alone and two chains for one digest can be compared byte by byte. Must never be
//! taken as proof while a piece is missing: until it is complete a chain is a claim.

use sha2::block_api::compress256;

use crate::digest::{Algorithm, Digest};

mod chain;

pub use chain::{ChainError, MAX_CHAIN_BYTES, PieceChain};

/// Smallest piece, in bytes; a multiple of the 64-byte block of SHA-256.
pub const MIN_PIECE_BYTES: u64 = 64 * 1024;

/// Most pieces of one chain. The recorder halves its resolution rather than pass it.
pub const MAX_PIECES: usize = 2048;

/// Most bytes SHA-256 is defined for: its length field counts 64 bits of bits.
pub const MAX_CHAINED_BYTES: u64 = u64::MAX / 8;

const BLOCK_BYTES: usize = 64;

/// Words of a SHA-256 state.
type Words = [u32; 8];

/// The initial state (FIPS 180-4, section 5.3.3).
const INITIAL: Words = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Hashes a stream of unknown length with SHA-256 and records its [`PieceChain`].
///
/// As fast as plain SHA-256; holds at most `MAX_PIECES` states (64 KiB).
#[derive(Clone, Debug)]
pub struct ChainHasher {
    state: Words,
    /// Bytes seen; those past the last whole block are in `partial`.
    len: u64,
    partial: [u8; BLOCK_BYTES],
    piece_len: u64,
    /// The state at `(i + 1) * piece_len`, for every border that has a byte after it.
    states: Vec<[u8; 32]>,
}

impl Default for ChainHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl ChainHasher {
    /// A hasher that has seen no bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: INITIAL,
            len: 0,
            partial: [0; BLOCK_BYTES],
            piece_len: MIN_PIECE_BYTES,
            states: Vec::new(),
        }
    }

    /// Appends `bytes` to what is hashed.
    pub fn update(&mut self, mut bytes: &[u8]) {
        debug_assert!(bytes.len() as u64 <= MAX_CHAINED_BYTES - self.len);
        while !bytes.is_empty() {
            self.record_border();
            let taken = if self.buffered() > 0 || bytes.len() < BLOCK_BYTES {
                self.fill_partial(bytes)
            } else {
                self.compress_to_border(bytes)
            };
            self.len += taken as u64;
            bytes = &bytes[taken..];
        }
    }

    /// Bytes seen so far.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether no bytes were seen.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The SHA-256 digest of what was seen so far; the hasher can go on.
    #[must_use]
    pub fn digest(&self) -> Digest {
        to_digest(&close(self.state, &self.partial[..self.buffered()], self.len))
    }

    /// The SHA-256 digest of everything seen, and its chain.
    #[must_use]
    pub fn finish(self) -> (Digest, PieceChain) {
        let digest = self.digest();
        (digest, PieceChain::from_recorded(self.len, self.piece_len, self.states))
    }

    /// Bytes in `partial`.
    const fn buffered(&self) -> usize {
        (self.len % BLOCK_BYTES as u64) as usize
    }

    /// Called when a byte is about to follow: records the state if this is a border, so that a
    /// border at the very end of the content is never recorded.
    fn record_border(&mut self) {
        if self.len == 0 || !self.len.is_multiple_of(self.piece_len) {
            return;
        }
        self.states.push(state_bytes(&self.state));
        if self.states.len() == MAX_PIECES {
            // The piece now begun would be one too many: keep every second border, the ones
            // at multiples of the doubled piece.
            self.piece_len *= 2;
            let mut index = 0_usize;
            self.states.retain(|_| {
                index += 1;
                index.is_multiple_of(2)
            });
        }
    }

    /// Puts bytes into the partial block and compresses it when full; returns how many.
    fn fill_partial(&mut self, bytes: &[u8]) -> usize {
        let start = self.buffered();
        let taken = bytes.len().min(BLOCK_BYTES - start);
        self.partial[start..start + taken].copy_from_slice(&bytes[..taken]);
        if start + taken == BLOCK_BYTES {
            compress256(&mut self.state, &[self.partial]);
        }
        taken
    }

    /// Compresses whole blocks, many at once, up to the next border; returns how many bytes.
    fn compress_to_border(&mut self, bytes: &[u8]) -> usize {
        let (blocks, _) = bytes.as_chunks::<BLOCK_BYTES>();
        let to_border = (self.piece_len - self.len % self.piece_len) / BLOCK_BYTES as u64;
        let count = blocks.len().min(usize::try_from(to_border).unwrap_or(usize::MAX));
        compress256(&mut self.state, &blocks[..count]);
        count * BLOCK_BYTES
    }
}

/// The final state: `tail` are the bytes after `state`, `len` the bytes of the whole message
/// (FIPS 180-4, section 5.1.1). `len - tail.len()` must be a multiple of the block.
fn close(mut state: Words, tail: &[u8], len: u64) -> Words {
    let (blocks, rest) = tail.as_chunks::<BLOCK_BYTES>();
    compress256(&mut state, blocks);
    let mut padding = [[0_u8; BLOCK_BYTES]; 2];
    padding[0][..rest.len()].copy_from_slice(rest);
    padding[0][rest.len()] = 0x80;
    let used = if rest.len() < BLOCK_BYTES - 8 { 1 } else { 2 };
    padding[used - 1][BLOCK_BYTES - 8..].copy_from_slice(&(len * 8).to_be_bytes());
    compress256(&mut state, &padding[..used]);
    state
}

fn state_bytes(state: &Words) -> [u8; 32] {
    let mut out = [0_u8; 32];
    for (bytes, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    out
}

fn state_words(bytes: &[u8; 32]) -> Words {
    let mut out = [0_u32; 8];
    for (word, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*bytes);
    }
    out
}

fn to_digest(state: &Words) -> Digest {
    Digest::from_parts(Algorithm::Sha256, &state_bytes(state)).expect("a state is 32 bytes")
}

#[cfg(test)]
mod tests;
