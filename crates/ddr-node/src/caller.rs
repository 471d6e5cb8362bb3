//! Asking one peer one question: the envelope, its addresses in turn, the time limit.
//!
//! Decides nothing about whom to ask, but that nobody is asked who is refused.

use std::sync::Arc;
use std::time::Duration;

use ddr_net::{CallError, Client};
use ddr_proto::id::NodeId;
use ddr_proto::kad::Reason;
use ddr_proto::wire::{Contact, Request, RequestEnvelope, Response, WireError};

use crate::peers::Peers;

/// Addresses of one peer that are tried; its record may hold as many.
const MAX_ADDRESSES_TRIED: usize = 4;

/// A private swarm admits by credential: its puzzles have no bits, and any X solves them.
pub(crate) const NO_PUZZLE: [u8; 32] = [0; 32];

/// Sends requests in this node's name.
#[derive(Clone)]
pub(crate) struct Caller {
    client: Client,
    own: Contact,
    puzzle: [u8; 32],
    peers: Arc<Peers>,
}

/// Why nobody was found at an address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// Nobody answered.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Somebody lives there who broke the rules lately.
    #[error("the node there is refused: it broke the rules")]
    Refused,
}

impl Caller {
    pub(crate) fn new(client: Client, own: Contact, puzzle: [u8; 32], peers: Arc<Peers>) -> Self {
        Self { client, own, puzzle, peers }
    }

    pub(crate) fn own(&self) -> &Contact {
        &self.own
    }

    /// Asks `peer` at its addresses in turn, all within `timeout`. `None`: no address answered, or the
    /// peer is refused.
    pub(crate) async fn call(
        &self,
        peer: &Contact,
        body: Request,
        timeout: Duration,
    ) -> Option<Response> {
        if self.peers.refused(&peer.id) {
            return None;
        }
        let envelope = self.envelope(body);
        let attempt = async {
            for addr in peer.addrs.iter().take(MAX_ADDRESSES_TRIED) {
                match self.client.call(*addr, Some(peer.id), &envelope, timeout).await {
                    Ok((_, response)) => return Some(response),
                    Err(error) => {
                        tracing::trace!(%addr, %error, "a call failed");
                        if let Some(reason) = offence(&error) {
                            self.peers.misbehaved(peer.id, reason);
                            return None;
                        }
                    }
                }
            }
            None
        };
        tokio::time::timeout(timeout, attempt).await.ok().flatten()
    }

    /// Asks whoever lives at `addr` for a sign of life, and answers its id. Who is refused is met here
    /// nevertheless: an address tells nothing of who lives there, and if those that a liar names as its
    /// own were not dialled, it could name those of others.
    pub(crate) async fn probe(
        &self,
        addr: std::net::SocketAddr,
        timeout: Duration,
    ) -> Result<NodeId, ProbeError> {
        let envelope = self.envelope(Request::Ping);
        let (node, _) = self.client.call(addr, None, &envelope, timeout).await?;
        if self.peers.refused(&node) { Err(ProbeError::Refused) } else { Ok(node) }
    }

    fn envelope(&self, body: Request) -> RequestEnvelope {
        RequestEnvelope { sender: self.own.clone(), puzzle: self.puzzle, body }
    }
}

/// The rule that an answer broke. Bytes that are no message break none: a newer version may say what
/// this one does not know.
const fn offence(error: &CallError) -> Option<Reason> {
    match error {
        CallError::Malformed(WireError::OverLimit(limit)) => Some(Reason::OverLimit(limit)),
        CallError::TooLong => Some(Reason::OverLimit("MAX_MESSAGE_BYTES")),
        _ => None,
    }
}
