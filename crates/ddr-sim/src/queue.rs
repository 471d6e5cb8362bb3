//! What happens next: events in the order of their time, and of their making at the same time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::latency::Micros;

/// A queue of events. Equal times come out in the order in which they went in.
#[derive(Debug)]
pub struct Queue<T> {
    order: BinaryHeap<Reverse<(Micros, u64, u32)>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    /// Events that went in by the order of their time, so that nothing needs to be sorted.
    lane: VecDeque<(Micros, u64, T)>,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            order: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            lane: VecDeque::new(),
            sequence: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Puts an event in.
    pub fn push(&mut self, at: Micros, event: T) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        self.slots[slot as usize] = Some(event);
        self.sequence += 1;
        self.order.push(Reverse((at, self.sequence, slot)));
    }

    /// Puts an event in that comes at no earlier a time than the last one that was put in so: cheaper
    /// than [`Self::push`], and the same otherwise.
    pub fn push_in_order(&mut self, at: Micros, event: T) {
        debug_assert!(self.lane.back().is_none_or(|last| last.0 <= at));
        self.sequence += 1;
        self.lane.push_back((at, self.sequence, event));
    }

    /// Takes the next event out, unless it comes after `end`.
    pub fn pop(&mut self, end: Micros) -> Option<(Micros, T)> {
        let sorted = self.order.peek().map(|Reverse((at, sequence, _))| (*at, *sequence));
        let lane = self.lane.front().map(|(at, sequence, _)| (*at, *sequence));
        let (at, _) = sorted.into_iter().chain(lane).min()?;
        if at > end {
            return None;
        }
        if lane.is_some_and(|lane| sorted.is_none_or(|sorted| lane < sorted)) {
            return self.lane.pop_front().map(|(at, _, event)| (at, event));
        }
        let Reverse((_, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        self.slots[slot as usize].take().map(|event| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_rules_then_order() {
        let mut queue = Queue::default();
        for (at, name) in [(5, "c"), (1, "a"), (5, "d")] {
            queue.push(at, name);
        }
        queue.push_in_order(5, "e");
        for (at, name) in [(5, "f"), (2, "b"), (9, "h")] {
            queue.push(at, name);
        }
        queue.push_in_order(7, "g");
        let mut out = Vec::new();
        while let Some((_, name)) = queue.pop(8) {
            out.push(name);
        }
        assert_eq!(out, ["a", "b", "c", "d", "e", "f", "g"]);
        assert_eq!(queue.pop(9), Some((9, "h")));
    }
}
