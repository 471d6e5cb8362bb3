//! A bounded memory in two generations: when the young one is full it becomes the old one, and
//! what was old is forgotten. What is read is young again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module comment. Holds at most twice its limit.
pub(crate) struct Cache<V> {
    limit: usize,
    state: Mutex<State<V>>,
}

struct State<V> {
    young: HashMap<[u8; 32], V>,
    old: HashMap<[u8; 32], V>,
    turns: u64,
}

impl<V: Clone> Cache<V> {
    /// Two generations of `limit` values each.
    pub(crate) fn new(limit: usize) -> Self {
        let state = State { young: HashMap::new(), old: HashMap::new(), turns: 0 };
        Self { limit, state: Mutex::new(state) }
    }

    /// The value of `key`, if it is remembered.
    pub(crate) fn get(&self, key: &[u8; 32]) -> Option<V> {
        let mut state = self.state();
        if let Some(value) = state.young.get(key) {
            return Some(value.clone());
        }
        let value = state.old.remove(key)?;
        state.insert(*key, value.clone(), self.limit);
        Some(value)
    }

    /// How often something was forgotten; see [`Self::insert`].
    pub(crate) fn turns(&self) -> u64 {
        self.state().turns
    }

    /// Remembers `value` unless `keeps` says that the one there must stay. With `since`: only if
    /// nothing was forgotten since [`Self::turns`] gave that, so that a value read from elsewhere
    /// before never takes the place of a newer one that was forgotten meanwhile.
    pub(crate) fn insert(
        &self,
        key: [u8; 32],
        value: V,
        since: Option<u64>,
        keeps: impl FnOnce(&V) -> bool,
    ) {
        let mut state = self.state();
        if since.is_some_and(|since| since != state.turns) {
            return;
        }
        let there = state.young.get(&key).or_else(|| state.old.get(&key));
        if !there.is_some_and(keeps) {
            state.old.remove(&key);
            state.insert(key, value, self.limit);
        }
    }

    /// Forgets `key`.
    pub(crate) fn remove(&self, key: &[u8; 32]) {
        let mut state = self.state();
        state.young.remove(key);
        state.old.remove(key);
        state.turns += 1;
    }

    fn state(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> State<V> {
    fn insert(&mut self, key: [u8; 32], value: V, limit: usize) {
        if self.young.len() >= limit && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
            self.turns += 1;
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keeps_what_is_read() {
        let cache = Cache::new(4);
        for number in 0..100_u8 {
            cache.insert([number; 32], number, None, |_| false);
            assert_eq!(cache.get(&[0; 32]), Some(0), "read all the time");
            let state = cache.state();
            assert!(state.young.len() <= 4 && state.old.len() <= 4);
        }
        assert_eq!(cache.get(&[50; 32]), None, "read never");
    }

    #[test]
    fn what_was_read_before_a_turn_is_not_remembered_after_it() {
        let cache = Cache::new(1);
        let since = cache.turns();
        cache.insert([1; 32], 10, None, |_| false);
        cache.insert([2; 32], 20, None, |_| false);
        cache.insert([3; 32], 30, None, |_| false);
        assert_eq!(cache.get(&[1; 32]), None, "forgotten");
        cache.insert([1; 32], 9, Some(since), |_| false);
        assert_eq!(cache.get(&[1; 32]), None, "9 may be older than what was forgotten");
        cache.insert([1; 32], 10, Some(cache.turns()), |_| false);
        cache.insert([1; 32], 9, None, |there| *there > 9);
        assert_eq!(cache.get(&[1; 32]), Some(10));
        cache.remove(&[1; 32]);
        assert_eq!(cache.get(&[1; 32]), None);
    }
}
