//! Rows of the node: name records, which other nodes sign, and small settings.

use super::{Index, NAMES, SETTINGS};
use crate::error::IndexError;
use redb::ReadableTable;
use std::ops::Bound;

/// Longest name record, bytes.
pub const MAX_NAME_RECORD_BYTES: usize = 64 * 1024;
/// Longest setting, bytes.
pub const MAX_SETTING_BYTES: usize = 1024 * 1024;
/// Longest key of a setting, bytes.
pub const MAX_SETTING_KEY_BYTES: usize = 128;

/// Name records and their keys, in the order of keys.
pub type NamePage = Vec<([u8; 32], Vec<u8>)>;

impl Index {
    pub(crate) fn put_name(
        &self,
        key: [u8; 32],
        stamp: u128,
        record: &[u8],
    ) -> Result<bool, IndexError> {
        check("a name record", record.len(), MAX_NAME_RECORD_BYTES)?;
        self.write(|t| {
            let mut names = t.open_table(NAMES)?;
            let newer = names.get(key)?.is_some_and(|row| row.value().0 > stamp);
            if !newer {
                names.insert(key, (stamp, record))?;
            }
            Ok(!newer)
        })
    }

    pub(crate) fn name(&self, key: [u8; 32]) -> Result<Option<Vec<u8>>, IndexError> {
        self.read(|t| Ok(t.open_table(NAMES)?.get(key)?.map(|row| row.value().1.to_vec())))
    }

    pub(crate) fn names(
        &self,
        limit: usize,
        after: Option<[u8; 32]>,
    ) -> Result<NamePage, IndexError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|t| {
            let names = t.open_table(NAMES)?;
            names
                .range::<[u8; 32]>((start, Bound::Unbounded))?
                .take(limit)
                .map(|row| {
                    let (key, record) = row?;
                    Ok((key.value(), record.value().1.to_vec()))
                })
                .collect()
        })
    }

    pub(crate) fn get_setting(&self, key: &str) -> Result<Option<Vec<u8>>, IndexError> {
        self.read(|t| Ok(t.open_table(SETTINGS)?.get(key)?.map(|value| value.value().to_vec())))
    }

    pub(crate) fn set_setting(&self, key: &str, value: &[u8]) -> Result<(), IndexError> {
        check("the key of a setting", key.len(), MAX_SETTING_KEY_BYTES)?;
        check("a setting", value.len(), MAX_SETTING_BYTES)?;
        self.write(|t| {
            t.open_table(SETTINGS)?.insert(key, value)?;
            Ok(())
        })
    }
}

pub(super) fn check(what: &'static str, len: usize, limit: usize) -> Result<(), IndexError> {
    if len > limit { Err(IndexError::TooLarge { what, limit }) } else { Ok(()) }
}
