//! The store as its callers see it: one cheap handle on everything below.
//!
//! Decides nothing: calls about blobs, uploads and fetches stand in their own modules, those
//! about the index are passed on here.

mod pins;
mod replicas;
mod sets;

use crate::disk::{Disk, DiskFile, RealDisk};
use crate::error::{IndexError, OpenError};
use crate::index::{Index, ManifestEntry, NamePage, StoredManifest};
use crate::layout::{Layout, RandomId};
use crate::outside::Outside;
use crate::partial::Partials;
use crate::upload::Session;
use crate::uses::Uses;
use ddr_oci::digest::Digest;
use ddr_oci::reference::{RepositoryName, Tag};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Locks that blobs share by digest, so that placing and removing the same one cannot meet.
const SHARDS: usize = 64;

/// Where a store lives.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The data directory. Created if it is missing.
    pub root: PathBuf,
    /// The disk: [`RealDisk`], except in tests.
    pub disk: Arc<dyn Disk>,
}

impl StoreConfig {
    /// A store in `root` on the real disk.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), disk: Arc::new(RealDisk) }
    }
}

/// Content on one disk. Clones are the same store; the last one to go releases the directory.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) layout: Layout,
    pub(crate) index: Index,
    /// At most `MAX_UPLOADS` sessions, and those found at start.
    pub(crate) sessions: Mutex<BTreeMap<RandomId, Session>>,
    /// Digests being fetched, at most `MAX_FETCHES`.
    pub(crate) fetching: Mutex<BTreeSet<Digest>>,
    /// Partial blobs, those that are written to and those that lie on the disk.
    pub(crate) partials: Mutex<Partials>,
    /// What is in use just now, and uses that are not written yet.
    pub(crate) uses: Uses,
    /// Where further blobs lie.
    pub(crate) outside: OnceLock<Arc<dyn Outside>>,
    /// Shard directories whose own name is durable, at most 512.
    pub(crate) durable_dirs: Mutex<BTreeSet<PathBuf>>,
    shards: [Mutex<()>; SHARDS],
    /// Held for as long as the store lives; the last field, so that it is dropped last.
    _lock: Arc<dyn DiskFile>,
}

impl Inner {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        layout: Layout,
        index: Index,
        lock: Arc<dyn DiskFile>,
    ) -> Self {
        Self {
            disk,
            layout,
            index,
            sessions: Mutex::default(),
            fetching: Mutex::default(),
            partials: Mutex::default(),
            uses: Uses::default(),
            outside: OnceLock::new(),
            durable_dirs: Mutex::default(),
            shards: std::array::from_fn(|_| Mutex::new(())),
            _lock: lock,
        }
    }

    /// Excludes all others that would place or remove this blob.
    pub(crate) fn hold(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        lock(&self.shards[shard_of(digest)])
    }

    /// As [`Inner::hold`] for those of many that nobody holds now: never waits.
    pub(crate) fn hold_free(&self, digests: &[Digest]) -> Held<'_> {
        let shards = digests.iter().map(shard_of).collect::<BTreeSet<_>>();
        let free = shards.into_iter().filter_map(|shard| {
            let guard = match self.shards[shard].try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return None,
            };
            Some((shard, guard))
        });
        Held(free.collect())
    }
}

/// What [`Inner::hold_free`] holds.
pub(crate) struct Held<'a>(BTreeMap<usize, MutexGuard<'a, ()>>);

impl Held<'_> {
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        self.0.contains_key(&shard_of(digest))
    }
}

fn shard_of(digest: &Digest) -> usize {
    digest.as_bytes().first().map_or(0, |&byte| usize::from(byte) % SHARDS)
}

/// Locks; a panic of another holder leaves nothing half-done in what these locks guard.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unix time in milliseconds, as the store notes uses by.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The index. Every change is durable when the call returns. All of these return
/// [`IndexError`] when the disk fails or is full.
impl Store {
    /// Opens the store, alone, and cleans up what a crash left behind.
    ///
    /// # Errors
    /// [`OpenError`], whose text says what to do.
    pub fn open(config: StoreConfig) -> Result<Self, OpenError> {
        Ok(Self { inner: Arc::new(crate::open::open(config)?) })
    }

