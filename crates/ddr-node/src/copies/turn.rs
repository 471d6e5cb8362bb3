//! Whose turn it is to mend a part that is short.
//!
//! Decides, for a part that another node should mend, when that one is asked and when this one steps in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ddr_proto::replica::MAX_MENDING;
use ddr_proto::time::Timestamp;

use super::PartKey;

/// How long the next in line waits for the mender before it.
const STEP_IN_MS: u64 = 30_000;
/// After this long it asks the mender who else keeps the part, as it may have missed that it was mended; then after
/// twice as long, and so on, as the answer may be missed too.
const ASK_MENDER_MS: u64 = 2_000;

/// The parts that are short and that another node should mend; at most [`MAX_MENDING`].
#[derive(Default)]
pub(super) struct Turns(Mutex<BTreeMap<PartKey, Waiting>>);

/// What a node does about a part that is short.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// It mends the part itself.
    Mend,
    /// It looks again then, and asks the mender now who else keeps the part, if `ask`.
    Wait { until: Timestamp, ask: bool },
}

/// A part that another node should mend.
struct Waiting {
    since: Timestamp,
    ask_at: Timestamp,
}

impl Turns {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<PartKey, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of the node that has this place in line; the mender has place 0. `may_ask`: there is room for a
    /// question; it is noted as asked.
    pub(super) fn turn(&self, part: &PartKey, place: usize, may_ask: bool, now: Timestamp) -> Turn {
        if place == 0 {
            return Turn::Mend;
        }
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_MENDING && !waiting.contains_key(part) {
            return Turn::Wait { until: now.after_ms(STEP_IN_MS), ask: false };
        }
        waiting.entry(part.clone()).or_insert_with(|| Waiting::new(now)).turn(place, may_ask, now)
    }

    /// Whether the node that has this place in line mends the part.
    pub(super) fn is_own(&self, part: &PartKey, place: usize, now: Timestamp) -> bool {
        place == 0 || self.waiting().get(part).is_some_and(|waiting| now >= waiting.step_in(place))
    }

    /// The others are not short any more.
    pub(super) fn keep_only(&self, short: &BTreeSet<PartKey>) {
        self.waiting().retain(|part, _| short.contains(part));
    }
}

impl Waiting {
    const fn new(now: Timestamp) -> Self {
        Self { since: now, ask_at: now.after_ms(ASK_MENDER_MS) }
    }

    const fn step_in(&self, place: usize) -> Timestamp {
        self.since.after_ms((place as u64).saturating_mul(STEP_IN_MS))
    }

    fn turn(&mut self, place: usize, may_ask: bool, now: Timestamp) -> Turn {
        let step_in = self.step_in(place);
        if now >= step_in {
            return Turn::Mend;
        }
        if now < self.ask_at {
            return Turn::Wait { until: step_in.min(self.ask_at), ask: false };
        }
        if !may_ask {
            return Turn::Wait { until: step_in.min(now.after_ms(ASK_MENDER_MS)), ask: false };
        }
        self.ask_at = now.after_ms(now.since_ms(self.since));
        Turn::Wait { until: step_in.min(self.ask_at), ask: true }
    }
}

#[cfg(test)]
mod tests {
    use ddr_oci::Digest;

    use super::*;

    const START: Timestamp = Timestamp(5_000);

    fn after(ms: u64) -> Timestamp {
        START.after_ms(ms)
    }

    fn wait(until: u64, ask: bool) -> Turn {
        Turn::Wait { until: after(until), ask }
    }

    fn part(name: &str) -> PartKey {
        (
            "team/app".parse().expect("a name"),
            Digest::sha256(b"manifest"),
            Digest::sha256(name.as_bytes()),
        )
    }

    #[test]
    fn a_question_whose_answer_was_missed_is_asked_again_less_and_less_often() {
        let turns = Turns::default();
        let turn = |ms| turns.turn(&part("a"), 1, true, after(ms));
        assert_eq!(turn(0), wait(2_000, false));
        for (now, next) in [(2_000, 4_000), (4_000, 8_000), (8_000, 16_000), (16_000, 30_000)] {
            assert_eq!(turn(now), wait(next, true));
            assert_eq!(turn(now + 1), wait(next, false));
        }
        assert_eq!(turn(29_999), wait(30_000, false));
    }

    #[test]
    fn the_next_in_line_steps_in_and_then_the_one_after_it() {
        for place in 0..3 {
            let turns = Turns::default();
            let part = part("a");
            let at = place as u64 * STEP_IN_MS;
            if place > 0 {
                assert_ne!(turns.turn(&part, place, false, START), Turn::Mend);
                assert!(!turns.is_own(&part, place, after(at - 1)));
            }
            assert!(turns.is_own(&part, place, after(at)));
            assert_eq!(turns.turn(&part, place, false, after(at)), Turn::Mend);
        }
    }

    #[test]
    fn a_question_waits_for_room() {
        let turns = Turns::default();
        let turn = |may_ask, ms| turns.turn(&part("a"), 1, may_ask, after(ms));
        assert_eq!(turn(false, 0), wait(2_000, false));
        assert_eq!(turn(false, 2_000), wait(4_000, false));
        assert_eq!(turn(true, 3_000), wait(6_000, true));
    }

    #[test]
    fn a_part_that_was_whole_meanwhile_waits_anew() {
        let turns = Turns::default();
        for name in ["a", "b"] {
            assert_eq!(turns.turn(&part(name), 1, true, START), wait(2_000, false));
        }
        turns.keep_only(&BTreeSet::from([part("b")]));
        assert_eq!(turns.turn(&part("a"), 1, true, after(9_000)), wait(11_000, false));
        assert_eq!(turns.turn(&part("b"), 1, true, after(9_000)), wait(18_000, true));
    }
}
