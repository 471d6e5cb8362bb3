//! Is the history of one register linearizable?
//!
//! Wing and Gong's question (1993), answered as Lowe does (2017): events are taken in the order of
//! time, and an operation is linearized no sooner than its end makes it necessary. A configuration is
//! what may be true at a moment: which of the operations under way have had their effect, and the
//! value. The values that are written differ, so that a read names its write; deletes all write `None`.
//! These rules keep the configurations few, and none loses a linearization:
//!
//! - A read changes nothing, so it has its effect as soon as the value fits.
//! - A value that is gone does not come back: none is overwritten before the last read of it began.
//! - A write comes before the end of the first read of it, even if it ends later or never.
//! - A write whose value nobody reads has its effect right before the next one. Without a known end it
//!   is left out: were it in a linearization, it could be taken out of it.
//! - Deletes without a known end are alike: only how many were needed counts, the fewer the better.

use std::cmp::Reverse;
use std::collections::hash_map::{Entry, HashMap};

/// What a tag says: the number of a write, or nothing.
pub(super) type Value = Option<u64>;

/// Configurations that are looked at for the end of one operation; beyond, the history is too hard.
const MAX_CONFIGURATIONS: usize = 1 << 18;

/// The same for a whole history.
const MAX_IN_ALL: usize = 1 << 25;

/// Operations under way at once: the bits of [`Configuration`].
const MAX_PENDING: usize = 64;

/// Stands for every value that nobody reads.
const UNREAD: u64 = u64::MAX - 1;

/// What one operation did, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) action: Action,
    pub(super) value: Value,
    /// Nanoseconds.
    pub(super) invoke_ns: u64,
    /// `None`: it may have its effect at any time after it was asked for, or never.
    pub(super) return_ns: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Linearizable,
    /// No order explains everything up to the end of this operation, by its place in the history.
    Broken(usize),
    /// The limits were reached.
    Undecided,
}

/// Whether one order explains all of `ops` on a register that says nothing at first.
pub(super) fn check(ops: &[Op]) -> Verdict {
    let reads = reads(ops);
    let events = events(ops, &reads);
    let mut search = Search::new(ops, reads);
    for event in events {
        match event.what {
            What::Return(op) => match search.returned(op) {
                Ok(true) => {}
                Ok(false) => return Verdict::Broken(op),
                Err(TooHard) => return Verdict::Undecided,
            },
            What::Invoke(op) => {
                if let Err(TooHard) = search.invoked(op) {
                    return Verdict::Undecided;
                }
            }
            What::UnknownDelete => search.unknown_deletes += 1,
        }
    }
    Verdict::Linearizable
}

#[derive(Debug)]
struct TooHard;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    at_ns: u64,
    what: What,
}

/// At one moment what begins comes before what ends: they overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    UnknownDelete,
    Invoke(usize),
    Return(usize),
}

/// The reads of one value.
#[derive(Debug, Clone, Copy)]
struct Reads {
    first_end_ns: u64,
    /// Those that have not begun.
    to_come: usize,
}

fn reads(ops: &[Op]) -> HashMap<u64, Reads> {
    let mut reads = HashMap::<u64, Reads>::new();
    for op in ops.iter().filter(|op| op.action == Action::Read) {
        if let (Some(value), Some(end_ns)) = (op.value, op.return_ns) {
            let of_value = reads.entry(value).or_insert(Reads { first_end_ns: end_ns, to_come: 0 });
            of_value.first_end_ns = end_ns.min(of_value.first_end_ns);
            of_value.to_come += 1;
        }
    }
    reads
}

