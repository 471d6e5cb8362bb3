//! What happens next: events in the order of their time, and of their making at the same time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::latency::Micros;

/// A queue of events. Equal times come out in the order in which they went in.
#[derive(Debug)]
pub struct Queue<T> {
    order: BinaryHeap<Reverse<(Micros, u64, u32)>>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { order: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), sequence: 0 }
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

    /// Takes the next event out, unless it comes after `end`.
    pub fn pop(&mut self, end: Micros) -> Option<(Micros, T)> {
        let Reverse((at, _, slot)) = *self.order.peek()?;
        if at > end {
            return None;
        }
        self.order.pop();
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
        for (at, name) in [(5, "c"), (1, "a"), (5, "d"), (2, "b"), (9, "e")] {
            queue.push(at, name);
        }
        let mut out = Vec::new();
        while let Some((_, name)) = queue.pop(8) {
            out.push(name);
        }
        assert_eq!(out, ["a", "b", "c", "d"]);
        assert_eq!(queue.pop(9), Some((9, "e")));
    }
}
