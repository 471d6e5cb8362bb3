//! Histories with a known answer, and small random ones against every order there is.

use super::*;
use crate::e2e::Random;

fn op(action: Action, value: u64, invoke_ns: u64, return_ns: Option<u64>) -> Op {
    // 0 stands for a deleted tag.
    let value = (value > 0).then_some(value);
    Op { action, value, invoke_ns, return_ns }
}

fn write(value: u64, from: u64, to: u64) -> Op {
    op(Action::Write, value, from, Some(to))
}

fn unknown(value: u64, from: u64) -> Op {
    op(Action::Write, value, from, None)
}

fn read(value: u64, from: u64, to: u64) -> Op {
    op(Action::Read, value, from, Some(to))
}

fn holds(ops: &[Op]) {
    assert_eq!(check(ops), Verdict::Linearizable);
    assert_eq!(shrink(ops), Vec::<usize>::new());
}

/// The history is broken, and this much of it is needed to see it.
fn breaks(ops: &[Op], smallest: &[usize]) {
    assert!(matches!(check(ops), Verdict::Broken(_)), "{ops:?}");
    assert_eq!(shrink(ops), smallest);
}

#[test]
fn what_one_client_does_is_explained() {
    holds(&[]);
    holds(&[read(0, 1, 2), write(1, 3, 4), read(1, 5, 6), write(0, 7, 8), read(0, 9, 10)]);
}

#[test]
fn writes_at_the_same_time_have_either_order() {
    for last in [1, 2] {
        holds(&[write(1, 1, 10), write(2, 2, 9), read(last, 11, 12), read(last, 13, 14)]);
    }
}

#[test]
fn a_read_during_a_write_sees_the_old_or_the_new() {
    holds(&[write(1, 1, 2), write(2, 3, 10), read(1, 4, 5), read(2, 6, 7), read(2, 11, 12)]);
}

#[test]
fn a_stale_read_is_noticed() {
    breaks(
        &[write(1, 1, 2), read(1, 3, 4), write(2, 5, 6), read(2, 7, 8), read(1, 9, 10)],
        &[0, 2, 4],
    );
    breaks(&[write(1, 1, 2), read(0, 3, 4)], &[0, 1]);
}

#[test]
fn a_lost_write_is_noticed() {
    breaks(&[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6), read(1, 7, 8)], &[0, 1, 2]);
}

#[test]
fn a_value_that_nobody_wrote_is_noticed() {
    breaks(&[write(1, 1, 2), read(7, 3, 4), write(7, 5, 6)], &[1]);
    breaks(&[read(7, 1, 2), unknown(7, 3)], &[0]);
}

#[test]
fn two_halves_that_both_write_are_noticed() {
    let halves = [
        write(1, 1, 2),
        write(2, 3, 4),
        write(3, 3, 4),
        read(2, 5, 6),
        read(3, 5, 6),
        read(2, 7, 8),
        read(3, 7, 8),
    ];
    breaks(&halves, &[1, 2, 3, 4]);
}

#[test]
fn a_delete_that_comes_back_is_noticed() {
    breaks(
        &[write(1, 1, 2), read(1, 3, 4), write(0, 5, 6), read(0, 7, 8), read(1, 9, 10)],
        &[0, 2, 4],
    );
}

#[test]
fn reads_that_go_back_and_forth_are_noticed() {
    let overlapping =
        [write(1, 1, 20), write(2, 1, 20), read(1, 2, 3), read(2, 4, 5), read(1, 6, 7)];
    breaks(&overlapping, &[0, 1, 2, 3, 4]);
    // The same with a write that was cut off.
    breaks(&[write(1, 1, 2), unknown(2, 3), read(2, 4, 5), read(1, 6, 7)], &[0, 1, 2, 3]);
}

#[test]
fn a_write_without_an_answer_may_have_its_effect_late_or_never() {
    let begun = [write(1, 1, 2), unknown(2, 3), read(1, 4, 5), read(1, 6, 7)];
    holds(&begun);
    holds(&[&begun[..], &[read(2, 8, 9), read(2, 10, 11)]].concat());
    holds(&[
        write(1, 1, 2),
        unknown(0, 3),
        read(1, 4, 5),
        read(0, 6, 7),
        write(2, 8, 9),
        read(2, 10, 11),
    ]);
}

#[test]
fn each_delete_without_an_answer_counts_once() {
    let twice = [write(1, 1, 2), read(0, 3, 4), write(2, 5, 6), read(0, 7, 8)];
    holds(&[&twice[..], &[unknown(0, 1), unknown(0, 1)]].concat());
    let once = [&twice[..], &[unknown(0, 1)]].concat();
    assert!(matches!(check(&once), Verdict::Broken(_)));
}

#[test]
fn what_touches_overlaps() {
    holds(&[write(1, 1, 5), read(0, 5, 6)]);
    breaks(&[write(1, 1, 4), read(0, 5, 6)], &[0, 1]);
}

