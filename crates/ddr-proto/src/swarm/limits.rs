//! Every number of the swarm, with its reason. `docs/swarm.md` has the measurements.

/// Neighbours that a fetch looks for.
pub const DEGREE: usize = 20;
/// Most neighbours of one blob; who comes then is told of others.
pub const MAX_NEIGHBOURS: usize = 40;
/// Most nodes that are remembered for one blob to become neighbours later.
pub const MAX_CANDIDATES: usize = 64;
/// Most blobs that are fetched or held at once; past it new ones are ignored.
pub const MAX_BLOBS: usize = 4_096;
/// Most blobs of one group that are asked for at a time.
pub const MAX_GROUP_BLOBS: usize = 128;
/// Most readers of one blob whose places count.
pub const MAX_READERS: usize = 8;
/// Most ranges of one blob that are wanted.
pub const MAX_RANGES: usize = 64;
/// Most other sources of one blob that are known to a source.
pub const MAX_SOURCES: usize = 32;
/// Most nodes with which any blob is shared; past it new ones are ignored.
pub const MAX_PEERS: usize = 4_096;
/// Most nodes whose strikes are remembered; the one whose strike ends first goes.
pub const MAX_STRUCK: usize = 1_024;

/// Requests of one group under way on a short path.
pub const WINDOW: usize = 16;
/// Most requests of one group under way, whatever the bandwidth-delay product.
pub const MAX_WINDOW: usize = 64;
/// Most bytes of one group under way; at least [`LEAST_WINDOW`] requests go out nevertheless.
pub const MAX_WINDOW_BYTES: u64 = 64 << 20;
/// Requests that go out however large the pieces are, and those of a background group beside a pull.
pub const LEAST_WINDOW: usize = 4;
/// Requests under way to one neighbour on a short path.
pub const PER_NEIGHBOUR: usize = 2;
/// Pieces past the first gap among which the rarest is taken.
pub const LOOK_AHEAD: usize = 256;
/// A source that is so many pieces past a gap has lost that piece: one in forty of its neighbours asks
/// for it by name, with each as many pieces more one more.
pub const LEFT_BEHIND: usize = 32;
/// With so few pieces missing, those under way are asked of a second neighbour.
pub const ENDGAME_PIECES: usize = 3;
/// So many requests for one piece at once at most.
pub const MAX_COPIES: usize = 2;
/// One piece in so many may be asked for twice because it is slow.
pub const HEDGE_BUDGET: u32 = 64;
/// No request is called slow before this.
pub const HEDGE_FLOOR_MS: u64 = 50;
/// A request without a piece after this is given up, or after twenty times the median if that is more.
pub const STALL_MS: u64 = 5_000;
/// No request lives longer.
pub const MAX_ASK_MS: u64 = 60_000;

/// A neighbour may so often tell fewer pieces than before, as after a crash.
pub const MAX_SHRINKS: u32 = 3;

/// Most nodes of one blob that told another size, and are struck when the size is proven.
pub const MAX_DISSENTERS: usize = 64;

/// New pieces are told when there are so many of them...
pub const HAVE_BATCH: usize = 4;
/// ... or after this time.
pub const HAVE_DELAY_MS: u64 = 20;

/// Pieces that are served at the same time.
pub const MAX_UPLOADS: usize = 12;
/// Slots of these that only newcomers get: nodes to which little was given so far.
pub const NEWCOMER_SLOTS: usize = 2;
/// So many pieces make a newcomer an old hand.
pub const NEWCOMER_PIECES: u32 = 4;
/// Pieces that one node is served at the same time.
pub const MAX_UPLOADS_PER_NODE: usize = 4;
/// So many refusals for asking too much at once, without a piece given in between, are a strike.
pub const GREEDY_REFUSALS: u32 = 64;

/// How long the first strike lasts; each further one twice as long.
pub const STRIKE_MS: u64 = 30_000;
/// No strike lasts longer.
pub const MAX_STRIKE_MS: u64 = 60 * 60_000;
/// A neighbour whose connection was lost is tried again after this; who said goodbye about a blob, for that blob.
pub const LOST_MS: u64 = 2_000;
/// Nodes that said goodbye about one blob and are remembered for that.
pub const MAX_PARTED: usize = 64;
/// A full node parts from a neighbour for one that needs it more, at most once in this time.
pub const EVICT_MS: u64 = 100;
/// Neighbours without anything new from which a node parts that gets nothing, when it looks for others.
pub const SHED_NEIGHBOURS: usize = 5;
/// A node that does not answer a `Hello` for so long is not waited for.
pub const HELLO_MS: u64 = 1_000;
/// Holders are looked for again after this, doubling while nothing changes...
pub const LOOK_MS: u64 = 500;
/// ... up to this.
pub const MAX_LOOK_MS: u64 = 16_000;
/// A held blob without neighbours, requests or news for so long is forgotten.
pub const IDLE_HOLD_MS: u64 = 60_000;
/// Nodes of the own zone that are known to fetch one blob, for who asks other zones for which piece.
pub const MAX_RIVALS: usize = 1_024;
/// A piece that only other zones have falls to the next node of the zone after this at the latest...
pub const MAX_CROSS_MS: u64 = 1_000;
/// ... and not before this.
pub const LEAST_CROSS_MS: u64 = 100;
/// After so many such steps it falls to everybody.
pub const MAX_CROSS_STEPS: u64 = 4;
/// A node that was asked for its chain is not waited for longer.
pub const CHAIN_MS: u64 = 2_000;
/// Nodes that are asked for their chain of one blob, until one chain gives way to another; one more for
/// each wrong piece whose giver is remembered.
pub const MAX_CHAIN_ASKS: usize = 6;
/// Most chains of one blob that are known, right or wrong.
pub const MAX_CLAIMS: usize = 16;
/// Most signers of one chain that are remembered.
pub const MAX_SIGNERS: usize = 16;
/// Most wrong pieces of one blob of which the givers are remembered.
pub const MAX_SUSPECTS: usize = 64;
/// A source that chose a piece which is under way already is asked by name for so long.
pub const NAMED_MS: u64 = 200;
/// A peer whose answer broke off is not asked for so long; twice as long with each further time.
pub const BUSY_MS: u64 = 50;
/// A busy peer is asked again after this at the latest.
pub const MAX_BUSY_MS: u64 = 1_000;
/// So many broken answers without a piece in between, and the peer counts as lost.
pub const MAX_SETBACKS: u32 = 5;
/// Others that are named to a peer at once.
pub const TOLD_HOLDERS: usize = 6;
/// A chain of a single signer is settled after this time, if nobody else could be asked.
pub const SETTLE_MS: u64 = 20;
