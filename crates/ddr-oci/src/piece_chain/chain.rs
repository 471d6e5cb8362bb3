//! The recorded chain: what it proves and how it is written down.
//!
//! Decides the bytes of a chain file and message, version 1: `DDRC`, version byte, piece length
//! and size as 64-bit big-endian, then 32 bytes for each inner border. Must never accept a chain
//! whose borders are not the ones that the size dictates.

use std::ops::Range;

use sha2::block_api::compress256;

use super::{
    BLOCK_BYTES, INITIAL, MAX_CHAINED_BYTES, MAX_PIECES, MIN_PIECE_BYTES, Words, close,
    state_bytes, state_words, to_digest,
};
use crate::digest::{Algorithm, Digest};

const MAGIC: [u8; 4] = *b"DDRC";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 1 + 8 + 8;
const STATE_BYTES: usize = 32;

/// Largest chain in bytes, written down: a header and a state for each inner border.
pub const MAX_CHAIN_BYTES: usize = HEADER_BYTES + (MAX_PIECES - 1) * STATE_BYTES;

/// Why bytes are not a piece chain.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChainError {
    /// No header of a chain.
    #[error("not a piece chain")]
    NotAChain,
    /// Written by a newer version.
    #[error("piece chain of version {0}, this program knows version 1")]
    Version(u8),
    /// Size, piece length and number of states do not belong together, or pass a limit.
    #[error("piece chain with impossible lengths")]
    Lengths,
}

/// The SHA-256 states at the inner piece borders of a blob.
///
/// Piece `i` is bytes `i * piece_len .. (i + 1) * piece_len`, the last one shorter or equal. An
/// empty blob has one empty piece. There is one state fewer than there are pieces: before the
/// first piece stands the initial state, and the last piece is held against the digest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PieceChain {
    piece_len: u64,
    size: u64,
    states: Vec<[u8; STATE_BYTES]>,
}

impl PieceChain {
    pub(super) fn from_recorded(size: u64, piece_len: u64, states: Vec<[u8; 32]>) -> Self {
        let chain = Self { piece_len, size, states };
        debug_assert!(chain.is_canonical());
        chain
    }

    /// The piece length for a blob of `size` bytes: the smallest power of two of at least
    /// [`MIN_PIECE_BYTES`] with at most [`MAX_PIECES`] pieces.
    #[must_use]
    pub fn piece_len_for(size: u64) -> u64 {
        size.div_ceil(MAX_PIECES as u64).max(MIN_PIECE_BYTES).next_power_of_two()
    }

    /// Length of every piece but the last, in bytes; a multiple of 64.
    #[must_use]
    pub const fn piece_len(&self) -> u64 {
        self.piece_len
    }

    /// Size of the blob in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Number of pieces, at least 1.
    #[must_use]
    pub const fn pieces(&self) -> usize {
        self.states.len() + 1
    }

    /// The byte range of piece `index` in the blob, or `None` if there is no such piece.
    #[must_use]
    pub fn piece_range(&self, index: usize) -> Option<Range<u64>> {
        if index >= self.pieces() {
            return None;
        }
        let start = index as u64 * self.piece_len;
        Some(start..self.size.min(start.saturating_add(self.piece_len)))
    }

    /// Whether `bytes` are piece `index`, if the chain is true: the state before the piece and
    /// the bytes give the state after it.
    ///
    /// False for a wrong length and for the last piece, which has no state after it: for that one
    /// ask [`PieceChain::proves`].
    #[must_use]
    pub fn verify_piece(&self, index: usize, bytes: &[u8]) -> bool {
        let Some(expected) = self.states.get(index) else { return false };
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        if !rest.is_empty() || bytes.len() as u64 != self.piece_len {
            return false;
        }
        let mut state = self.state_before(index);
        compress256(&mut state, blocks);
        state_bytes(&state) == *expected
    }

    /// Whether the chain ends in `digest` when `tail` is the last piece.
    ///
    /// True, together with [`PieceChain::verify_piece`] for every other piece, proves the whole
    /// blob. Always false for a digest that is not SHA-256.
    #[must_use]
    pub fn proves(&self, digest: &Digest, tail: &[u8]) -> bool {
        let last = self.states.len();
        let fits = self.piece_range(last).is_some_and(|r| r.end - r.start == tail.len() as u64);
        if !fits || digest.algorithm() != Algorithm::Sha256 {
            return false;
        }
        to_digest(&close(self.state_before(last), tail, self.size)) == *digest
    }

    /// The chain written down; at most [`MAX_CHAIN_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.states.len() * STATE_BYTES);
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.piece_len.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        for state in &self.states {
            out.extend_from_slice(state);
        }
        out
    }

    /// Reads a chain back. What it says is still a claim.
    ///
    /// # Errors
    /// [`ChainError`] unless the bytes are exactly what [`PieceChain::to_bytes`] writes for a
    /// blob of the stated size.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ChainError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(ChainError::NotAChain)?;
        let (&version, rest) = rest.split_first().ok_or(ChainError::NotAChain)?;
        if version != VERSION {
            return Err(ChainError::Version(version));
        }
        let (&piece_len, rest) = rest.split_first_chunk::<8>().ok_or(ChainError::NotAChain)?;
        let (&size, rest) = rest.split_first_chunk::<8>().ok_or(ChainError::NotAChain)?;
        let (states, odd) = rest.as_chunks::<STATE_BYTES>();
        if !odd.is_empty() || states.len() >= MAX_PIECES {
            return Err(ChainError::Lengths);
        }
        let chain = Self {
            piece_len: u64::from_be_bytes(piece_len),
            size: u64::from_be_bytes(size),
            states: states.to_vec(),
        };
        if chain.is_canonical() { Ok(chain) } else { Err(ChainError::Lengths) }
    }

    /// Whether the lengths are the ones that the size dictates.
    fn is_canonical(&self) -> bool {
        self.size <= MAX_CHAINED_BYTES
            && self.piece_len == Self::piece_len_for(self.size)
            && self.pieces() as u64 == self.size.div_ceil(self.piece_len).max(1)
    }

    fn state_before(&self, index: usize) -> Words {
        match index.checked_sub(1).and_then(|before| self.states.get(before)) {
            Some(state) => state_words(state),
            None => INITIAL,
        }
    }
}
