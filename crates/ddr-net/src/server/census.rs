//! Who is connected, and how often.
//!
//! Decides who may take one more connection. A peer that is at its limit is named in the log once,
//! until all of its connections have ended; it is not blamed, since a node whose network comes and goes
//! gets there, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddr_proto::id::NodeId;

use super::ServeLimits;
use crate::carrier::{Alpn, Connection, PeerInfo, Standing};
use crate::metrics;

/// See the module comment.
pub(super) struct Census {
    limits: ServeLimits,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    joiners: usize,
    members: BTreeMap<NodeId, Held>,
}

/// The connections of one member.
#[derive(Default)]
struct Held {
    all: usize,
    messages: usize,
    /// That it is at its limit was logged.
    named: bool,
}

impl Census {
    pub(super) fn new(limits: &ServeLimits) -> Self {
        Self { limits: limits.clone(), counts: Mutex::default() }
    }

    /// A place for a connection, given up when dropped; `None` if its peer, or all, have too many.
    pub(super) fn seat(census: &Arc<Self>, connection: &Connection) -> Option<Seat> {
        let (peer, alpn) = (connection.peer, connection.alpn);
        let mut guard = census.counts();
        let taken = match peer.standing {
            _ if guard.all >= census.limits.max_connections => Err("all"),
            Standing::Joiner { .. } => guard.take_joiner(&census.limits),
            Standing::Member => guard.take_member(&peer, alpn, &census.limits),
        };
        if let Err(limit) = taken {
            metrics::connection_refused(limit);
            return None;
        }
        guard.all += 1;
        metrics::connections(guard.all);
        Some(Seat { census: Arc::clone(census), peer, alpn })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    const fn take_joiner(&mut self, limits: &ServeLimits) -> Result<(), &'static str> {
        if self.joiners >= limits.max_joiners {
            return Err("joiners");
        }
        self.joiners += 1;
        Ok(())
    }

    fn take_member(
        &mut self,
        peer: &PeerInfo,
        alpn: Alpn,
        limits: &ServeLimits,
    ) -> Result<(), &'static str> {
        let held = self.members.entry(peer.node).or_default();
        let messages = alpn == Alpn::Messages;
        let full = held.all >= limits.max_connections_per_node
            || messages && held.messages >= limits.max_message_connections_per_node;
        if full {
            if !std::mem::replace(&mut held.named, true) {
                let (node, remote) = (peer.node, peer.remote);
                tracing::warn!(%node, %remote, held.all, held.messages, "too many connections");
            }
            return Err("node");
        }
        held.all += 1;
        held.messages += usize::from(messages);
        Ok(())
    }

    fn give_up(&mut self, peer: &PeerInfo, alpn: Alpn) {
        self.all -= 1;
        if let Standing::Joiner { .. } = peer.standing {
            self.joiners -= 1;
        } else if let Some(held) = self.members.get_mut(&peer.node) {
            held.all -= 1;
            held.messages -= usize::from(alpn == Alpn::Messages);
            if held.all == 0 {
                self.members.remove(&peer.node);
            }
        }
    }
}

/// The place of one connection.
pub(super) struct Seat {
    census: Arc<Census>,
    peer: PeerInfo,
    alpn: Alpn,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.census.counts();
        counts.give_up(&self.peer, self.alpn);
        metrics::connections(counts.all);
    }
}
