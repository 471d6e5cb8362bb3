//! One node: its core, and what the driver around it would know.

use std::collections::BTreeMap;
use std::sync::Arc;

use ddr_proto::swarm::{AskId, ClaimId, Refusal, Swarm, UploadId};
use ddr_proto::wire::{Contact, SwarmMessage};
use ddr_proto::{Key, NodeId};

use super::copy::{Copy, Marks};
use super::fabric::{Nanos, TransferId};
use super::lies::Chain;

/// What a node is here for.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Role {
    Source,
    Puller,
    /// Claims to hold everything, and gives wrong bytes.
    Liar,
}

/// What travels between nodes besides the bytes of pieces.
#[derive(Debug)]
pub(super) enum Mail {
    Start,
    Wake {
        at: Nanos,
    },
    Said {
        from: usize,
        message: Arc<SwarmMessage>,
    },
    Ask {
        from: usize,
        ask: AskId,
        layer: usize,
        piece: Option<u32>,
    },
    Chosen {
        ask: AskId,
        piece: u32,
    },
    Refused {
        ask: AskId,
        refusal: Refusal,
    },
    Cancel {
        from: usize,
        ask: AskId,
    },
    AskChain {
        from: usize,
        layer: usize,
    },
    NoChain {
        from: usize,
        layer: usize,
    },
    Lookup {
        layer: usize,
    },
    /// A request to a node that died meanwhile.
    Broken {
        ask: AskId,
    },
    Gone {
        node: usize,
    },
    /// Not for a node: this part of the pullers dies.
    Kill {
        part: f64,
    },
}

/// What a transfer carries.
#[derive(Clone, Debug)]
pub(super) enum Tag {
    Piece {
        ask: AskId,
        upload: UploadId,
        layer: usize,
        piece: u32,
        load: u16,
        made_by: Option<usize>,
    },
    Chain {
        layer: usize,
        signer: usize,
        chain: Chain,
    },
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) role: Role,
    pub(super) contact: Arc<Contact>,
    pub(super) core: Swarm,
    pub(super) copies: Vec<Copy>,
    pub(super) doubts: Vec<Option<(u32, ClaimId)>>,
    pub(super) signers: BTreeMap<(usize, ClaimId), usize>,
    pub(super) marks: Marks,
    pub(super) complete: usize,
    /// Requests that this node made, and of whom.
    pub(super) asks: BTreeMap<AskId, usize>,
    /// Uploads that run, by who asked and the number of its request.
    pub(super) uploads: BTreeMap<(usize, AskId), (UploadId, TransferId)>,
    pub(super) next_upload: u64,
    pub(super) wake_at: Nanos,
    /// Bytes of pieces that were of use.
    pub(super) useful: u64,
    pub(super) strikes: u64,
}

/// Which node has this ID.
pub(super) fn number_of(id: &NodeId) -> usize {
    id.0[..4].iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// An ID that tells its node; the rest of it is random, for the order by ID.
pub(super) fn id_of(number: usize, random: [u8; 32]) -> NodeId {
    let mut bytes = random;
    bytes[..4].copy_from_slice(&(number as u32).to_be_bytes());
    NodeId(bytes)
}

/// The key of a layer.
pub(super) fn key_of(layer: usize) -> Key {
    Key([layer as u8; 32])
}

/// The layer of a key.
pub(super) fn layer_of(key: &Key) -> usize {
    usize::from(key.0[0])
}
