//! A deterministic discrete-event simulator that runs DDR's production overlay core.
//!
//! Honest nodes are [`ddr_proto::kad::Kad`] itself, fed by an event queue instead of sockets.
//! Adversarial nodes follow a strategy. Everything follows from one seed: the same settings give the
//! same transcript. `docs/simulator.md` tells what is modelled and what is not.
//!
//! This library is as pure as the core: no clock, no files, no chance but from the seed.

#![forbid(unsafe_code)]

pub mod attack;
mod background;
pub mod churn;
pub mod config;
pub mod copies;
pub mod dice;
mod identity;
pub mod latency;
pub mod names;
mod net;
mod ops;
pub mod paper;
pub mod plain;
pub mod queue;
pub mod report;
pub mod ring;
pub mod scenario;
pub mod size;
pub mod svg;
pub mod swarm;
pub mod tally;
pub mod transcript;

pub use attack::Attack;
pub use churn::Churn;
pub use config::{Setup, SimConfig, SybilPrice};
pub use latency::Latency;
pub use report::Report;
pub use scenario::run;
