//! The words in which a [`Node`](crate::Node) answers: content, errors, reports.
//!
//! Decides nothing. It must never name HTTP: the registry turns these into status codes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ddr_net::discover::Origin;
use ddr_oci::{Digest, ManifestError, Tag};
use ddr_store::StoredManifest;
use serde::Serialize;

/// A manifest exactly as it was pushed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestContent {
    /// Digest of `bytes`.
    pub digest: Digest,
    /// The media type to answer in `Content-Type`.
    pub media_type: String,
    /// The bytes, at most [`ddr_oci::MAX_MANIFEST_BYTES`].
    pub bytes: Bytes,
    /// True when it was read by a tag for which no majority answered: the tag may point elsewhere by
    /// now. See [`TagReads::StaleOk`](crate::TagReads::StaleOk).
    pub is_stale: bool,
}

impl ManifestContent {
    /// What the store has in memory, without a copy of its bytes.
    pub(crate) fn shared(digest: Digest, stored: Arc<StoredManifest>) -> Self {
        struct Shared(Arc<StoredManifest>);
        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                &self.0.bytes
            }
        }
        let media_type = stored.media_type.clone();
        Self { digest, media_type, bytes: Bytes::from_owner(Shared(stored)), is_stale: false }
    }
}

/// What [`Node::put_manifest`](crate::Node::put_manifest) stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PutManifest {
    /// Digest of the bytes, in the algorithm of the reference (sha256 for a tag).
    pub digest: Digest,
    /// The subject that the manifest names, for the `OCI-Subject` header.
    pub subject: Option<Digest>,
    /// Blobs that the manifest needs and that nobody has, in its order, for a `Warning`.
    pub unknown_blobs: Vec<Digest>,
}

/// Why content or a name could not be read. Absent is not an error: that is `Ok(None)`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The swarm cannot answer now: too few of the nodes that keep the name answered, or every
    /// holder that was found failed. Worth another try later (503).
    #[error("{0}")]
    Unavailable(String),
    /// The node itself has too much to do (429): a named limit was reached.
    #[error("the node is busy: {0}")]
    Busy(&'static str),
    /// The registry that the repository belongs to refuses this node (403).
    #[error("{0}")]
    Denied(String),
    /// The local store failed (500).
    #[error("the local store failed: {0}")]
    Store(String),
}

impl ReadError {
    pub(crate) fn store(error: impl std::fmt::Display) -> Self {
        Self::Store(error.to_string())
    }
}

/// Why a tag was not written or deleted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TagWriteError {
    /// The tag is immutable by the rules of this node, and points to another manifest.
    #[error("the tag {tag} is immutable and points to {digest}")]
    Immutable {
        /// The tag.
        tag: Tag,
        /// What it points to.
        digest: Digest,
    },
    /// What holds could not be read or written.
    #[error(transparent)]
    Other(#[from] ReadError),
}

/// What was deleted in the whole swarm.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RemovedImage {
    /// The repository.
    pub repository: String,
    /// The tag that is gone; `None`: the manifest, and every tag that pointed to it.
    pub tag: Option<String>,
    /// The manifest.
    pub digest: String,
}

/// What a tag pointed to at one time.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct TagVersion {
    /// The manifest's digest; `None`: the tag was deleted.
    pub digest: Option<String>,
    /// When, as the writer's clock showed it, Unix milliseconds.
    pub at_ms: u64,
    /// Node id of the writer, 64 hexadecimal digits.
    pub writer: String,
}

/// Why a manifest was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PutManifestError {
    /// The bytes are not a manifest (400 `MANIFEST_INVALID`).
    #[error(transparent)]
    Invalid(#[from] ManifestError),
    /// The digest in the request is not the digest of the bytes (400 `DIGEST_INVALID`).
    #[error("the bytes have the digest {actual}, not {given}")]
    DigestMismatch {
        /// The digest in the request.
        given: Digest,
        /// The digest of the bytes.
        actual: Box<Digest>,
    },
    /// Blobs that the manifest needs and that nobody has, where
    /// [`Limits::require_blobs`](crate::Limits::require_blobs) is set (404
    /// `MANIFEST_BLOB_UNKNOWN`).
    #[error("{} blobs of the manifest are unknown, first {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    BlobsUnknown(Vec<Digest>),
    /// A tag is immutable and points to another manifest (403 `DENIED`).
    #[error("the tag {tag} is immutable and points to {digest}")]
    TagImmutable {
        /// The tag.
        tag: Tag,
        /// What it points to.
        digest: Box<Digest>,
    },
    /// The registry beside this node takes no such manifest (400 `MANIFEST_INVALID`).
    #[error("{0}")]
    Refused(String),
    /// The manifest is stored, but its tags could not be written on a majority of the nodes
    /// that keep them (503); the push may be repeated as it is.
    #[error("{0}")]
    Unavailable(String),
    /// The disk of this node is full (507); the push may be repeated when there is room.
    #[error("no space is left on the disk")]
    NoSpace,
    /// The local store failed (500).
    #[error("the local store failed: {0}")]
    Store(String),
}

