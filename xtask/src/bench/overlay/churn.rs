//! Nodes that die and come back: every ten seconds a tenth of them is killed at one moment and
//! started again, one after the other, with the ports and data that it had.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::e2e::Random;
use crate::swarm::Node;

/// Between two deaths.
const EVERY: Duration = Duration::from_secs(10);
/// One node in so many dies each time.
const ONE_IN: usize = 10;

/// Whether each node lives, and for the how manieth time: even while it lives.
#[derive(Clone)]
pub(super) struct Lives(Arc<Vec<AtomicU64>>);

impl Lives {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new((0..count).map(|_| AtomicU64::new(0)).collect()))
    }

    /// The number of the node's life; `None` while it is dead or not ready.
    pub(super) fn of(&self, node: usize) -> Option<u64> {
        let life = self.0[node].load(Ordering::SeqCst);
        life.is_multiple_of(2).then_some(life)
    }

    fn turn(&self, node: usize) {
        self.0[node].fetch_add(1, Ordering::SeqCst);
    }
}

/// A churn that goes on.
pub(super) struct Churn(JoinHandle<Result<(Vec<Node>, usize)>>);

impl Churn {
    pub(super) fn start(
        daemon: PathBuf,
        mut nodes: Vec<Node>,
        lives: Lives,
        length: Duration,
        seed: u64,
    ) -> Self {
        Self(thread::spawn(move || {
            let (start, mut random, mut deaths) = (Instant::now(), Random::new(seed), 0);
            for round in 0_u32.. {
                thread::sleep((EVERY * round).saturating_sub(start.elapsed()));
                if start.elapsed() + EVERY > length + EVERY / 2 {
                    break;
                }
                let dying = random.distinct(nodes.len().div_ceil(ONE_IN), nodes.len());
                dying.iter().for_each(|node| lives.turn(*node));
                dying.iter().try_for_each(|node| nodes[*node].kill())?;
                for node in &dying {
                    nodes[*node].start_again(&daemon)?;
                }
                for node in &dying {
                    nodes[*node].wait_ready()?;
                    lives.turn(*node);
                }
                deaths += dying.len();
            }
            thread::sleep(length.saturating_sub(start.elapsed()));
            Ok((nodes, deaths))
        }))
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for its end; the nodes, and how often one was killed.
    pub(super) fn end(self) -> Result<(Vec<Node>, usize)> {
        self.0.join().map_err(|_| anyhow::anyhow!("the churn panicked"))?
    }
}
