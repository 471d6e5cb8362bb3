//! The swarm as a pure state machine: whom to ask for which piece, whom to serve, who lied.
//!
//! One [`Swarm`] per node, for all blobs it fetches or holds. `docs/swarm.md` states the rules.
//!
//! The driver hands inputs to [`Swarm::handle`], then takes outputs from [`Swarm::poll_output`]
//! until there are none, and calls again with [`Input::Tick`] at [`Swarm::next_deadline`]. It moves
//! the bytes and checks them; the core sees numbers of pieces only. The core draws chance from its
//! seed alone and keeps every list below a named limit; the output queue grows with what the
//! driver hands in between two drains.

mod answers;
mod asking;
mod bits;
mod blob;
mod claims;
mod config;
mod crossing;
mod fetching;
mod io;
mod limits;
mod neighbours;
mod pace;
mod peers;
mod picker;
mod proving;
mod serving;
mod source;
mod telling;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::asking::{Ask, Group};
pub use self::bits::Bits;
use self::blob::{Blob, BlobIx};
pub use self::config::SwarmConfig;
pub use self::io::{
    AskId, Blame, BlobView, ClaimId, Class, Failure, GroupId, Input, Output, Refusal, UploadId,
    Wanted,
};
pub use self::limits::*;
use self::peers::Peers;
pub use self::picker::{Choice, Pick};
use self::serving::Upload;
use crate::chance::Chance;
use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, SwarmBody, SwarmMessage};

/// Outputs for which room is kept between two inputs.
const KEPT_OUTPUTS: usize = 16;

/// The swarm core of one node.
#[derive(Debug)]
pub struct Swarm {
    cfg: SwarmConfig,
    own: Arc<Contact>,
    chance: Chance,
    now: Timestamp,
    peers: Peers,
    by_key: BTreeMap<Key, BlobIx>,
    blobs: Vec<Option<Blob>>,
    free: Vec<BlobIx>,
    groups: BTreeMap<GroupId, Group>,
    asks: BTreeMap<AskId, Ask>,
    next_ask: u64,
    uploads: BTreeMap<UploadId, Upload>,
    /// When each blob has something to do.
    timers: BTreeSet<(Timestamp, BlobIx)>,
    /// Blobs whose timer may have changed, and groups that may have something to ask for.
    touched: Vec<BlobIx>,
    dirty: Vec<GroupId>,
    outputs: VecDeque<Output>,
}

impl Swarm {
    /// A core of the node `own`. The same `seed` and inputs give the same outputs.
    #[must_use]
    pub fn new(cfg: SwarmConfig, own: Arc<Contact>, seed: u64) -> Self {
        Self {
            cfg,
            own,
            chance: Chance::new(seed),
            now: Timestamp::default(),
            peers: Peers::default(),
            by_key: BTreeMap::new(),
            blobs: Vec::new(),
            free: Vec::new(),
            groups: BTreeMap::new(),
            asks: BTreeMap::new(),
            next_ask: 0,
            uploads: BTreeMap::new(),
            timers: BTreeSet::new(),
            touched: Vec::new(),
            dirty: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes an input in. The only way to change state; never fails, never blocks.
    ///
    /// A `now` before an earlier one counts as that earlier one.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        self.now = self.now.max(now);
        match input {
            Input::Fetch { blob, size, group, class, wanted, have } => {
                self.on_fetch(blob, size, (group, class), &wanted, &have);
            }
            Input::Want { blob, wanted } => self.on_want(&blob, &wanted),
            Input::ClientAt { blob, readers } => self.on_client_at(&blob, &readers),
            Input::Stop { blob } => self.on_stop(&blob),
            Input::Hold { blob, size, sources } => self.on_hold(blob, size, &sources),
            Input::Drop { blob } => self.on_drop(&blob),
            Input::Neighbour { blob, contact, complete, rtt_us } => {
                self.on_neighbour(&blob, contact, complete, rtt_us);
            }
            Input::Lost { node } => self.on_lost(&node),
            Input::Message { from, message } => self.on_message(&from, message),
            Input::Chosen { ask, piece } => self.on_chosen(ask, piece as usize),
            Input::PieceArrived { ask, piece, claim, load } => {
                self.on_arrived(ask, piece as usize, claim, load);
            }
            Input::PieceWrong { ask, piece } => self.on_wrong(ask, piece as usize),
            Input::Failed { ask, failure } => self.on_failed(ask, failure),
            Input::Busy { ask, answer } => self.on_busy(ask, answer),
            Input::Void { blob, pieces } => self.on_void(&blob, &pieces),
            Input::Chain { blob, from, signer, claim, differs } => {
                self.on_chain(&blob, &from, signer, claim, differs);
            }
            Input::NoChain { blob, from, wrong } => self.on_no_chain(&blob, &from, wrong),
            Input::Request { upload, from, blob, piece, class } => {
                self.on_request(upload, from, &blob, piece, class);
            }
            Input::Uploaded { upload, whole } => self.on_uploaded(upload, whole),
            Input::Tick => {}
        }
        self.run_due();
        self.ask_what_is_due();
        self.set_timers();
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        let next = self.outputs.pop_front();
        if next.is_none() {
            // A burst of outputs is no reason to hold its memory until the next one.
            self.outputs.shrink_to(KEPT_OUTPUTS);
        }
        next
    }

    /// When to hand in [`Input::Tick`] at the latest; `None` when only inputs change anything.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let oldest = self.asks.first_key_value().map(|(_, ask)| ask.sent.after_ms(STALL_MS));
        // An old ask that may live longer is looked at again from time to time.
        let oldest = oldest.map(|at| at.max(self.now.after_ms(STALL_MS / 10)));
        timer.into_iter().chain(oldest).min()
    }

