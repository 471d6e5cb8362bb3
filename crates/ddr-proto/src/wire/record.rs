//! Signed records: who holds content, and what a tag means.
//!
//! A record is signed by whom it speaks for, so any node may pass it on and none may change it.
//! What is signed is a domain text followed by the postcard form of all fields but the signature.

use std::cmp::Ordering;

use ddr_oci::{Digest, RepositoryName, Tag};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{Contact, Signer};
use crate::id::{Key, NodeId};
use crate::time::Timestamp;

/// A record issued further ahead of the clock here does not hold yet.
const MAX_AHEAD_MS: u64 = 5 * 60_000;
const PROVIDER_DOMAIN: &[u8] = b"ddr/record/provider/1\0";
const NAME_DOMAIN: &[u8] = b"ddr/record/name/1\0";

/// A holder's signed word that it has the content under `key`, or no longer has it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ProviderRecord {
    /// The content's key.
    pub key: Key,
    /// The holder; its ID is the SHA-256 of `public_key`.
    pub provider: Contact,
    /// The holder's Ed25519 public key.
    pub public_key: [u8; 32],
    /// Whether the holder has all of the content or is still fetching it.
    pub complete: bool,
    /// When the holder signed this, Unix milliseconds. Of two records the later one holds.
    pub issued_ms: u64,
    /// When this stops to hold, Unix milliseconds.
    pub expires_ms: u64,
    /// True when the holder takes an earlier record back.
    pub withdrawn: bool,
    /// Ed25519 signature of all of the above.
    #[serde(with = "signature_bytes")]
    pub signature: [u8; 64],
}

/// What `repository:tag` means, signed by the node that wrote it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NameRecord {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag in it.
    pub tag: Tag,
    /// The manifest, or `None` for a tombstone.
    pub digest: Option<Digest>,
    /// Hybrid logical clock: Unix milliseconds shifted left by 16, plus a counter.
    pub stamp: u64,
    /// The writer's Ed25519 public key.
    pub writer: [u8; 32],
    /// Ed25519 signature of all of the above.
    #[serde(with = "signature_bytes")]
    pub signature: [u8; 64],
}

/// Why a record does not speak for whom it claims.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// The node ID is not that of the public key.
    #[error("the record's node ID is not that of its public key")]
    WrongIdentity,
    /// The signature does not fit the fields.
    #[error("the record's signature is wrong")]
    BadSignature,
}

/// The fields of a provider record that its holder chooses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Terms {
    pub(crate) key: Key,
    pub(crate) complete: bool,
    pub(crate) issued_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) withdrawn: bool,
}

impl ProviderRecord {
    /// A signed record of `provider`, whose ID must be that of the signer.
    #[must_use]
    pub fn sign(
        signer: &Signer,
        provider: &Contact,
        key: Key,
        complete: bool,
        issued_ms: u64,
        expires_ms: u64,
    ) -> Self {
        let terms = Terms { key, complete, issued_ms, expires_ms, withdrawn: false };
        Self::sign_terms(signer, provider, terms)
    }

    /// A signed word that `provider` no longer holds `key`; kept by others until `expires_ms`.
    #[must_use]
    pub fn sign_withdrawn(
        signer: &Signer,
        provider: &Contact,
        key: Key,
        issued_ms: u64,
        expires_ms: u64,
    ) -> Self {
        let terms = Terms { key, complete: false, issued_ms, expires_ms, withdrawn: true };
        Self::sign_terms(signer, provider, terms)
    }

    pub(crate) fn sign_terms(signer: &Signer, provider: &Contact, terms: Terms) -> Self {
        let mut record = Self::from_terms(signer, provider, terms, [0; 64]);
        record.signature = signer.sign(&record.signed_bytes());
        record
    }

    /// The record that `sign_terms` made, from its terms and its signature.
    pub(crate) fn from_terms(
        signer: &Signer,
        provider: &Contact,
        terms: Terms,
        signature: [u8; 64],
    ) -> Self {
        Self {
            key: terms.key,
            provider: provider.clone(),
            public_key: *signer.public_key(),
            complete: terms.complete,
            issued_ms: terms.issued_ms,
            expires_ms: terms.expires_ms,
            withdrawn: terms.withdrawn,
            signature,
        }
    }

