//! Records and entries as rows of the store.

use ddr_proto::wire::{Fact, FactRecord, NameRecord, SetEntry};
use ddr_store::{KeptEntry, KeptName};

use crate::forget::Content;

/// What a word about deleted content is about.
pub(super) fn about_content(entry: &SetEntry) -> Option<Content<'_>> {
    match entry {
        SetEntry::Fact(FactRecord { fact: Fact::Deleted { repository, digest, kind }, .. }) => {
            Some((repository, digest, *kind))
        }
        _ => None,
    }
}

pub(super) fn kept_name(record: &NameRecord) -> KeptName {
    let rank = rank(record.stamp, &record.writer);
    KeptName { key: *record.key().as_bytes(), rank, record: record.to_bytes() }
}

pub(super) fn kept_entry(entry: &SetEntry) -> KeptEntry {
    KeptEntry {
        set: *entry.set().key().as_bytes(),
        member: entry.member().as_bytes().to_vec(),
        rank: rank(entry.stamp(), entry.writer()),
        record: entry.to_bytes(),
    }
}

/// The order of records as the store compares it: stamp, then writer.
pub(super) fn rank(stamp: u64, writer: &[u8; 32]) -> u128 {
    let writer = writer.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first));
    u128::from(stamp) << 64 | u128::from(writer)
}
