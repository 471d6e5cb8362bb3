//! What is counted, and mended, before a keeper begins.

use ddr_proto::wire::{NameRecord, SetEntry};
use ddr_store::{Batch, IndexError, Outcome, Store};

use super::Keeper;
use super::rows::{about_content, kept_entry};

/// Records read at once when they are counted.
const COUNT_PAGE: usize = 4096;

/// How many records and entries are in a store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counts {
    pub(crate) names: usize,
    pub(crate) entries: usize,
}

impl Keeper {
    /// Counts what is in `store`, makes the entries of names that were kept before there were
    /// sets, and lets deletes take effect that a crash cut off. Blocks.
    pub(crate) fn count(store: &Store) -> Result<Counts, IndexError> {
        let mut counts = Counts { names: 0, entries: count_entries(store)? };
        let mut after = None;
        loop {
            let page = store.names(COUNT_PAGE, after)?;
            let Some((last, _)) = page.last() else { return Ok(counts) };
            after = Some(*last);
            counts.names += page.len();
            if counts.entries < counts.names {
                let records =
                    page.iter().filter_map(|(_, bytes)| NameRecord::from_bytes(bytes).ok());
                let entries = records.map(|record| kept_entry(&SetEntry::Tag(record))).collect();
                let outcomes = store.keep(&Batch { entries, ..Batch::default() })?;
                counts.entries += outcomes.iter().filter(|one| **one == Outcome::New).count();
            }
        }
    }
}

fn count_entries(store: &Store) -> Result<usize, IndexError> {
    let (mut count, mut after) = (0, None::<([u8; 32], Vec<u8>)>);
    loop {
        let from = after.as_ref().map(|(set, member)| (*set, member.as_slice()));
        let rows = store.sets(COUNT_PAGE, from)?;
        let Some((set, member, _)) = rows.last() else { return Ok(count) };
        after = Some((*set, member.clone()));
        count += rows.len();
        for (_, _, bytes) in &rows {
            let Ok(entry) = SetEntry::from_bytes(bytes) else { continue };
            if let Some(content) = about_content(&entry)
                && entry.is_present()
            {
                crate::forget::unlink(store, content)?;
            }
        }
    }
}