    /// Every blob that is fetched or held, in key order.
    pub fn blobs(&self) -> impl Iterator<Item = BlobView> + '_ {
        self.by_key.values().map(|ix| self.view_of(*ix))
    }

    /// One blob, if it is fetched or held.
    #[must_use]
    pub fn view(&self, key: &Key) -> Option<BlobView> {
        self.find(key).map(|ix| self.view_of(ix))
    }

    /// A node with which a blob is shared, or to which a request is under way.
    #[must_use]
    pub fn contact(&self, node: &NodeId) -> Option<&Arc<Contact>> {
        self.peers.find(node).map(|peer| &self.peers.get(peer).contact)
    }

    fn view_of(&self, ix: BlobIx) -> BlobView {
        let blob = self.blob(ix);
        let id = |peer| self.peers.get(peer).contact.id;
        BlobView {
            blob: blob.key,
            pieces: blob.pieces(),
            have: blob.count,
            missing: blob.fetch.as_ref().map_or(0, |fetch| fetch.missing(&blob.have)),
            neighbours: blob.up().map(|link| (id(link.peer), link.complete)).collect(),
            asks: self.asks.values().filter(|ask| ask.blob == ix).count(),
            group_asks: blob
                .fetch
                .as_ref()
                .and_then(|fetch| self.groups.get(&fetch.group))
                .map_or(0, |group| group.asks),
            fetching: blob.is_fetching(),
        }
    }

    fn find(&self, key: &Key) -> Option<BlobIx> {
        self.by_key.get(key).copied()
    }

    fn blob(&self, ix: BlobIx) -> &Blob {
        self.blobs[ix].as_ref().expect("places of blobs are given back when nothing names them")
    }

    fn blob_mut(&mut self, ix: BlobIx) -> &mut Blob {
        self.blobs[ix].as_mut().expect("places of blobs are given back when nothing names them")
    }

    /// The blob under `key`, made if need be; `None` when there are too many, or of another size.
    fn admit_blob(&mut self, key: Key, size: u64) -> Option<BlobIx> {
        if let Some(ix) = self.find(&key) {
            return (self.blob(ix).size == size).then_some(ix);
        }
        if self.by_key.len() >= MAX_BLOBS {
            return None;
        }
        let ix = self.free.pop().unwrap_or_else(|| {
            self.blobs.push(None);
            self.blobs.len() - 1
        });
        self.blobs[ix] = Some(Blob::new(key, size, self.now));
        self.by_key.insert(key, ix);
        Some(ix)
    }

    fn touch(&mut self, ix: BlobIx) {
        if self.touched.last() != Some(&ix) {
            self.touched.push(ix);
        }
    }

    fn stir(&mut self, ix: BlobIx) {
        let fetch = self.blob(ix).fetch.as_ref();
        if let Some(group) = fetch.map(|fetch| fetch.group)
            && !self.dirty.contains(&group)
        {
            self.dirty.push(group);
        }
    }

    fn send(&mut self, to: NodeId, blob: Key, body: SwarmBody) {
        self.outputs.push_back(Output::Send { to, message: Arc::new(SwarmMessage { blob, body }) });
    }

    /// Uploads that run, as others are told.
    fn load(&self) -> u16 {
        u16::try_from(self.uploads.len()).unwrap_or(u16::MAX)
    }
}
