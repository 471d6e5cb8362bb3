//! Asking one peer one question: the envelope, its addresses in turn, the time limit.
//!
//! Decides nothing about whom to ask.

use std::time::Duration;

use ddr_net::{CallError, Client};
use ddr_proto::id::NodeId;
use ddr_proto::wire::{Contact, Request, RequestEnvelope, Response};

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
}

impl Caller {
    pub(crate) fn new(client: Client, own: Contact, puzzle: [u8; 32]) -> Self {
        Self { client, own, puzzle }
    }

    pub(crate) fn own(&self) -> &Contact {
        &self.own
    }

    /// Asks `peer` at its addresses in turn, all within `timeout`. `None`: no address answered.
    pub(crate) async fn call(
        &self,
        peer: &Contact,
        body: Request,
        timeout: Duration,
    ) -> Option<Response> {
        let envelope = self.envelope(body);
        let attempt = async {
            for addr in peer.addrs.iter().take(MAX_ADDRESSES_TRIED) {
                match self.client.call(*addr, Some(peer.id), &envelope, timeout).await {
                    Ok((_, response)) => return Some(response),
                    Err(error) => tracing::trace!(%addr, %error, "a call failed"),
                }
            }
            None
        };
        tokio::time::timeout(timeout, attempt).await.ok().flatten()
    }

    /// Asks whoever lives at `addr` for a sign of life, and answers its id.
    pub(crate) async fn probe(
        &self,
        addr: std::net::SocketAddr,
        timeout: Duration,
    ) -> Result<NodeId, CallError> {
        let envelope = self.envelope(Request::Ping);
        self.client.call(addr, None, &envelope, timeout).await.map(|(node, _)| node)
    }

    fn envelope(&self, body: Request) -> RequestEnvelope {
        RequestEnvelope { sender: self.own.clone(), puzzle: self.puzzle, body }
    }
}
