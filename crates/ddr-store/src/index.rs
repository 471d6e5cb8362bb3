//! The index: which content there is and what refers to it, in one embedded database.
//!
//! Decides how rows are keyed, and that every change is one durable transaction. It must never
//! touch a blob file: the order between files and rows is the business of `commit`.
//!
//! After an I/O error the database refuses all further work until it is opened again. The index
//! does that by itself on the next call, so a disk that was full for a while costs no restart.

mod audit;
mod backend;
mod cache;
mod cached;
mod content;
mod garbage;
mod group;
mod history;
mod keys;
mod manifests;
mod names;
mod outside;
mod pins;
mod reach;
mod replicas;
mod sets;
mod untagged;

pub(crate) use audit::AuditTable;
pub(crate) use cache::{CacheRules, Candidate};
pub(crate) use garbage::{Cursor, Looked, Removed, Rules};
pub use history::{MAX_OLD_RECORDS, MAX_OLD_ROWS};
pub use manifests::{ManifestEntry, StoredManifest};
pub use names::{MAX_NAME_RECORD_BYTES, MAX_SETTING_BYTES, MAX_SETTING_KEY_BYTES, NamePage};
pub(crate) use outside::OutsideRow;
pub use pins::{MAX_PIN_LABEL_BYTES, MAX_PINNED_PARTS, MAX_PINS, PinnedImage};
pub use replicas::{MAX_REPLICA_RECORD_BYTES, ReplicaRecord};
pub use sets::{Batch, KeptEntry, KeptName, MAX_MEMBER_BYTES, Outcome, SetPage, SetRows};

use crate::disk::{Disk, OpenMode};
use crate::error::IndexError;
use backend::Backend;
use group::Group;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase, TableDefinition,
    WriteTransaction,
};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// Memory that the database keeps for pages, bytes.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// A digest as a key: one byte for the algorithm, then the hash. See `keys`.
type DigestKey = &'static [u8];

