//! What befalls the swarm, and when: drawn from a seed before a run begins.
//!
//! As a rule no more than a minority is disturbed at once. Now and then a window has more killed,
//! paused or cut off; nothing is promised then but safety. Records that a node lost for good, by a wipe
//! or because another node came in its place, count as disturbed to the end of the run: a majority
//! with what a write had reached must remain.

use std::time::Duration;

use clap::ValueEnum;

use crate::e2e::Random;

/// What is done to the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Nemesis {
    /// Nothing
    None,
    /// SIGKILL, and a restart on the same directory
    Kill,
    /// SIGSTOP, and SIGCONT
    Pause,
    /// Packets between nodes are lost: halves, one alone, a ring, one that only hears
    Partition,
    /// The wall clock of a node jumps, at times over a restart
    Clock,
    /// A new node joins
    Join,
    /// SIGTERM; the node comes back, or another one joins in its place
    Leave,
    /// The disk of a node is full
    DiskFull,
    /// SIGKILL and an empty disk; a new node joins in its place
    Wipe,
}

/// From the start of the clients to the first fault.
const CALM: Duration = Duration::from_millis(500);
/// Length of a fault, and from the beginning of one to that of the next. Milliseconds.
const LENGTH_MS: (usize, usize) = (200, 4_000);
const GAP_MS: (usize, usize) = (200, 2_000);
/// One of so many faults may disturb more than a minority.
const MAJORITY_ONE_IN: usize = 5;
/// Quiet before a node loses its records, so that writes have reached all voters.
const BEFORE_LOSS: Duration = Duration::from_secs(4);
/// Jumps of a clock, seconds. Beyond 60 the other nodes refuse the stamps.
const JUMPS_S: &[i64] = &[-300, -50, -20, -2, 2, 20, 50, 300];
/// Machines for nodes that join beside the first ones.
pub(super) const SPARES: usize = 3;

/// Something that begins and, but for a join, ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) nemesis: Nemesis,
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// Machines that are disturbed.
    pub(super) victims: Vec<usize>,
    pub(super) how: How,
}

/// What the kind of a fault does not say.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum How {
    Plain,
    /// What the first machine of each pair sends to the second is lost.
    Cut(Vec<(usize, usize)>),
    /// Seconds, and whether the daemon is killed and starts with the new time.
    Jump(i64, bool),
    /// Another node comes back in the place of the one that left.
    Replaced,
}

impl Fault {
    fn loses_records(&self) -> bool {
        self.nemesis == Nemesis::Wipe || self.how == How::Replaced
    }
}

/// One run.
#[derive(Debug)]
struct Planner<'a> {
    nodes: usize,
    random: &'a mut Random,
    faults: Vec<Fault>,
    joined: usize,
}

/// Faults of these kinds on machines `0..nodes`, all of which end within `length`.
pub(super) fn faults(
    kinds: &[Nemesis],
    nodes: usize,
    length: Duration,
    random: &mut Random,
) -> Vec<Fault> {
    let kinds: Vec<Nemesis> = kinds.iter().copied().filter(|k| *k != Nemesis::None).collect();
    let mut planner = Planner { nodes, random, faults: Vec::new(), joined: 0 };
    let mut from = CALM;
    while !kinds.is_empty() && from < length {
        let nemesis = kinds[planner.random.below(kinds.len())];
        let lasts = planner.between(LENGTH_MS);
        let to = (from + lasts).min(length);
        if let Some(fault) = planner.fault(nemesis, from, to) {
            planner.faults.push(fault);
        }
        from += planner.between(GAP_MS);
    }
    planner.faults
}

