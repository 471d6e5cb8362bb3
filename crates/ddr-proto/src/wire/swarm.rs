//! Messages between neighbours of a swarm: who has which pieces, who else there is, and chains.
//!
//! All messages go one way, in posts that carry those of several blobs together; the answer to a post
//! says nothing. Piece numbers are those of [`ddr_oci::PieceChain`]: the size of a blob fixes them.

use ddr_oci::piece_chain::{MAX_CHAIN_BYTES, MAX_PIECES};
use ddr_oci::{PieceChain, RepositoryName};
use serde::{Deserialize, Serialize};

use super::record::{RecordError, signature_bytes, signed_bytes, verify};
use super::{Contact, Signer, WireError, at_most, decode, encode};
use crate::id::{Key, NodeId};

/// Most messages in one post; so many of the longest fit into [`super::MAX_MESSAGE_BYTES`].
pub const MAX_SWARM_MESSAGES: usize = 16;
/// Most pieces in one [`SwarmBody::Have`].
pub const MAX_HAVE_PIECES: usize = 256;
/// Longest bitmap of a have-map in bytes: a bit for each piece of the longest chain.
pub const MAX_MAP_BYTES: usize = MAX_PIECES / 8;
/// Most holders in one message or busy answer.
pub const MAX_HOLDERS: usize = 20;
/// Longest signed chain in bytes: key, signature, and a length of up to three bytes before the chain.
pub const MAX_SIGNED_CHAIN_BYTES: usize = 32 + 64 + 3 + MAX_CHAIN_BYTES;

const CHAIN_DOMAIN: &[u8] = b"ddr/chain/1\0";

/// Which pieces a node has.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum HaveMap {
    /// All of them.
    All,
    /// Those whose bit is set: piece `i` is bit `i % 8`, counted from the lowest, of byte `i / 8`.
    /// Exactly as many bytes as the pieces of the blob need, at most [`MAX_MAP_BYTES`]; bits behind
    /// the last piece are not set.
    Bits(Vec<u8>),
}

/// A node that holds a blob or fetches it.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Serialize, Deserialize)]
pub struct Holder {
    /// The node.
    pub contact: Contact,
    /// Whether it has all pieces.
    pub complete: bool,
}

/// What a neighbour says about one blob.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum SwarmBody {
    /// Let us be neighbours, or: we are. Also said again when `have` or `chooses` changed in another
    /// way than by new pieces.
    Hello {
        /// Bytes of the blob; who knows another size is no neighbour.
        size: u64,
        /// What the sender has.
        have: HaveMap,
        /// The sender is a source that gives every piece away once before any twice: leave the
        /// choice of the piece to it.
        chooses: bool,
        /// Uploads that run at the sender.
        load: u16,
        /// The sender wants a `Hello` back.
        reply: bool,
    },
    /// Pieces that the sender has now, besides those it told before.
    Have {
        /// At most [`MAX_HAVE_PIECES`], each below [`MAX_PIECES`].
        pieces: Vec<u16>,
        /// Uploads that run at the sender.
        load: u16,
    },
    /// Other nodes of this blob's swarm.
    Holders {
        /// At most [`MAX_HOLDERS`].
        holders: Vec<Holder>,
    },
    /// We are no neighbours, or not any more. What is asked for is still answered.
    Goodbye {
        /// Who could be asked instead, at most [`MAX_HOLDERS`].
        others: Vec<Holder>,
    },
}

/// A word about one blob.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SwarmMessage {
    /// The blob, [`Key::of_content`] of its digest.
    pub blob: Key,
    /// What is said.
    pub body: SwarmBody,
}

/// One post: what a node says to a neighbour at one time.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SwarmPost {
    /// The sending node. Its ID must equal the identity of the connection.
    pub sender: Contact,
    /// In whose name: only blobs that the receiver links in this repository are spoken of.
    pub repository: RepositoryName,
    /// At most [`MAX_SWARM_MESSAGES`], in order.
    pub messages: Vec<SwarmMessage>,
}

