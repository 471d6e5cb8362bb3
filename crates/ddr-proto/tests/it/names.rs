//! Quorums: a finished write is seen by every later read.

use ddr_oci::Digest;
use ddr_proto::names::{
    FULL, MARGIN, MAX_AHEAD_MS, Read, ReadDecision, Write, WriteDecision, common_time, next_stamp,
    read_quorum, stamp_is_acceptable, stamp_ms, supersedes, voters, write_quorum,
};
use ddr_proto::{NameRecord, NodeId, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::net::key;
use crate::solo::peer;

fn id(number: usize) -> NodeId {
    NodeId([number as u8; 32])
}

/// Quorum arithmetic never looks at signatures.
fn record(stamp: u64, writer: u8) -> NameRecord {
    NameRecord {
        repository: "team/app".parse().expect("name"),
        tag: "latest".parse().expect("tag"),
        digest: Some(Digest::sha256(&[writer])),
        stamp,
        writer: [writer; 32],
        signature: [0; 64],
    }
}

#[test]
fn quorums_overlap_and_are_the_smallest_that_do() {
    for k in 1..=32 {
        let (w, r) = (write_quorum(k), read_quorum(k));
        let margin = if k < FULL { 0 } else { 2 * MARGIN };
        assert!(w + r == k + 1 + margin, "k {k}: every read meets every write");
        assert!(2 * w > k, "k {k}: two writes meet");
        assert!(w <= k && r >= 1);
    }
    assert_eq!((write_quorum(20), read_quorum(20)), (13, 12));
}

#[test]
fn stamps_grow_and_follow_the_clock() {
    let now = Timestamp(1_700_000_000_000);
    let first = next_stamp(None, now);
    assert_eq!(stamp_ms(first), now.0);
    assert_eq!(next_stamp(Some(first), now), first + 1);
    assert_eq!(next_stamp(Some(first), Timestamp(now.0 - 5_000)), first + 1, "clock went back");
    assert!(next_stamp(Some(first), Timestamp(now.0 + 1)) > first + 1);
    assert_eq!(next_stamp(Some(u64::MAX), now), u64::MAX, "the end of time does not wrap");
    assert!(stamp_is_acceptable(next_stamp(None, now.after_ms(MAX_AHEAD_MS)), now));
    assert!(!stamp_is_acceptable(next_stamp(None, now.after_ms(MAX_AHEAD_MS + 1)), now));
}

#[test]
fn the_newest_is_by_stamp_then_writer() {
    let (old, new, tie) = (record(5, 9), record(6, 1), record(6, 2));
    assert!(supersedes(&old, None));
    assert!(supersedes(&new, Some(&old)) && !supersedes(&old, Some(&new)));
    assert!(supersedes(&tie, Some(&new)) && !supersedes(&new, Some(&tie)));
    assert!(!supersedes(&new, Some(&new)), "the same record is not newer");
}

#[test]
fn the_own_node_votes_when_it_is_near_enough() {
    let contacts: Vec<_> = (0..25).map(|number| peer(number).1).collect();
    let key = key(1);
    let mut sorted = contacts.clone();
    sorted.sort_by_key(|contact| contact.id.distance(&key));
    let near = &sorted[3];
    let others: Vec<_> = sorted.iter().filter(|c| c.id != near.id).cloned().collect();
    assert_eq!(voters(near, &others, &key, 20), sorted[..20]);
    let far = &sorted[24];
    assert_eq!(voters(far, &sorted[..24], &key, 20), sorted[..20]);
    assert_eq!(voters(far, &[], &key, 20), std::slice::from_ref(far));
}

#[test]
fn a_read_waits_for_a_quorum_and_names_who_is_behind() {
    let mut read = Read::new((0..5).map(id));
    assert_eq!(read.decide(), ReadDecision::Wait);
    read.answered(id(0), Some(record(7, 1)));
    read.answered(id(0), None);
    read.answered(id(99), Some(record(99, 1)));
    read.failed(id(0));
    assert_eq!(read.decide(), ReadDecision::Wait, "second answers and strangers do not count");
    read.answered(id(1), Some(record(8, 1)));
    read.answered(id(2), None);
    let (newest, behind) = (record(8, 1), vec![id(0), id(2), id(3), id(4)]);
    assert_eq!(read.decide(), ReadDecision::Newest { record: newest, behind, kept_by: 1 });
    (3..5).for_each(|voter| read.answered(id(voter), Some(record(8, 1))));
    let (record, behind) = (record(8, 1), vec![id(0), id(2)]);
    assert_eq!(read.decide(), ReadDecision::Newest { record, behind, kept_by: 3 });
}

#[test]
fn a_writer_stamps_no_later_than_a_majority_has_come() {
    let clocks = |ms: &[u64]| ms.iter().map(|ms| Timestamp(*ms)).collect::<Vec<_>>();
    let common = |own: u64, ms: &[u64]| common_time(Timestamp(own), clocks(ms), 5).0;
    assert_eq!(common(100, &[100, 101, 99, 102, 98]), 100, "clocks that agree change nothing");
    assert_eq!(common(400, &[400, 100, 400, 101, 102]), 102, "two of five are ahead");
    assert_eq!(common(400, &[400, 400, 100]), 100, "two did not answer");
    assert_eq!(common(400, &[400, 100, 400, 400, 102]), 400, "most are ahead");
    assert_eq!(common(5, &[100, 101, 102]), 5, "who is late stamps by what it reads");
    assert_eq!(common(7, &[]), 7);
}

#[test]
fn half_of_an_even_number_of_voters_is_no_majority() {
    let mut read = Read::new((0..4).map(id));
    (0..2).for_each(|voter| read.answered(id(voter), Some(record(8, 1))));
    let (newest, behind) = (record(8, 1), vec![id(2), id(3)]);
    assert_eq!(read.decide(), ReadDecision::Newest { record: newest, behind, kept_by: 2 });
    // Who cannot be reached is not asked again: the write back has too few to tell.
    (2..4).for_each(|voter| read.failed(id(voter)));
    let (record, behind) = (record(8, 1), vec![]);
    assert_eq!(read.decide(), ReadDecision::Newest { record, behind, kept_by: 2 });
}

#[test]
fn nothing_is_believed_of_all_or_of_a_majority_after_a_grace() {
    let mut read = Read::new((0..4).map(id));
    read.answered(id(0), None);
    read.answered(id(1), None);
    assert_eq!(read.decide(), ReadDecision::Wait, "two of four may both have missed the write");
    read.answered(id(2), None);
    assert_eq!(read.decide(), ReadDecision::NothingYet);
    read.failed(id(3));
    assert_eq!(read.decide(), ReadDecision::Nothing);

    let mut read = Read::new((0..4).map(id));
    (0..3).for_each(|voter| read.failed(id(voter)));
    assert_eq!(read.decide(), ReadDecision::Impossible { answered: 0, needed: 2 });
    assert_eq!(Read::new([]).decide(), ReadDecision::Impossible { answered: 0, needed: 1 });
}

#[test]
fn a_write_is_done_with_a_majority_and_impossible_without() {
    let mut write = Write::new(record(7, 1), (0..3).map(id));
    write.stored(id(0));
    write.stored(id(0));
    assert_eq!(write.decide(), WriteDecision::Wait);
    write.not_stored(id(1), Some(record(9, 2)));
    let superseded_by = Some(record(9, 2));
    assert_eq!(write.decide(), WriteDecision::Done { superseded_by });

    let mut write = Write::new(record(7, 1), (0..3).map(id));
    write.failed(id(0));
    assert_eq!(write.decide(), WriteDecision::Wait);
    write.not_stored(id(1), Some(record(6, 1)));
    assert_eq!(write.decide(), WriteDecision::Impossible { kept: 0, needed: 2 });
}

/// What happens to one message to one voter.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    AnswerLost,
    Lost,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    vec(
        prop_oneof![3 => Just(Fate::Arrives), 1 => Just(Fate::AnswerLost), 1 => Just(Fate::Lost)],
        20,
    )
}

