//! What the readers of one fetch want, and where they are.
//!
//! Decides nothing; it counts who waits, and tells the fetch which bytes are waited for.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use tokio::sync::watch;

/// A reader moves on by so much before the fetch is told.
const STEP_BYTES: u64 = 64 * 1024;

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A client reads the blob from its first byte to its last.
    Read,
    /// A client reads a part of it.
    ReadPart,
    /// It is to be stored; no client waits.
    Store,
}

/// One who waits.
#[derive(Debug)]
struct Reader {
    purpose: Purpose,
    /// What is still to be read, once reading began.
    left: Option<Range<u64>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    readers: BTreeMap<u64, Reader>,
}

/// All readers.
#[derive(Debug, Default)]
pub(crate) struct Places(Arc<watch::Sender<State>>);

impl Places {
    /// What is wanted now; `None`: there is nobody.
    pub(crate) fn wish(&self) -> Option<Wish> {
        wish_of(&self.0.borrow())
    }

    /// One more, until the answer is dropped.
    pub(crate) fn enter(&self, purpose: Purpose) -> Place {
        Place::new(Arc::clone(&self.0), purpose)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().readers.len()
    }

    /// Tells when somebody comes, leaves or reads elsewhere.
    pub(crate) fn watch(&self) -> PlaceWatch {
        PlaceWatch(self.0.subscribe())
    }
}

/// What all readers together want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Somebody needs the whole blob.
    pub(crate) whole: bool,
    /// A client waits.
    pub(crate) is_read: bool,
    /// What each client that reads has still to read.
    pub(crate) left: Vec<Range<u64>>,
}

/// See [`Places::watch`].
pub(crate) struct PlaceWatch(watch::Receiver<State>);

impl PlaceWatch {
    /// Waits for a change.
    pub(crate) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What is wanted now; `None`: there is nobody.
    pub(crate) fn wish(&mut self) -> Option<Wish> {
        wish_of(&self.0.borrow_and_update())
    }
}

fn wish_of(state: &State) -> Option<Wish> {
    let mut wish = Wish::default();
    for reader in state.readers.values() {
        wish.whole |= reader.purpose != Purpose::ReadPart;
        wish.is_read |= reader.purpose != Purpose::Store;
        wish.left.extend(reader.left.clone());
    }
    (!state.readers.is_empty()).then_some(wish)
}

/// One reader.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    purpose: Purpose,
    places: Arc<watch::Sender<State>>,
}

impl Place {
    fn new(places: Arc<watch::Sender<State>>, purpose: Purpose) -> Self {
        let mut id = 0;
        places.send_modify(|state| {
            id = state.next;
            state.next += 1;
            state.readers.insert(id, Reader { purpose, left: None });
        });
        Self { id, purpose, places }
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// It reads these bytes next.
    pub(crate) fn set(&self, left: Range<u64>) {
        self.places.send_if_modified(|state| {
            let Some(reader) = state.readers.get_mut(&self.id) else { return false };
            let before = reader.left.replace(left.clone());
            before.is_none_or(|before| before.start / STEP_BYTES != left.start / STEP_BYTES)
        });
    }
}

impl Clone for Place {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.places), self.purpose)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.send_modify(|state| {
            state.readers.remove(&self.id);
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
        assert_eq!(watch.wish(), None);
        let (one, two) = (places.enter(Purpose::ReadPart), places.enter(Purpose::ReadPart));
        one.set(10 * STEP_BYTES..20 * STEP_BYTES);
        two.set(5..6);
        watch.changed().await;
        let left = vec![10 * STEP_BYTES..20 * STEP_BYTES, 5..6];
        assert_eq!(watch.wish(), Some(Wish { whole: false, is_read: true, left }));
        two.set(6..7);
        assert!(!watch.0.has_changed().expect("it lives"), "a step is not worth a word");
        drop(one);
        watch.changed().await;
        let (whole, is_read) = (false, true);
        assert_eq!(
            watch.wish(),
            Some(Wish { whole, is_read, left: std::iter::once(6..7).collect() })
        );
        let again = two.clone();
        drop(two);
        assert_eq!(places.count(), 1);
        drop(again);
        assert_eq!(places.count(), 0);
    }

    #[test]
    fn who_stores_wants_all_and_no_client_waits() {
        let places = Places::default();
        let mut watch = places.watch();
        let _store = places.enter(Purpose::Store);
        let wish = Wish { whole: true, is_read: false, left: Vec::new() };
        assert_eq!(watch.wish(), Some(wish));
        let _part = places.enter(Purpose::ReadPart);
        let wish = Wish { whole: true, is_read: true, left: Vec::new() };
        assert_eq!(watch.wish(), Some(wish));
    }
}
