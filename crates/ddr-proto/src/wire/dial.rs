//! A node asks another whether it can be reached at the addresses that it told before.
//!
//! Decides the form only. The request names no address: who answers dials what it knows of the asker, so nobody
//! is made to dial a place of somebody else's choice at that moment.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{MAX_ADDRS, WireError, at_most};

/// What came of a dial to one address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum DialOutcome {
    /// The asker was there, and proved its key.
    Reached,
    /// The machine is there, and nobody listens on that port.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// Something else than the asker listens there.
    Stranger,
    /// It failed otherwise, or the reason is not for the asker.
    Failed,
    /// It was not dialled: nobody else could listen there, or it is an address of who was asked.
    NotDialled,
}

/// An address, and what came of a dial to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct DialTry {
    /// Where the asker said that it listens.
    pub addr: SocketAddr,
    /// Whether it was there.
    pub outcome: DialOutcome,
}

pub(super) fn check_tries(tries: &[DialTry]) -> Result<(), WireError> {
    at_most(tries.len(), MAX_ADDRS, "MAX_ADDRS")
}
