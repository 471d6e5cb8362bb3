//! One swarm core on a bench: the test plays the driver and all other nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use ddr_proto::swarm::{
    AskId, Blame, ClaimId, Class, GroupId, Input, Output, Swarm, SwarmConfig, UploadId, Wanted,
};
use ddr_proto::wire::{Contact, HaveMap, SwarmBody, SwarmMessage};
use ddr_proto::{Key, NodeId, Timestamp};

/// The blob of most tests, of [`PIECES`] pieces.
pub(crate) const BLOB: Key = Key([1; 32]);
pub(crate) const PIECES: usize = 100;
pub(crate) const PIECE_BYTES: u64 = 64 * 1024;
pub(crate) const SIZE: u64 = PIECES as u64 * PIECE_BYTES;
pub(crate) const TRUE_CHAIN: ClaimId = ClaimId([1; 32]);

/// An ask as the core made it.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct Asked {
    pub(crate) ask: AskId,
    pub(crate) node: NodeId,
    pub(crate) piece: Option<u32>,
}

pub(crate) struct Bench {
    pub(crate) core: Swarm,
    pub(crate) now: Timestamp,
    /// Who signed the true chain.
    pub(crate) signers: BTreeSet<NodeId>,
    /// What the core wanted done and no test has looked at.
    pub(crate) outputs: Vec<Output>,
}

pub(crate) fn node(number: u32) -> NodeId {
    let mut id = [9; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

pub(crate) fn contact_in(number: u32, zone: &str) -> Arc<Contact> {
    let addrs = vec![([10, 0, 0, 1], 5_001).into()];
    Arc::new(Contact { id: node(number), addrs, zone: zone.to_owned() })
}

pub(crate) fn contact(number: u32) -> Arc<Contact> {
    contact_in(number, "")
}

/// A bitmap of [`PIECES`] pieces.
pub(crate) fn map(pieces: impl IntoIterator<Item = usize>) -> HaveMap {
    let mut bytes = vec![0; PIECES.div_ceil(8)];
    pieces.into_iter().for_each(|piece| bytes[piece / 8] |= 1 << (piece % 8));
    HaveMap::Bits(bytes)
}

impl Bench {
    /// A core that does nothing yet; its node has number 0.
    pub(crate) fn idle() -> Self {
        let core = Swarm::new(SwarmConfig::default(), contact(0), 7);
        let (signers, outputs) = (BTreeSet::new(), Vec::new());
        Self { core, now: Timestamp(1_000), signers, outputs }
    }

    /// A core that fetches [`BLOB`].
    pub(crate) fn fetching(wanted: Wanted) -> Self {
        let mut bench = Self::idle();
        bench.fetch(BLOB, wanted, Class::Pull, GroupId(1));
        bench
    }

    /// A core that fetches from so many complete neighbours, and believes the true chain.
    pub(crate) fn with_holders(count: u32) -> Self {
        let mut bench = Self::fetching(Wanted::All);
        (1..=count).for_each(|number| bench.hello(number, HaveMap::All));
        bench.settle();
        bench
    }

    pub(crate) fn fetch(&mut self, blob: Key, wanted: Wanted, class: Class, group: GroupId) {
        let have = Vec::new();
        self.input(Input::Fetch { blob, size: SIZE, group, class, wanted, have });
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.core.handle(self.now, input);
        while let Some(output) = self.core.poll_output() {
            self.outputs.push(output);
        }
    }

    /// Lets time pass, with all ticks.
    pub(crate) fn wait_ms(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= end) {
            assert!(at > self.now || self.now == at, "a deadline lies in the past");
            self.now = Timestamp(at.0.max(self.now.0 + 1));
            self.input(Input::Tick);
        }
        self.now = end;
        self.input(Input::Tick);
    }

    pub(crate) fn say(&mut self, number: u32, body: SwarmBody) {
        self.say_in(&contact(number), BLOB, body);
    }

    pub(crate) fn say_in(&mut self, from: &Arc<Contact>, blob: Key, body: SwarmBody) {
        let message = SwarmMessage { blob, body };
        self.input(Input::Message { from: Arc::clone(from), message });
    }

    pub(crate) fn hello(&mut self, number: u32, have: HaveMap) {
        self.say(number, hello(have));
    }

    /// Answers all questions for chains with the true one, each signed by who was asked.
    pub(crate) fn settle(&mut self) {
        while let Some(from) = self.take(|output| match output {
            Output::AskChain { blob: BLOB, node } => Some(*node),
            _ => None,
        }) {
            self.signers.insert(from);
            self.chain(from, TRUE_CHAIN, None);
        }
    }

    pub(crate) fn chain(&mut self, from: NodeId, claim: ClaimId, differs: Option<u32>) {
        self.input(Input::Chain { blob: BLOB, from, signer: from, claim, differs });
    }

    pub(crate) fn arrive(&mut self, ask: AskId, piece: u32) {
        self.input(Input::PieceArrived { ask, piece, claim: TRUE_CHAIN, load: None });
    }

    pub(crate) fn request(&mut self, upload: u64, number: u32, piece: Option<u32>) {
        let (upload, from) = (UploadId(upload), node(number));
        self.input(Input::Request { upload, from, blob: BLOB, piece, class: Class::Pull });
    }

    /// Takes the first output that a test looks for.
    pub(crate) fn take<T>(&mut self, what: impl Fn(&Output) -> Option<T>) -> Option<T> {
        let (at, found) =
            self.outputs.iter().enumerate().find_map(|(at, out)| Some((at, what(out)?)))?;
        self.outputs.remove(at);
        Some(found)
    }

    /// Takes all outputs that a test looks for.
    pub(crate) fn take_all<T>(&mut self, what: impl Fn(&Output) -> Option<T>) -> Vec<T> {
        std::iter::from_fn(|| self.take(&what)).collect()
    }

    pub(crate) fn asks(&mut self) -> Vec<Asked> {
        self.take_all(|output| match output {
            Output::Ask { ask, node, piece, .. } => {
                Some(Asked { ask: *ask, node: *node, piece: *piece })
            }
            _ => None,
        })
    }

    pub(crate) fn cancels(&mut self) -> Vec<AskId> {
        self.take_all(|output| match output {
            Output::Cancel { ask } => Some(*ask),
            _ => None,
        })
    }

    pub(crate) fn struck(&mut self) -> Vec<(NodeId, Blame)> {
        self.take_all(|output| match output {
            Output::Struck { node, blame, .. } => Some((*node, *blame)),
            _ => None,
        })
    }

    /// Messages to a node.
    pub(crate) fn sent(&mut self, number: u32) -> Vec<SwarmBody> {
        self.take_all(|output| match output {
            Output::Send { to, message } if *to == node(number) => Some(message.body.clone()),
            _ => None,
        })
    }
}

pub(crate) fn hello(have: HaveMap) -> SwarmBody {
    SwarmBody::Hello { size: SIZE, have, chooses: false, load: 0, reply: true }
}
