//! Which content the node keeps for its swarm: a record for each manifest of a repository of which it
//! holds a copy, and of which of its parts.
//!
//! Decides that a record names only parts that are here when it is written, and goes with its manifest, in
//! the same transaction. What else is in the record is opaque here.

use super::keys::{self, Key};
use super::{DigestKey, Index, LINKS, REVISIONS, outside};
use crate::error::IndexError;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::ops::Bound;

/// (repository, manifest) -> record.
pub(super) const REPLICAS: TableDefinition<'_, (&str, DigestKey), &[u8]> =
    TableDefinition::new("replicas");
/// (part, repository, manifest): the part is kept here for this manifest, which may be the part itself.
pub(super) const REPLICA_OF: TableDefinition<'_, (DigestKey, &str, DigestKey), ()> =
    TableDefinition::new("replica_of");

/// How many tables there are here.
pub(super) const REPLICA_TABLES: usize = 2;

/// Largest record, bytes.
pub const MAX_REPLICA_RECORD_BYTES: usize = 2 * 1024 * 1024;

/// A record, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaRecord {
    /// The repository.
    pub repository: RepositoryName,
    /// The manifest.
    pub manifest: Digest,
    /// What [`crate::Store::keep_replica`] was given.
    pub record: Vec<u8>,
}

/// The tables, created where they are missing.
pub(super) fn create_tables(t: &WriteTransaction) -> Result<(), IndexError> {
    t.open_table(REPLICAS)?;
    t.open_table(REPLICA_OF)?;
    Ok(())
}

/// The record of a manifest that goes.
pub(super) fn drop_record(
    t: &WriteTransaction,
    repository: &str,
    manifest: &[u8],
) -> Result<bool, IndexError> {
    let was_there = t.open_table(REPLICAS)?.remove((repository, manifest))?.is_some();
    if was_there {
        drop_parts(t, repository, manifest)?;
    }
    Ok(was_there)
}

/// The parts are those of a record that was read: of each the row is found by itself.
fn drop_parts(t: &WriteTransaction, repository: &str, manifest: &[u8]) -> Result<(), IndexError> {
    let children = t.open_table(super::reach::CHILDREN)?;
    let list = children.get((repository, manifest))?;
    let mut parts = match &list {
        Some(list) => keys::split(list.value())?,
        None => Vec::new(),
    };
    parts.push(manifest);
    let mut replica_of = t.open_table(REPLICA_OF)?;
    for part in parts {
        replica_of.remove((part, repository, manifest))?;
    }
    Ok(())
}

fn is_here(
    t: &WriteTransaction,
    repository: &str,
    part: &[u8],
    manifest: &[u8],
) -> Result<bool, IndexError> {
    if part == manifest {
        return Ok(true);
    }
    let is_linked = t.open_table(LINKS)?.get((repository, part))?.is_some();
    Ok(is_linked && outside::is_kept(t, part)?)
}

impl Index {
    pub(crate) fn keep_replica(
        &self,
        replica: &ReplicaRecord,
        kept: &[Digest],
    ) -> Result<bool, IndexError> {
        super::names::check("a replica record", replica.record.len(), MAX_REPLICA_RECORD_BYTES)?;
        let name = replica.repository.as_str();
        let manifest = Key::of(&replica.manifest);
        self.write(|t| {
            if t.open_table(REVISIONS)?.get((name, manifest.get()))?.is_none() {
                return Ok(false);
            }
            for part in kept {
                if !is_here(t, name, Key::of(part).get(), manifest.get())? {
                    return Ok(false);
                }
            }
            drop_parts(t, name, manifest.get())?;
            let mut replica_of = t.open_table(REPLICA_OF)?;
            for part in kept {
                replica_of.insert((Key::of(part).get(), name, manifest.get()), ())?;
            }
            let row = (name, manifest.get());
            t.open_table(REPLICAS)?.insert(row, replica.record.as_slice())?;
            Ok(true)
        })
    }

    pub(crate) fn drop_replica(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<bool, IndexError> {
        self.write(|t| drop_record(t, repository.as_str(), Key::of(manifest).get()))
    }

    pub(crate) fn replica(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<Option<Vec<u8>>, IndexError> {
        self.read(|t| {
            let key = Key::of(manifest);
            let row = t.open_table(REPLICAS)?.get((repository.as_str(), key.get()))?;
            Ok(row.map(|row| row.value().to_vec()))
        })
    }

    pub(crate) fn replicas(
        &self,
        after: Option<&(RepositoryName, Digest)>,
        limit: usize,
    ) -> Result<Vec<ReplicaRecord>, IndexError> {
        let after = after.map(|(name, digest)| (name.as_str(), Key::of(digest)));
        self.read(|t| {
            let start = after
                .as_ref()
                .map_or(Bound::Unbounded, |(name, key)| Bound::Excluded((*name, key.get())));
            let table = t.open_table(REPLICAS)?;
            let mut records = Vec::new();
            for row in table.range::<(&str, &[u8])>((start, Bound::Unbounded))?.take(limit) {
                let (key, record) = row?;
                let (name, manifest) = key.value();
                records.push(ReplicaRecord {
                    repository: keys::name(name)?,
                    manifest: keys::digest(manifest)?,
                    record: record.value().to_vec(),
                });
            }
            Ok(records)
        })
    }

    /// Manifests of a repository for which a part is kept here, at most `limit`.
    pub(crate) fn kept_for(
        &self,
        part: &Digest,
        repository: &RepositoryName,
        limit: usize,
    ) -> Result<Vec<Digest>, IndexError> {
        let key = Key::of(part);
        self.read(|t| {
            let mut manifests = Vec::new();
            let table = t.open_table(REPLICA_OF)?;
            for row in table.range((key.get(), repository.as_str(), &[][..])..)? {
                let (row, ()) = row.map(|(row, value)| (row, value.value()))?;
                let (of, name, manifest) = row.value();
                if of != key.get() || name != repository.as_str() || manifests.len() >= limit {
                    break;
                }
                manifests.push(keys::digest(manifest)?);
            }
            Ok(manifests)
        })
    }

    /// Whether content is kept here for the swarm, in any repository.
    pub(crate) fn is_replica(&self, part: &Digest) -> Result<bool, IndexError> {
        self.read(|t| is_kept(&t.open_table(REPLICA_OF)?, Key::of(part).get()))
    }
}

/// Whether a part is kept for any manifest.
pub(super) fn is_kept(
    table: &impl ReadableTable<(DigestKey, &'static str, DigestKey), ()>,
    part: &[u8],
) -> Result<bool, IndexError> {
    let next = table.range((part, "", &[][..])..)?.next();
    Ok(match next {
        Some(row) => row?.0.value().0 == part,
        None => false,
    })
}
