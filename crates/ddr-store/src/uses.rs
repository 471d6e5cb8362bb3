//! What is in use just now: pins, which are held in memory, and uses that are not written yet.
//!
//! Decides that a read costs no write: a use is noted in memory and written with many others
//! later. A crash forgets the uses of the last minute, which a grace window of hours makes
//! harmless. Must never let a map grow without a bound.

use crate::error::IndexError;
use crate::store::{Store, lock, now_ms};
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Uses that wait to be written; the one who notes one more writes them all.
pub const MAX_PENDING_TOUCHES: usize = 8192;
/// Uses that wait while others are being written; beyond, whoever notes one writes, too.
const MAX_BACKLOG: usize = 8 * MAX_PENDING_TOUCHES;
/// Digests that linger after their last pin; beyond, the one that ends first goes.
pub const MAX_LINGERING: usize = 16_384;

/// See the module comment.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    pins: Mutex<BTreeMap<Digest, Pinned>>,
    pending: Mutex<BTreeMap<(RepositoryName, Digest), u64>>,
    /// Somebody writes what is pending.
    writing: AtomicBool,
}

#[derive(Debug, Default)]
struct Pinned {
    holders: usize,
    /// Unix milliseconds until when it stays without a holder.
    until_ms: u64,
}

impl Uses {
    /// Whether the content is pinned at `now_ms`.
    pub(crate) fn is_pinned(&self, digest: &Digest, now_ms: u64) -> bool {
        lock(&self.pins)
            .get(digest)
            .is_some_and(|pinned| pinned.holders > 0 || pinned.until_ms > now_ms)
    }

    /// When a repository last used a digest, if that is not written yet.
    pub(crate) fn pending(&self, repository: &str, digest: &Digest) -> Option<u64> {
        let pending = lock(&self.pending);
        if pending.is_empty() {
            return None;
        }
        pending.get(&(repository.parse().ok()?, *digest)).copied()
    }

    fn pin(&self, digest: &Digest) {
        lock(&self.pins).entry(*digest).or_default().holders += 1;
    }

    fn unpin(&self, digest: &Digest, linger_ms: u64) {
        let now_ms = now_ms();
        let mut pins = lock(&self.pins);
        if let Some(pinned) = pins.get_mut(digest) {
            pinned.holders = pinned.holders.saturating_sub(1);
            pinned.until_ms = pinned.until_ms.max(now_ms.saturating_add(linger_ms));
            if pinned.holders == 0 && linger_ms == 0 && pinned.until_ms <= now_ms {
                pins.remove(digest);
            }
        }
        if pins.len() > MAX_LINGERING {
            pins.retain(|_, pinned| pinned.holders > 0 || pinned.until_ms > now_ms);
        }
        while pins.len() > MAX_LINGERING {
            let ends_first = pins.iter().filter(|(_, pinned)| pinned.holders == 0);
            let Some(first) = ends_first.min_by_key(|(_, p)| p.until_ms).map(|(d, _)| *d) else {
                break;
            };
            pins.remove(&first);
        }
    }
}

/// Keeps content from being collected while it lives, and for a while after; see [`Store::pin`].
#[derive(Debug)]
pub struct Pin {
    store: Store,
    digest: Digest,
    linger_ms: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.store.inner.uses.unpin(&self.digest, self.linger_ms);
    }
}

impl Store {
    /// Keeps content, be it here or still on its way, until the pin is dropped and `linger_ms`
    /// milliseconds more. In memory: a restart ends it, and whoever used the content with it.
    pub fn pin(&self, digest: &Digest, linger_ms: u64) -> Pin {
        self.inner.uses.pin(digest);
        Pin { store: self.clone(), digest: *digest, linger_ms }
    }

    /// Notes that a repository uses content now: its grace window begins anew. Written later,
    /// see [`Store::write_touches`].
    pub fn touch(&self, repository: &RepositoryName, digest: &Digest) {
        let uses = &self.inner.uses;
        let waiting = {
            let mut pending = lock(&uses.pending);
            pending.insert((repository.clone(), *digest), now_ms());
            pending.len()
        };
        if waiting < MAX_PENDING_TOUCHES {
            return;
        }
        let is_first = !uses.writing.swap(true, Ordering::AcqRel);
        if (is_first || waiting >= MAX_BACKLOG)
            && let Err(error) = self.write_touches()
        {
            tracing::warn!(%error, "uses of content were not written");
        }
        if is_first {
            uses.writing.store(false, Ordering::Release);
        }
    }

    /// Writes the uses that are only in memory, each at most once in ten minutes; how many were
    /// waiting. When the disk fails they are forgotten.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn write_touches(&self) -> Result<usize, IndexError> {
        let uses: Vec<_> = {
            let pending = lock(&self.inner.uses.pending);
            pending.iter().map(|((name, digest), at)| (name.clone(), *digest, *at)).collect()
        };
        let written = self.inner.index.touch_all(&uses);
        // Only now: until they are written, the collector has to find them here.
        let mut pending = lock(&self.inner.uses.pending);
        for (name, digest, at) in &uses {
            let key = (name.clone(), *digest);
            if pending.get(&key) == Some(at) {
                pending.remove(&key);
            }
        }
        written.map(|()| uses.len())
    }
}
