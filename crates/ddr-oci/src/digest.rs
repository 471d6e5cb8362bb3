//! Content digests: algorithm and hash, their text form, and a streaming hasher.
//!
//! Decides which algorithms exist here (sha256 and sha512, the two that the image specification
//! registers) and that the hash is lower-case hexadecimal of the exact length. Never accepts a
//! digest it could not verify.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

use crate::text::serde_as_text;

/// Longest text form: `sha512:` and 128 hexadecimal digits, in bytes.
pub const MAX_DIGEST_TEXT_BYTES: usize = 7 + 128;

/// Hexadecimal digits in [`Digest::short`].
const SHORT_HEX_DIGITS: usize = 12;

/// A registered hash algorithm (image-spec, descriptor.md, "Registered algorithms").
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Algorithm {
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Algorithm {
    /// The name before the colon: `sha256` or `sha512`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Length of the raw hash in bytes.
    #[must_use]
    pub const fn len_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            other if is_algorithm_grammar(other) => Err(DigestError::UnsupportedAlgorithm),
            _ => Err(DigestError::Malformed),
        }
    }
}

/// Why a text is not a digest. The text itself is not repeated: it came from a stranger.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DigestError {
    /// Not `<algorithm>:<lower-case hex of the right length>`.
    #[error("malformed digest: want sha256:<64 lower-case hex> or sha512:<128 lower-case hex>")]
    Malformed,
    /// Well formed by the general grammar, but no algorithm of ours.
    #[error("unsupported digest algorithm: want sha256 or sha512")]
    UnsupportedAlgorithm,
}

#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
enum Hash {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

/// The name of content: `sha256:<64 hex>` or `sha512:<128 hex>`.
///
/// Ordered by algorithm, then by hash bytes. Serialised as its text.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Digest(Hash);

impl Digest {
    /// Digest of `bytes` under `algorithm`.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// SHA-256 digest of `bytes`.
    #[must_use]
    pub fn sha256(bytes: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, bytes)
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            Hash::Sha256(_) => Algorithm::Sha256,
            Hash::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw hash: 32 or 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Hash::Sha256(bytes) => bytes,
            Hash::Sha512(bytes) => bytes,
        }
    }

    /// The hash in lower-case hexadecimal, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        let mut out = String::with_capacity(2 * self.as_bytes().len());
        push_hex(&mut out, self.as_bytes());
        out
    }

    /// The first 12 hexadecimal digits, for logs and tables.
    #[must_use]
    pub fn short(&self) -> String {
        let mut out = String::with_capacity(SHORT_HEX_DIGITS);
        push_hex(&mut out, &self.as_bytes()[..SHORT_HEX_DIGITS / 2]);
        out
    }

    /// A digest from its parts; `None` unless `bytes` has the length of `algorithm`.
    #[must_use]
    pub fn from_parts(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => bytes.try_into().ok().map(|b| Self(Hash::Sha256(b))),
            Algorithm::Sha512 => bytes.try_into().ok().map(|b| Self(Hash::Sha512(b))),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(MAX_DIGEST_TEXT_BYTES);
        text.push_str(self.algorithm().name());
        text.push(':');
        push_hex(&mut text, self.as_bytes());
        f.pad(&text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::Malformed)?;
        let is_encoded_char =
            |b: u8| b.is_ascii_alphanumeric() || b == b'=' || b == b'_' || b == b'-';
        if encoded.is_empty() || !encoded.bytes().all(is_encoded_char) {
            return Err(DigestError::Malformed);
        }
        let algorithm: Algorithm = algorithm.parse()?;
        let mut bytes = [0_u8; 64];
        let bytes = &mut bytes[..algorithm.len_bytes()];
        if !decode_hex(encoded.as_bytes(), bytes) {
            return Err(DigestError::Malformed);
        }
        Self::from_parts(algorithm, bytes).ok_or(DigestError::Malformed)
    }
}

serde_as_text!(Digest, "a digest such as sha256:<64 lower-case hex>");

/// Hashes a stream into a [`Digest`].
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// A hasher that has seen no bytes.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Appends `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(inner) => inner.update(bytes),
            State::Sha512(inner) => inner.update(bytes),
        }
    }

    /// The digest of everything seen.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(match self.0 {
            State::Sha256(inner) => Hash::Sha256(inner.finalize().into()),
            State::Sha512(inner) => Hash::Sha512(inner.finalize().into()),
        })
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        };
        f.debug_tuple("Hasher").field(&algorithm).finish()
    }
}

/// `component *( [+._-] component )` with `component = 1*[a-z0-9]` (image-spec, descriptor.md).
fn is_algorithm_grammar(text: &str) -> bool {
    text.split(['+', '.', '_', '-'])
        .all(|c| !c.is_empty() && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// Fills `out` from lower-case hexadecimal; false unless `hex` is exactly twice as long.
fn decode_hex(hex: &[u8], out: &mut [u8]) -> bool {
    let (pairs, rest) = hex.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != out.len() {
        return false;
    }
    for (byte, [high, low]) in out.iter_mut().zip(pairs) {
        let (Some(high), Some(low)) = (nibble(*high), nibble(*low)) else { return false };
        *byte = high << 4 | low;
    }
    true
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
