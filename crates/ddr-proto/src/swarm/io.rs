//! What goes into the swarm core and what comes out of it.

use std::ops::Range;
use std::sync::Arc;

use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{BusyAnswer, Contact, Holder, SwarmMessage};

/// A request for a piece that this node makes; the core chooses the number and never uses it twice.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct AskId(pub u64);

/// A request for a piece that came from a peer; the driver chooses the number.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct UploadId(pub u64);

/// Blobs that share one window, such as those of one image; the driver chooses the number.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct GroupId(pub u64);

/// Stands for one piece chain: SHA-256 of its bytes.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct ClaimId(pub [u8; 32]);

/// What gives way to what.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd)]
pub enum Class {
    /// Nobody waits for it: replication, prefetch.
    Background,
    /// A client waits.
    #[default]
    Pull,
}

/// Which pieces of a blob are fetched.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// All of them.
    All,
    /// Those in one of the first [`super::MAX_RANGES`] ranges; parts past the end are ignored.
    Ranges(Vec<Range<u32>>),
}

/// Why a request for a piece brought nothing.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The peer has no such piece (404), or this blob no more.
    NotThere,
    /// No connection, or the answer ended before the piece did.
    Broken,
    /// The piece is here, but nothing is known to check it against: no chain yet, or another chain
    /// than it was checked with is in use by now. It is asked for again later; nobody is to blame.
    Unchecked,
    /// The answer goes against the protocol: another piece than the one that was asked for, a piece
    /// that is too long or too short.
    Nonsense,
}

/// How a peer broke the rules, or kept this node waiting.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Blame {
    /// It gave a piece that is wrong.
    WrongPiece,
    /// It signed a chain that is wrong.
    WrongChain,
    /// It answered a request for a piece with something else.
    Nonsense,
    /// It took a request and gave no piece for [`super::STALL_MS`] or longer.
    Stalled,
    /// Its have-map does not fit the blob, took pieces back, or named a piece that is not there; or it
    /// said to have all of the blob, and the size that it told was wrong.
    BadMap,
    /// It asked for more than [`super::MAX_UPLOADS_PER_NODE`] pieces at once, again and again.
    Greedy,
}

/// Everything that can happen to the core.
#[derive(Clone, Debug)]
pub enum Input {
    /// Fetch a blob. When it is being fetched already, only `wanted` and `class` are taken over.
    Fetch {
        /// The blob, [`Key::of_content`] of its digest.
        blob: Key,
        /// Its size in bytes, which fixes the pieces.
        size: u64,
        /// Whose window it shares. At most [`super::MAX_GROUP_BLOBS`] share one; more start when
        /// others of the group are complete.
        group: GroupId,
        /// What gives way to what.
        class: Class,
        /// What to fetch for now.
        wanted: Wanted,
        /// Pieces that are here and proven from an earlier run.
        have: Vec<u32>,
    },
    /// Fetch these pieces of a blob from now on, in the place of those named before. Requests for
    /// others go on.
    Want {
        /// A blob that is being fetched.
        blob: Key,
        /// What to fetch.
        wanted: Wanted,
    },
    /// Where clients read a blob that is being fetched: pieces from there on come first. Replaces what
    /// was said before; none means from the start.
    ClientAt {
        /// The blob.
        blob: Key,
        /// The piece that each reader needs next; the first [`super::MAX_READERS`] are taken.
        readers: Vec<u32>,
    },
    /// Ask for no more pieces of this blob. What is here is still served.
    Stop {
        /// The blob.
        blob: Key,
    },
    /// This node has all of the blob, proven. To be said before a request or message about the blob
    /// is handed in; cheap to say again. A blob nobody asks for is forgotten after
    /// [`super::IDLE_HOLD_MS`].
    Hold {
        /// The blob.
        blob: Key,
        /// Its size in bytes.
        size: u64,
        /// The other nodes that hold a complete copy from before the swarm, as far as they are known:
        /// each gives a share of the pieces away first. The first [`super::MAX_SOURCES`] are taken.
        sources: Vec<NodeId>,
    },
    /// The blob is not here any more, in no part.
    Drop {
        /// The blob.
        blob: Key,
    },
    /// A holder was found; the core says when to speak to it.
    Neighbour {
        /// The blob.
        blob: Key,
        /// The holder.
        contact: Arc<Contact>,
        /// Whether it is said to have all pieces.
        complete: bool,
        /// Measured round trip in microseconds; 0 when unknown.
        rtt_us: u32,
    },
    /// All connections to the node are gone and a new one failed.
    Lost {
        /// The node.
        node: NodeId,
    },
    /// A message of a peer that was decoded within its limits; the sender is the node that the
    /// connection proved.
    Message {
        /// The sender, as it describes itself.
        from: Arc<Contact>,
        /// What it says. About a blob that is neither fetched nor held here it is ignored.
        message: SwarmMessage,
    },
    /// The answer to a request that left the choice to the holder has begun: this piece comes. Must
    /// come before the other inputs about the request.
    Chosen {
        /// The request.
        ask: AskId,
        /// The piece.
        piece: u32,
    },
    /// A piece is here, checked against a chain and stored; it can be served from now on.
    PieceArrived {
        /// The request.
        ask: AskId,
        /// The piece.
        piece: u32,
        /// The chain under which it passed. While [`Output::Doubt`] stands for this piece it may be
        /// another than the one in use: the piece decides between them.
        claim: ClaimId,
        /// Uploads that run at the peer, if the answer said so.
        load: Option<u16>,
    },
    /// A piece is here and passes under no chain that is believed.
    PieceWrong {
        /// The request.
        ask: AskId,
        /// The piece.
        piece: u32,
    },
    /// A request for a piece brought nothing.
    Failed {
        /// The request.
        ask: AskId,
        /// Why.
        failure: Failure,
    },
    /// The peer is busy and said whom to ask.
    Busy {
        /// The request.
        ask: AskId,
        /// Its answer, decoded within its limits.
        answer: BusyAnswer,
    },
    /// Pieces that were counted as here are not: they do not pass under the chain of the last
    /// [`Output::UseChain`], or the disk lost them. Said, if only with no piece, after each
    /// `UseChain` of another chain than before when pieces were here.
    Void {
        /// The blob.
        blob: Key,
        /// The pieces.
        pieces: Vec<u32>,
    },
    /// A chain of a blob came; its lengths are right and its signature holds.
    Chain {
        /// The blob.
        blob: Key,
        /// Who was asked.
        from: NodeId,
        /// Who signed it.
        signer: NodeId,
        /// Which it is. The driver keeps the chain itself.
        claim: ClaimId,
        /// Where it differs from the chain in use: the last piece before which their states differ.
        /// Both end that piece in the same state, so at most one of them lets any bytes pass there.
        differs: Option<u32>,
    },
    /// A chain was asked for and none came.
    NoChain {
        /// The blob.
        blob: Key,
        /// Who was asked.
        from: NodeId,
        /// True when something came that is no chain of this blob, or has a wrong signature.
        wrong: bool,
    },
    /// A peer asks for a piece; answered by exactly one [`Output::Serve`] or [`Output::Refuse`].
    Request {
        /// Comes back in the answer.
        upload: UploadId,
        /// The node that the connection proved.
        from: NodeId,
        /// The blob.
        blob: Key,
        /// The piece, or `None` when the choice is left to this node.
        piece: Option<u32>,
        /// What gives way to what.
        class: Class,
    },
    /// An upload has ended, or broke off.
    Uploaded {
        /// The upload.
        upload: UploadId,
        /// Whether the last byte was sent.
        whole: bool,
    },
    /// Nothing but time has passed.
    Tick,
}

