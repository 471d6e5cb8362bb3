//! Manifests in memory, so that a read of one that is asked for again and again needs no disk and
//! no thread that may wait for one.
//!
//! Decides what is kept: what was read last, within [`MAX_BYTES`]. It must never give what was
//! removed or replaced: every change of a manifest's rows ends, after its commit and before it is
//! answered, with [`Manifests::forget`] or [`Manifests::clear`], and what was read before such a
//! call is not kept after it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;

use super::manifests::StoredManifest;
use super::reach::TOUCH_STEP_MS;

/// Bytes of all that is kept.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Largest manifest that is kept: one is never a large part of all.
const MAX_ENTRY_BYTES: usize = 1024 * 1024;
/// What a manifest costs beside its bytes.
const ENTRY_BYTES: usize = 512;
/// What a repository that has it costs, beside its name.
const NAME_BYTES: usize = 64;
/// Repositories that are known of one manifest; of more, the earlier ones are forgotten.
const MAX_REPOSITORIES: usize = 64;

/// See the module comment.
#[derive(Debug, Default)]
pub(super) struct Manifests(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    /// The keys of `entries`, oldest first.
    order: VecDeque<Digest>,
    bytes: usize,
    /// Changes seen so far.
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    manifest: Arc<StoredManifest>,
    /// Who has it, and when that use was last to be noted, unix milliseconds.
    repositories: BTreeMap<RepositoryName, AtomicU64>,
    bytes: usize,
    /// Read since it was last looked at for removal.
    used: AtomicBool,
}

/// A moment before a read from the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(u64);

impl Manifests {
    /// The manifest, and whether this use of it, at `now_ms`, is one to note: one in
    /// [`TOUCH_STEP_MS`] is.
    pub(super) fn get(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        now_ms: u64,
    ) -> Option<(Arc<StoredManifest>, bool)> {
        let state = self.read();
        let entry = state.entries.get(digest)?;
        let noted = entry.repositories.get(repository)?;
        entry.used.store(true, Ordering::Relaxed);
        let last_ms = noted.load(Ordering::Relaxed);
        let is_due = last_ms.abs_diff(now_ms) >= TOUCH_STEP_MS
            && noted
                .compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        Some((Arc::clone(&entry.manifest), is_due))
    }

    /// Now: what is read from the disk after this may be kept if nothing changes meanwhile.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.read().changes)
    }

    /// Keeps what was read after `moment`.
    pub(super) fn keep(
        &self,
        moment: Moment,
        repository: &RepositoryName,
        digest: &Digest,
        manifest: &StoredManifest,
    ) {
        if manifest.bytes.len() > MAX_ENTRY_BYTES {
            return;
        }
        let mut state = self.write();
        if state.changes != moment.0 {
            return;
        }
        state.insert(repository, digest, manifest);
        while state.bytes > MAX_BYTES {
            state.evict();
        }
    }

    /// A manifest was stored, or removed from a repository.
    pub(super) fn forget(&self, digest: &Digest) {
        let mut state = self.write();
        state.changes += 1;
        if state.remove(digest) {
            state.order.retain(|kept| kept != digest);
        }
    }

    /// Any number of manifests was removed.
    pub(super) fn clear(&self) {
        let mut state = self.write();
        let changes = state.changes + 1;
        *state = State { changes, ..State::default() };
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, repository: &RepositoryName, digest: &Digest, manifest: &StoredManifest) {
        let entry = self.entries.entry(*digest).or_insert_with(|| {
            let bytes = manifest.bytes.len() + manifest.media_type.len() + ENTRY_BYTES;
            self.order.push_back(*digest);
            self.bytes += bytes;
            let (manifest, repositories) = (Arc::new(manifest.clone()), BTreeMap::new());
            Entry { manifest, repositories, bytes, used: AtomicBool::new(false) }
        });
        if entry.repositories.len() >= MAX_REPOSITORIES {
            let names: usize = entry.repositories.keys().map(cost).sum();
            entry.repositories.clear();
            entry.bytes -= names;
            self.bytes -= names;
        }
        if !entry.repositories.contains_key(repository) {
            entry.repositories.insert(repository.clone(), AtomicU64::new(0));
            entry.bytes += cost(repository);
            self.bytes += cost(repository);
        }
    }

    /// Takes the oldest away that was not read lately (second chance).
    fn evict(&mut self) {
        while let Some(oldest) = self.order.pop_front() {
            let used =
                self.entries.get(&oldest).is_some_and(|e| e.used.swap(false, Ordering::Relaxed));
            if !used {
                self.remove(&oldest);
                return;
            }
            self.order.push_back(oldest);
        }
    }

    fn remove(&mut self, digest: &Digest) -> bool {
        let Some(entry) = self.entries.remove(digest) else { return false };
        self.bytes -= entry.bytes;
        true
    }
}

