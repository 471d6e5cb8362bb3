//! The client against a real containerd, which must be installed, and against small servers that answer wrongly.

mod answers;
mod archive;
mod corpus;
mod fake;
mod lost;
mod reading;
mod real;
#[path = "../../../../fuzz/src/replay.rs"]
mod replay;
mod store;
#[path = "../../../../fuzz/src/containerd.rs"]
mod targets;
