//! Signed entries of sets: the tags of a repository, the repositories, the referrers of a subject,
//! and what was deleted.
//!
//! A set lies on the nodes closest to its key, as a name does. Each member of it is a register of
//! its own: the newest entry by (stamp, writer) holds. The entry of a tag is the tag's own name
//! record, so the tag and the list of tags can never hold two different truths for long.

use std::cmp::Ordering;

use ddr_oci::{Algorithm, Digest, RepositoryName, Tag};
use serde::{Deserialize, Serialize};

use super::record::{signature_bytes, signed_bytes, verify};
use super::{NameRecord, RecordError, Signer, WireError, at_most};
use crate::id::{Key, NodeId};

/// Longest member of a set in bytes: a repository name, and one byte for what follows it.
pub const MAX_MEMBER_BYTES: usize = MAX_TEXT_BYTES + 1;
/// Longest text that is a member.
const MAX_TEXT_BYTES: usize = 255;
/// Longest value of an entry in bytes: the descriptor of a referrer.
pub const MAX_VALUE_BYTES: usize = 32 * 1024;

const FACT_DOMAIN: &[u8] = b"ddr/record/fact/1\0";

/// Which set.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum SetName {
    /// The tags of a repository.
    Tags(RepositoryName),
    /// All repositories.
    Repositories,
    /// The manifests of a repository whose subject is this digest.
    Referrers(RepositoryName, Digest),
    /// Whether this digest was deleted from the repository: a set of one or two, as blob and as
    /// manifest.
    Deleted(RepositoryName, Digest),
}

/// A member as bytes. Their order is the order of the list: tags and names by their bytes, digests
/// by algorithm and hash.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub struct Member(Vec<u8>);

/// What an entry speaks about, if it is no tag.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// The repository exists. The value is empty.
    Repository(RepositoryName),
    /// A manifest refers to a subject. The value is its descriptor as JSON.
    Referrer {
        /// The repository of both.
        repository: RepositoryName,
        /// What is referred to.
        subject: Digest,
        /// The manifest that refers.
        referrer: Digest,
    },
    /// Content was deleted from a repository. The value is empty. Without a value: it was pushed
    /// again later.
    Deleted {
        /// The repository.
        repository: RepositoryName,
        /// The manifest or blob.
        digest: Digest,
        /// As which of the two.
        kind: ContentKind,
    },
}

/// What content is in its repository. The same bytes may be both.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub enum ContentKind {
    /// A config or layer.
    Blob,
    /// A manifest or index.
    Manifest,
}

/// A fact, signed by the node that wrote it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct FactRecord {
    /// What it speaks about.
    pub fact: Fact,
    /// At most [`MAX_VALUE_BYTES`]. `None`: it does not hold (any more).
    pub value: Option<Vec<u8>>,
    /// Hybrid logical clock, as of a name record.
    pub stamp: u64,
    /// The writer's Ed25519 public key.
    pub writer: [u8; 32],
    /// Ed25519 signature of all of the above.
    #[serde(with = "signature_bytes")]
    pub signature: [u8; 64],
}

/// One member of one set, or the word that it is none any more.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum SetEntry {
    /// A tag of its repository.
    Tag(NameRecord),
    /// Anything else.
    Fact(FactRecord),
}

impl SetName {
    /// Where the set lies.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Tags(repository) => Key::of_set(1, [repository.as_str().as_bytes(), b""]),
            Self::Repositories => Key::of_set(2, [b"", b""]),
            Self::Referrers(repository, subject) => {
                Key::of_set(3, [repository.as_str().as_bytes(), &Member::digest(subject).0])
            }
            Self::Deleted(repository, digest) => {
                Key::of_set(4, [repository.as_str().as_bytes(), &Member::digest(digest).0])
            }
        }
    }
}

impl Member {
    /// Before every member.
    #[must_use]
    pub const fn first() -> Self {
        Self(Vec::new())
    }

    /// What comes next in the order of bytes: nothing lies between this and `self`.
    #[must_use]
    pub fn successor(&self) -> Self {
        let mut bytes = self.0.clone();
        bytes.truncate(MAX_TEXT_BYTES);
        bytes.push(0);
        Self(bytes)
    }

    /// A text, cut to 255 bytes. Tags and names are never longer, and a cut changes no comparison
    /// with them.
    #[must_use]
    pub fn text(text: &str) -> Self {
        let bytes = text.as_bytes();
        Self(bytes[..bytes.len().min(MAX_TEXT_BYTES)].to_vec())
    }

    /// A tag.
    #[must_use]
    pub fn tag(tag: &Tag) -> Self {
        Self::text(tag.as_str())
    }

    /// A digest: one byte for the algorithm, then the hash.
    #[must_use]
    pub fn digest(digest: &Digest) -> Self {
        let algorithm = match digest.algorithm() {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        };
        let mut bytes = vec![algorithm];
        bytes.extend_from_slice(digest.as_bytes());
        Self(bytes)
    }

