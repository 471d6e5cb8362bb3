//! Rows about blobs that lie outside the store.
//!
//! Decides that a row goes with the last link of its blob (`content`), and where such a blob counts as
//! being here: where what it is asked for is content that this node keeps.

use super::cache::{CacheRules, Standing, standing};
use super::content::doom;
use super::keys::{self, Key};
use super::{BLOBS, DigestKey, Index, reach};
use crate::error::IndexError;
use crate::outside::OutsideBlob;
use ddr_oci::digest::Digest;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::ops::Bound;

/// digest -> (bytes, 1 if it is kept there, a repository there, piece chain).
pub(super) const OUTSIDE: TableDefinition<'_, DigestKey, (u64, u8, &str, &[u8])> =
    TableDefinition::new("outside");

/// How many tables there are here.
pub(super) const OUTSIDE_TABLES: usize = 1;

/// A blob that lies outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutsideRow {
    pub(crate) blob: OutsideBlob,
    /// Its piece chain, encoded.
    pub(crate) chain: Vec<u8>,
}

/// The table, created where it is missing.
pub(super) fn create_tables(t: &WriteTransaction) -> Result<(), IndexError> {
    t.open_table(OUTSIDE)?;
    Ok(())
}

/// Whether this node keeps the blob: on its disk, or where it stays outside.
pub(super) fn is_kept(t: &WriteTransaction, key: &[u8]) -> Result<bool, IndexError> {
    if t.open_table(BLOBS)?.get(key)?.is_some() {
        return Ok(true);
    }
    let row = t.open_table(OUTSIDE)?.get(key)?.map(|row| row.value().1);
    Ok(row == Some(1))
}

/// Whether there is such a row.
pub(super) fn is_outside(t: &WriteTransaction, key: &[u8]) -> Result<bool, IndexError> {
    Ok(t.open_table(OUTSIDE)?.get(key)?.is_some())
}

/// Removes the row.
pub(super) fn forget(t: &WriteTransaction, key: &[u8]) -> Result<(), IndexError> {
    t.open_table(OUTSIDE)?.remove(key)?;
    Ok(())
}

fn blob(key: &[u8], row: (u64, u8, &str, &[u8])) -> Result<OutsideBlob, IndexError> {
    let (size, is_kept, repository, _) = row;
    let (digest, repository) = (keys::digest(key)?, keys::name(repository)?);
    Ok(OutsideBlob { digest, size, repository, is_kept: is_kept == 1 })
}

impl Index {
    /// Keeps a row in place of the one before.
    pub(crate) fn put_outside(&self, row: &OutsideRow) -> Result<(), IndexError> {
        let OutsideRow { blob, chain } = row;
        let key = Key::of(&blob.digest);
        self.write(|t| {
            let repository = blob.repository.as_str();
            let row = (blob.size, u8::from(blob.is_kept), repository, chain.as_slice());
            t.open_table(OUTSIDE)?.insert(key.get(), row)?;
            reach::found(t, key.get())
        })
    }

    pub(crate) fn outside(&self, digest: &Digest) -> Result<Option<OutsideRow>, IndexError> {
        let key = Key::of(digest);
        self.read(|t| {
            let Some(row) = t.open_table(OUTSIDE)?.get(key.get())? else { return Ok(None) };
            let chain = row.value().3.to_vec();
            Ok(Some(OutsideRow { blob: blob(key.get(), row.value())?, chain }))
        })
    }

    /// Blobs outside with digests after `last`, at most `limit`.
    pub(crate) fn outside_after(
        &self,
        last: Option<&Digest>,
        limit: usize,
    ) -> Result<Vec<OutsideBlob>, IndexError> {
        let last = last.map(Key::of);
        let start = last.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.get()));
        self.read(|t| {
            let table = t.open_table(OUTSIDE)?;
            let rows = table.range::<&[u8]>((start, Bound::Unbounded))?.take(limit);
            rows.map(|row| {
                let (key, row) = row?;
                blob(key.value(), row.value())
            })
            .collect()
        })
    }

    /// How many there are, and their bytes.
    pub(crate) fn outside_sums(&self) -> Result<(usize, u64), IndexError> {
        self.read(|t| {
            let (mut count, mut bytes) = (0, 0);
            for row in t.open_table(OUTSIDE)?.iter()? {
                count += 1;
                bytes += row?.1.value().0;
            }
            Ok((count, bytes))
        })
    }

    /// Forgets blobs that are not there any more. Links stay, as with a blob that is lost.
    pub(crate) fn forget_outside(&self, digests: &[Digest]) -> Result<(), IndexError> {
        self.write(|t| digests.iter().try_for_each(|digest| forget(t, Key::of(digest).get())))
    }

    /// Removes the row of the own copy of a blob that lies outside, too; see
    /// [`crate::Store::leave_outside`].
    pub(crate) fn leave_outside(
        &self,
        digest: &Digest,
        rules: CacheRules<'_>,
    ) -> Result<bool, IndexError> {
        let key = Key::of(digest);
        self.write(|t| {
            let kept = t.open_table(OUTSIDE)?.get(key.get())?.map(|row| row.value().1 == 1);
            let may_go = match kept {
                None => false,
                Some(true) => true,
                Some(false) => matches!(standing(t, rules, key.get())?, Standing::Cache(_)),
            };
            Ok(may_go && doom(t, key.get())?)
        })
    }
}
