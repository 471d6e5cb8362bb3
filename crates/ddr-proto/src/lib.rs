//! Every peer-to-peer decision, without a runtime, sockets, files or clocks.
//!
//! The cores share one shape: `handle(now, input)` is the only way to change state,
//! `poll_output()` says what to do next, `next_deadline()` when to call back. Time, chance and
//! bytes come in as arguments; the same seed and the same inputs give the same outputs.
//!
//! - [`id`]: node IDs, keys, distance, puzzles
//! - [`time`]: the clock reading that drivers hand in
//! - [`wire`]: messages and signed records, with their limits
//! - [`kad`]: the S/Kademlia overlay: who is near, who holds what
//! - [`names`]: quorum arithmetic for tags
//! - [`replica`]: who holds copies of pushed content, and what is mended first
//! - [`swarm`]: who is asked for which piece, and who is served

#![forbid(unsafe_code)]

mod chance;
pub mod id;
pub mod kad;
pub mod names;
pub mod replica;
pub mod swarm;
pub mod time;
pub mod wire;

pub use id::{Distance, Key, NodeId};
pub use time::Timestamp;
pub use wire::{Contact, NameRecord, ProviderRecord, Request, RequestEnvelope, Response, Signer};
