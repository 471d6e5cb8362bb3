//! Copies of content in a swarm whose machines are lost, for weeks: the production rules of
//! [`ddr_proto::replica`] on simulated disks.
//!
//! Machines are lost for good at random and replaced by empty ones; others are away for a while and come
//! back with what they had. What is modelled: who holds what, silence, grace, the line of the mender, the
//! time of a transfer. What is not: messages, which are taken to arrive, and one view of who is silent for
//! all (in the daemon each node has its own).

mod world;

use serde::Serialize;

pub use self::world::run;

/// Milliseconds of a day.
pub(crate) const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct CopiesSetup {
    /// Machines at any time.
    pub nodes: usize,
    /// Blobs in the swarm.
    pub blobs: usize,
    /// Bytes of each.
    pub bytes: u64,
    /// Copies that there shall be.
    pub copies: usize,
    /// How long it goes on.
    pub days: u64,
    /// The part of the machines that is lost for good in a day.
    pub loss: f64,
    /// Times in a day that a machine is away.
    pub away: f64,
    /// How long it is away each time on average, milliseconds.
    pub away_ms: u64,
    /// This part of the machines is away at once, on this day, for so many milliseconds.
    pub rack: Option<(f64, u64, u64)>,
    /// How long a silent machine is waited for, milliseconds.
    pub grace_ms: u64,
    /// Bytes a second of one transfer.
    pub rate: u64,
    /// Zones over which the machines are spread.
    pub zones: usize,
    /// Everything follows from it.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CopiesReport {
    /// As set up.
    pub nodes: usize,
    /// As set up.
    pub blobs: usize,
    /// As set up.
    pub copies: usize,
    /// As set up.
    pub days: u64,
    /// Machines that were lost for good.
    pub nodes_lost: u64,
    /// Times that a machine was away.
    pub outages: u64,
    /// Blobs of which no copy was left.
    pub blobs_lost: u64,
    /// Times that a blob had a single copy left.
    pub single: u64,
    /// Bytes that were on lost machines.
    pub bytes_lost: u64,
    /// Bytes that were copied.
    pub bytes_moved: u64,
    /// `bytes_moved` over `bytes_lost`.
    pub moved_part: f64,
    /// Bytes that were let go because there were too many copies.
    pub bytes_dropped: u64,
    /// Seconds from the loss of a copy to the end of its replacement: half of them, 99 of 100, all.
    pub mend_p50_s: f64,
    /// See `mend_p50_s`.
    pub mend_p99_s: f64,
    /// See `mend_p50_s`.
    pub mend_max_s: f64,
}
