//! What was deleted here, so that it is not fetched again from a peer that still has it.
//!
//! Each mark holds for [`KEEP_MS`]; a new push takes it away. Other nodes' copies are not touched:
//! a delete by digest is this node's, a delete of a tag is the swarm's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ddr_oci::{Digest, RepositoryName};
use ddr_store::{IndexError, Store};

use crate::clock::Clock;

/// How long a delete is remembered: 7 days, as long as a tombstone.
const KEEP_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Marks that are kept; beyond, the oldest goes.
const MAX_MARKS: usize = 2048;
/// Where the marks lie in the store's settings.
const SETTING: &str = "deleted";

type Marks = BTreeMap<(RepositoryName, Digest), u64>;

/// See the module comment.
pub(crate) struct Deleted {
    store: Store,
    clock: Clock,
    marks: Mutex<Marks>,
    /// Held from the change until it is on the disk, so that an older list never follows a newer
    /// one there. Not `marks` itself: reads must not wait for the disk.
    saving: Mutex<()>,
}

impl Deleted {
    /// Reads the marks of earlier runs. Blocks.
    pub(crate) fn load(store: Store, clock: Clock) -> Result<Self, IndexError> {
        let saved = store.get_setting(SETTING)?.unwrap_or_default();
        let rows: Vec<(RepositoryName, Digest, u64)> =
            serde_json::from_slice(&saved).unwrap_or_default();
        let marks = rows.into_iter().map(|(name, digest, until)| ((name, digest), until)).collect();
        Ok(Self { store, clock, marks: Mutex::new(marks), saving: Mutex::new(()) })
    }

    /// True when `digest` was deleted from `repository` here and not pushed since.
    pub(crate) fn contains(&self, repository: &RepositoryName, digest: &Digest) -> bool {
        let marks = self.marks();
        !marks.is_empty()
            && marks
                .get(&(repository.clone(), *digest))
                .is_some_and(|until_ms| *until_ms > self.clock.now_ms())
    }

    /// Remembers a delete. Blocks.
    pub(crate) fn mark(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), IndexError> {
        let now_ms = self.clock.now_ms();
        let _saving = self.saving();
        let rows = {
            let mut marks = self.marks();
            marks.retain(|_, until_ms| *until_ms > now_ms);
            if marks.len() >= MAX_MARKS {
                let oldest = marks.iter().min_by_key(|(_, until_ms)| **until_ms);
                if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                    marks.remove(&oldest);
                }
            }
            marks.insert((repository.clone(), *digest), now_ms + KEEP_MS);
            rows(&marks)
        };
        self.store.set_setting(SETTING, &rows)
    }

    /// Forgets a delete, because the content was pushed again. Blocks.
    pub(crate) fn unmark(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), IndexError> {
        let _saving = self.saving();
        let rows = {
            let mut marks = self.marks();
            if marks.is_empty() || marks.remove(&(repository.clone(), *digest)).is_none() {
                return Ok(());
            }
            rows(&marks)
        };
        self.store.set_setting(SETTING, &rows)
    }

    fn saving(&self) -> MutexGuard<'_, ()> {
        self.saving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rows(marks: &Marks) -> Vec<u8> {
    let rows: Vec<_> = marks.iter().map(|((name, digest), until)| (name, digest, until)).collect();
    serde_json::to_vec(&rows).expect("names, digests and numbers have a JSON form")
}

#[cfg(test)]
mod tests {
    use ddr_store::StoreConfig;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn marks_last_over_a_restart_and_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreConfig::new(dir.path())).expect("a store");
        let clock = Clock::start();
        let name: RepositoryName = "team/app".parse().expect("a name");
        let (one, two) = (Digest::sha256(b"one"), Digest::sha256(b"two"));
        let deleted = Deleted::load(store.clone(), clock).expect("empty");
        deleted.mark(&name, &one).expect("marked");
        deleted.mark(&name, &two).expect("marked");
        deleted.unmark(&name, &two).expect("unmarked");
        let again = Deleted::load(store, clock).expect("read");
        assert!(again.contains(&name, &one) && !again.contains(&name, &two));
        assert!(!again.contains(&"other".parse().expect("a name"), &one));
        tokio::time::advance(std::time::Duration::from_millis(KEEP_MS)).await;
        assert!(!again.contains(&name, &one));
    }

    #[tokio::test]
    async fn marks_are_bounded_and_fit_their_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreConfig::new(dir.path())).expect("a store");
        let deleted = Deleted::load(store, Clock::start()).expect("empty");
        let name: RepositoryName =
            format!("{}a", "a/".repeat(127)).parse().expect("a name of 255 bytes");
        for number in 0..MAX_MARKS as u64 {
            let digest = Digest::of(ddr_oci::Algorithm::Sha512, &number.to_be_bytes());
            deleted.marks().insert((name.clone(), digest), number);
        }
        let last = rows(&deleted.marks());
        assert!(last.len() <= ddr_store::MAX_SETTING_BYTES, "{} bytes", last.len());
        deleted.mark(&name, &Digest::sha256(b"one more")).expect("fits");
        assert!(deleted.marks().len() <= MAX_MARKS);
    }
}
