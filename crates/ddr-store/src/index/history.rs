//! What names said before: the records that a newer one has replaced, and those that came too late.
//!
//! Decides which are kept: of each name the newest, as many as [`MAX_OLD_RECORDS`], and of all names
//! together [`MAX_OLD_ROWS`].

use super::{HISTORY, Index, KeptName, NAMES, Outcome};
use crate::error::IndexError;
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

/// Records of one name beside the one that holds.
pub const MAX_OLD_RECORDS: usize = 15;
/// Such records of all names together; beyond, no more are kept. About 600 MB.
pub const MAX_OLD_ROWS: u64 = 2_000_000;

/// Key of a name, and the rank of a record of it.
pub(super) type Version = ([u8; 32], u128);

impl Index {
    /// The record of a name that holds, then the older ones, newest first.
    pub(crate) fn history(&self, key: [u8; 32]) -> Result<Vec<Vec<u8>>, IndexError> {
        self.read(|t| {
            let now = t.open_table(NAMES)?.get(key)?.map(|row| row.value().1.to_vec());
            let old = t.open_table(HISTORY)?;
            let rows = old.range(of(key))?.rev().take(MAX_OLD_RECORDS);
            let rows = rows.map(|row| Ok(row?.1.value().to_vec()));
            now.into_iter().map(Ok).chain(rows).collect()
        })
    }
}

/// Whether a record that came too late is worth a row.
pub(super) fn is_missing(
    old: &impl ReadableTable<Version, &'static [u8]>,
    name: &KeptName,
) -> Result<bool, IndexError> {
    if old.get((name.key, name.rank))?.is_some() {
        return Ok(false);
    }
    let newer = old.range((name.key, name.rank)..=(name.key, u128::MAX))?.take(MAX_OLD_RECORDS);
    Ok(newer.count() < MAX_OLD_RECORDS)
}

/// Keeps what the names of a batch push aside: the records that they replace, and themselves where
/// they came too late. To be called before the names are changed.
pub(super) fn note(
    t: &WriteTransaction,
    names: &[KeptName],
    outcomes: &[Outcome],
) -> Result<(), IndexError> {
    let (kept, mut old) = (t.open_table(NAMES)?, t.open_table(HISTORY)?);
    for (name, outcome) in names.iter().zip(outcomes) {
        match outcome {
            Outcome::New | Outcome::Same => {}
            Outcome::Replaced => {
                if let Some(row) = kept.get(name.key)? {
                    let (rank, record) = row.value();
                    insert(&mut old, (name.key, rank), record)?;
                }
            }
            Outcome::Newer(_) => {
                if is_missing(&old, name)? {
                    insert(&mut old, (name.key, name.rank), &name.record)?;
                }
            }
        }
    }
    Ok(())
}

/// Forgets what a name said before.
pub(super) fn forget(t: &WriteTransaction, key: [u8; 32]) -> Result<(), IndexError> {
    t.open_table(HISTORY)?.retain_in(of(key), |_, _| false)?;
    Ok(())
}

fn insert(
    old: &mut Table<'_, Version, &'static [u8]>,
    version: Version,
    record: &[u8],
) -> Result<(), IndexError> {
    if old.len()? >= MAX_OLD_ROWS {
        return Ok(());
    }
    old.insert(version, record)?;
    let mut rows = old.range(of(version.0))?.rev().skip(MAX_OLD_RECORDS);
    let last = rows.next().transpose()?.map(|(version, _)| version.value());
    drop(rows);
    if let Some(last) = last {
        old.retain_in(of(version.0), |(_, rank), _| rank > last.1)?;
    }
    Ok(())
}

fn of(key: [u8; 32]) -> std::ops::RangeInclusive<Version> {
    (key, 0)..=(key, u128::MAX)
}