#[test]
fn too_many_at_once_are_undecided() {
    let writes: Vec<Op> = (1..=65).map(|value| write(value, value, 1000)).collect();
    assert_eq!(check(&writes), Verdict::Undecided);
    // Any of 20 may be the last of those before each read.
    let mut hard: Vec<Op> = (1..=40).map(|value| write(value, value, 1000)).collect();
    hard.extend((1..=40).map(|value| read(value, value, 1000)));
    hard.iter_mut().for_each(|op| op.invoke_ns = 1);
    hard.truncate(62);
    hard.push(read(0, 1001, 1002));
    assert_eq!(check(&hard), Verdict::Undecided);
}

#[test]
fn writes_that_nobody_reads_are_not_hard() {
    let writes: Vec<Op> = (1..=60).map(|value| write(value, value, 1000)).collect();
    breaks(&[&writes[..], &[read(0, 1001, 1002)]].concat(), &[59, 60]);
    holds(&[&writes[..], &[read(30, 1001, 1002)]].concat());
}

#[test]
fn a_long_history_with_many_clients_is_decided() {
    let (ops, _) = atomic(&mut Random::new(3), 20, 20_000);
    holds(&ops);
}

#[test]
fn small_histories_are_judged_as_by_trying_every_order() {
    let mut counts = [0; 2];
    for seed in 0..20_000 {
        let ops = anything(&mut Random::new(seed));
        let expected = some_order(&ops, None, &mut vec![false; ops.len()]);
        let found = check(&ops);
        assert_eq!(found == Verdict::Linearizable, expected, "seed {seed}: {found:?} {ops:#?}");
        counts[usize::from(expected)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 2_000), "{counts:?}: both must be tried");
}

#[test]
fn a_part_of_a_broken_history_is_broken_and_small() {
    let mut broken = 0;
    for seed in 0..40 {
        let (mut ops, values) = atomic(&mut Random::new(seed), 6, 300);
        let reads: Vec<usize> =
            (100..ops.len()).filter(|op| ops[*op].action == Action::Read).collect();
        let Some(read) = reads.first() else { continue };
        // Long ago.
        ops[*read].value = values[1];
        let Verdict::Broken(_) = check(&ops) else { continue };
        broken += 1;
        let part: Vec<Op> = shrink(&ops).into_iter().map(|op| ops[op]).collect();
        assert!(
            matches!(check(&part), Verdict::Broken(_)) && part.len() <= 6,
            "seed {seed}: {part:#?}"
        );
    }
    assert!(broken > 20, "{broken}");
}

/// Tries every order that time allows: `next` comes next if nothing that is left ended before it
/// began.
fn some_order(ops: &[Op], value: Value, done: &mut Vec<bool>) -> bool {
    let left = |index: &usize| !done[*index];
    let left: Vec<usize> = (0..ops.len()).filter(left).collect();
    if left.iter().all(|op| ops[*op].return_ns.is_none()) {
        return true;
    }
    left.iter().any(|next| {
        let op = ops[*next];
        let too_late = |other: &usize| ops[*other].return_ns.is_some_and(|end| end < op.invoke_ns);
        if left.iter().any(too_late) || op.action == Action::Read && op.value != value {
            return false;
        }
        done[*next] = true;
        let found = some_order(ops, op.value, done);
        done[*next] = false;
        found
    })
}

/// A history of a few operations, most of which make little sense.
fn anything(random: &mut Random) -> Vec<Op> {
    let count = 2 + random.below(6);
    let mut written = 0;
    let ops = (0..count).map(|_| {
        let invoke_ns = random.below(12) as u64;
        let end = invoke_ns + 1 + random.below(6) as u64;
        let ends = random.below(4) > 0;
        match random.below(5) {
            0 => op(Action::Write, 0, invoke_ns, ends.then_some(end)),
            1 | 2 => {
                written += 1;
                op(Action::Write, written, invoke_ns, ends.then_some(end))
            }
            _ => read(random.below(4) as u64, invoke_ns, end),
        }
    });
    ops.collect()
}

/// A history of clients of a real register, by the moments at which each operation has its effect,
/// and the values that the register had.
fn atomic(random: &mut Random, clients: usize, count: usize) -> (Vec<Op>, Vec<Value>) {
    let mut free_at = vec![0; clients];
    let mut moments = Vec::with_capacity(count);
    for _ in 0..count {
        let client = random.below(clients);
        let invoke_ns = free_at[client] + 1 + random.below(20) as u64;
        let effect = invoke_ns + random.below(30) as u64;
        let end = effect + random.below(30) as u64;
        free_at[client] = end;
        moments.push((effect, invoke_ns, end));
    }
    moments.sort_unstable();
    let (mut value, mut written) = (None, 0);
    let mut values = Vec::new();
    let ops = moments.into_iter().map(|(_, invoke_ns, end)| {
        let action = if random.below(2) == 0 { Action::Read } else { Action::Write };
        let is_known = random.below(20) > 0;
        if action == Action::Write {
            written += 1;
            value = (random.below(4) > 0).then_some(written);
            values.push(value);
        }
        let return_ns = (action == Action::Read || is_known).then_some(end);
        Op { action, value, invoke_ns, return_ns }
    });
    (ops.collect(), values)
}
