//! Node IDs, keys, distance, and the two puzzles that make a node ID expensive.
//!
//! A node ID is the SHA-256 of the node's Ed25519 public key, so nobody chooses it freely
//! (S/Kademlia, section 4.1). Keys live in the same 256-bit space; distance is XOR read as a
//! big-endian number (Kademlia, section 2.1). This module decides what is near; it never decides
//! whom to trust.

use std::fmt;
use std::str::FromStr;

use ddr_oci::{Algorithm, Digest, RepositoryName, Tag};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Length of node IDs, keys and distances.
pub const ID_BYTES: usize = 32;
/// Number of bits of the ID space, and so the largest shared prefix and the number of buckets.
pub const ID_BITS: u32 = 256;
/// Domain of the hash that turns a content digest into a key.
const CONTENT_DOMAIN: &[u8] = b"ddr/key/content/1\0";
/// Domain of the hash that turns a repository and a tag into a key.
const NAME_DOMAIN: &[u8] = b"ddr/key/name/1\0";
const SET_DOMAIN: &[u8] = b"ddr/key/set/1\0";
const SLOT_DOMAIN: &[u8] = b"ddr/key/slot/1\0";

/// The identity of a node: SHA-256 of its Ed25519 public key (S/Kademlia, section 4.1).
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; ID_BYTES]);

/// A point of the ID space under which records are kept.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Key(pub [u8; ID_BYTES]);

/// XOR of two points; its order is "nearer first" (Kademlia, section 2.1).
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Distance([u8; ID_BYTES]);

impl Distance {
    /// Distance between two raw points.
    #[must_use]
    pub fn between(a: &[u8; ID_BYTES], b: &[u8; ID_BYTES]) -> Self {
        Self(xor(a, b))
    }

    /// Number of leading bits that the two points share: 256 for the same point.
    #[must_use]
    pub fn shared_bits(&self) -> u32 {
        leading_zero_bits(&self.0)
    }

    /// The leading 64 bits as a number: the distance as a share of the ID space, in 2^-64.
    #[must_use]
    pub fn leading_u64(&self) -> u64 {
        self.0.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The point that lies at this distance from `origin`.
    #[must_use]
    pub fn from_origin(&self, origin: &[u8; ID_BYTES]) -> [u8; ID_BYTES] {
        xor(origin, &self.0)
    }

    /// The smallest distance of all points that share exactly `bits` leading bits.
    ///
    /// With `bits` of 256 or more this is the distance of a point to itself.
    #[must_use]
    pub fn bucket_start(bits: u32) -> Self {
        let mut bytes = [0; ID_BYTES];
        if bits < ID_BITS {
            bytes[bits as usize / 8] = 0x80 >> (bits % 8);
        }
        Self(bytes)
    }

    /// The largest distance of all points that share exactly `bits` leading bits.
    #[must_use]
    pub fn bucket_end(bits: u32) -> Self {
        let mut bytes = [0xff; ID_BYTES];
        if bits >= ID_BITS {
            return Self([0; ID_BYTES]);
        }
        let whole = bits as usize / 8;
        bytes[..whole].fill(0);
        bytes[whole] = 0xff >> (bits % 8);
        Self(bytes)
    }
}

impl NodeId {
    /// The ID that belongs to an Ed25519 public key.
    #[must_use]
    pub fn of_public_key(public_key: &[u8; 32]) -> Self {
        Self(Sha256::digest(public_key).into())
    }

    /// The ID as bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }

    /// The ID as a point of the key space, to look up the nodes around it.
    #[must_use]
    pub const fn to_key(self) -> Key {
        Key(self.0)
    }

    /// Distance to a key.
    #[must_use]
    pub fn distance(&self, key: &Key) -> Distance {
        Distance::between(&self.0, &key.0)
    }

    /// The first 12 hexadecimal digits, for logs and tables.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }
}

impl Key {
    /// The key under which holders of a blob or manifest are found.
    #[must_use]
    pub fn of_content(digest: &Digest) -> Self {
        let algorithm: &[u8] = match digest.algorithm() {
            Algorithm::Sha256 => b"sha256\0",
            Algorithm::Sha512 => b"sha512\0",
        };
        Self::hash(&[CONTENT_DOMAIN, algorithm, digest.as_bytes()])
    }