#[derive(Clone, Debug)]
enum Step {
    Write { writer: u8, clock_ms: u64, fates: Vec<Fate> },
    Read { fates: Vec<Fate>, write_back: Vec<Fate> },
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..4_u8, 0..50_u64, fates()).prop_map(|(writer, clock_ms, fates)| Step::Write {
            writer,
            clock_ms,
            fates
        }),
        (fates(), fates()).prop_map(|(fates, write_back)| Step::Read { fates, write_back }),
    ]
}

/// Voters as the storing nodes are: each keeps the newest that arrives.
struct Voters(Vec<Option<NameRecord>>);

impl Voters {
    fn write(&mut self, record: &NameRecord, fates: &[Fate]) -> WriteDecision {
        let mut write = Write::new(record.clone(), (0..self.0.len()).map(id));
        for (voter, kept) in self.0.iter_mut().enumerate() {
            if matches!(fates[voter], Fate::Lost) {
                write.failed(id(voter));
                continue;
            }
            let newest = kept.clone().filter(|kept| !supersedes(record, Some(kept)));
            if newest.is_none() {
                *kept = Some(record.clone());
            }
            match (fates[voter], newest) {
                (Fate::AnswerLost, _) => write.failed(id(voter)),
                (_, None) => write.stored(id(voter)),
                (_, newest) => write.not_stored(id(voter), newest),
            }
        }
        write.decide()
    }

