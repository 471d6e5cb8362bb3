//! The peer port from outside: two carriers under one contract, the pools, joining, and everything
//! that a stranger or a bad member may send.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod carriers;
mod corpus;
mod discover;
mod flood;
mod hostile;
mod join;
#[path = "../../../../fuzz/src/pieces.rs"]
mod pieces;
mod pool;
#[path = "../../../../fuzz/src/replay.rs"]
mod replay;
mod serving;
mod support;
#[path = "../../../../fuzz/src/peer.rs"]
mod targets;