impl From<ddr_store::IndexError> for PutManifestError {
    fn from(error: ddr_store::IndexError) -> Self {
        match error {
            ddr_store::IndexError::NoSpace => Self::NoSpace,
            other => Self::store(other),
        }
    }
}

impl PutManifestError {
    pub(crate) fn store(error: impl std::fmt::Display) -> Self {
        Self::Store(error.to_string())
    }
}

/// Why something was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// A tag is immutable and points to it (403 `DENIED`).
    #[error("the tag {tag} is immutable and points to {digest}")]
    TagImmutable {
        /// The tag.
        tag: Tag,
        /// What it points to.
        digest: Box<Digest>,
    },
    /// Too few of the nodes that keep the name answered (503).
    #[error("{0}")]
    Unavailable(String),
    /// The local store failed (500).
    #[error("the local store failed: {0}")]
    Store(String),
}

impl From<TagWriteError> for DeleteError {
    fn from(error: TagWriteError) -> Self {
        match error {
            TagWriteError::Immutable { tag, digest } => {
                Self::TagImmutable { tag, digest: digest.into() }
            }
            TagWriteError::Other(error) => error.into(),
        }
    }
}

impl From<ReadError> for DeleteError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(why) => Self::Store(why),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Why [`Node::start`](crate::Node::start) failed. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The store failed while the node read what it holds.
    #[error("the store cannot be read: {0}")]
    Store(String),
}

/// Why a token was not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The id is not the 32 hexadecimal digits that `token list` prints.
    #[error("a token id has 32 hexadecimal digits")]
    BadId,
    /// The swarm's key could not make the token.
    #[error("the token could not be made: {0}")]
    Create(String),
    /// [`MAX_TOKENS`](crate::tokens::MAX_TOKENS) live or revoked tokens exist.
    #[error("too many tokens: let some expire first")]
    TooMany,
    /// The local store failed.
    #[error("the local store failed: {0}")]
    Store(String),
}

/// Why a search could not start.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Neither a digest nor an image reference.
    #[error("{0:?} is neither a digest nor an image reference")]
    BadTarget(String),
    /// The name or the overlay could not be asked.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The state of this node, for `ddr status`, the dashboard and the tests.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// Node id, 64 hexadecimal digits.
    pub node_id: String,
    /// Swarm id, 64 hexadecimal digits.
    pub swarm_id: String,
    /// The node's zone; empty when it has none.
    pub zone: String,
    /// Addresses that peers are told.
    pub advertise: Vec<SocketAddr>,
    /// Milliseconds since start.
    pub uptime_ms: u64,
    /// True once it has joined, or has nobody to join.
    pub ready: bool,
    /// Nodes in the routing table that answered.
    pub peers: usize,
    /// Nodes that are struck now; [`crate::Node::peers`] names them.
    pub struck: usize,
    /// Nodes of the swarm, this one included: counted while they are few, else estimated; see
    /// [`ddr_proto::kad::Kad::size_estimate`].
    pub swarm_size: u64,
    /// Where this node looks for others, and what each place brought.
    pub bootstrap: Vec<SourceStatus>,
    /// Blobs on this disk.
    pub blobs: usize,
    /// Bytes of these blobs.
    pub blob_bytes: u64,
    /// Manifests in the index.
    pub manifests: usize,
    /// Keys this node tells the swarm it holds.
    pub provided: usize,
    /// Provider records stored here for others.
    pub provider_records: usize,
    /// Name records stored here.
    pub names: usize,
    /// Downloads that run now.
    pub fetches_running: usize,
    /// These, one by one; see [`Node::swarms`](crate::Node::swarms).
    pub swarms: Vec<SwarmStatus>,
    /// Content that this node keeps for its swarm.
    pub copies: crate::CopiesStatus,
    /// How full the disk is, and what has made room.
    pub cache: crate::CacheStatus,
    /// What lies beside the own store, where something does.
    pub driver: Option<crate::DriverStatus>,
    /// Uploads and fetches of content from peers since start.
    pub traffic: Traffic,
    /// Who served this node since start, most bytes first. At most
    /// [`MAX_SOURCES`](crate::status::MAX_SOURCES) rows.
    pub sources: Vec<SourceBytes>,
    /// Bytes that came from peers per repository since start, and from whom.
    pub images: Vec<ImageBytes>,
}

/// A source of other nodes.
#[derive(Clone, Debug, Serialize)]
pub struct SourceStatus {
    /// Which one.
    pub source: Origin,
    /// Addresses that it gave when it was last looked at.
    pub found: usize,
    /// Times that a node answered at one of its addresses since start.
    pub answered: u64,
    /// Why the last look failed.
    pub error: Option<String>,
}

/// Sums since start, in bytes and requests.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Traffic {
    /// Content bytes that came from peers.
    pub fetched_bytes: u64,
    /// Those of them that came from another zone than that of this node.
    pub cross_zone_bytes: u64,
    /// Content bytes sent to peers.
    pub served_bytes: u64,
    /// Content requests answered with content to peers.
    pub served_requests: u64,
    /// Fetches that were started.
    pub fetches: u64,
    /// Fetches that ended with the wrong digest or without any holder.
    pub fetches_failed: u64,
    /// Times a fetch went on with another peer in the middle of a blob.
    pub takeovers: u64,
}

