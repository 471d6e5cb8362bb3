//! What a node answers on the peer port: the one seam between connections and decisions.
//!
//! Types only. Nothing here knows HTTP; `server` turns these answers into status codes.

use std::fmt;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use ddr_proto::kad::Reason;
use ddr_proto::wire::{BusyAnswer, RequestEnvelope, Response, SwarmPost};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::carrier::PeerInfo;

/// Answers peers. All futures may run at the same time; dropping one means the peer went away.
pub trait Service: Send + Sync + 'static {
    /// Answers a message of a member. The envelope's limits are checked and its sender is the node
    /// that the connection proved.
    fn message(&self, from: PeerInfo, envelope: RequestEnvelope) -> BoxFuture<'_, Response>;

    /// A member broke the rules in a message that has been refused already. Bytes that are no message
    /// are not told: a newer version may send some.
    fn misbehaved(&self, from: PeerInfo, reason: Reason);

    /// Hears what a member says about the blob with this digest. The limits of the post are checked,
    /// its sender is the node that the connection proved, and all messages are about that blob.
    /// False: `post.repository` does not link the blob here.
    fn swarm(&self, from: PeerInfo, digest: Digest, post: SwarmPost) -> BoxFuture<'_, bool>;

    /// Gives a blob or manifest to a member. Only what `request.repository` links here may be
    /// given; everything else is [`ContentReply::NotFound`].
    fn content(&self, from: PeerInfo, request: ContentRequest) -> BoxFuture<'_, ContentReply>;

    /// Takes in content that a member sends while it takes it in itself: bytes, then the digest that they
    /// shall have. Without that nothing is kept.
    fn upload(
        &self,
        from: PeerInfo,
        repository: RepositoryName,
        frames: BoxStream<'static, io::Result<UploadFrame>>,
    ) -> BoxFuture<'_, UploadReply>;

    /// Admits the holder of a join token, whose public key the connection has proven.
    fn join(
        &self,
        from: PeerInfo,
        request: JoinRequest,
    ) -> BoxFuture<'_, Result<JoinReply, JoinRefusal>>;
}

/// Which kind of content is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentKind {
    /// A config or layer.
    Blob,
    /// A manifest or index.
    Manifest,
    /// The signed piece chain of a blob.
    Chain,
}

/// A request for content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentRequest {
    /// Where to look.
    pub kind: ContentKind,
    /// What to give.
    pub digest: Digest,
    /// The repository in whose name it is asked for.
    pub repository: Option<RepositoryName>,
    /// First byte and end (exclusive); `None` is the whole, an end of `None` the rest.
    pub range: Option<(u64, Option<u64>)>,
    /// True when any one piece of the blob will do, and the answer tells which; with
    /// [`Self::head_only`]: when a part of the blob counts too. There is no range then.
    pub any_piece: bool,
    /// True when nobody waits for it: other requests come first.
    pub background: bool,
    /// True when the peer is asked to bring what it does not have from the registry that the repository
    /// belongs to.
    pub from_upstream: bool,
    /// True when only size and media type are wanted: the reply's body will not be read.
    pub head_only: bool,
}

impl ContentRequest {
    /// All of it, from what the peer has, at once.
    pub const fn new(
        kind: ContentKind,
        digest: Digest,
        repository: Option<RepositoryName>,
    ) -> Self {
        Self {
            kind,
            digest,
            repository,
            range: None,
            any_piece: false,
            background: false,
            from_upstream: false,
            head_only: false,
        }
    }

    /// The bytes to give of content with this size; `None` if the range begins past its end.
    pub fn resolve(&self, size: u64) -> Option<Range<u64>> {
        match self.range {
            None => Some(0..size),
            Some((start, _)) if start >= size => None,
            Some((start, end)) => Some(start..end.map_or(size, |end| end.min(size))),
        }
    }
}

/// The answer to a [`ContentRequest`].
pub enum ContentReply {
    /// Here it is.
    Found {
        /// Bytes of the whole content.
        size: u64,
        /// The bytes that `body` gives, see [`ContentRequest::resolve`].
        range: Range<u64>,
        /// Media type, for manifests.
        media_type: Option<String>,
        /// Exactly the bytes of `range`, best in frames of 256 KiB to 1 MiB. After an error the
        /// response ends short, so that the peer cannot take it for whole.
        body: BoxStream<'static, io::Result<Bytes>>,
    },
    /// Not here, or not linked by that repository.
    NotFound,
    /// The range begins past the end.
    Unsatisfiable {
        /// Bytes of the whole content.
        size: u64,
    },
    /// Too much to do; the peer should ask another holder.
    Busy(BusyAnswer),
    /// The peer broke the rules lately and is given nothing for a while.
    Refused,
    /// The store failed.
    Failed,
}

impl fmt::Debug for ContentReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { size, range, media_type, .. } => f
                .debug_struct("Found")
                .field("size", size)
                .field("range", range)
                .field("media_type", media_type)
                .finish_non_exhaustive(),
            Self::NotFound => f.write_str("NotFound"),
            Self::Unsatisfiable { size } => {
                f.debug_struct("Unsatisfiable").field("size", size).finish()
            }
            Self::Busy(answer) => f.debug_tuple("Busy").field(answer).finish(),
            Self::Refused => f.write_str("Refused"),
            Self::Failed => f.write_str("Failed"),
        }
    }
}

/// What is sent of content that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadFrame {
    /// The next bytes.
    Bytes(Bytes),
    /// There are no more, and this is their digest.
    End(Digest),
}

/// What became of content that a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadReply {
    /// It is durable here, in that repository.
    Stored,
    /// Too much to do.
    Busy,
    /// This node takes nothing: it leaves, or the peer broke the rules.
    Refused,
    /// The disk has no room.
    Full,
    /// It broke off, or has another digest.
    Broken,
    /// The store failed.
    Failed,
}

/// A joiner asks to be admitted under this key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The Ed25519 key that the connection proved.
    pub public_key: [u8; 32],
}

/// What makes a node a member. Secret: it holds the swarm key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinReply {
    /// The joiner's member certificate, DER.
    pub member: Vec<u8>,
    /// The swarm key, PKCS#8 DER.
    pub swarm_key: Vec<u8>,
}

impl fmt::Debug for JoinReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinReply").finish_non_exhaustive()
    }
}

/// Why a joiner is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinRefusal {
    /// The token has been revoked.
    #[error("the join token has been revoked: make a new one with `ddr token create`")]
    Revoked,
    /// Too much to do.
    #[error("the node is busy: try again in a minute")]
    Busy,
    /// The node could not make a certificate.
    #[error("the node could not admit anyone: see its log")]
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_resolve_within_the_content() {
        let whole = ContentRequest::new(ContentKind::Blob, Digest::sha256(b"x"), None);
        let request = |range| ContentRequest { range, ..whole.clone() };
        assert_eq!(request(None).resolve(10), Some(0..10));
        assert_eq!(request(None).resolve(0), Some(0..0));
        assert_eq!(request(Some((4, None))).resolve(10), Some(4..10));
        assert_eq!(request(Some((4, Some(6)))).resolve(10), Some(4..6));
        assert_eq!(request(Some((4, Some(99)))).resolve(10), Some(4..10));
        assert_eq!(request(Some((10, None))).resolve(10), None);
        assert_eq!(request(Some((0, None))).resolve(0), None);
    }
}
