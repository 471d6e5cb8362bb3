//! Comparing what two nodes keep: ranges of keys, and short marks of records.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{ProviderRecord, WireError, at_most};
use crate::id::{ID_BITS, ID_BYTES, Key};

/// Cells into which a compared range is cut.
pub const CELLS: usize = 16;
/// Most marks in one answer.
pub const MAX_MARKS: usize = 4_096;

const CELL_BITS: u32 = CELLS.ilog2();
const MARK_DOMAIN: &[u8] = b"ddr/mark/1\0";

/// The keys that share their first bits with `start`.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct KeyRange {
    /// Any key of the range.
    pub start: Key,
    /// How many bits all keys share, at most [`ID_BITS`].
    pub bits: u16,
}

/// Stands for one record in one exchange: the first 8 bytes of SHA-256 over a salt, which the asking
/// node chooses anew each time, and the record's signature. So nobody can make two records look
/// alike, or hide one behind others.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub struct Mark(pub [u8; 8]);

impl KeyRange {
    /// Checks that there are so many bits.
    pub fn check_limits(&self) -> Result<(), WireError> {
        at_most(usize::from(self.bits), ID_BITS as usize, "ID_BITS")
    }

    /// Whether the key lies in the range.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        self.start.shared_bits(key) >= u32::from(self.bits)
    }

    /// The first key of the range.
    #[must_use]
    pub fn first(&self) -> Key {
        let mut first = self.start.0;
        for bit in u32::from(self.bits)..ID_BITS {
            first[bit as usize / 8] &= !(0x80 >> (bit % 8));
        }
        Key(first)
    }

    /// The cell of a key of the range: its next four bits behind those that all share.
    #[must_use]
    pub fn cell_of(&self, key: &Key) -> usize {
        let bits = u32::from(self.bits)..u32::from(self.bits) + CELL_BITS;
        bits.fold(0, |cell, bit| {
            let byte = key.0.get(bit as usize / 8).copied().unwrap_or(0);
            cell << 1 | usize::from(byte & (0x80 >> (bit % 8)) != 0)
        })
    }

    /// Half of the range: the keys whose next bit is set, or not.
    #[must_use]
    pub fn half(&self, set: bool) -> Self {
        let mut start = self.first();
        let (byte, mask) = (usize::from(self.bits) / 8, 0x80 >> (self.bits % 8));
        if byte >= ID_BYTES {
            return *self;
        }
        if set {
            start.0[byte] |= mask;
        }
        Self { start, bits: self.bits + 1 }
    }
}

impl Mark {
    /// The mark of a record under a salt.
    #[must_use]
    pub fn of(record: &ProviderRecord, salt: Self) -> Self {
        let mut hasher = Sha256::new();
        for part in [MARK_DOMAIN, &salt.0, &record.signature] {
            hasher.update(part);
        }
        let hash: [u8; 32] = hasher.finalize().into();
        Self(std::array::from_fn(|i| hash[i]))
    }

    /// Adds a mark to the sum of a cell; the order does not matter.
    pub fn add(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(byte, other)| *byte ^= other);
    }
}
