//! The recorded chain: what it proves and how it is written down.
//!
//! Decides the bytes of a chain file and message: `DDRC`, version byte, piece length and size as
//! 64-bit big-endian, then a state for each inner border. Version 1 is SHA-256 with states of 32
//! bytes, version 2 is SHA-512 with states of 64 bytes. Must never accept a chain whose borders
//! are not the ones that the size dictates.

use std::ops::Range;

use super::midstate::{MAX_STATE_BYTES, Midstate};
use super::{MAX_CHAINED_BYTES, MAX_PIECES, MIN_PIECE_BYTES};
use crate::digest::{Algorithm, Digest};

const MAGIC: [u8; 4] = *b"DDRC";
const VERSION_SHA256: u8 = 1;
const VERSION_SHA512: u8 = 2;
const HEADER_BYTES: usize = MAGIC.len() + 1 + 8 + 8;

/// Largest chain in bytes, written down: a header and a state for each inner border.
pub const MAX_CHAIN_BYTES: usize = HEADER_BYTES + (MAX_PIECES - 1) * MAX_STATE_BYTES;

/// Why bytes are not a piece chain.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChainError {
    /// No header of a chain.
    #[error("not a piece chain")]
    NotAChain,
    /// Written by a newer version.
    #[error("piece chain of version {0}, this program knows versions 1 and 2")]
    Version(u8),
    /// Size, piece length and number of states do not belong together, or pass a limit.
    #[error("piece chain with impossible lengths")]
    Lengths,
}

/// The states of the hash at the inner piece borders of a blob.
///
/// Piece `i` is bytes `i * piece_len .. (i + 1) * piece_len`, the last one shorter or equal. An
/// empty blob has one empty piece. There is one state fewer than there are pieces: before the
/// first piece stands the initial state, and the last piece is held against the digest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PieceChain {
    algorithm: Algorithm,
    piece_len: u64,
    size: u64,
    /// One after the other, each as long as a digest.
    states: Vec<u8>,
}

impl PieceChain {
    pub(super) fn from_recorded(
        algorithm: Algorithm,
        size: u64,
        piece_len: u64,
        states: Vec<u8>,
    ) -> Self {
        let chain = Self { algorithm, piece_len, size, states };
        debug_assert!(chain.is_canonical());
        chain
    }

    /// The chain of any blob of one piece: it has no state, so nobody needs to be asked for it.
    /// `None` for more than [`MIN_PIECE_BYTES`].
    #[must_use]
    pub fn of_one_piece(algorithm: Algorithm, size: u64) -> Option<Self> {
        let piece_len = MIN_PIECE_BYTES;
        (size <= piece_len).then(|| Self { algorithm, piece_len, size, states: Vec::new() })
    }

    /// The piece length for a blob of `size` bytes: the smallest power of two of at least
    /// [`MIN_PIECE_BYTES`] with at most [`MAX_PIECES`] pieces.
    #[must_use]
    pub fn piece_len_for(size: u64) -> u64 {
        size.div_ceil(MAX_PIECES as u64).max(MIN_PIECE_BYTES).next_power_of_two()
    }

    /// The algorithm of the digest that it leads to.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Length of every piece but the last, in bytes; a multiple of 128.
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
        self.states.len() / self.algorithm.len_bytes() + 1
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
        let Some(expected) = self.state_after(index) else { return false };
        if bytes.len() as u64 != self.piece_len {
            return false;
        }
        let mut state = self.midstate_before(index);
        state.compress(bytes);
        let mut found = Vec::with_capacity(MAX_STATE_BYTES);
        state.push_to(&mut found);
        found == expected
    }

    /// Whether the chain ends in `digest` when `tail` is the last piece.
    ///
    /// True, together with [`PieceChain::verify_piece`] for every other piece, proves the whole
    /// blob. Always false for a digest of the other algorithm.
    #[must_use]
    pub fn proves(&self, digest: &Digest, tail: &[u8]) -> bool {
        let last = self.pieces() - 1;
        let fits = self.piece_range(last).is_some_and(|r| r.end - r.start == tail.len() as u64);
        if !fits || digest.algorithm() != self.algorithm {
            return false;
        }
        self.midstate_before(last).close(tail, self.size) == *digest
    }

    /// Whether `bytes` are piece `index` of the blob named `digest`, if the chain is true:
    /// [`PieceChain::proves`] for the last piece, [`PieceChain::verify_piece`] for any other. True
    /// for every piece proves the blob.
    #[must_use]
    pub fn accepts(&self, digest: &Digest, index: usize, bytes: &[u8]) -> bool {
        if index + 1 == self.pieces() {
            self.proves(digest, bytes)
        } else {
            self.verify_piece(index, bytes)
        }
    }

    /// Whether both chains accept the same bytes as piece `index`: it has the same place, and the
    /// states before and after it are the same.
    #[must_use]
    pub fn agrees_on(&self, other: &Self, index: usize) -> bool {
        let is_last = index + 1 == self.pieces();
        self.algorithm == other.algorithm
            && self.piece_range(index).is_some()
            && self.piece_range(index) == other.piece_range(index)
            && self.state_before(index) == other.state_before(index)
            && self.state_after(index) == other.state_after(index)
            // The last piece is closed with the size.
            && (!is_last || self.size == other.size)
    }

    /// The chain written down; at most [`MAX_CHAIN_BYTES`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.states.len());
        out.extend_from_slice(&MAGIC);
        out.push(match self.algorithm {
            Algorithm::Sha256 => VERSION_SHA256,
            Algorithm::Sha512 => VERSION_SHA512,
        });
        out.extend_from_slice(&self.piece_len.to_be_bytes());
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.states);
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
        let algorithm = match version {
            VERSION_SHA256 => Algorithm::Sha256,
            VERSION_SHA512 => Algorithm::Sha512,
            other => return Err(ChainError::Version(other)),
        };
        let (&piece_len, rest) = rest.split_first_chunk::<8>().ok_or(ChainError::NotAChain)?;
        let (&size, states) = rest.split_first_chunk::<8>().ok_or(ChainError::NotAChain)?;
        let most = (MAX_PIECES - 1) * algorithm.len_bytes();
        if states.len() > most || !states.len().is_multiple_of(algorithm.len_bytes()) {
            return Err(ChainError::Lengths);
        }
        let (piece_len, size) = (u64::from_be_bytes(piece_len), u64::from_be_bytes(size));
        let chain = Self { algorithm, piece_len, size, states: states.to_vec() };
        if chain.is_canonical() { Ok(chain) } else { Err(ChainError::Lengths) }
    }

    /// Whether the lengths are the ones that the size dictates.
    fn is_canonical(&self) -> bool {
        self.size <= MAX_CHAINED_BYTES
            && self.piece_len == Self::piece_len_for(self.size)
            && self.pieces() as u64 == self.size.div_ceil(self.piece_len).max(1)
    }

    /// The state at the end of piece `index`; `None` for the last.
    fn state_after(&self, index: usize) -> Option<&[u8]> {
        let len = self.algorithm.len_bytes();
        let start = index.checked_mul(len)?;
        self.states.get(start..start.checked_add(len)?)
    }

    /// The state at the start of piece `index`; `None` for the first.
    fn state_before(&self, index: usize) -> Option<&[u8]> {
        self.state_after(index.checked_sub(1)?)
    }

    fn midstate_before(&self, index: usize) -> Midstate {
        match self.state_before(index) {
            Some(state) => Midstate::from_bytes(self.algorithm, state),
            None => Midstate::initial(self.algorithm),
        }
    }
}