fn events(ops: &[Op], reads: &HashMap<u64, Reads>) -> Vec<Event> {
    let mut events = Vec::with_capacity(2 * ops.len());
    for (index, op) in ops.iter().enumerate() {
        let first_read_ns = op.value.and_then(|value| reads.get(&value)).map(|r| r.first_end_ns);
        let end_ns = match (op.action, op.return_ns, first_read_ns) {
            (Action::Read, Some(end_ns), _) | (Action::Write, Some(end_ns), None) => end_ns,
            (Action::Write, end_ns, Some(first_ns)) => {
                op.invoke_ns.max(end_ns.map_or(first_ns, |end_ns| end_ns.min(first_ns)))
            }
            (Action::Write, None, None) if op.value.is_none() => {
                events.push(Event { at_ns: op.invoke_ns, what: What::UnknownDelete });
                continue;
            }
            (_, None, None) | (Action::Read, None, Some(_)) => continue,
        };
        events.push(Event { at_ns: op.invoke_ns, what: What::Invoke(index) });
        events.push(Event { at_ns: end_ns, what: What::Return(index) });
    }
    events.sort_unstable_by_key(|event| (event.at_ns, event.what));
    events
}

/// What may be true at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Configuration {
    /// Bit by slot: the operation under way has had its effect.
    done: u64,
    value: Value,
}

/// Configurations, with the fewest deletes of unknown outcome that lead to each.
type Reached = HashMap<Configuration, u32>;

struct Search<'a> {
    ops: &'a [Op],
    reads: HashMap<u64, Reads>,
    /// Operations under way, by slot.
    pending: Vec<Option<usize>>,
    unknown_deletes: u32,
    reached: Reached,
    looked_at: usize,
}

impl<'a> Search<'a> {
    fn new(ops: &'a [Op], reads: HashMap<u64, Reads>) -> Self {
        let start = Configuration { done: 0, value: None };
        Self {
            ops,
            reads,
            pending: Vec::new(),
            unknown_deletes: 0,
            reached: [(start, 0)].into(),
            looked_at: 0,
        }
    }

    fn invoked(&mut self, op: usize) -> Result<(), TooHard> {
        let free = self.pending.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.pending.len());
        if slot >= MAX_PENDING {
            return Err(TooHard);
        }
        if slot == self.pending.len() {
            self.pending.push(None);
        }
        self.pending[slot] = Some(op);
        if self.ops[op].action == Action::Read {
            let reads = self.ops[op].value.and_then(|value| self.reads.get_mut(&value));
            if let Some(reads) = reads {
                reads.to_come -= 1;
            }
            let before = std::mem::take(&mut self.reached);
            let with_reads = before.into_iter().map(|(at, used)| (self.with_reads(at), used));
            self.reached = with_reads.collect();
        }
        Ok(())
    }

    /// Goes on from every configuration until `op` has had its effect. False: from none it can.
    fn returned(&mut self, op: usize) -> Result<bool, TooHard> {
        let slot = self.pending.iter().position(|pending| *pending == Some(op));
        let slot = slot.expect("what ends has begun");
        let bit = 1 << slot;
        let mut next = Reached::new();
        let mut seen = std::mem::take(&mut self.reached);
        let mut open: Vec<(Configuration, u32)> =
            seen.iter().map(|(at, used)| (*at, *used)).collect();
        // Those that needed fewer deletes first, so that few are looked at twice.
        open.sort_unstable_by_key(|(_, used)| Reverse(*used));
        let mut looked_at = 0;
        while let Some((at, used)) = open.pop() {
            looked_at += 1;
            if looked_at > MAX_CONFIGURATIONS {
                return Err(TooHard);
            }
            if at.done & bit != 0 {
                improve(&mut next, Configuration { done: at.done & !bit, ..at }, used);
                continue;
            }
            for (after, used) in self.steps(at, used) {
                if improve(&mut seen, after, used) {
                    open.push((after, used));
                }
            }
        }
        self.looked_at += looked_at;
        self.pending[slot] = None;
        self.reached = next;
        if self.looked_at > MAX_IN_ALL { Err(TooHard) } else { Ok(!self.reached.is_empty()) }
    }

    /// Where one more write leads from `at`.
    fn steps(&self, at: Configuration, used: u32) -> Vec<(Configuration, u32)> {
        let reads = at.value.and_then(|value| self.reads.get(&value));
        if reads.is_some_and(|reads| reads.to_come > 0) {
            return Vec::new();
        }
        let left = |slot: usize| at.done & 1 << slot == 0;
        let writes = self.writes().filter(|(slot, _)| left(*slot));
        let unread = writes.clone().filter(|(_, value)| *value == Some(UNREAD));
        let overwritten = unread.fold(0, |bits, (slot, _)| bits | 1 << slot);
        let after = |slot: usize, value| {
            let done = at.done | overwritten | 1 << slot;
            self.with_reads(Configuration { done, value })
        };
        let mut steps: Vec<(Configuration, u32)> =
            writes.map(|(slot, value)| (after(slot, value), used)).collect();
        if used < self.unknown_deletes && at.value.is_some() {
            let done = at.done | overwritten;
            steps.push((self.with_reads(Configuration { done, value: None }), used + 1));
        }
        steps
    }

    /// Slots and values of the writes under way.
    fn writes(&self) -> impl Iterator<Item = (usize, Value)> + Clone + '_ {
        self.pending.iter().enumerate().filter_map(|(slot, op)| {
            let op = op.map(|op| &self.ops[op]).filter(|op| op.action == Action::Write)?;
            let is_read = |value: &u64| self.reads.contains_key(value);
            Some((slot, op.value.map(|value| if is_read(&value) { value } else { UNREAD })))
        })
    }

    /// The same after all reads under way that the value fits.
    fn with_reads(&self, mut at: Configuration) -> Configuration {
        for (slot, op) in self.pending.iter().enumerate() {
            let Some(op) = op.map(|op| &self.ops[op]) else { continue };
            if op.action == Action::Read && op.value == at.value {
                at.done |= 1 << slot;
            }
        }
        at
    }
}

