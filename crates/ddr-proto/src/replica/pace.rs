//! What is mended first, and how much of it in a second.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Timestamp;

/// Tasks that wait to be done; of more, those that are best off are left to the next round.
pub const MAX_MENDING: usize = 65_536;

/// Something that needs copies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Task<T> {
    /// What.
    pub item: T,
    /// Copies that are left.
    pub left: usize,
    /// Bytes that have to be moved.
    pub bytes: u64,
}

/// The line of what is to be mended: the scarcest first, of these the smallest.
#[derive(Clone, Debug)]
pub struct Pace<T> {
    /// Bytes a second.
    rate: Option<u64>,
    at_once: usize,
    running: BTreeSet<T>,
    line: BTreeSet<(usize, u64, T)>,
    places: BTreeMap<T, (usize, u64)>,
    waiting_bytes: u64,
    /// When what was begun so far is paid for.
    paid_until: Timestamp,
}

impl<T: Ord + Clone> Pace<T> {
    /// An empty line. `rate` is in bytes a second; `None` is no limit.
    #[must_use]
    pub const fn new(rate: Option<u64>, at_once: usize) -> Self {
        Self {
            rate,
            at_once,
            running: BTreeSet::new(),
            line: BTreeSet::new(),
            places: BTreeMap::new(),
            waiting_bytes: 0,
            paid_until: Timestamp(0),
        }
    }

    /// Puts a task in line, or gives it a new place there. One that runs is not begun a second time.
    pub fn add(&mut self, task: Task<T>) {
        if self.running.contains(&task.item) {
            return;
        }
        self.remove(&task.item);
        let Task { item, left, bytes } = task;
        self.places.insert(item.clone(), (left, bytes));
        self.line.insert((left, bytes, item));
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
        if self.line.len() > MAX_MENDING
            && let Some((.., last)) = self.line.last().cloned()
        {
            self.remove(&last);
        }
    }

    /// Takes a task out of the line.
    pub fn remove(&mut self, item: &T) {
        if let Some((left, bytes)) = self.places.remove(item) {
            self.line.remove(&(left, bytes, item.clone()));
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        }
    }

    /// The next task, if one may begin now. [`Self::ended`] must be called for it.
    pub fn next(&mut self, now: Timestamp) -> Option<Task<T>> {
        if self.running.len() >= self.at_once || now < self.paid_until {
            return None;
        }
        let (left, bytes, item) = self.line.first().cloned()?;
        self.remove(&item);
        self.running.insert(item.clone());
        let cost_ms = self.rate.map_or(0, |rate| bytes.saturating_mul(1_000) / rate.max(1));
        self.paid_until = Timestamp(self.paid_until.max(now).0.saturating_add(cost_ms));
        Some(Task { item, left, bytes })
    }

    /// A task that [`Self::next`] gave has ended, well or badly.
    pub fn ended(&mut self, item: &T) {
        self.running.remove(item);
    }

    /// When [`Self::next`] may have something that it has not now; `None`: not before something changes.
    #[must_use]
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let waits = self.running.len() < self.at_once && !self.line.is_empty();
        (waits && now < self.paid_until).then_some(self.paid_until)
    }

    /// Tasks in line, and their bytes.
    #[must_use]
    pub fn waiting(&self) -> (usize, u64) {
        (self.line.len(), self.waiting_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(item: u32, left: usize, bytes: u64) -> Task<u32> {
        Task { item, left, bytes }
    }

    #[test]
    fn the_scarcest_comes_first_then_the_smallest() {
        let mut pace = Pace::new(None, 9);
        for one in [task(1, 2, 5), task(2, 1, 900), task(3, 1, 30), task(4, 2, 4)] {
            pace.add(one);
        }
        let order: Vec<_> =
            std::iter::from_fn(|| pace.next(Timestamp(0))).map(|t| t.item).collect();
        assert_eq!(order, [3, 2, 4, 1]);
    }

    #[test]
    fn a_task_stands_in_line_once() {
        let mut pace = Pace::new(None, 9);
        pace.add(task(1, 2, 5));
        pace.add(task(1, 1, 7));
        assert_eq!(pace.waiting(), (1, 7));
        assert_eq!(pace.next(Timestamp(0)), Some(task(1, 1, 7)));
        assert_eq!(pace.waiting(), (0, 0));
    }

    #[test]
    fn a_task_that_runs_is_not_begun_again() {
        let mut pace = Pace::new(None, 9);
        pace.add(task(1, 2, 5));
        assert_eq!(pace.next(Timestamp(0)), Some(task(1, 2, 5)));
        pace.add(task(1, 2, 5));
        assert_eq!((pace.next(Timestamp(0)), pace.waiting()), (None, (0, 0)));
        pace.ended(&1);
        pace.add(task(1, 2, 5));
        assert_eq!(pace.next(Timestamp(0)), Some(task(1, 2, 5)));
    }

    #[test]
    fn no_more_bytes_are_begun_than_the_rate_pays_for() {
        let mut pace = Pace::new(Some(1_000), 9);
        (0..3).for_each(|item| pace.add(task(item, 1, 500)));
        assert!(pace.next(Timestamp(100)).is_some());
        assert_eq!(pace.next(Timestamp(599)), None);
        assert_eq!(pace.next_deadline(Timestamp(599)), Some(Timestamp(600)));
        assert!(pace.next(Timestamp(600)).is_some());
    }

    #[test]
    fn only_so_many_run_at_once_and_the_line_is_bounded() {
        let mut pace = Pace::new(None, 2);
        (0..MAX_MENDING as u32 + 10).for_each(|item| pace.add(task(item, 1, item.into())));
        assert_eq!(pace.waiting().0, MAX_MENDING);
        assert!(pace.next(Timestamp(0)).is_some() && pace.next(Timestamp(0)).is_some());
        assert_eq!(pace.next(Timestamp(0)), None);
        pace.ended(&1);
        assert_eq!(pace.next(Timestamp(0)).map(|t| t.item), Some(2));
    }
}