    /// Whether it holds at `now`: not expired, and issued at most 5 minutes after it.
    #[must_use]
    pub const fn is_timely(&self, now: Timestamp) -> bool {
        self.expires_ms > now.0 && self.issued_ms <= now.after_ms(MAX_AHEAD_MS).0
    }

    /// Checks identity and signature. Expiry is the caller's business.
    pub fn verify(&self) -> Result<(), RecordError> {
        if NodeId::of_public_key(&self.public_key) != self.provider.id {
            return Err(RecordError::WrongIdentity);
        }
        verify(&self.public_key, &self.signed_bytes(), &self.signature)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let times = (self.issued_ms, self.expires_ms);
        signed_bytes(
            PROVIDER_DOMAIN,
            &(self.key, &self.provider, self.public_key, self.complete, times, self.withdrawn),
        )
    }
}

impl NameRecord {
    /// The key under which this record is kept.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::of_name(&self.repository, &self.tag)
    }

    /// The name that this record speaks about.
    #[must_use]
    pub const fn name(&self) -> (&RepositoryName, &Tag) {
        (&self.repository, &self.tag)
    }

    /// A signed record; `digest` of `None` is a tombstone.
    #[must_use]
    pub fn sign(
        signer: &Signer,
        repository: RepositoryName,
        tag: Tag,
        digest: Option<Digest>,
        stamp: u64,
    ) -> Self {
        let writer = *signer.public_key();
        let mut record = Self { repository, tag, digest, stamp, writer, signature: [0; 64] };
        record.signature = signer.sign(&record.signed_bytes());
        record
    }

    /// Checks the signature. Whether the writer may write is the caller's business.
    pub fn verify(&self) -> Result<(), RecordError> {
        verify(&self.writer, &self.signed_bytes(), &self.signature)
    }

    /// The node that wrote the record.
    #[must_use]
    pub fn writer_id(&self) -> NodeId {
        NodeId::of_public_key(&self.writer)
    }

    /// The order of records of one name: the newest is the greatest (stamp, then writer).
    #[must_use]
    pub fn cmp_newness(&self, other: &Self) -> Ordering {
        // The digest only matters between two different records that one writer signed with one
        // stamp; it keeps the order total, so that all nodes still agree.
        let rank = |record: &Self| (record.stamp, record.writer, record.digest);
        rank(self).cmp(&rank(other))
    }

    /// The record as bytes, for keeping on disk.
    ///
    /// # Panics
    /// Never: the type has a postcard form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        super::encode(self)
    }

    /// Reads what [`Self::to_bytes`] wrote. The signature is not checked.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, super::WireError> {
        super::decode(bytes)
    }

    fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(
            NAME_DOMAIN,
            &(&self.repository, &self.tag, &self.digest, self.stamp, self.writer),
        )
    }
}

pub(super) fn signed_bytes<T: Serialize>(domain: &[u8], fields: &T) -> Vec<u8> {
    postcard::to_extend(fields, domain.to_vec()).expect("every record field has a postcard form")
}

pub(super) fn verify(
    public_key: &[u8; 32],
    bytes: &[u8],
    signature: &[u8; 64],
) -> Result<(), RecordError> {
    VerifyingKey::from_bytes(public_key)
        .and_then(|key| key.verify_strict(bytes, &Signature::from_bytes(signature)))
        .map_err(|_| RecordError::BadSignature)
}

/// A signature as two arrays of 32 bytes: serde knows no array of 64.
pub(super) mod signature_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::wire) fn serialize<S: Serializer>(
        value: &[u8; 64],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let (first, second) = value.split_at(32);
        let half = |bytes: &[u8]| -> [u8; 32] { std::array::from_fn(|i| bytes[i]) };
        (half(first), half(second)).serialize(to)
    }

    pub(in crate::wire) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<[u8; 64], D::Error> {
        let (first, second) = <([u8; 32], [u8; 32])>::deserialize(from)?;
        let mut value = [0; 64];
        value[..32].copy_from_slice(&first);
        value[32..].copy_from_slice(&second);
        Ok(value)
    }
}
