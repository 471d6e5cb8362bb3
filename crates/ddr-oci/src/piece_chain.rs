//! SHA-256 and SHA-512 that also record the chaining value at every piece border.
//!
//! Such a digest is a chain: the state after a block depends only on the state before it and
//! the block. So from the state at the start of a piece and the bytes of the piece anyone
//! computes the state at its end, in any order and on any core, and a complete chain whose last
//! piece ends in the digest proves every byte without a second pass.
//!
//! Decides where the borders are: the piece length is the smallest power of two of at least
//! [`MIN_PIECE_BYTES`] that gives at most [`MAX_PIECES`] pieces, so that a chain is a function of
//! the content and the algorithm alone and two chains for one digest can be compared byte by
//! byte. Must never be taken as proof while a piece is missing: until it is complete a chain is
//! a claim.

use crate::digest::{Algorithm, Digest};

mod chain;
mod midstate;

pub use chain::{ChainError, MAX_CHAIN_BYTES, PieceChain};
use midstate::{MAX_BLOCK_BYTES, Midstate};

/// Smallest piece, in bytes; a multiple of the blocks of both algorithms (64 and 128 bytes).
pub const MIN_PIECE_BYTES: u64 = 64 * 1024;

/// Most pieces of one chain. The recorder halves its resolution rather than pass it.
pub const MAX_PIECES: usize = 2048;

/// Most bytes that are hashed: the length field of SHA-256 counts 64 bits of bits.
pub const MAX_CHAINED_BYTES: u64 = u64::MAX / 8;

/// Hashes a stream of unknown length and records its [`PieceChain`].
///
/// As fast as the plain hash; holds at most `MAX_PIECES` states (64 KiB, of SHA-512 128 KiB).
#[derive(Clone, Debug)]
pub struct ChainHasher {
    state: Midstate,
    /// Bytes seen; those past the last whole block are in `partial`.
    len: u64,
    partial: [u8; MAX_BLOCK_BYTES],
    piece_len: u64,
    /// The state at `(i + 1) * piece_len`, for every border that has a byte after it; one after
    /// the other.
    states: Vec<u8>,
}

impl ChainHasher {
    /// A hasher that has seen no bytes.
    #[must_use]
    pub const fn new(algorithm: Algorithm) -> Self {
        Self {
            state: Midstate::initial(algorithm),
            len: 0,
            partial: [0; MAX_BLOCK_BYTES],
            piece_len: MIN_PIECE_BYTES,
            states: Vec::new(),
        }
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.state.algorithm()
    }

    /// Appends `bytes` to what is hashed.
    pub fn update(&mut self, mut bytes: &[u8]) {
        debug_assert!(bytes.len() as u64 <= MAX_CHAINED_BYTES - self.len);
        while !bytes.is_empty() {
            self.record_border();
            let taken = if self.buffered() > 0 || bytes.len() < self.state.block_bytes() {
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

    /// The digest of what was seen so far; the hasher can go on.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.state.close(&self.partial[..self.buffered()], self.len)
    }

    /// The digest of everything seen, and its chain.
    #[must_use]
    pub fn finish(self) -> (Digest, PieceChain) {
        let (digest, algorithm) = (self.digest(), self.algorithm());
        (digest, PieceChain::from_recorded(algorithm, self.len, self.piece_len, self.states))
    }

    /// Bytes in `partial`.
    const fn buffered(&self) -> usize {
        (self.len % self.state.block_bytes() as u64) as usize
    }

    /// Called when a byte is about to follow: records the state if this is a border, so that a
    /// border at the very end of the content is never recorded.
    fn record_border(&mut self) {
        if self.len == 0 || !self.len.is_multiple_of(self.piece_len) {
            return;
        }
        self.state.push_to(&mut self.states);
        let state_len = self.algorithm().len_bytes();
        if self.states.len() == MAX_PIECES * state_len {
            // The piece now begun would be one too many: keep every second border, the ones
            // at multiples of the doubled piece.
            self.piece_len *= 2;
            for kept in 0..MAX_PIECES / 2 {
                let from = (2 * kept + 1) * state_len;
                self.states.copy_within(from..from + state_len, kept * state_len);
            }
            self.states.truncate(MAX_PIECES / 2 * state_len);
        }
    }

    /// Puts bytes into the partial block and compresses it when full; returns how many.
    fn fill_partial(&mut self, bytes: &[u8]) -> usize {
        let (start, block) = (self.buffered(), self.state.block_bytes());
        let taken = bytes.len().min(block - start);
        self.partial[start..start + taken].copy_from_slice(&bytes[..taken]);
        if start + taken == block {
            self.state.compress(&self.partial[..block]);
        }
        taken
    }

    /// Compresses whole blocks, many at once, up to the next border; returns how many bytes.
    fn compress_to_border(&mut self, bytes: &[u8]) -> usize {
        let to_border = self.piece_len - self.len % self.piece_len;
        let most = bytes.len().min(usize::try_from(to_border).unwrap_or(usize::MAX));
        let whole = most - most % self.state.block_bytes();
        self.state.compress(&bytes[..whole]);
        whole
    }
}

#[cfg(test)]
mod tests;
