//! Partial blobs that nobody writes to: what is known of them, and when they go.
//!
//! Decides that an idle one stays for [`PARTIAL_IDLE_MS`] after its last use and while all of them
//! hold no more than [`MAX_IDLE_PARTIAL_BYTES`] and are no more than [`MAX_IDLE_PARTIALS`]; beyond,
//! the one unused longest goes first. Must never remove one that somebody has taken up.

use super::sidecar::{self, Sidecar};
use super::{MAX_IDLE_PARTIAL_BYTES, MAX_IDLE_PARTIALS, PARTIAL_IDLE_MS};
use crate::blob::chain_owner;
use crate::disk::{Entry, EntryKind};
use crate::error::OpenError;
use crate::layout::{CHAIN_SUFFIX, MAP_NEW_SUFFIX, MAP_SUFFIX, PARTIAL, RandomId};
use crate::open::unusable;
use crate::partial::pieces::bytes_in;
use crate::store::{Inner, Store, lock, now_ms};
use ddr_oci::digest::Digest;
use std::collections::BTreeSet;
use std::io;

/// A partial blob that lies on the disk, and that nobody writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdlePartial {
    /// The digest that the whole blob has.
    pub digest: Digest,
    /// Size of the whole blob in bytes, as its chain says.
    pub size: u64,
    /// Bytes that may be here; they are hashed again before they count.
    pub held_bytes: u64,
    /// Last use, unix milliseconds.
    pub used_ms: u64,
    pub(super) id: RandomId,
}

impl IdlePartial {
    pub(super) fn of(id: RandomId, sidecar: &Sidecar, now_ms: u64) -> Self {
        Self {
            digest: sidecar.digest,
            size: sidecar.chain.size(),
            held_bytes: bytes_in(&sidecar.chain, &sidecar.held),
            // One from the future is the word of a clock that was wrong.
            used_ms: sidecar.used_ms.map_or(now_ms, |used_ms| used_ms.min(now_ms)),
            id,
        }
    }
}

impl Store {
    /// The partial blobs that nobody writes to, those used last first. Take one up with
    /// [`Store::resume_partial`] or [`Store::begin_partial`].
    pub fn idle_partials(&self) -> Vec<IdlePartial> {
        let mut idle: Vec<_> = lock(&self.inner.partials).idle.values().cloned().collect();
        idle.sort_by_key(|partial| std::cmp::Reverse(partial.used_ms));
        idle
    }

    /// Removes idle partial blobs that are too old, of blobs that are here whole, and those used
    /// longest ago until the others hold at most `most_bytes`; how many. A collection does this
    /// with [`MAX_IDLE_PARTIAL_BYTES`], and so does every start; on a full disk call it with 0.
    pub fn drop_idle_partials(&self, most_bytes: u64) -> usize {
        self.inner.drop_idle_partials(most_bytes)
    }
}

impl Inner {
    fn drop_idle_partials(&self, most_bytes: u64) -> usize {
        let now_ms = now_ms();
        let known: Vec<_> = lock(&self.partials).idle.keys().copied().collect();
        let is_whole = |digest: &Digest| matches!(self.index.blob_size(digest), Ok(Some(_)));
        let whole: BTreeSet<_> = known.into_iter().filter(is_whole).collect();
        let gone: Vec<_> = {
            let mut partials = lock(&self.partials);
            let mut idle: Vec<_> = partials.idle.values().cloned().collect();
            idle.sort_by_key(|partial| std::cmp::Reverse(partial.used_ms));
            let (mut count, mut bytes) = (0, 0_u64);
            idle.retain(|partial| {
                count += 1;
                bytes = bytes.saturating_add(partial.held_bytes);
                whole.contains(&partial.digest)
                    || partial.used_ms.saturating_add(PARTIAL_IDLE_MS) < now_ms
                    || count > MAX_IDLE_PARTIALS
                    || bytes > most_bytes
            });
            for partial in &idle {
                partials.idle.remove(&partial.digest);
            }
            idle
        };
        for partial in &gone {
            tracing::info!(digest = %partial.digest, "an idle partial blob is removed");
            self.remove_partial(&partial.id);
        }
        gone.len()
    }

    /// Removes the files of a partial blob. What does not go now does at the next start.
    pub(super) fn remove_partial(&self, id: &RandomId) {
        // Without its sidecar the data is nothing, so a crash in between is clean.
        for suffix in [MAP_SUFFIX, MAP_NEW_SUFFIX, CHAIN_SUFFIX, ""] {
            let path = self.layout.partial(id, suffix);
            if let Err(error) = self.remove_if_there(&path) {
                tracing::warn!(%error, path = %path.display(), "removed at the next start");
            }
        }
    }

    /// Takes up the partial blobs that an earlier process left, and removes what belongs to none.
    pub(crate) fn recover_partials(&self) -> Result<(), OpenError> {
        let (maps, others) = self
            .list(&self.layout.top(PARTIAL))?
            .into_iter()
            .partition::<Vec<_>, _>(|entry| owner(entry, MAP_SUFFIX).is_some());
        let has_data = |id: &RandomId| others.iter().any(|e| owner(e, "").as_ref() == Some(id));
        let mut taken = BTreeSet::new();
        for entry in maps {
            let id = owner(&entry, MAP_SUFFIX).filter(has_data);
            if let Some(id) = id
                && self.adopt_partial(&id, &entry)
            {
                taken.insert(id);
            } else {
                self.disk.remove(&entry.path).map_err(unusable(entry.path))?;
            }
        }
        for entry in others {
            let known = ["", CHAIN_SUFFIX, MAP_NEW_SUFFIX];
            let done = if owner(&entry, "").is_some_and(|id| taken.contains(&id)) {
                Ok(())
            } else if known.iter().any(|suffix| owner(&entry, suffix).is_some()) {
                self.disk.remove(&entry.path)
            } else {
                self.put_aside(&entry.path)
            };
            done.map_err(unusable(entry.path))?;
        }
        self.drop_idle_partials(MAX_IDLE_PARTIAL_BYTES);
        Ok(())
    }

    /// Enters a partial blob of an earlier process in the table; false if it is of no use.
    fn adopt_partial(&self, id: &RandomId, map: &Entry) -> bool {
        let sidecar = match sidecar::read(self.disk.as_ref(), &map.path) {
            Ok(Some(sidecar)) => sidecar,
            Ok(None) => {
                tracing::warn!(path = %map.path.display(), "a damaged sidecar is thrown away");
                return false;
            }
            Err(error) => {
                tracing::warn!(%error, path = %map.path.display(), "a sidecar is thrown away");
                return false;
            }
        };
        let partial = IdlePartial::of(id.clone(), &sidecar, now_ms());
        let mut partials = lock(&self.partials);
        // Two of one digest: a removal did not succeed.
        let is_first = !partials.idle.contains_key(&partial.digest);
        if is_first {
            partials.idle.insert(partial.digest, partial);
        }
        is_first
    }
}

/// Whose file this is, if its name is that of a partial blob with this suffix.
fn owner(entry: &Entry, suffix: &str) -> Option<RandomId> {
    let name = match suffix {
        CHAIN_SUFFIX => chain_owner(&entry.name)?,
        other => entry.name.strip_suffix(other)?,
    };
    RandomId::parse(name).filter(|_| entry.kind == EntryKind::File)
}

/// Why a partial blob could not be taken up.
pub(super) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its sidecar is damaged")
}
