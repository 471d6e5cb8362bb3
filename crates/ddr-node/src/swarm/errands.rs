//! What the core wants done with other nodes: each errand is a task that ends in what came of it.
//!
//! Decides how many bytes are in memory and how many pieces are hashed at once. It must never hand
//! a piece to the core before it was checked and stored.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ddr_net::{CallError, Client, ContentBody, GetError};
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::swarm::{AskId, Class, Failure, Input, MAX_SOURCES};
use ddr_proto::wire::{Contact, MAX_SIGNED_CHAIN_BYTES, SignedChain, SwarmMessage, SwarmPost};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::Notice;
use super::gathering::{Checked, End, Gathering, piece_at};
use crate::blocking;
use crate::budget::{Budget, Granted};
use crate::peers::Peers;
use crate::pull::Locator;
use crate::status::Sums;
use crate::throttle::Throttles;

/// Addresses of a peer that are tried.
const MAX_ADDRESSES_TRIED: usize = 4;
/// How long a request waits for bandwidth and memory before it is put off.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// How long a piece waits for a chain to be held against.
const CHAIN_WAIT: Duration = Duration::from_secs(2);
/// Pieces that are hashed and written at once.
pub(super) const MAX_CHECKS: usize = 16;
/// How long a post, or a chain, may take.
const POST_TIMEOUT: Duration = Duration::from_secs(5);

/// What all errands share.
pub(super) struct Errands {
    pub(super) client: Client,
    pub(super) peers: Arc<Peers>,
    pub(super) traffic: Arc<Sums>,
    pub(super) locator: Locator,
    pub(super) buffers: Budget,
    pub(super) throttles: Arc<Throttles>,
    pub(super) checks: Semaphore,
    pub(super) own: Contact,
    pub(super) notices: mpsc::UnboundedSender<Notice>,
}

/// A request for a piece.
pub(super) struct Ask {
    pub(super) id: AskId,
    pub(super) piece: Option<u32>,
    pub(super) class: Class,
}

/// How a request for a piece ended.
pub(super) struct Answer {
    pub(super) blob: Key,
    /// What the core is told.
    pub(super) input: Input,
    /// Microseconds until the head of the answer came; 0 when none was waited for, `None` when the peer
    /// cannot be reached.
    pub(super) head_us: Option<u32>,
    /// Nobody was asked: this node is short of memory or bandwidth.
    pub(super) is_put_off: bool,
}

/// How a request ended that brought nothing.
enum Nothing {
    Said(Input),
    /// No address of the peer could be reached.
    Unreachable,
}

