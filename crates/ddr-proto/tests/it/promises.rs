//! Tags that must not move: of any number of writers at most one is acknowledged, however their
//! messages are mixed, lost and cut off by restarts; and what it wrote is what is read from then on.

use std::collections::BTreeMap;

use ddr_oci::Digest;
use ddr_proto::names::{
    Ballot, MAX_AHEAD_MS, MAX_PROMISES, NoPromise, PROMISE_MS, Promises, Read, ReadDecision,
    next_stamp, stamp_is_acceptable, supersedes, write_quorum,
};
use ddr_proto::{NameRecord, NodeId, Timestamp};
use proptest::prelude::*;

use crate::net::key;

/// A small generator, so that a failure is replayed by its seed alone.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % limit as u64) as usize
    }
}

struct Voter {
    promises: Promises,
    kept: Option<NameRecord>,
}

impl Voter {
    fn start(now: Timestamp) -> Self {
        Self { promises: Promises::new(now), kept: None }
    }
}

fn id(number: usize) -> NodeId {
    NodeId([number as u8; 32])
}

/// Quorum arithmetic never looks at signatures. Each writer has a digest of its own.
fn record(ballot: Ballot) -> NameRecord {
    NameRecord {
        repository: "team/app".parse().expect("name"),
        tag: "v1".parse().expect("tag"),
        digest: Some(Digest::sha256(&ballot.writer)),
        stamp: ballot.stamp,
        writer: ballot.writer,
        signature: [0; 64],
    }
}

#[derive(Clone)]
enum Stage {
    Preparing(Read),
    Accepting(NameRecord, usize),
    Acknowledged,
    Refused,
}

/// One try of one writer. What it still has to say to whom, in any order.
#[derive(Clone)]
struct Writer {
    number: u8,
    ballot: Ballot,
    stage: Stage,
    open: Vec<usize>,
    /// The highest stamp that it was told of.
    seen: Option<u64>,
}

impl Writer {
    fn begin(number: u8, voters: usize, seen: Option<u64>, now: Timestamp) -> Self {
        let ballot = Ballot { stamp: next_stamp(seen, now), writer: [number; 32] };
        let read = Read::new((0..voters).map(id));
        let (stage, open) = (Stage::Preparing(read), (0..voters).collect());
        Self { number, ballot, stage, open, seen: Some(ballot.stamp) }
    }

    /// Says the next thing to a voter picked at random; it may get lost on either way.
    fn step(&mut self, voters: &mut [Voter], random: &mut Random, now: Timestamp) {
        let Some(place) = (!self.open.is_empty()).then(|| random.below(self.open.len())) else {
            self.stage = Stage::Refused;
            return;
        };
        let at = self.open.swap_remove(place);
        let (voter, ballot) = (&mut voters[at], self.ballot);
        let (lost, answer_lost) = (random.below(10) == 0, random.below(10) == 0);
        if lost {
            return;
        }
        match &mut self.stage {
            Stage::Preparing(read) => {
                if !stamp_is_acceptable(ballot.stamp, now) {
                    return read.failed(id(at));
                }
                match voter.promises.promise(record(ballot).key(), ballot, now) {
                    _ if answer_lost => read.failed(id(at)),
                    Ok(()) => read.answered(id(at), voter.kept.clone()),
                    Err(no) => {
                        if let NoPromise::Outbid(stamp) = no {
                            self.seen = self.seen.max(Some(stamp));
                        }
                        read.failed(id(at));
                    }
                }
                let record = match read.decide() {
                    ReadDecision::Newest { record: newest, .. } => {
                        let is_other = newest.writer != ballot.writer;
                        if is_other || newest.stamp >= ballot.stamp {
                            self.stage = Stage::Refused;
                            return;
                        }
                        record(ballot)
                    }
                    ReadDecision::Nothing | ReadDecision::NothingYet => record(ballot),
                    ReadDecision::Wait | ReadDecision::Impossible { .. } => return,
                };
                self.open = (0..voters.len()).collect();
                self.stage = Stage::Accepting(record, 0);
            }
            Stage::Accepting(record, accepted) => {
                if voter.promises.may_accept(record, voter.kept.as_ref(), now)
                    && supersedes(record, voter.kept.as_ref())
                {
                    voter.kept = Some(record.clone());
                    *accepted += usize::from(!answer_lost);
                }
                if *accepted >= write_quorum(voters.len()) {
                    self.stage = Stage::Acknowledged;
                }
            }
            Stage::Acknowledged | Stage::Refused => {}
        }
    }
}

/// What a reader with all voters but some at random believes.
fn read(voters: &[Voter], random: &mut Random) -> Option<NameRecord> {
    let mut read = Read::new((0..voters.len()).map(id));
    loop {
        let at = random.below(voters.len());
        read.answered(id(at), voters[at].kept.clone());
        match read.decide() {
            ReadDecision::Newest { record, .. } => return Some(record),
            ReadDecision::Nothing | ReadDecision::NothingYet => return None,
            ReadDecision::Wait | ReadDecision::Impossible { .. } => {}
        }
    }
}

