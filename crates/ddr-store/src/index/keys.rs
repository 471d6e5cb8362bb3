//! How digests and names stand in the database, and how they are read back.

use crate::error::IndexError;
use ddr_oci::digest::{Algorithm, Digest};
use std::fmt::Display;
use std::str::FromStr;

/// Bytes of the longest digest key.
const MAX_KEY_BYTES: usize = 1 + 64;
const SHA256: u8 = 1;
const SHA512: u8 = 2;

/// A digest as a key, without an allocation. The order of keys is the order of digests.
pub(super) struct Key {
    bytes: [u8; MAX_KEY_BYTES],
    len: usize,
}

impl Key {
    pub(super) fn of(digest: &Digest) -> Self {
        let mut bytes = [0; MAX_KEY_BYTES];
        bytes[0] = match digest.algorithm() {
            Algorithm::Sha256 => SHA256,
            Algorithm::Sha512 => SHA512,
        };
        let hash = digest.as_bytes();
        bytes[1..=hash.len()].copy_from_slice(hash);
        Self { bytes, len: 1 + hash.len() }
    }

    pub(super) fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

pub(super) fn digest(key: &[u8]) -> Result<Digest, IndexError> {
    let parsed = match key.split_first() {
        Some((&SHA256, hash)) => Digest::from_parts(Algorithm::Sha256, hash),
        Some((&SHA512, hash)) => Digest::from_parts(Algorithm::Sha512, hash),
        _ => None,
    };
    parsed.ok_or_else(|| IndexError::Damaged("a key is not a digest".into()))
}

/// The digest keys that stand one after the other in `list`.
pub(super) fn split(mut list: &[u8]) -> Result<Vec<&[u8]>, IndexError> {
    let mut keys = Vec::new();
    while let Some(&algorithm) = list.first() {
        let len = 1 + if algorithm == SHA512 { 64 } else { 32 };
        let damaged = || IndexError::Damaged("a list of digests ends short".into());
        let (key, rest) = list.split_at_checked(len).ok_or_else(damaged)?;
        keys.push(key);
        list = rest;
    }
    Ok(keys)
}

/// A repository or tag that was valid when it was stored.
pub(super) fn name<T: FromStr>(text: &str) -> Result<T, IndexError>
where
    T::Err: Display,
{
    text.parse().map_err(|e: T::Err| IndexError::Damaged(format!("a stored name is invalid: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_keep_the_order() {
        let mut digests = [b"a", b"b", b"c"]
            .into_iter()
            .flat_map(|b| [Digest::sha256(b), Digest::of(Algorithm::Sha512, b)])
            .collect::<Vec<_>>();
        for d in &digests {
            assert_eq!(digest(Key::of(d).get()).unwrap(), *d);
        }
        digests.sort();
        assert!(digests.is_sorted_by(|a, b| Key::of(a).get() < Key::of(b).get()));
    }

    #[test]
    fn what_is_no_digest_is_damage() {
        for key in [&b""[..], b"\x01", b"\x02short", b"\x09aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert!(matches!(digest(key), Err(IndexError::Damaged(_))));
        }
    }
}