/// Key of a set, and a member of it.
type Place = ([u8; 32], &'static [u8]);
/// Rank, and the record: of two the greater holds.
type Ranked = (u128, &'static [u8]);

/// digest -> bytes in the blob file. A blob file without this row does not exist for readers.
const BLOBS: TableDefinition<'_, DigestKey, u64> = TableDefinition::new("blobs");
/// digests whose file may still be there although the blob was deleted.
const DOOMED: TableDefinition<'_, DigestKey, ()> = TableDefinition::new("doomed");
/// (repository, digest): the repository may read the content.
const LINKS: TableDefinition<'_, (&str, DigestKey), ()> = TableDefinition::new("links");
/// (digest, repository): `LINKS` turned round.
const LINKED_BY: TableDefinition<'_, (DigestKey, &str), ()> = TableDefinition::new("linked_by");
/// digest -> until when the content must stay, unix milliseconds.
const LEASES: TableDefinition<'_, DigestKey, u64> = TableDefinition::new("leases");
/// digest -> (media type, bytes).
const MANIFESTS: TableDefinition<'_, DigestKey, (&str, &[u8])> = TableDefinition::new("manifests");
/// (repository, manifest digest) -> digest of its subject, empty without one.
const REVISIONS: TableDefinition<'_, (&str, DigestKey), &[u8]> = TableDefinition::new("revisions");
/// (manifest digest, repository): `REVISIONS` turned round.
const REVISION_OF: TableDefinition<'_, (DigestKey, &str), ()> = TableDefinition::new("revision_of");
/// (repository, tag) -> manifest digest.
const TAGS: TableDefinition<'_, (&str, &str), DigestKey> = TableDefinition::new("tags");
/// repositories with at least one manifest or tag.
const REPOSITORIES: TableDefinition<'_, &str, ()> = TableDefinition::new("repositories");
/// (repository, subject digest, referrer digest) -> descriptor as JSON.
const REFERRERS: TableDefinition<'_, (&str, DigestKey, DigestKey), &[u8]> =
    TableDefinition::new("referrers");
/// key of a name -> (stamp, record).
const NAMES: TableDefinition<'_, [u8; 32], (u128, &[u8])> = TableDefinition::new("names");
/// (key of a name, rank) -> a record that was replaced, or that came too late.
const HISTORY: TableDefinition<'_, history::Version, &[u8]> = TableDefinition::new("history");
/// (key of a set, member) -> (rank, entry).
const SETS: TableDefinition<'_, Place, Ranked> = TableDefinition::new("sets");
/// small values of the node.
const SETTINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("settings");

/// How many tables there are.
const TABLES: usize = 15
    + reach::REACH_TABLES
    + replicas::REPLICA_TABLES
    + pins::PIN_TABLES
    + outside::OUTSIDE_TABLES;

/// The database, and how to open it again.
#[derive(Debug)]
pub(crate) struct Index {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    open: RwLock<Open>,
    group: Group,
    manifests: cached::Manifests,
}

#[derive(Debug)]
struct Open {
    /// `None` after a failed attempt to open it again.
    database: Option<Database>,
    /// Raised each time it is opened, so that one failure is repaired once.
    generation: u64,
}

/// Why the index file did not open.
#[derive(Debug)]
pub(crate) enum IndexOpenError {
    Io(io::Error),
    Damaged(String),
}

impl Index {
    /// Opens the index, after a check of every page; creates it where the file is missing.
    pub(crate) fn open(disk: Arc<dyn Disk>, path: PathBuf) -> Result<Self, IndexOpenError> {
        let database = open_database(disk.as_ref(), &path)?;
        let open = RwLock::new(Open { database: Some(database), generation: 0 });
        let (group, manifests) = (Group::default(), cached::Manifests::default());
        let index = Self { disk, path, open, group, manifests };
        index.create_missing_tables().map_err(|e| match e {
            IndexError::NoSpace => IndexOpenError::Io(io::ErrorKind::StorageFull.into()),
            IndexError::Io(e) => IndexOpenError::Io(e),
            other => IndexOpenError::Damaged(other.to_string()),
        })?;
        Ok(index)
    }

    /// Readers may rely on every table being there. Nothing is written if they are: a full
    /// disk must not keep a store from opening.
    fn create_missing_tables(&self) -> Result<(), IndexError> {
        if self.read(|t| Ok(t.list_tables()?.count()))? == TABLES {
            return Ok(());
        }
        self.write(create_tables)
    }

    /// Runs `job` in one read transaction.
    pub(crate) fn read<T>(
        &self,
        job: impl Fn(&ReadTransaction) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let attempt = |database: &Database| job(&database.begin_read()?);
        let (result, generation) = self.attempt(attempt);
        if result.as_ref().err().is_none_or(|e| !self.reopen_after(e, generation)) {
            return result;
        }
        self.attempt(attempt).0
    }

    /// Runs `job` in one write transaction, durable when this returns `Ok`. After an error the
    /// change is not stored, except that after `Io` it may be. Jobs that come at the same time
    /// share the transaction, see [`group`]; a job may run twice.
    pub(crate) fn write<T>(
        &self,
        job: impl Fn(&WriteTransaction) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        // No transaction is open when one begins.
        let begin = || {
            if let Some(generation) = self.group.failed() {
                self.open_again(generation);
            }
            self.attempt(|database| Ok(database.begin_write()?))
        };
        let (result, generation) = self.group.write(&begin, &job);
        match result {
            // The failure is an earlier one: this job has not run yet.
            Err(e) if is_earlier_failure(&e) && self.reopen_after(&e, generation) => {
                self.group.write(&begin, &job).0
            }
            Err(e) => {
                self.reopen_after(&e, generation);
                Err(e)
            }
            Ok(value) => Ok(value),
        }
    }

    fn attempt<T>(
        &self,
        job: impl Fn(&Database) -> Result<T, IndexError>,
    ) -> (Result<T, IndexError>, u64) {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let result = match &open.database {
            Some(database) => job(database),
            None => Err(redb::Error::PreviousIo.into()),
        };
        (result, open.generation)
    }

    /// Opens the database again if `error` left it unusable; whether it is usable now.
    fn reopen_after(&self, error: &IndexError, generation: u64) -> bool {
        if !matches!(error, IndexError::Io(_) | IndexError::NoSpace) {
            return false;
        }
        // A transaction that is open would write into the file under the new one's feet.
        self.group.quiet(|| self.open_again(generation))
    }

    fn open_again(&self, generation: u64) -> bool {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.generation != generation {
            return true;
        }
        open.database = None;
        match open_database(self.disk.as_ref(), &self.path) {
            Ok(database) => {
                open.database = Some(database);
                open.generation += 1;
                true
            }
            Err(reason) => {
                tracing::error!(?reason, "the index did not open again after a disk error");
                false
            }
        }
    }
}

/// Whether the database refused because of an earlier I/O error.
fn is_earlier_failure(error: &IndexError) -> bool {
    let IndexError::Io(error) = error else { return false };
    error
        .get_ref()
        .and_then(|e| e.downcast_ref())
        .is_some_and(|e| matches!(e, redb::Error::PreviousIo | redb::Error::DatabaseClosed))
}

fn open_database(disk: &dyn Disk, path: &std::path::Path) -> Result<Database, IndexOpenError> {
    let file = disk.open(path, OpenMode::Write).map_err(IndexOpenError::Io)?;
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(Backend(file))
        .map_err(|error| match error {
            DatabaseError::Storage(redb::StorageError::Io(e))
                if !matches!(
                    e.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                IndexOpenError::Io(e)
            }
            other => IndexOpenError::Damaged(other.to_string()),
        })
}

fn create_tables(transaction: &WriteTransaction) -> Result<(), IndexError> {
    transaction.open_table(BLOBS)?;
    transaction.open_table(DOOMED)?;
    transaction.open_table(LINKS)?;
    transaction.open_table(LINKED_BY)?;
    transaction.open_table(LEASES)?;
    transaction.open_table(MANIFESTS)?;
    transaction.open_table(REVISIONS)?;
    transaction.open_table(REVISION_OF)?;
    transaction.open_table(TAGS)?;
    transaction.open_table(REPOSITORIES)?;
    transaction.open_table(REFERRERS)?;
    transaction.open_table(NAMES)?;
    transaction.open_table(HISTORY)?;
    transaction.open_table(SETS)?;
    transaction.open_table(SETTINGS)?;
    replicas::create_tables(transaction)?;
    pins::create_tables(transaction)?;
    outside::create_tables(transaction)?;
    reach::create_tables(transaction)
}