impl Errands {
    /// Asks `peer` for a piece.
    pub(super) async fn ask(&self, gathering: &Arc<Gathering>, peer: &Contact, ask: Ask) -> Answer {
        let blob = gathering.key;
        let failed = |failure| Input::Failed { ask: ask.id, failure };
        let answer = |input, head_us| Answer { blob, input, head_us, is_put_off: false };
        let len = gathering.piece_range(ask.piece.unwrap_or(0));
        let len = usize::try_from(len.end - len.start).unwrap_or(usize::MAX);
        let both = async {
            let leave = self.throttles.download.take(len as u64, ask.class).await;
            (leave, self.buffers.take(len).await)
        };
        let granted = tokio::time::timeout(LEAVE_WAIT, both).await;
        // This node is short of memory or bandwidth, which is nobody's fault: asked again later.
        let Ok((leave, granted)) = granted else {
            let later = answer(failed(Failure::Unchecked), Some(0));
            return Answer { is_put_off: true, ..later };
        };
        let sent = Instant::now();
        let opened = self.open(gathering, peer, &ask).await;
        let head_us = Some(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        match opened {
            Ok((addr, body)) => {
                leave.spend();
                let body = (addr, body, peer.zone != self.own.zone);
                let input = self.take(gathering, &ask, body, granted).await;
                answer(input, head_us)
            }
            Err(Nothing::Said(input)) => answer(input, head_us),
            Err(Nothing::Unreachable) => answer(failed(Failure::Broken), None),
        }
    }

    /// The head of the answer, from the first address that gives one.
    async fn open(
        &self,
        gathering: &Gathering,
        peer: &Contact,
        ask: &Ask,
    ) -> Result<(SocketAddr, ContentBody), Nothing> {
        let (digest, repository) = (&gathering.digest, &gathering.repository);
        let path = match ask.piece {
            Some(_) => ddr_net::blob_path(digest, Some(repository)),
            None => ddr_net::any_piece_path(digest, repository),
        };
        let path = match ask.class {
            Class::Pull => path,
            Class::Background => ddr_net::in_background(path),
        };
        for addr in peer.addrs.iter().copied().take(MAX_ADDRESSES_TRIED) {
            let answer = match ask.piece {
                Some(piece) => {
                    let range = gathering.piece_range(piece);
                    let range = Some((range.start, Some(range.end)));
                    self.client.get(addr, Some(peer.id), &path, range).await
                }
                None => self.client.get_any_piece(addr, Some(peer.id), &path).await,
            };
            let failure = match answer {
                Ok(body) => return Ok((addr, body)),
                Err(GetError::Dial(_) | GetError::WrongNode { .. }) => continue,
                Err(GetError::Busy(answer)) => {
                    return Err(Nothing::Said(Input::Busy { ask: ask.id, answer: *answer }));
                }
                Err(GetError::NotFound | GetError::Unsatisfiable) => Failure::NotThere,
                Err(GetError::TooMany) => Failure::Unchecked,
                Err(GetError::Malformed(_)) => Failure::Nonsense,
                Err(GetError::Timeout | GetError::Broken(_) | GetError::Status(_)) => {
                    Failure::Broken
                }
            };
            return Err(Nothing::Said(Input::Failed { ask: ask.id, failure }));
        }
        Err(Nothing::Unreachable)
    }

    /// Receives a piece, checks and stores it.
    async fn take(
        &self,
        gathering: &Arc<Gathering>,
        ask: &Ask,
        (addr, mut body, crosses): (SocketAddr, ContentBody, bool),
        granted: Granted,
    ) -> Input {
        let failed = |failure| Input::Failed { ask: ask.id, failure };
        let range = body.start..body.start + body.remaining();
        let piece = piece_at(gathering.size, &range).filter(|_| body.size == gathering.size);
        let Some(piece) = piece else { return failed(Failure::Nonsense) };
        if ask.piece.is_none() {
            let chosen = Input::Chosen { ask: ask.id, piece };
            let _ = self.notices.send(Notice::Input(chosen));
        }
        let Some(bytes) = self.receive(gathering, addr, &mut body).await else {
            return failed(Failure::Broken);
        };
        if crosses {
            self.traffic.crossed(bytes.len() as u64);
        }
        // The first pieces may be here before the first chain.
        let _ = tokio::time::timeout(CHAIN_WAIT, gathering.checkable()).await;
        let Ok(_turn) = self.checks.acquire().await else { return failed(Failure::Unchecked) };
        let copy = Arc::clone(gathering);
        let checked = blocking(move || {
            let checked = copy.check(piece, &bytes);
            drop((bytes, granted));
            checked
        });
        match checked.await {
            Ok(Checked::Passed(claim)) => {
                metrics::counter!(crate::metrics::PIECES_RECEIVED).increment(1);
                Input::PieceArrived { ask: ask.id, piece, claim, load: None }
            }
            Ok(Checked::Wrong) => {
                metrics::counter!(crate::metrics::PIECES_WRONG).increment(1);
                Input::PieceWrong { ask: ask.id, piece }
            }
            Ok(Checked::Unchecked) | Err(_) => failed(Failure::Unchecked),
            Ok(Checked::Stopped(error)) => {
                gathering.end(End::Failed(error.to_string().into()));
                failed(Failure::Unchecked)
            }
        }
    }

    /// All bytes of a body; `None` if it broke off.
    async fn receive(
        &self,
        gathering: &Gathering,
        addr: SocketAddr,
        body: &mut ContentBody,
    ) -> Option<Vec<u8>> {
        let _running = self.peers.transfer(body.node, addr);
        let mut bytes = Vec::with_capacity(usize::try_from(body.remaining()).ok()?);
        while let Some(part) = body.next().await {
            let part = match part {
                Ok(part) => part,
                Err(error) => {
                    tracing::debug!(digest = %gathering.digest, %addr, %error, "a piece broke off");
                    return None;
                }
            };
            let first = bytes.is_empty();
            self.peers.gave(body.node, &gathering.repository, part.len() as u64, first);
            self.traffic.fetched(part.len() as u64);
            gathering.tally.gave(body.node, addr, part.len() as u64);
            bytes.extend_from_slice(&part);
        }
        (body.remaining() == 0).then_some(bytes)
    }

    /// Asks `peer` for the chain that it believes in; what the core is told, but for where the chain
    /// differs from that in use.
    pub(super) async fn chain(&self, gathering: &Gathering, peer: &Contact) -> ChainAnswer {
        let work = async {
            let path = ddr_net::chain_path(&gathering.digest, &gathering.repository);
            for addr in peer.addrs.iter().copied().take(MAX_ADDRESSES_TRIED) {
                match self.client.get(addr, Some(peer.id), &path, None).await {
                    Ok(body) => return receive_chain(gathering, body).await,
                    Err(GetError::Dial(_) | GetError::WrongNode { .. }) => {}
                    Err(GetError::Malformed(_)) => return ChainAnswer::Wrong,
                    Err(_) => return ChainAnswer::None,
                }
            }
            ChainAnswer::None
        };
        tokio::time::timeout(POST_TIMEOUT, work).await.unwrap_or(ChainAnswer::None)
    }

    /// Tells `peer` something; false when it cannot be reached.
    pub(super) async fn post(
        &self,
        peer: &Contact,
        (digest, repository): (Digest, RepositoryName),
        messages: Vec<SwarmMessage>,
    ) -> bool {
        let post = SwarmPost { sender: self.own.clone(), repository, messages };
        for addr in peer.addrs.iter().copied().take(MAX_ADDRESSES_TRIED) {
            match self.client.post(addr, Some(peer.id), &digest, &post, POST_TIMEOUT).await {
                // One that does not have the blob there does not answer, and is waited for no longer
                // than that.
                Ok(_) => return true,
                Err(CallError::Dial(_) | CallError::WrongNode { .. }) => {}
                Err(error) => {
                    tracing::debug!(peer = %peer.id, %addr, %error, "a post was not heard");
                    return false;
                }
            }
        }
        false
    }

    /// Others that are known to have all of the blob.
    pub(super) async fn sources(&self, digest: &Digest) -> Vec<NodeId> {
        let holders = self.locator.holders(digest).all().await;
        let complete = holders.into_iter().filter(|holder| holder.complete);
        let ids = complete.map(|holder| holder.contact.id).filter(|id| *id != self.own.id);
        ids.take(MAX_SOURCES).collect()
    }

    /// Hands the core whoever is known to hold the blob. `anew`: not from memory.
    pub(super) async fn look_up(&self, digest: &Digest, anew: bool) {
        let mut holders = match anew {
            true => self.locator.holders_anew(digest),
            false => self.locator.holders(digest),
        };
        let blob = Key::of_content(digest);
        while let Some(holder) = holders.next().await {
            if self.peers.avoided(&holder.contact.id) {
                continue;
            }
            let (contact, complete) = (Arc::new(holder.contact), holder.complete);
            let found = Input::Neighbour { blob, contact, complete, rtt_us: 0 };
            let _ = self.notices.send(Notice::Input(found));
        }
    }
}

/// What a peer answered that was asked for its chain.
pub(super) enum ChainAnswer {
    /// A chain of this blob, with a signature that holds.
    Signed { signer: NodeId, signed: Box<SignedChain> },
    /// Something else.
    Wrong,
    /// Nothing.
    None,
}

async fn receive_chain(gathering: &Gathering, mut body: ContentBody) -> ChainAnswer {
    if body.size > MAX_SIGNED_CHAIN_BYTES as u64 {
        return ChainAnswer::Wrong;
    }
    let mut bytes = Vec::with_capacity(body.size as usize);
    while let Some(part) = body.next().await {
        let Ok(part) = part else { return ChainAnswer::None };
        bytes.extend_from_slice(&part);
    }
    let key = gathering.key;
    let read = move || {
        let signed = SignedChain::decode(&bytes).ok()?;
        signed.verify(&key).ok()?;
        Some((signed.signer_id(), Box::new(signed)))
    };
    match blocking(read).await {
        Ok(Some((signer, signed))) => ChainAnswer::Signed { signer, signed },
        Ok(None) => ChainAnswer::Wrong,
        Err(_) => ChainAnswer::None,
    }
}
