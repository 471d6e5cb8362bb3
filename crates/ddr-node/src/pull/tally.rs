//! What came of one blob, from whom and how fast.
//!
//! Decides nothing; it counts for the reports. A byte counts when it comes, before it is checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddr_proto::id::NodeId;
use ddr_store::now_ms;
use tokio::time::Instant;

/// Peers that are counted of one blob; beyond, the one that gave least goes.
const MAX_GIVERS: usize = 256;
/// How long ago the average reaches: what came before counts for a third or less.
const MEMORY: Duration = Duration::from_secs(4);

/// A peer that gave bytes of the blob.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Giver {
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) bytes: u64,
}

/// See the module comment.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Unix milliseconds.
    pub(crate) since_ms: u64,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    givers: BTreeMap<NodeId, Giver>,
    rate: Rate,
    neighbours: usize,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let rate = Rate::new(Instant::now());
        let counts = Counts { givers: BTreeMap::new(), rate, neighbours: 0 };
        Self { since_ms: now_ms(), counts: Mutex::new(counts) }
    }

    /// `node`, at this address, gave so many bytes.
    pub(crate) fn gave(&self, node: NodeId, address: SocketAddr, bytes: u64) {
        let mut counts = self.counts();
        counts.rate.add(bytes, Instant::now());
        if counts.givers.len() >= MAX_GIVERS && !counts.givers.contains_key(&node) {
            let least = counts.givers.values().min_by_key(|giver| giver.bytes);
            let least = least.map(|giver| giver.node);
            least.map(|least| counts.givers.remove(&least));
        }
        let giver = counts.givers.entry(node).or_insert(Giver { node, address, bytes: 0 });
        (giver.address, giver.bytes) = (address, giver.bytes + bytes);
    }

    /// So many nodes are neighbours in the swarm of the blob.
    pub(crate) fn has_neighbours(&self, count: usize) {
        self.counts().neighbours = count;
    }

    /// See [`Self::has_neighbours`].
    pub(crate) fn neighbours(&self) -> usize {
        self.counts().neighbours
    }

    /// Bytes a second of late.
    pub(crate) fn bytes_per_second(&self) -> u64 {
        self.counts().rate.read(Instant::now())
    }

    /// Who gave, most bytes first, at most `limit`.
    pub(crate) fn givers(&self, limit: usize) -> Vec<Giver> {
        let mut givers: Vec<Giver> = self.counts().givers.values().copied().collect();
        givers.sort_by_key(|giver| std::cmp::Reverse(giver.bytes));
        givers.truncate(limit);
        givers
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An average of bytes a second whose memory fades with [`MEMORY`].
#[derive(Debug)]
struct Rate {
    since: Instant,
    at: Instant,
    /// Bytes, each counted less the older it is.
    faded: f64,
}

impl Rate {
    const fn new(now: Instant) -> Self {
        Self { since: now, at: now, faded: 0.0 }
    }

    fn add(&mut self, bytes: u64, now: Instant) {
        self.faded = self.faded * fading(now - self.at) + bytes as f64;
        self.at = now;
    }

    fn read(&self, now: Instant) -> u64 {
        // What a byte a second since the beginning would have come to.
        let one = MEMORY.as_secs_f64() * (1.0 - fading(now - self.since));
        if one <= 0.0 {
            return 0;
        }
        (self.faded * fading(now - self.at) / one) as u64
    }
}

fn fading(age: Duration) -> f64 {
    (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(100);

    fn node(number: u16) -> NodeId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    fn address() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 5001))
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_right_soon_and_fades_when_nothing_comes() {
        let tally = Tally::new();
        assert_eq!(tally.bytes_per_second(), 0);
        for step in 0..100 {
            tokio::time::advance(STEP).await;
            tally.gave(node(1), address(), 10_000);
            let rate = tally.bytes_per_second();
            assert!((100_000..=105_000).contains(&rate), "step {step}: {rate}");
        }
        tokio::time::advance(MEMORY * 3).await;
        assert!(tally.bytes_per_second() < 10_000);
    }

    #[tokio::test]
    async fn the_list_is_bounded_and_who_gave_most_comes_first() {
        let tally = Tally::new();
        for number in 0..600 {
            tally.gave(node(number), address(), u64::from(number) + 1);
        }
        tally.gave(node(300), address(), 10_000);
        let givers = tally.givers(MAX_GIVERS * 2);
        assert_eq!(givers.len(), MAX_GIVERS);
        assert_eq!((givers[0].node, givers[1].node), (node(300), node(599)));
        assert_eq!(tally.givers(2).len(), 2);
    }
}
