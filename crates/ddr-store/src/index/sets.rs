//! Rows that the node keeps for its swarm: name records and the entries of sets, which other nodes
//! sign. What is in them is opaque here; the higher rank holds, of equal ones the greater bytes.

use super::manifests::forget_repository_if_empty;
use super::names::{MAX_NAME_RECORD_BYTES, check};
use super::{
    HISTORY, Index, NAMES, Place, REPOSITORIES, REVISIONS, Ranked, SETS, TAGS, history, keys,
};
use crate::error::IndexError;
use ddr_oci::digest::Digest;
use ddr_oci::reference::{RepositoryName, Tag};
use redb::{ReadableTable, WriteTransaction};
use std::ops::Bound;

/// Longest member of a set, bytes.
pub const MAX_MEMBER_BYTES: usize = 256;

/// A name record to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptName {
    /// Under which key.
    pub key: [u8; 32],
    /// The higher holds.
    pub rank: u128,
    /// At most [`MAX_NAME_RECORD_BYTES`].
    pub record: Vec<u8>,
}

/// An entry of a set to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptEntry {
    /// The key of the set.
    pub set: [u8; 32],
    /// At most [`MAX_MEMBER_BYTES`].
    pub member: Vec<u8>,
    /// The higher holds.
    pub rank: u128,
    /// At most [`MAX_NAME_RECORD_BYTES`].
    pub record: Vec<u8>,
}

/// What is to become durable in one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// Name records.
    pub names: Vec<KeptName>,
    /// Entries of sets.
    pub entries: Vec<KeptEntry>,
    /// Rows of the local list of tags: set where the manifest is here, or removed.
    pub tags: Vec<(RepositoryName, Tag, Option<Digest>)>,
}

/// What became of one record of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is kept now; there was none before.
    New,
    /// It is kept now in the place of an older one.
    Replaced,
    /// It was kept already.
    Same,
    /// This one is kept instead: it is newer.
    Newer(Vec<u8>),
}

/// Some entries of one set, and whether there are more.
pub type SetPage = (Vec<Vec<u8>>, bool);
/// Entries of all sets: key of the set, member, entry.
pub type SetRows = Vec<([u8; 32], Vec<u8>, Vec<u8>)>;

impl Index {
    /// Keeps what is newer than what is there, all in one transaction; the outcomes of names, then
    /// of entries. Nothing is written when nothing changes.
    pub(crate) fn keep(&self, batch: &Batch) -> Result<Vec<Outcome>, IndexError> {
        for name in &batch.names {
            check("a name record", name.record.len(), MAX_NAME_RECORD_BYTES)?;
        }
        for entry in &batch.entries {
            check("an entry", entry.record.len(), MAX_NAME_RECORD_BYTES)?;
            check("a member", entry.member.len(), MAX_MEMBER_BYTES)?;
        }
        if batch.tags.is_empty() {
            let (known, changes) = self.read(|t| {
                let known = outcomes(batch, &t.open_table(NAMES)?, &t.open_table(SETS)?)?;
                let changes = known.iter().any(changes) || {
                    let late = |(_, one): &(_, &Outcome)| matches!(one, Outcome::Newer(_));
                    let old = t.open_table(HISTORY)?;
                    let mut late = batch.names.iter().zip(&known).filter(late);
                    late.try_fold(false, |any, (name, _)| {
                        Ok::<_, IndexError>(any || history::is_missing(&old, name)?)
                    })?
                };
                Ok((known, changes))
            })?;
            if !changes {
                return Ok(known);
            }
        }
        self.write(|t| {
            let outcomes = outcomes(batch, &t.open_table(NAMES)?, &t.open_table(SETS)?)?;
            let (of_names, of_entries) = outcomes.split_at(batch.names.len());
            history::note(t, &batch.names, of_names)?;
            let (mut names, mut sets) = (t.open_table(NAMES)?, t.open_table(SETS)?);
            for (name, _) in batch.names.iter().zip(of_names).filter(|(_, one)| changes(one)) {
                names.insert(name.key, (name.rank, name.record.as_slice()))?;
            }
            for (entry, _) in batch.entries.iter().zip(of_entries).filter(|(_, one)| changes(one)) {
                let key = (entry.set, entry.member.as_slice());
                sets.insert(key, (entry.rank, entry.record.as_slice()))?;
            }
            for (repository, tag, digest) in &batch.tags {
                list_tag(t, repository, tag, digest.as_ref())?;
            }
            Ok(outcomes)
        })
    }