    /// Lets a repository read the content, be it here or not.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn link(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), IndexError> {
        self.inner.index.link(repository, digest)
    }

    /// Lets a repository read a blob if it is here, in one step; whether it is here.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn link_present(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, IndexError> {
        self.inner.index.link_present(repository, digest)
    }

    /// Whether a repository may read the content.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn is_linked(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, IndexError> {
        self.inner.index.is_linked(repository, digest)
    }

    /// Whether any repository may read the content.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn is_linked_anywhere(&self, digest: &Digest) -> Result<bool, IndexError> {
        self.inner.index.is_linked_anywhere(digest)
    }

    /// Stores a manifest in a repository, links its children, lists it with its subject and sets
    /// tags: all or nothing.
    ///
    /// # Errors
    /// [`IndexError`]; `DigestMismatch` and `TooLarge` for a wrong entry.
    pub fn put_manifest(
        &self,
        repository: &RepositoryName,
        entry: &ManifestEntry,
        tags: &[Tag],
    ) -> Result<(), IndexError> {
        self.inner.index.put_manifest(repository, entry, tags, &[]).map(drop)
    }

    /// As [`Store::put_manifest`], unless some of `expected` are not linked in the repository or
    /// not here: then nothing is stored, and those are the answer. In one step, so that what was
    /// seen here cannot be taken away between the look and the manifest.
    ///
    /// # Errors
    /// As [`Store::put_manifest`].
    pub fn put_manifest_over(
        &self,
        repository: &RepositoryName,
        entry: &ManifestEntry,
        tags: &[Tag],
        expected: &[Digest],
    ) -> Result<Vec<Digest>, IndexError> {
        self.inner.index.put_manifest(repository, entry, tags, expected)
    }

    /// A manifest of a repository.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<StoredManifest>, IndexError> {
        self.inner.index.manifest(Some(repository), digest)
    }

    /// A manifest of a repository, if it was read lately and is in memory: never waits for the
    /// disk. `None` says nothing; ask [`Store::manifest`]. True where the use is one to note with
    /// [`Store::touch`]: the first, and then one in ten minutes.
    pub fn cached_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Option<(Arc<StoredManifest>, bool)> {
        self.inner.index.cached_manifest(repository, digest)
    }

    /// A manifest of any repository.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn any_manifest(&self, digest: &Digest) -> Result<Option<StoredManifest>, IndexError> {
        self.inner.index.manifest(None, digest)
    }

    /// Removes a manifest from a repository, and the tags that name it. Those tags, or `None`
    /// where the repository does not have it. Blobs stay.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Vec<Tag>>, IndexError> {
        self.inner.index.delete_manifest(repository, digest)
    }

    /// What a tag names. The manifest itself may be elsewhere.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, IndexError> {
        self.inner.index.tag(repository, tag)
    }

    /// Sets a tag. The manifest need not be here.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn set_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), IndexError> {
        self.inner.index.set_tag(repository, tag, digest)
    }

    /// Removes a tag; whether it was there.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn delete_tag(&self, repository: &RepositoryName, tag: &Tag) -> Result<bool, IndexError> {
        self.inner.index.delete_tag(repository, tag)
    }

    /// At most `limit` tags after `last`, in byte order; `None` for a repository without a
    /// manifest or tag.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, IndexError> {
        self.inner.index.tags(repository, last, limit)
    }

    /// At most `limit` repositories after `last`, in byte order: those with a manifest or tag.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn repositories(
        &self,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, IndexError> {
        self.inner.index.repositories(last, limit)
    }

    /// The descriptors (JSON) of the manifests of a repository that have this subject, in the
    /// order of their digests.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Vec<u8>>, IndexError> {
        self.inner.index.referrers(repository, subject)
    }

    /// Every manifest of every repository.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn manifests(&self) -> Result<Vec<(RepositoryName, Digest)>, IndexError> {
        self.inner.index.manifests()
    }

    /// Stores a name record (opaque here, at most `MAX_NAME_RECORD_BYTES`) unless one with a
    /// higher stamp is there; whether it was stored.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn put_name(&self, key: [u8; 32], stamp: u128, record: &[u8]) -> Result<bool, IndexError> {
        self.inner.index.put_name(key, stamp, record)
    }

    /// A name record.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn name(&self, key: [u8; 32]) -> Result<Option<Vec<u8>>, IndexError> {
        self.inner.index.name(key)
    }

    /// The record of a name that holds, then older ones, newest first: at most
    /// [`MAX_OLD_RECORDS`](crate::MAX_OLD_RECORDS) of these.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn name_history(&self, key: [u8; 32]) -> Result<Vec<Vec<u8>>, IndexError> {
        self.inner.index.history(key)
    }

    /// At most `limit` name records with keys after `after`, in the order of keys.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn names(&self, limit: usize, after: Option<[u8; 32]>) -> Result<NamePage, IndexError> {
        self.inner.index.names(limit, after)
    }

    /// Keeps content until a point in time (unix milliseconds), be it linked or not. A lease is
    /// made longer, never shorter.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lease(&self, digest: &Digest, until_unix_ms: u64) -> Result<(), IndexError> {
        self.inner.index.lease(digest, until_unix_ms)
    }

    /// Whether a lease holds at `now_unix_ms`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn leased(&self, digest: &Digest, now_unix_ms: u64) -> Result<bool, IndexError> {
        self.inner.index.leased(digest, now_unix_ms)
    }

    /// Forgets the leases that have ended at `now_unix_ms`; how many.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn drop_expired_leases(&self, now_unix_ms: u64) -> Result<usize, IndexError> {
        self.inner.index.drop_expired_leases(now_unix_ms)
    }

    /// A setting of the node.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn get_setting(&self, key: &str) -> Result<Option<Vec<u8>>, IndexError> {
        self.inner.index.get_setting(key)
    }

    /// Stores a setting of the node, at most `MAX_SETTING_BYTES`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn set_setting(&self, key: &str, value: &[u8]) -> Result<(), IndexError> {
        self.inner.index.set_setting(key, value)
    }
}