    /// The key under which the name record of `repository:tag` is kept.
    #[must_use]
    pub fn of_name(repository: &RepositoryName, tag: &Tag) -> Self {
        // Neither grammar contains a zero byte, so the join is unambiguous.
        let (repository, tag) = (repository.as_str().as_bytes(), tag.as_str().as_bytes());
        Self::hash(&[NAME_DOMAIN, repository, b"\0", tag])
    }

    /// The key of a set: its kind, and what it is the set of. `parts` contain no zero byte, but for
    /// the last, so the join is unambiguous.
    pub(crate) fn of_set(kind: u8, parts: [&[u8]; 2]) -> Self {
        Self::hash(&[SET_DOMAIN, &[kind], parts[0], b"\0", parts[1]])
    }

    /// A key of its own for one member of a set.
    pub(crate) fn of_slot(set: &Self, member: &[u8]) -> Self {
        Self::hash(&[SLOT_DOMAIN, &set.0, member])
    }

    /// The key as bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ID_BYTES] {
        &self.0
    }

    /// Distance to a node.
    #[must_use]
    pub fn distance(&self, node: &NodeId) -> Distance {
        Distance::between(&self.0, &node.0)
    }

    /// Number of leading bits that this key shares with another.
    #[must_use]
    pub fn shared_bits(&self, other: &Self) -> u32 {
        Distance::between(&self.0, &other.0).shared_bits()
    }

    /// The first 12 hexadecimal digits, for logs and tables.
    #[must_use]
    pub fn short(&self) -> String {
        hex(&self.0[..6])
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        parts.iter().for_each(|part| hasher.update(part));
        Self(hasher.finalize().into())
    }
}

/// Static puzzle: SHA-256 of the ID starts with `c1` zero bits (S/Kademlia, section 4.1).
///
/// It makes choosing an ID cost about 2^c1 key pairs. With `c1` = 0 every ID passes.
#[must_use]
pub fn static_puzzle_holds(id: &NodeId, c1: u32) -> bool {
    c1 == 0 || leading_zero_bits(&Sha256::digest(id.0).into()) >= c1
}

/// Dynamic puzzle: SHA-256(ID xor X) starts with `c2` zero bits (S/Kademlia, section 4.1).
///
/// It makes having many IDs at once cost about 2^c2 hashes each. With `c2` = 0 every X passes.
#[must_use]
pub fn dynamic_puzzle_holds(id: &NodeId, x: &[u8; 32], c2: u32) -> bool {
    c2 == 0 || leading_zero_bits(&Sha256::digest(xor(&id.0, x)).into()) >= c2
}

/// Looks for a key pair whose ID solves the static puzzle, among at most `limit` that `make` makes.
///
/// Returns `None` when the limit is reached first; a caller may go on with a larger one.
pub fn solve_static_puzzle<K>(
    c1: u32,
    limit: u64,
    mut make: impl FnMut() -> (K, NodeId),
) -> Option<K> {
    (0..limit).find_map(|_| {
        let (key_pair, id) = make();
        static_puzzle_holds(&id, c1).then_some(key_pair)
    })
}

/// Looks for an X that solves the dynamic puzzle, with at most `limit` hashes.
///
/// Returns `None` when the limit is reached first; a caller may go on with a larger one.
#[must_use]
pub fn solve_dynamic_puzzle(id: &NodeId, c2: u32, limit: u64) -> Option<[u8; 32]> {
    (0..limit).find_map(|attempt| {
        let mut x = [0; 32];
        x[..8].copy_from_slice(&attempt.to_be_bytes());
        dynamic_puzzle_holds(id, &x, c2).then_some(x)
    })
}

/// Why a text is not a node ID.
#[derive(Debug, Clone, Copy, Eq, PartialEq, thiserror::Error)]
#[error("a node ID is 64 lower-case hexadecimal digits")]
pub struct ParseNodeIdError;

impl FromStr for NodeId {
    type Err = ParseNodeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 2 * ID_BYTES {
            return Err(ParseNodeIdError);
        }
        let mut bytes = [0; ID_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

const fn nibble(digit: u8) -> Result<u8, ParseNodeIdError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseNodeIdError),
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.short())
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn xor(a: &[u8; ID_BYTES], b: &[u8; ID_BYTES]) -> [u8; ID_BYTES] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

fn leading_zero_bits(bytes: &[u8; ID_BYTES]) -> u32 {
    let whole = bytes.iter().take_while(|byte| **byte == 0).count();
    let part = bytes.get(whole).map_or(0, |byte| byte.leading_zeros());
    whole as u32 * 8 + part
}
