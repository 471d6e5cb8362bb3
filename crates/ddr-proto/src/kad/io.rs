//! What goes into the overlay core and what comes out of it.

use std::net::SocketAddr;

use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, ProviderRecord, RecordError, Request, RequestEnvelope, Response};

/// A request that came from a peer; the driver chooses the number.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct RequestId(pub u64);

/// A request that the core sends; the core chooses the number and never uses it twice.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct CallId(pub u64);

/// Something the driver wants done; the driver chooses the number.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct OpId(pub u64);

/// What a lookup is for.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum LookupKind {
    /// The nodes closest to the target. Slow nodes are waited for.
    Nodes,
    /// Holders of the target. Slow nodes are left behind.
    Providers,
}

/// How hard a lookup tries.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd)]
pub enum Effort {
    /// Holders that were found in the last 5 s are answered at once.
    #[default]
    Cached,
    /// What was found lately is not believed. The nodes are asked, unless this one keeps a record of a
    /// holder that it knows to be alive.
    Fresh,
    /// The holders found so far proved false: what each node that answers says is followed up, so
    /// that liars cannot speak for the others. About twice as many nodes are asked.
    Thorough,
}

/// Everything that can happen to the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// A peer asks; answered by exactly one [`Output::Reply`]. The messages about names and
    /// revoked tokens are the driver's own: it answers them itself and hands in [`Input::Heard`].
    Request {
        /// Comes back in the reply.
        id: RequestId,
        /// The node that the connection proved.
        from: NodeId,
        /// The decoded message.
        envelope: RequestEnvelope,
    },
    /// A call was answered by the node that it was for.
    Response {
        /// The call.
        call: CallId,
        /// The decoded answer.
        response: Response,
    },
    /// A call cannot be answered any more: no connection, connection lost, undecodable answer.
    /// The driver needs no timeouts of its own; the core gives calls up by itself.
    Failed {
        /// The call.
        call: CallId,
    },
    /// An authenticated peer said something that the core does not see.
    Heard {
        /// As the peer describes itself; the ID is proven.
        contact: Contact,
    },
    /// Somebody says that a node is gone. That is a reason to ask the node at once, not to believe it:
    /// a wrong word moves nothing. When it does not answer, what it signed is void until it is heard.
    Gone {
        /// Who.
        node: NodeId,
    },
    /// Addresses where members of the swarm may listen, for a driver that does not look for some by
    /// itself and hand in [`Input::Probed`].
    Bootstrap {
        /// The first [`super::MAX_BOOTSTRAP`] are kept and probed again while the node is alone.
        addrs: Vec<SocketAddr>,
    },
    /// A probed address answered a `Ping`; the ID is proven.
    Probed {
        /// The node there, as it can be reached.
        contact: Contact,
    },
    /// Peers that this node knew when it ran before, and that the driver kept. Nobody believes them:
    /// each is pinged, in random order, and enters a bucket when it answers.
    Restore {
        /// The first [`super::MAX_KEPT_PEERS`] are taken, in the place of earlier ones.
        peers: Vec<Contact>,
    },
    /// Find nodes or holders.
    Lookup {
        /// Comes back in the outputs; lookups of the same target run once for all.
        op: OpId,
        /// What to find.
        target: Key,
        /// Nodes or holders.
        kind: LookupKind,
        /// Lookups of nodes are always thorough, and fresh but for a moment where everybody is known.
        effort: Effort,
    },
    /// This node holds the content from now on: publish now, and again until withdrawn.
    Provide {
        /// Comes back in [`Output::Provided`].
        op: OpId,
        /// The content's key.
        key: Key,
        /// All of it, or still being fetched.
        complete: bool,
    },
    /// This node no longer holds the content.
    Withdraw {
        /// The content's key.
        key: Key,
    },
    /// Nothing but time has passed.
    Tick,
    /// Withdraw everything and start nothing new. Peers are still answered.
    Shutdown,
}

/// Everything the core wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Send a request; hand in [`Input::Response`] or [`Input::Failed`].
    Call {
        /// Identifies the answer.
        call: CallId,
        /// To whom; the connection must prove this ID.
        to: Contact,
        /// What to send; the driver adds the envelope.
        request: Request,
    },
    /// Send a `Ping` to an address whose node is unknown; hand in [`Input::Probed`] if it answers. Only
    /// addresses of [`Input::Bootstrap`] are probed.
    Probe {
        /// Where.
        addr: SocketAddr,
    },
    /// Answer a peer.
    Reply {
        /// The request.
        id: RequestId,
        /// The answer.
        response: Response,
    },
    /// Holders that this lookup had not reported before; may come several times.
    Providers {
        /// The lookup.
        op: OpId,
        /// Verified, of other nodes, not expired and not withdrawn; near ones first.
        records: Vec<ProviderRecord>,
    },
    /// A lookup ended.
    LookupDone {
        /// The lookup.
        op: OpId,
        /// The up to k nearest nodes that answered, nearest first, without the own node.
        closest: Vec<Contact>,
        /// All holders that were found, near ones first: of the own zone, then by round trip.
        providers: Vec<ProviderRecord>,
    },
    /// A key was published.
    Provided {
        /// The operation.
        op: OpId,
        /// How many other nodes store the record now.
        stored: usize,
    },
    /// A peer broke the rules.
    Misbehaviour {
        /// Who.
        peer: NodeId,
        /// How.
        reason: Reason,
    },
}

/// How a peer broke the rules. No honest node does any of this, whatever its clock, its addresses or
/// its version.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// It named another ID than the connection proved.
    #[error("it named another ID than its own")]
    WrongSender,
    /// Its ID does not solve the puzzles of the swarm.
    #[error("its ID does not solve the puzzles")]
    PuzzleUnsolved,
    /// A list or text was longer than the limit named here.
    #[error("it went over the limit {0}")]
    OverLimit(&'static str),
    /// It passed on a record that does not speak for whom it claims.
    #[error("it sent a forged record: {0}")]
    BadRecord(RecordError),
    /// It answered with a record of another key.
    #[error("it answered with a record of another key")]
    ForeignRecord,
    /// It told of an address at which no node can listen: port 0, unspecified, multicast.
    #[error("it told of an address at which no node can listen")]
    BadAddress,
    /// Its answer does not belong to the question.
    #[error("its answer does not belong to the question")]
    WrongAnswer,
}

impl Reason {
    /// One word for a metric's label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::WrongSender => "wrong_sender",
            Self::PuzzleUnsolved => "puzzle_unsolved",
            Self::OverLimit(_) => "over_limit",
            Self::BadRecord(_) => "bad_record",
            Self::ForeignRecord => "foreign_record",
            Self::BadAddress => "bad_address",
            Self::WrongAnswer => "wrong_answer",
        }
    }
}

/// A peer as the status pages show it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerView {
    /// The peer.
    pub contact: Contact,
    /// When it last answered or asked.
    pub last_seen: Timestamp,
    /// False while it is left alone after a failure.
    pub alive: bool,
    /// Whether it is on the sibling list.
    pub sibling: bool,
    /// Leading bits that its ID shares with the own ID: the number of its bucket.
    pub bucket: u32,
    /// Smoothed round trip of the calls to it; `None` before the first.
    pub round_trip_ms: Option<u32>,
}
