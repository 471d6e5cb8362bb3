//! Who was told what just now: many readers that see the same voter lag behind tell it once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ddr_proto::id::{Key, NodeId};
use tokio::time::Instant;

/// How long who was told is not told again by a reader that does not depend on it.
const QUIET: Duration = Duration::from_secs(1);
/// What is remembered; beyond, all is forgotten.
const MAX_RECENT: usize = 8_192;

/// See the module comment.
#[derive(Default)]
pub(crate) struct Recent(Mutex<HashMap<(Key, NodeId), (u64, Instant)>>);

impl Recent {
    /// True when `voter` was told of this record, or a newer one, just now; else it is from now on.
    pub(super) fn knows(&self, slot: Key, stamp: u64, voter: NodeId) -> bool {
        let now = Instant::now();
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = told.get(&(slot, voter));
        if known.is_some_and(|(known, at)| *known >= stamp && now < *at + QUIET) {
            return true;
        }
        if told.len() >= MAX_RECENT {
            told.clear();
        }
        told.insert((slot, voter), (stamp, now));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_voter_is_told_of_each_record_once_in_a_while() {
        let (recent, slot) = (Recent::default(), Key([1; 32]));
        let (one, two) = (NodeId([1; 32]), NodeId([2; 32]));
        assert!(!recent.knows(slot, 5, one));
        assert!(recent.knows(slot, 5, one) && recent.knows(slot, 4, one));
        assert!(!recent.knows(slot, 6, one) && !recent.knows(slot, 5, two));
        tokio::time::advance(QUIET).await;
        assert!(!recent.knows(slot, 6, one));
        for number in 0..2 * MAX_RECENT as u64 {
            recent.knows(slot, number, one);
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            recent.knows(slot, 1, NodeId(id));
        }
        assert!(recent.0.lock().expect("unpoisoned").len() <= MAX_RECENT);
    }
}
