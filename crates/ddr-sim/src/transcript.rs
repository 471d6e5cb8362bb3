//! A fingerprint of everything that the cores did, to show that two runs are the same.

use ddr_proto::kad::Output;

use crate::latency::Micros;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The 64-bit FNV-1a hash of all outputs of all cores, in order, with their time and node.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Transcript(u64);

impl Default for Transcript {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl Transcript {
    /// The fingerprint so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Adds one output of a core.
    pub(crate) fn note(&mut self, now: Micros, node: u32, output: &Output) {
        self.word(now);
        self.word(u64::from(node));
        match output {
            Output::Call { call, to, .. } => {
                self.word(call.0);
                self.bytes(&to.id.0[..8]);
            }
            Output::Probe { addr } => self.word(u64::from(addr.port())),
            Output::Reply { id, .. } => self.word(id.0),
            Output::Providers { op, records } => {
                self.word(op.0);
                self.word(records.len() as u64);
            }
            Output::LookupDone { op, closest, providers } => {
                self.word(op.0);
                closest.iter().for_each(|contact| self.bytes(&contact.id.0[..8]));
                self.word(providers.len() as u64);
            }
            Output::Provided { op, stored } => {
                self.word(op.0);
                self.word(*stored as u64);
            }
            Output::Misbehaviour { peer, .. } => self.bytes(&peer.0[..8]),
        }
    }

    fn word(&mut self, word: u64) {
        self.bytes(&word.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }
}