fn cost(repository: &RepositoryName) -> usize {
    repository.as_str().len() + NAME_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    fn name(text: &str) -> RepositoryName {
        text.parse().unwrap()
    }

    fn manifest(len: usize) -> StoredManifest {
        StoredManifest { media_type: "a/b".into(), bytes: vec![b'x'; len] }
    }

    #[test]
    fn only_the_repository_that_read_it_gets_it() {
        let kept = Manifests::default();
        let (digest, one, other) = (Digest::sha256(b"1"), name("one"), name("other"));
        kept.keep(kept.moment(), &one, &digest, &manifest(10));
        assert_eq!(*kept.get(&one, &digest, NOW_MS).unwrap().0, manifest(10));
        assert!(kept.get(&other, &digest, NOW_MS).is_none());
    }

    #[test]
    fn a_use_is_noted_once_in_a_while_for_each_repository() {
        let kept = Manifests::default();
        let (digest, one, other) = (Digest::sha256(b"1"), name("one"), name("other"));
        kept.keep(kept.moment(), &one, &digest, &manifest(10));
        kept.keep(kept.moment(), &other, &digest, &manifest(10));
        let due = |name, after| kept.get(name, &digest, NOW_MS + after).unwrap().1;
        assert_eq!([due(&one, 0), due(&one, 1), due(&other, 1)], [true, false, true]);
        assert_eq!([due(&one, TOUCH_STEP_MS - 1), due(&one, TOUCH_STEP_MS)], [false, true]);
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let kept = Manifests::default();
        let (digest, one) = (Digest::sha256(b"1"), name("one"));
        let before = kept.moment();
        kept.forget(&digest);
        kept.keep(before, &one, &digest, &manifest(10));
        assert!(kept.get(&one, &digest, NOW_MS).is_none());
        let before = kept.moment();
        kept.clear();
        kept.keep(before, &one, &digest, &manifest(10));
        assert!(kept.get(&one, &digest, NOW_MS).is_none());
        kept.keep(kept.moment(), &one, &digest, &manifest(10));
        assert!(kept.get(&one, &digest, NOW_MS).is_some());
        kept.clear();
        assert!(kept.get(&one, &digest, NOW_MS).is_none());
        assert_eq!(kept.read().bytes, 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_read_stays() {
        let kept = Manifests::default();
        let hot = Digest::sha256(b"hot");
        kept.keep(kept.moment(), &name("a"), &hot, &manifest(100));
        for number in 0..200_u32 {
            let digest = Digest::sha256(&number.to_be_bytes());
            kept.keep(kept.moment(), &name("a"), &digest, &manifest(MAX_ENTRY_BYTES / 2));
            assert!(kept.get(&name("a"), &hot, NOW_MS).is_some(), "{number}");
            assert!(kept.read().bytes <= MAX_BYTES);
        }
        let huge = Digest::sha256(b"huge");
        kept.keep(kept.moment(), &name("a"), &huge, &manifest(MAX_ENTRY_BYTES + 1));
        assert!(kept.get(&name("a"), &huge, NOW_MS).is_none());
        for number in 0..1000 {
            kept.keep(kept.moment(), &name(&format!("r{number}")), &hot, &manifest(100));
        }
        let state = kept.read();
        assert!(state.entries[&hot].repositories.len() <= MAX_REPOSITORIES);
        assert_eq!(state.bytes, state.entries.values().map(|entry| entry.bytes).sum::<usize>());
        assert_eq!(state.order.len(), state.entries.len());
    }

    #[test]
    fn forgetting_leaves_nothing_behind() {
        let kept = Manifests::default();
        let digest = Digest::sha256(b"1");
        for _ in 0..100 {
            kept.keep(kept.moment(), &name("a"), &digest, &manifest(10));
            kept.forget(&digest);
        }
        let state = kept.read();
        assert_eq!((state.order.len(), state.entries.len(), state.bytes), (0, 0, 0));
    }
}