/// Bytes that one peer gave to this node.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SourceBytes {
    /// The peer's node id, 64 hexadecimal digits.
    pub node_id: String,
    /// The address it was reached at.
    pub address: SocketAddr,
    /// Content bytes.
    pub bytes: u64,
    /// Content requests that brought at least one byte.
    pub requests: u64,
    /// Times the peer was struck, for wrong content or for breaking the rules.
    pub strikes: u32,
}

/// One blob on its way here.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct SwarmStatus {
    /// The blob.
    pub digest: String,
    /// In whose name it is fetched.
    pub repositories: Vec<String>,
    /// Bytes of the blob; `None` until a holder has told.
    pub size: Option<u64>,
    /// Bytes that are here.
    pub bytes_here: u64,
    /// Pieces that are here and were checked.
    pub pieces_here: usize,
    /// Pieces of the blob; 0 before its chain is known, and of one that comes whole from one peer.
    pub pieces: usize,
    /// Whether its piece chain is settled, so that clients are given what is here.
    pub settled: bool,
    /// Bytes a second, averaged over the last seconds.
    pub bytes_per_second: u64,
    /// Nodes with which this one shares what it has of the blob.
    pub neighbours: usize,
    /// Who gave bytes, most first; at most 20.
    pub sources: Vec<SwarmSource>,
    /// Clients and preheats that wait for it.
    pub readers: usize,
    /// When the fetch began, Unix milliseconds.
    pub since_ms: u64,
}

/// A peer that gave bytes of a blob on its way here.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SwarmSource {
    /// The peer's node id, 64 hexadecimal digits.
    pub node_id: String,
    /// The address it was reached at.
    pub address: SocketAddr,
    /// Bytes of this blob, wrong ones included.
    pub bytes: u64,
    /// Strikes against it since start.
    pub strikes: u32,
    /// What the last strike was for.
    pub struck_for: Option<String>,
}

/// Bytes that peers gave for one repository.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ImageBytes {
    /// The repository.
    pub repository: String,
    /// Content bytes that came from peers.
    pub bytes: u64,
    /// The same by peer.
    pub sources: Vec<SourceBytes>,
}

/// One node of the routing table, or one that is struck, for `ddr peers`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerStatus {
    /// Node id, 64 hexadecimal digits.
    pub node_id: String,
    /// Addresses the peer advertises; of one that is struck and not known, where it spoke from.
    pub addresses: Vec<SocketAddr>,
    /// Its zone; empty when it has none.
    pub zone: String,
    /// Milliseconds since the peer last answered or asked.
    pub last_answer_ms: u64,
    /// False while it is left alone after a failure.
    pub alive: bool,
    /// Content bytes it gave to this node since start.
    pub bytes: u64,
    /// Strikes against it since start.
    pub strikes: u32,
    /// What the last strike was for.
    pub struck_for: Option<String>,
    /// True while it is avoided because of strikes: nothing is read from it.
    pub avoided: bool,
    /// True while it is refused because it broke the rules: neither dialled nor asked nor answered.
    pub refused: bool,
    /// When the last strike is over, Unix milliseconds.
    pub avoided_until_ms: Option<u64>,
}

/// One repository of the local index, for `ddr images`.
#[derive(Clone, Debug, Serialize)]
pub struct ImageStatus {
    /// The repository.
    pub repository: String,
    /// Tags and the digests they point to, in byte order of the tags.
    pub tags: Vec<TagStatus>,
    /// Manifests of the repository in the local index, tagged or not.
    pub manifests: usize,
}

/// One tag of the local index.
#[derive(Clone, Debug, Serialize)]
pub struct TagStatus {
    /// The tag.
    pub tag: String,
    /// The manifest's digest.
    pub digest: String,
}

/// The answer of `ddr find`.
#[derive(Clone, Debug, Serialize)]
pub struct FindReport {
    /// What was asked.
    pub target: String,
    /// The digest it stands for; `None` when the tag is unknown.
    pub digest: Option<String>,
    /// Size in bytes when this node knows it.
    pub size: Option<u64>,
    /// True when this node holds the content.
    pub local: bool,
    /// Other nodes that say they hold it.
    pub holders: Vec<HolderStatus>,
    /// Milliseconds the search took.
    pub took_ms: u64,
}

/// A node that holds content.
#[derive(Clone, Debug, Serialize)]
pub struct HolderStatus {
    /// Node id, 64 hexadecimal digits.
    pub node_id: String,
    /// Its addresses.
    pub addresses: Vec<SocketAddr>,
    /// Its zone; empty when it has none.
    pub zone: String,
    /// False while it still downloads.
    pub complete: bool,
}

/// A join token as the node remembers it. The token itself is shown only once.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
pub struct TokenInfo {
    /// 32 hexadecimal digits.
    pub id: String,
    /// When it ends, Unix milliseconds.
    pub expires_ms: u64,
    /// True once revoked: nobody joins with it any more.
    pub revoked: bool,
}