/// Notes that `at` can be reached with `used` deletes. False when that was known.
fn improve(reached: &mut Reached, at: Configuration, used: u32) -> bool {
    match reached.entry(at) {
        Entry::Occupied(known) if *known.get() <= used => false,
        Entry::Occupied(mut known) => {
            known.insert(used);
            true
        }
        Entry::Vacant(new) => {
            new.insert(used);
            true
        }
    }
}

/// A small part of a history that is broken and that no order explains either: places in `ops`.
///
/// What may be left out: whatever began after the first contradiction, any read, and a write whose
/// value nobody reads. A history in which that is left out is linearizable if the whole one is.
/// Deletes without a known end explain nothing here, but must stay.
pub(super) fn shrink(ops: &[Op]) -> Vec<usize> {
    let broken = |kept: &[usize]| {
        let part: Vec<Op> = kept.iter().map(|index| ops[*index]).collect();
        matches!(check(&part), Verdict::Broken(_))
    };
    let mut kept: Vec<usize> = (0..ops.len()).collect();
    if !broken(&kept) {
        return Vec::new();
    }
    kept.sort_by_key(|op| ops[*op].invoke_ns);
    let (mut whole, mut broken_at) = (0, kept.len());
    while whole + 1 < broken_at {
        let middle = usize::midpoint(whole, broken_at);
        if broken(&kept[..middle]) { broken_at = middle } else { whole = middle }
    }
    kept.truncate(broken_at);
    kept.sort_unstable();
    loop {
        let before = kept.len();
        let is_read = |index: usize| ops[index].action == Action::Read;
        leave_out(&mut kept, is_read, &broken);
        let values: Vec<Value> =
            kept.iter().filter(|op| is_read(**op)).map(|op| ops[*op].value).collect();
        leave_out(&mut kept, |op| !is_read(op) && !values.contains(&ops[op].value), &broken);
        if kept.len() == before {
            return kept;
        }
    }
}

/// Takes out of `kept` what may be left out, in pieces that get smaller, while it stays broken.
fn leave_out(
    kept: &mut Vec<usize>,
    may_go: impl Fn(usize) -> bool,
    broken: &impl Fn(&[usize]) -> bool,
) {
    let mut piece = kept.len();
    while piece > 0 {
        let candidates: Vec<usize> = kept.iter().copied().filter(|op| may_go(*op)).collect();
        for gone in candidates.chunks(piece) {
            let without: Vec<usize> =
                kept.iter().copied().filter(|op| !gone.contains(op)).collect();
            if broken(&without) {
                *kept = without;
            }
        }
        piece /= 2;
    }
}

#[cfg(test)]
mod tests;