/// Everything the core wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Output {
    /// Ask for a piece. Ends with exactly one of [`Input::PieceArrived`], [`Input::PieceWrong`],
    /// [`Input::Failed`], [`Input::Busy`], or with [`Output::Cancel`]. The driver needs no timeouts.
    Ask {
        /// Identifies the answer.
        ask: AskId,
        /// Whom to ask.
        node: NodeId,
        /// The blob.
        blob: Key,
        /// The piece, or `None` to leave the choice to the node.
        piece: Option<u32>,
        /// What gives way to what.
        class: Class,
    },
    /// The piece is not needed any more: break the request off. Inputs about it are ignored from now
    /// on, but a piece that comes nevertheless may be kept for itself.
    Cancel {
        /// The request.
        ask: AskId,
    },
    /// Ask a node for the chain of a blob; hand in [`Input::Chain`] or [`Input::NoChain`].
    AskChain {
        /// The blob.
        blob: Key,
        /// Whom to ask.
        node: NodeId,
    },
    /// Check pieces against this chain from now on, and tell with [`Input::Void`] which of the pieces
    /// that are here do not pass under it.
    UseChain {
        /// The blob.
        blob: Key,
        /// The chain.
        claim: ClaimId,
        /// True when it is vouched for as well as can be had now. Before that clients are given nothing
        /// that only this chain proves; the same chain follows as settled, or another one.
        settled: bool,
        /// True when two signers, found over different paths, or this node itself vouch for it: parts of
        /// the blob may be given before the rest is here.
        vouched: bool,
    },
    /// Two holders tell different chains: give clients nothing more of the blob until the next
    /// [`Output::UseChain`], and check this piece against both.
    Doubt {
        /// The blob.
        blob: Key,
        /// The piece that decides.
        piece: u32,
        /// The chain that stands against the one in use.
        other: ClaimId,
    },
    /// Say something to a node. Messages to one node must arrive in order or not at all.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Arc<SwarmMessage>,
    },
    /// Give a peer what it asked for.
    Serve {
        /// The request.
        upload: UploadId,
        /// The blob.
        blob: Key,
        /// The piece.
        piece: u32,
    },
    /// Give a peer nothing.
    Refuse {
        /// The request.
        upload: UploadId,
        /// What to answer.
        refusal: Refusal,
    },
    /// Look for holders of this blob; hand each in as [`Input::Neighbour`].
    WantHolders {
        /// The blob.
        blob: Key,
    },
    /// A peer broke the rules, or kept this node waiting. Nothing is asked of it until then.
    Struck {
        /// Who.
        node: NodeId,
        /// How.
        blame: Blame,
        /// Until when.
        until: Timestamp,
    },
    /// All pieces of the blob are here. Whether they are the blob is proven by the chain in use; the
    /// core serves them on as a holder.
    Complete {
        /// The blob.
        blob: Key,
    },
}

/// Why a request for a piece is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Too much to do, ask others.
    Busy(BusyAnswer),
    /// The piece, or the blob, is not here.
    NotHere,
}

/// A blob of the swarm as the status pages show it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BlobView {
    /// The blob.
    pub blob: Key,
    /// Pieces of the blob.
    pub pieces: usize,
    /// Pieces that are here.
    pub have: usize,
    /// Neighbours, and whether each has all pieces.
    pub neighbours: Vec<(NodeId, bool)>,
    /// Pieces that are wanted and not here.
    pub missing: usize,
    /// Requests that are under way.
    pub asks: usize,
    /// The same for all blobs of its group.
    pub group_asks: usize,
    /// Whether it is being fetched.
    pub fetching: bool,
}

impl From<&Holder> for (NodeId, bool) {
    fn from(holder: &Holder) -> Self {
        (holder.contact.id, holder.complete)
    }
}