    /// Answers arrive in the voters' order until the read decides.
    fn read(&self, fates: &[Fate]) -> ReadDecision {
        let mut read = Read::new((0..self.0.len()).map(id));
        for (voter, kept) in self.0.iter().enumerate() {
            match fates[voter] {
                Fate::Arrives => read.answered(id(voter), kept.clone()),
                Fate::AnswerLost | Fate::Lost => read.failed(id(voter)),
            }
            let decision = read.decide();
            if matches!(decision, ReadDecision::Newest { .. }) {
                return decision;
            }
        }
        read.decide()
    }
}

proptest! {
    #[test]
    fn a_finished_write_is_seen_by_every_later_read(
        k in 1..=20_usize,
        steps in vec(steps(), 1..40),
    ) {
        let mut voters = Voters(vec![None; k]);
        // The newest record of which a write or a read has finished.
        let mut finished: Option<NameRecord> = None;
        for step in steps {
            match step {
                Step::Write { writer, clock_ms, fates } => {
                    let seen = match voters.read(&fates) {
                        ReadDecision::Newest { record, .. } => Some(record.stamp),
                        ReadDecision::Nothing => None,
                        _ => continue,
                    };
                    let record = record(next_stamp(seen, Timestamp(clock_ms)), writer);
                    if let WriteDecision::Done { .. } = voters.write(&record, &fates)
                        && supersedes(&record, finished.as_ref())
                    {
                        finished = Some(record);
                    }
                }
                Step::Read { fates, write_back } => match voters.read(&fates) {
                    ReadDecision::Newest { record, kept_by, .. } => {
                        let finished_now = kept_by >= write_quorum(k)
                            || matches!(
                                voters.write(&record, &write_back),
                                WriteDecision::Done { .. }
                            );
                        prop_assert!(
                            finished.as_ref().is_none_or(|f| !supersedes(f, Some(&record))),
                            "read {record:?} after {finished:?} was finished"
                        );
                        if finished_now && supersedes(&record, finished.as_ref()) {
                            finished = Some(record);
                        }
                    }
                    ReadDecision::Nothing | ReadDecision::NothingYet => {
                        prop_assert!(finished.is_none(), "{finished:?} was not seen");
                    }
                    ReadDecision::Wait | ReadDecision::Impossible { .. } => {}
                },
            }
        }
    }
}