/// The body of a "busy" answer to a request for a piece.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct BusyAnswer {
    /// Uploads that run here.
    pub load: u16,
    /// Who could be asked instead, at most [`MAX_HOLDERS`].
    pub others: Vec<Holder>,
}

/// A piece chain with the signature of the holder that vouches for it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SignedChain {
    /// The holder's Ed25519 public key.
    pub public_key: [u8; 32],
    /// Ed25519 signature of the blob's key and the chain.
    #[serde(with = "signature_bytes")]
    pub signature: [u8; 64],
    /// [`PieceChain::to_bytes`], at most [`MAX_CHAIN_BYTES`].
    pub chain: Vec<u8>,
}

impl SwarmPost {
    /// The post as bytes.
    ///
    /// # Panics
    /// Never: every type in it has a postcard form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a post; all limits hold for what is returned.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let post: Self = decode(bytes)?;
        post.check_limits()?;
        Ok(post)
    }

    /// Checks every list and text against its limit.
    pub fn check_limits(&self) -> Result<(), WireError> {
        self.sender.check_limits()?;
        at_most(self.messages.len(), MAX_SWARM_MESSAGES, "MAX_SWARM_MESSAGES")?;
        self.messages.iter().try_for_each(|message| message.body.check_limits())
    }
}

impl SwarmBody {
    /// Checks every list and text against its limit.
    pub fn check_limits(&self) -> Result<(), WireError> {
        match self {
            Self::Hello { have: HaveMap::All, .. } => Ok(()),
            Self::Hello { have: HaveMap::Bits(bits), .. } => {
                at_most(bits.len(), MAX_MAP_BYTES, "MAX_MAP_BYTES")
            }
            Self::Have { pieces, .. } => {
                at_most(pieces.len(), MAX_HAVE_PIECES, "MAX_HAVE_PIECES")?;
                let highest = pieces.iter().max().map_or(0, |piece| usize::from(*piece) + 1);
                at_most(highest, MAX_PIECES, "MAX_PIECES")
            }
            Self::Holders { holders: others } | Self::Goodbye { others } => check_holders(others),
        }
    }
}

impl BusyAnswer {
    /// The answer as bytes.
    ///
    /// # Panics
    /// Never: every type in it has a postcard form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads an answer; all limits hold for what is returned.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let answer: Self = decode(bytes)?;
        check_holders(&answer.others)?;
        Ok(answer)
    }
}

fn check_holders(holders: &[Holder]) -> Result<(), WireError> {
    at_most(holders.len(), MAX_HOLDERS, "MAX_HOLDERS")?;
    holders.iter().try_for_each(|holder| holder.contact.check_limits())
}

impl SignedChain {
    /// The chain of the blob under `key`, vouched for by the signer.
    #[must_use]
    pub fn sign(signer: &Signer, key: &Key, chain: &PieceChain) -> Self {
        let chain = chain.to_bytes();
        let public_key = *signer.public_key();
        let signature = signer.sign(&signed_bytes(CHAIN_DOMAIN, &(key, public_key, &chain)));
        Self { public_key, signature, chain }
    }

    /// Checks the signature, for the blob under `key`. What the chain says is still a claim.
    pub fn verify(&self, key: &Key) -> Result<(), RecordError> {
        let fields = (key, self.public_key, &self.chain);
        verify(&self.public_key, &signed_bytes(CHAIN_DOMAIN, &fields), &self.signature)
    }

    /// The node that vouches for it.
    #[must_use]
    pub fn signer_id(&self) -> NodeId {
        NodeId::of_public_key(&self.public_key)
    }

    /// The chain as bytes, at most [`MAX_SIGNED_CHAIN_BYTES`].
    ///
    /// # Panics
    /// Never: every type in it has a postcard form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a signed chain. Neither signature nor chain is checked but for its length.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_SIGNED_CHAIN_BYTES {
            return Err(WireError::TooLarge);
        }
        let signed: Self = super::decode_any_length(bytes)?;
        at_most(signed.chain.len(), MAX_CHAIN_BYTES, "MAX_CHAIN_BYTES")?;
        Ok(signed)
    }
}