/// Writers that come, race, give up and come back; voters that restart and clocks that jump.
fn race(seed: u64) {
    let mut random = Random::new(seed);
    let mut now = 1_000_000_u64;
    let start = |_| Voter::start(Timestamp(now));
    let mut voters: Vec<Voter> = (0..1 + random.below(7)).map(start).collect();
    let mut skew = || random.below(5) as u64 * 1_000;
    let skews: Vec<u64> = (0..4).map(|_| skew()).collect();
    let clock = |number: u8, now: u64| Timestamp(now + skews[usize::from(number)]);
    let mut writers: BTreeMap<u8, Writer> = BTreeMap::new();
    let mut acknowledged: Option<u8> = None;
    for _ in 0..400 {
        now += random.below(30) as u64;
        let number = random.below(skews.len()) as u8;
        match random.below(40) {
            0 => {
                let at = random.below(voters.len());
                voters[at].promises = Promises::new(Timestamp(now));
            }
            1 => now += [PROMISE_MS / 2, MAX_AHEAD_MS][random.below(2)],
            // What lies on a minority is spread by readers and by settling, as ever.
            2 => {
                let (from, to) = (random.below(voters.len()), random.below(voters.len()));
                let known = voters[from].kept.clone();
                if let Some(known) = known
                    && supersedes(&known, voters[to].kept.as_ref())
                {
                    voters[to].kept = Some(known);
                }
            }
            _ => {
                let count = voters.len();
                let writer = writers
                    .entry(number)
                    .or_insert_with(|| Writer::begin(number, count, None, clock(number, now)));
                writer.step(&mut voters, &mut random, Timestamp(now));
                match writer.stage {
                    Stage::Acknowledged => {
                        assert!(
                            acknowledged.is_none_or(|first| first == number),
                            "seed {seed}: {number} is acknowledged after {acknowledged:?}"
                        );
                        acknowledged = Some(number);
                        writers.remove(&number);
                    }
                    Stage::Refused => {
                        let (seen, now) = (writer.seen, clock(writer.number, now));
                        *writer = Writer::begin(number, count, seen, now);
                    }
                    _ => {}
                }
            }
        }
        if let Some(first) = acknowledged {
            let seen = read(&voters, &mut random).map(|record| record.writer[0]);
            assert_eq!(seen, Some(first), "seed {seed}: an acknowledged tag moved");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn at_most_one_writer_is_acknowledged_and_its_word_stands(seed: u64) {
        race(seed);
    }
}

#[test]
fn most_races_have_a_winner() {
    // Otherwise the property above would say nothing.
    let wins = (0..50_u64).filter(|round| {
        let mut random = Random::new(round + 1);
        let mut voters: Vec<Voter> = (0..5).map(|_| Voter::start(Timestamp(0))).collect();
        let now = Timestamp(MAX_AHEAD_MS + 1_000);
        let mut writer = Writer::begin(1, 5, None, now);
        for _ in 0..20 {
            if !matches!(writer.stage, Stage::Preparing(_) | Stage::Accepting(..)) {
                break;
            }
            writer.step(&mut voters, &mut random, now);
        }
        matches!(writer.stage, Stage::Acknowledged)
    });
    assert!(wins.count() > 25);
}

#[test]
fn promises_are_bounded_in_time_and_in_number() {
    let now = Timestamp(MAX_AHEAD_MS + 1_000);
    let later = now.after_ms(PROMISE_MS);
    let ballot =
        |counter, writer| Ballot { stamp: next_stamp(None, now) + counter, writer: [writer; 32] };
    let mut promises = Promises::new(Timestamp(0));
    let outbid = |counter| Err(NoPromise::Outbid(ballot(counter, 0).stamp));
    assert_eq!(promises.promise(key(1), ballot(5, 1), now), Ok(()));
    assert_eq!(promises.promise(key(1), ballot(5, 2), now), Ok(()), "higher by its writer");
    assert_eq!(promises.promise(key(1), ballot(5, 1), now), outbid(5));
    let of_two = record(ballot(5, 2));
    let mut promised = Promises::new(Timestamp(0));
    assert_eq!(promised.promise(of_two.key(), ballot(5, 2), now), Ok(()));
    assert!(promised.may_accept(&of_two, None, now));
    assert!(!promised.may_accept(&record(ballot(5, 1)), None, now), "outbid");
    assert!(!promised.may_accept(&of_two, Some(&record(ballot(1, 1))), now), "another digest");
    assert!(!promised.may_accept(&of_two, None, later), "too late");
    assert_eq!(promised.promise(of_two.key(), ballot(5, 1), later), outbid(5), "for ever");

    for number in 1..MAX_PROMISES as u64 {
        assert_eq!(promises.promise(key(number + 1), ballot(1, 1), now), Ok(()));
    }
    let one_more = key(MAX_PROMISES as u64 + 1);
    assert_eq!(promises.promise(one_more, ballot(9, 1), now), Err(NoPromise::Full));
    assert_eq!(promises.promise(one_more, ballot(9, 1), later), Ok(()));
    assert_eq!(
        promises.promise(key(1), ballot(5, 1), later),
        outbid(5),
        "what is forgotten counts"
    );
}

#[test]
fn a_voter_that_starts_promises_nothing_that_it_may_have_outbid_before() {
    let start = Timestamp(1_000_000);
    let mut promises = Promises::new(start);
    let ballot = |stamp| Ballot { stamp, writer: [1; 32] };
    let latest = next_stamp(None, start.after_ms(MAX_AHEAD_MS)) + 9;
    assert!(stamp_is_acceptable(latest, start));
    let Err(NoPromise::Outbid(floor)) = promises.promise(key(1), ballot(latest), start) else {
        panic!("it may have promised that already");
    };
    assert!(floor >= latest);
    let soon = start.after_ms(1);
    assert!(stamp_is_acceptable(floor + 1, soon), "a writer need not wait");
    assert_eq!(promises.promise(key(1), ballot(floor + 1), soon), Ok(()));
}
