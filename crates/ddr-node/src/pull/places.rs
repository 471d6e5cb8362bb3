//! Where the readers of one fetch are.
//!
//! Decides nothing; it counts who waits, and tells the fetch which bytes are waited for.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// A reader moves on by so much before the fetch is told.
const STEP_BYTES: u64 = 64 * 1024;

#[derive(Debug, Default)]
struct State {
    next: u64,
    count: usize,
    /// The byte that each reader needs next, of those that read.
    at: BTreeMap<u64, u64>,
}

/// All readers.
#[derive(Debug, Default)]
pub(crate) struct Places(Arc<watch::Sender<State>>);

impl Places {
    /// One more reader, until the answer is dropped.
    pub(crate) fn enter(&self) -> Place {
        Place::new(Arc::clone(&self.0))
    }

    /// Readers, also those that only wait.
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().count
    }

    /// Tells when somebody reads elsewhere.
    pub(crate) fn watch(&self) -> PlaceWatch {
        PlaceWatch(self.0.subscribe())
    }
}

/// See [`Places::watch`].
pub(crate) struct PlaceWatch(watch::Receiver<State>);

impl PlaceWatch {
    /// The bytes that are read next, once one has changed.
    pub(crate) async fn changed(&mut self) -> Vec<u64> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.0.borrow_and_update().at.values().copied().collect()
    }
}

/// One reader.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    places: Arc<watch::Sender<State>>,
}

impl Place {
    fn new(places: Arc<watch::Sender<State>>) -> Self {
        let mut id = 0;
        places.send_if_modified(|state| {
            id = state.next;
            state.next += 1;
            state.count += 1;
            false
        });
        Self { id, places }
    }

    /// It needs this byte next.
    pub(crate) fn set(&self, at: u64) {
        self.places.send_if_modified(|state| {
            let before = state.at.insert(self.id, at);
            before.is_none_or(|before| before / STEP_BYTES != at / STEP_BYTES)
        });
    }
}

impl Clone for Place {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.places))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.send_if_modified(|state| {
            state.count -= 1;
            state.at.remove(&self.id).is_some()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_reads_on_is_heard_and_who_leaves_is_not_counted() {
        let places = Places::default();
        let mut watch = places.watch();
        let (one, two) = (places.enter(), places.enter());
        one.set(10 * STEP_BYTES);
        two.set(5);
        assert_eq!(watch.changed().await, [10 * STEP_BYTES, 5]);
        two.set(6);
        assert!(!watch.0.has_changed().expect("it lives"), "a step is not worth a word");
        drop(one);
        assert_eq!(watch.changed().await, [6]);
        assert_eq!(places.count(), 1);
        let again = two.clone();
        drop(two);
        assert_eq!(places.count(), 1);
        drop(again);
        assert_eq!(places.count(), 0);
    }
}
