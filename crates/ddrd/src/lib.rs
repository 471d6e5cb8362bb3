//! The programs of DDR: `ddrd`, the daemon, and `ddr`, its command line.
//!
//! Decides settings, start and stop of the process, what people see, and the admin API. It must
//! never contain a decision about content, names or peers: those live in the crates below.

#![forbid(unsafe_code)]

pub mod admin;
pub mod amount;
pub mod archive;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod doctor;
pub mod duration;
mod progress;
pub mod setup;
pub mod telemetry;