impl Planner<'_> {
    fn between(&mut self, (least, most): (usize, usize)) -> Duration {
        Duration::from_millis((least + self.random.below(most - least)) as u64)
    }

    /// A fault of this kind, if there may be one now.
    fn fault(&mut self, nemesis: Nemesis, from: Duration, to: Duration) -> Option<Fault> {
        if nemesis == Nemesis::Join {
            let victims = vec![self.nodes + self.joined];
            self.joined += 1;
            let fault = Fault { nemesis, from, to: from, victims, how: How::Plain };
            return (self.joined <= SPARES).then_some(fault);
        }
        let disturbed = self.disturbed(from);
        let free: Vec<usize> = (0..self.nodes).filter(|node| !disturbed.contains(node)).collect();
        let lost = self.faults.iter().filter(|fault| fault.loses_records()).count();
        let minority = (self.nodes - 1) / 2;
        let many = matches!(nemesis, Nemesis::Kill | Nemesis::Pause | Nemesis::Partition);
        let most = if many && lost == 0 && self.random.below(MAJORITY_ONE_IN) == 0 {
            self.nodes
        } else {
            minority.saturating_sub(lost + disturbed.len())
        };
        let most = if many { most } else { most.min(1) };
        let most = most.min(free.len());
        if most == 0 {
            return None;
        }
        let count = 1 + self.random.below(most);
        let drawn = self.random.distinct(count, free.len());
        let victims: Vec<usize> = drawn.into_iter().map(|index| free[index]).collect();
        let how = match nemesis {
            Nemesis::Partition => self.cut(from, &victims)?,
            Nemesis::Clock => {
                let jump = JUMPS_S[self.random.below(JUMPS_S.len())];
                How::Jump(jump, self.random.below(2) == 0)
            }
            Nemesis::Leave if self.random.below(2) == 0 => How::Replaced,
            _ => How::Plain,
        };
        let fault = Fault { nemesis, from, to, victims, how };
        if fault.loses_records() && (lost + 1 > minority || !self.is_quiet(from)) {
            return None;
        }
        Some(fault)
    }

    /// Machines that are disturbed at a moment.
    fn disturbed(&self, at: Duration) -> Vec<usize> {
        let now = self.faults.iter().filter(|fault| fault.from <= at && at < fault.to);
        let mut machines: Vec<usize> = now.flat_map(|fault| fault.victims.clone()).collect();
        machines.sort_unstable();
        machines.dedup();
        machines
    }

    fn is_quiet(&self, at: Duration) -> bool {
        self.faults.iter().all(|fault| fault.to + BEFORE_LOSS <= at)
    }

    /// One way to separate `victims` from the rest; one partition at a time.
    fn cut(&mut self, from: Duration, victims: &[usize]) -> Option<How> {
        let cut_now = |fault: &Fault| matches!(fault.how, How::Cut(_)) && from < fault.to;
        if self.faults.iter().any(cut_now) {
            return None;
        }
        let nodes = self.nodes;
        let machines = nodes + SPARES;
        let all = (0..machines).flat_map(|from| (0..machines).map(move |to| (from, to)));
        let all = all.filter(|(from, to)| from != to);
        let way = self.random.below(4);
        let alone = victims[0];
        let lost = |(from, to): &(usize, usize)| match way {
            // Everybody reaches the next one on either side only; a third sees them both.
            0 if victims.len() == 1 && nodes > 3 => {
                let apart = from.abs_diff(*to);
                *from < nodes && *to < nodes && apart != 1 && apart != nodes - 1
            }
            // It hears all and is not heard.
            1 if victims.len() == 1 => *from == alone,
            _ => victims.contains(from) != victims.contains(to),
        };
        Some(How::Cut(all.filter(lost).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(30);

    fn plans(kinds: &[Nemesis]) -> impl Iterator<Item = Vec<Fault>> {
        (0..200).map(move |seed| faults(kinds, 5, LENGTH, &mut Random::new(seed)))
    }

    #[test]
    fn a_seed_repeats_and_nothing_lasts_longer_than_the_run() {
        let all = Nemesis::value_variants();
        let again = plans(all).zip(plans(all));
        for (one, two) in again {
            assert_eq!(one, two);
            assert!(one.iter().all(|fault| fault.from <= fault.to && fault.to <= LENGTH));
        }
        assert!(plans(&[Nemesis::None]).all(|plan| plan.is_empty()));
    }

    #[test]
    fn each_kind_happens() {
        for kind in Nemesis::value_variants().iter().filter(|kind| **kind != Nemesis::None) {
            assert!(
                plans(&[*kind]).all(|plan| plan.iter().any(|fault| fault.nemesis == *kind)),
                "{kind:?}"
            );
            assert!(plans(Nemesis::value_variants()).flatten().any(|fault| fault.nemesis == *kind));
        }
    }

    #[test]
    fn a_majority_keeps_its_records_and_some_windows_have_no_majority() {
        let mut windows = 0;
        for plan in plans(Nemesis::value_variants()) {
            let lost = |at| plan.iter().filter(move |f: &&Fault| f.loses_records() && f.from <= at);
            for fault in plan.iter().filter(|fault| fault.nemesis != Nemesis::Join) {
                let now = plan.iter().filter(|f| f.from <= fault.from && fault.from < f.to);
                let now: Vec<&Fault> = now.filter(|f| f.nemesis != Nemesis::Join).collect();
                let disturbed: usize = now.iter().map(|f| f.victims.len()).sum();
                let ended = lost(fault.from).filter(|f| f.to <= fault.from).count();
                if lost(fault.from).count() > 0 {
                    assert!(disturbed + ended <= 2, "{plan:#?}");
                }
                windows += usize::from(disturbed > 2);
            }
        }
        assert!(windows > 50, "{windows}");
    }

    #[test]
    fn a_ring_leaves_each_its_neighbours() {
        let mut rings = 0;
        for fault in plans(&[Nemesis::Partition]).flatten() {
            let How::Cut(pairs) = fault.how else { panic!("a partition cuts") };
            assert!(!pairs.is_empty());
            rings += usize::from(
                pairs.contains(&(0, 2)) && pairs.contains(&(1, 3)) && !pairs.contains(&(0, 1)),
            );
            assert!(pairs.iter().all(|(from, to)| from != to));
        }
        assert!(rings > 20, "{rings}");
    }
}
