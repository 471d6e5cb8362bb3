//! What one node has of one layer, as its client sees it: which bytes came, from when on they could be
//! read in order, and which of them were wrong.

use ddr_proto::swarm::{Bits, ClaimId};

use super::fabric::Nanos;

/// One layer at one node.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) have: Bits,
    /// Pieces that are not what they should be, but passed under the chain in use.
    pub(super) bad: Bits,
    pub(super) chain: Option<ClaimId>,
    pub(super) settled: bool,
    /// Pieces that the client was given, in order.
    pub(super) read: usize,
    pub(super) read_bad: usize,
}

impl Copy {
    pub(super) fn new(pieces: usize) -> Self {
        Self {
            have: Bits::new(pieces),
            bad: Bits::new(pieces),
            chain: None,
            settled: pieces == 1,
            read: 0,
            read_bad: 0,
        }
    }

    /// Gives the client what it may have; the last piece only when all are right.
    pub(super) fn read_on(&mut self) {
        let pieces = self.have.len();
        while self.settled && self.have.has(self.read) {
            if self.read + 1 == pieces && !(self.have.is_full() && self.bad.is_empty()) {
                return;
            }
            self.read_bad += usize::from(self.bad.has(self.read));
            self.read += 1;
        }
    }
}

/// When a node reached what, in nanoseconds.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Marks {
    pub(super) started: Nanos,
    pub(super) tenth: Option<Nanos>,
    pub(super) half: Option<Nanos>,
    pub(super) done: Option<Nanos>,
}