    /// Forgets records and entries whose rank is still the given one; names with what they said
    /// before.
    pub(crate) fn forget_kept(
        &self,
        names: &[([u8; 32], u128)],
        entries: &[([u8; 32], Vec<u8>, u128)],
    ) -> Result<(), IndexError> {
        self.write(|t| {
            let (mut kept_names, mut sets) = (t.open_table(NAMES)?, t.open_table(SETS)?);
            for (key, rank) in names {
                if kept_names.get(key)?.is_some_and(|row| row.value().0 == *rank) {
                    kept_names.remove(key)?;
                    history::forget(t, *key)?;
                }
            }
            for (set, member, rank) in entries {
                let key = (*set, member.as_slice());
                if sets.get(key)?.is_some_and(|row| row.value().0 == *rank) {
                    sets.remove(key)?;
                }
            }
            Ok(())
        })
    }

    pub(crate) fn set_entry(
        &self,
        set: [u8; 32],
        member: &[u8],
    ) -> Result<Option<Vec<u8>>, IndexError> {
        self.read(|t| {
            let row = t.open_table(SETS)?.get((set, member))?;
            Ok(row.map(|row| row.value().1.to_vec()))
        })
    }

    /// Entries of one set with members from `from` on: at most `limit`, and as many as fit into
    /// `max_bytes`, but one at least.
    pub(crate) fn set_page(
        &self,
        set: [u8; 32],
        from: &[u8],
        limit: usize,
        max_bytes: usize,
    ) -> Result<SetPage, IndexError> {
        self.read(|t| {
            let (mut page, mut bytes) = (Vec::new(), 0);
            for row in t.open_table(SETS)?.range((set, from)..)? {
                let (key, value) = row?;
                if key.value().0 != set {
                    break;
                }
                let record = value.value().1;
                bytes += record.len();
                if page.len() >= limit || (bytes > max_bytes && !page.is_empty()) {
                    return Ok((page, true));
                }
                page.push(record.to_vec());
            }
            Ok((page, false))
        })
    }

    /// At most `limit` entries of any set after a place, in the order of keys.
    pub(crate) fn sets(
        &self,
        limit: usize,
        after: Option<([u8; 32], &[u8])>,
    ) -> Result<SetRows, IndexError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|t| {
            let sets = t.open_table(SETS)?;
            let rows = sets.range::<([u8; 32], &[u8])>((start, Bound::Unbounded))?;
            rows.take(limit)
                .map(|row| {
                    let (key, value) = row?;
                    let (set, member) = key.value();
                    Ok((set, member.to_vec(), value.value().1.to_vec()))
                })
                .collect()
        })
    }
}

fn outcomes(
    batch: &Batch,
    names: &impl ReadableTable<[u8; 32], Ranked>,
    sets: &impl ReadableTable<Place, Ranked>,
) -> Result<Vec<Outcome>, IndexError> {
    let mut outcomes = Vec::with_capacity(batch.names.len() + batch.entries.len());
    for name in &batch.names {
        let kept = names.get(name.key)?;
        outcomes.push(compare(kept.as_ref().map(|row| row.value()), name.rank, &name.record));
    }
    for entry in &batch.entries {
        let kept = sets.get((entry.set, entry.member.as_slice()))?;
        outcomes.push(compare(kept.as_ref().map(|row| row.value()), entry.rank, &entry.record));
    }
    Ok(outcomes)
}

/// Whether the record takes the place of what was there.
const fn changes(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::New | Outcome::Replaced)
}

fn compare(kept: Option<(u128, &[u8])>, rank: u128, record: &[u8]) -> Outcome {
    match kept {
        None => Outcome::New,
        Some(kept) if kept == (rank, record) => Outcome::Same,
        Some(kept) if kept > (rank, record) => Outcome::Newer(kept.1.to_vec()),
        Some(_) => Outcome::Replaced,
    }
}

fn list_tag(
    t: &WriteTransaction,
    repository: &RepositoryName,
    tag: &Tag,
    digest: Option<&Digest>,
) -> Result<(), IndexError> {
    let row = (repository.as_str(), tag.as_str());
    let Some(digest) = digest else {
        if t.open_table(TAGS)?.remove(row)?.is_some() {
            forget_repository_if_empty(t, repository.as_str())?;
        }
        return Ok(());
    };
    let key = keys::Key::of(digest);
    if t.open_table(REVISIONS)?.get((repository.as_str(), key.get()))?.is_some() {
        t.open_table(TAGS)?.insert(row, key.get())?;
        t.open_table(REPOSITORIES)?.insert(repository.as_str(), ())?;
    }
    Ok(())
}
