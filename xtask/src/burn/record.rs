//! What a burn has seen so far: for its report, at the end or when it is broken off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::median::median;

/// Cheap to clone; all clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Record(Arc<Mutex<Seen>>);

/// Times in seconds.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) rounds: usize,
    pub(super) images: usize,
    /// Pushes that were said again.
    pub(super) again: usize,
    pub(super) push_s: Vec<f64>,
    pub(super) mend_s: Vec<f64>,
    pub(super) found_s: Vec<f64>,
    pub(super) round_s: Vec<f64>,
}

impl Record {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) {
        println!("        {}", self.seen().report());
    }
}

impl Seen {
    /// How long the last `count` rounds took on average.
    pub(super) fn last_rounds(&self, count: usize) -> String {
        let last = |all: &[f64]| {
            let last = &all[all.len().saturating_sub(count)..];
            last.iter().sum::<f64>() / last.len().max(1) as f64
        };
        format!(
            "{} rounds, {} images; {:.1} s a round, of which mending {:.1} s, looking {:.1} s",
            self.rounds,
            self.images,
            last(&self.round_s),
            last(&self.mend_s),
            last(&self.found_s)
        )
    }

    fn report(&self) -> String {
        let (push, mend) =
            (median(self.push_s.iter().copied()), median(self.mend_s.iter().copied()));
        let (mend_max, find) = (most(&self.mend_s), most(&self.found_s));
        format!(
            "{} rounds; {} images acknowledged ({} pushes said again), {} machines burnt; \
             median of a push {push:.2} s, from the new node's start to all copies {mend:.2} s, {mend_max:.1} s at most; \
             all was found after {find:.1} s at most",
            self.rounds,
            self.images,
            self.again,
            self.mend_s.len()
        )
    }
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_no_round_and_of_some_can_be_told() {
        let record = Record::default();
        assert!(record.seen().report().starts_with("0 rounds; 0 images"));
        {
            let mut seen = record.seen();
            (seen.rounds, seen.images) = (2, 2);
            seen.round_s = vec![100.0, 3.0];
            seen.mend_s = vec![50.0, 2.0];
            seen.found_s = vec![25.0, 1.0];
        }
        let seen = record.seen();
        assert_eq!(
            seen.last_rounds(1),
            "2 rounds, 2 images; 3.0 s a round, of which mending 2.0 s, looking 1.0 s"
        );
        assert!(seen.report().ends_with("after 25.0 s at most"), "{}", seen.report());
    }
}