    /// What [`Self::as_bytes`] gave. `None` when it is too long.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX_MEMBER_BYTES).then(|| Self(bytes.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Checks the length against its limit.
    pub fn check_limits(&self) -> Result<(), WireError> {
        at_most(self.0.len(), MAX_MEMBER_BYTES, "MAX_MEMBER_BYTES")
    }
}

impl Fact {
    /// The set that this speaks about.
    #[must_use]
    pub fn set(&self) -> SetName {
        match self {
            Self::Repository(_) => SetName::Repositories,
            Self::Referrer { repository, subject, .. } => {
                SetName::Referrers(repository.clone(), *subject)
            }
            Self::Deleted { repository, digest, .. } => {
                SetName::Deleted(repository.clone(), *digest)
            }
        }
    }

    /// The member that this speaks about.
    #[must_use]
    pub fn member(&self) -> Member {
        match self {
            Self::Repository(repository) => Member::text(repository.as_str()),
            Self::Referrer { referrer, .. } => Member::digest(referrer),
            Self::Deleted { digest, kind, .. } => {
                let mut member = Member::digest(digest);
                member.0.push(match kind {
                    ContentKind::Blob => 1,
                    ContentKind::Manifest => 2,
                });
                member
            }
        }
    }
}

impl FactRecord {
    /// A signed fact; a `value` of `None` takes it back.
    #[must_use]
    pub fn sign(signer: &Signer, fact: Fact, value: Option<Vec<u8>>, stamp: u64) -> Self {
        let writer = *signer.public_key();
        let mut record = Self { fact, value, stamp, writer, signature: [0; 64] };
        record.signature = signer.sign(&record.signed_bytes());
        record
    }

    fn signed_bytes(&self) -> Vec<u8> {
        signed_bytes(FACT_DOMAIN, &(&self.fact, &self.value, self.stamp, self.writer))
    }
}

impl SetEntry {
    /// The set that this is an entry of.
    #[must_use]
    pub fn set(&self) -> SetName {
        match self {
            Self::Tag(record) => SetName::Tags(record.repository.clone()),
            Self::Fact(record) => record.fact.set(),
        }
    }

    /// The member that this speaks about.
    #[must_use]
    pub fn member(&self) -> Member {
        match self {
            Self::Tag(record) => Member::tag(&record.tag),
            Self::Fact(record) => record.fact.member(),
        }
    }

    /// A key of its own for this member of this set.
    #[must_use]
    pub fn slot(&self) -> Key {
        Key::of_slot(&self.set().key(), self.member().as_bytes())
    }

    /// True when the member is in the set; false for the word that it is not.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        match self {
            Self::Tag(record) => record.digest.is_some(),
            Self::Fact(record) => record.value.is_some(),
        }
    }

    /// The hybrid logical clock of the entry.
    #[must_use]
    pub const fn stamp(&self) -> u64 {
        match self {
            Self::Tag(record) => record.stamp,
            Self::Fact(record) => record.stamp,
        }
    }

    /// The public key of the node that wrote it.
    #[must_use]
    pub const fn writer(&self) -> &[u8; 32] {
        match self {
            Self::Tag(record) => &record.writer,
            Self::Fact(record) => &record.writer,
        }
    }

    /// The node that wrote it.
    #[must_use]
    pub fn writer_id(&self) -> NodeId {
        NodeId::of_public_key(self.writer())
    }

    /// Checks the signature. Whether the writer may write is the caller's business.
    pub fn verify(&self) -> Result<(), RecordError> {
        match self {
            Self::Tag(record) => record.verify(),
            Self::Fact(record) => verify(&record.writer, &record.signed_bytes(), &record.signature),
        }
    }

    /// The order of entries of one member: the newest is the greatest (stamp, then writer).
    #[must_use]
    pub fn cmp_newness(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Tag(one), Self::Tag(two)) => one.cmp_newness(two),
            _ => {
                // The value only matters between two entries that one writer signed with one stamp.
                let rank = |entry: &Self| (entry.stamp(), *entry.writer(), entry.value().cloned());
                rank(self).cmp(&rank(other))
            }
        }
    }

    /// The value of a fact that holds.
    #[must_use]
    pub const fn value(&self) -> Option<&Vec<u8>> {
        match self {
            Self::Tag(_) => None,
            Self::Fact(record) => record.value.as_ref(),
        }
    }

    /// Checks the value against its limit.
    pub fn check_limits(&self) -> Result<(), WireError> {
        at_most(self.value().map_or(0, Vec::len), MAX_VALUE_BYTES, "MAX_VALUE_BYTES")
    }

    /// The entry as bytes, for keeping on disk.
    ///
    /// # Panics
    /// Never: the type has a postcard form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        super::encode(self)
    }

    /// Reads what [`Self::to_bytes`] wrote, within all limits. The signature is not checked.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        let entry: Self = super::decode(bytes)?;
        entry.check_limits()?;
        Ok(entry)
    }
}
