//! Whether the tables agree: the derived ones with the primary ones, links with blobs, manifests
//! with their digests.
//!
//! Decides that `links`, `revisions` and `manifests` are the truth, and that what is derived from
//! them may be put right without asking. Must never change a primary row, except that the bytes
//! of a manifest that are not its digest's go. Found in a read transaction, judged again in the
//! write transaction that repairs; a bounded number of rows each.

use super::garbage::{Cursor, LOOK_ROWS, after};
use super::keys::{self, Key};
use super::outside::OUTSIDE;
use super::reach::{self, CHILDREN, REFERENCES};
use super::{
    BLOBS, Index, LINKED_BY, LINKS, MANIFESTS, REFERRERS, REPOSITORIES, REVISION_OF, REVISIONS,
};
use crate::error::IndexError;
use ddr_oci::digest::Digest;
use ddr_oci::manifest::Manifest;
use ddr_oci::reference::RepositoryName;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};
use std::ops::Bound;

/// Rows of manifests looked at in one transaction: each may have 4 MiB.
const MANIFEST_ROWS: usize = 16;

/// A table that is derived from another, by what its rows must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuditTable {
    Links,
    LinkedBy,
    Revisions,
    RevisionOf,
    References,
    Referrers,
}

impl AuditTable {
    /// All of them, in the order of a run.
    pub(crate) const ALL: [Self; 6] = [
        Self::Links,
        Self::LinkedBy,
        Self::Revisions,
        Self::RevisionOf,
        Self::References,
        Self::Referrers,
    ];
}

/// A link whose content is not here.
pub(crate) type LinkRow = (RepositoryName, Digest);

/// One row as it stands: repository, digest, and a second digest where there is one.
type Row = (String, Vec<u8>, Vec<u8>);

/// What one look found.
#[derive(Debug, Default)]
pub(crate) struct Finding {
    /// Rows that were looked at.
    pub(crate) rows: usize,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<Cursor>,
    wrong: Vec<Row>,
    /// Links without content here.
    pub(crate) dangling: Vec<LinkRow>,
    /// Manifests of a repository whose bytes are missing.
    pub(crate) without_bytes: Vec<LinkRow>,
}

impl Finding {
    /// Rows that have to be put right.
    pub(crate) fn wrong(&self) -> usize {
        self.wrong.len()
    }
}

impl Index {
    /// Looks at the rows of a table after `cursor`.
    pub(crate) fn audit(
        &self,
        table: AuditTable,
        cursor: Option<&Cursor>,
    ) -> Result<Finding, IndexError> {
        match table {
            AuditTable::Links => self.audit_links(cursor),
            AuditTable::Revisions => self.audit_revisions(cursor),
            AuditTable::LinkedBy | AuditTable::RevisionOf => self.audit_turned(table, cursor),
            AuditTable::References | AuditTable::Referrers => self.audit_triples(table, cursor),
        }
    }

    fn audit_links(&self, cursor: Option<&Cursor>) -> Result<Finding, IndexError> {
        self.read(|t| {
            let (linked_by, blobs) = (t.open_table(LINKED_BY)?, t.open_table(BLOBS)?);
            let outside = t.open_table(OUTSIDE)?;
            let mut found = Finding::default();
            for row in t.open_table(LINKS)?.range((after(cursor), Bound::Unbounded))? {
                let (row, _) = row?;
                let (name, key) = row.value();
                found.rows += 1;
                if linked_by.get((key, name))?.is_none() {
                    found.wrong.push((name.into(), key.into(), Vec::new()));
                }
                if blobs.get(key)?.is_none() && outside.get(key)?.is_none() {
                    found.dangling.push((keys::name(name)?, keys::digest(key)?));
                }
                if found.rows >= LOOK_ROWS {
                    found.next = Some((name.into(), key.into()));
                    break;
                }
            }
            Ok(found)
        })
    }

    fn audit_revisions(&self, cursor: Option<&Cursor>) -> Result<Finding, IndexError> {
        self.read(|t| {
            let manifests = t.open_table(MANIFESTS)?;
            let (turned, children) = (t.open_table(REVISION_OF)?, t.open_table(CHILDREN)?);
            let (references, referrers) = (t.open_table(REFERENCES)?, t.open_table(REFERRERS)?);
            let repositories = t.open_table(REPOSITORIES)?;
            let mut found = Finding::default();
            for row in t.open_table(REVISIONS)?.range((after(cursor), Bound::Unbounded))? {
                let (row, subject) = row?;
                let ((name, key), subject) = (row.value(), subject.value());
                found.rows += 1;
                let mut wrong = turned.get((key, name))?.is_none()
                    || repositories.get(name)?.is_none()
                    || (!subject.is_empty() && referrers.get((name, subject, key))?.is_none());
                match manifests.get(key)? {
                    None => found.without_bytes.push((keys::name(name)?, keys::digest(key)?)),
                    Some(row) => {
                        let (media_type, bytes) = row.value();
                        for child in reach::children_of(media_type, bytes).unwrap_or_default() {
                            let child = Key::of(&child);
                            wrong |= references.get((name, child.get(), key))?.is_none();
                        }
                        wrong |= children.get((name, key))?.is_none()
                            && references.get((name, &[][..], key))?.is_none();
                    }
                }
                if wrong {
                    found.wrong.push((name.into(), key.into(), Vec::new()));
                }
                if found.rows >= MANIFEST_ROWS {
                    found.next = Some((name.into(), key.into()));
                    break;
                }
            }
            Ok(found)
        })
    }

    fn audit_turned(
        &self,
        table: AuditTable,
        cursor: Option<&Cursor>,
    ) -> Result<Finding, IndexError> {
        let is_links = table == AuditTable::LinkedBy;
        let start = cursor.map_or(Bound::Unbounded, |(name, key)| {
            Bound::Excluded((key.as_slice(), name.as_str()))
        });
        self.read(|t| {
            let (links, revisions) = (t.open_table(LINKS)?, t.open_table(REVISIONS)?);
            let turned = t.open_table(if is_links { LINKED_BY } else { REVISION_OF })?;
            let mut found = Finding::default();
            for row in turned.range((start, Bound::Unbounded))? {
                let (row, _) = row?;
                let (key, name) = row.value();
                found.rows += 1;
                let is_there = if is_links {
                    links.get((name, key))?.is_some()
                } else {
                    revisions.get((name, key))?.is_some()
                };
                if !is_there {
                    found.wrong.push((name.into(), key.into(), Vec::new()));
                }
                if found.rows >= LOOK_ROWS {
                    found.next = Some((name.into(), key.into()));
                    break;
                }
            }
            Ok(found)
        })
    }

    /// Rows of three parts. Their cursor has both digests, the second after the first.
    fn audit_triples(
        &self,
        table: AuditTable,
        cursor: Option<&Cursor>,
    ) -> Result<Finding, IndexError> {
        let is_references = table == AuditTable::References;
        let start = match cursor {
            None => Bound::Unbounded,
            Some((name, both)) => {
                let (first, second) = unjoin(both)?;
                Bound::Excluded((name.as_str(), first, second))
            }
        };
        self.read(|t| {
            let revisions = t.open_table(REVISIONS)?;
            let mut found = Finding::default();
            let mut look = |(name, first, second): (&str, &[u8], &[u8])| {
                found.rows += 1;
                let revision = revisions.get((name, second))?;
                let is_right =
                    revision.is_some_and(|subject| is_references || subject.value() == first);
                if !is_right {
                    found.wrong.push((name.into(), first.into(), second.into()));
                }
                if found.rows >= LOOK_ROWS {
                    found.next = Some((name.into(), join(first, second)));
                }
                Ok::<_, IndexError>(found.next.is_some())
            };
            if is_references {
                for row in t.open_table(REFERENCES)?.range((start, Bound::Unbounded))? {
                    if look(row?.0.value())? {
                        break;
                    }
                }
            } else {
                for row in t.open_table(REFERRERS)?.range((start, Bound::Unbounded))? {
                    if look(row?.0.value())? {
                        break;
                    }
                }
            }
            Ok(found)
        })
    }

    /// Puts right what [`Index::audit`] found, where it is still so.
    pub(crate) fn repair(&self, table: AuditTable, found: &Finding) -> Result<(), IndexError> {
        if found.wrong.is_empty() {
            return Ok(());
        }
        self.write(|t| {
            found.wrong.iter().try_for_each(|(name, first, second)| match table {
                AuditTable::Revisions => repair_revision(t, name, first),
                _ => repair_row(t, table, name, first, second),
            })
        })
    }

    /// Manifests after `cursor` whose bytes do not have their digest, where to go on, and how many
    /// bytes were read.
    pub(crate) fn wrong_manifests(
        &self,
        cursor: Option<&Cursor>,
    ) -> Result<(Vec<Digest>, Option<Cursor>, u64), IndexError> {
        let start = cursor.map_or(Bound::Unbounded, |(_, key)| Bound::Excluded(key.as_slice()));
        self.read(|t| {
            let (mut wrong, mut read) = (Vec::new(), 0);
            let manifests = t.open_table(MANIFESTS)?;
            for (row, count) in manifests.range::<&[u8]>((start, Bound::Unbounded))?.zip(1..) {
                let (key, value) = row?;
                let (digest, bytes) = (keys::digest(key.value())?, value.value().1);
                read += bytes.len() as u64;
                if Digest::of(digest.algorithm(), bytes) != digest {
                    wrong.push(digest);
                }
                if count >= MANIFEST_ROWS {
                    return Ok((wrong, Some(Self::cursor_after(&digest)), read));
                }
            }
            Ok((wrong, None, read))
        })
    }

    /// Takes the bytes of a manifest away if they do not have its digest; those bytes.
    pub(crate) fn take_wrong_manifest(
        &self,
        digest: &Digest,
    ) -> Result<Option<Vec<u8>>, IndexError> {
        let taken = self.write(|t| {
            let mut manifests = t.open_table(MANIFESTS)?;
            let key = Key::of(digest);
            let bytes = manifests.get(key.get())?.map(|row| row.value().1.to_vec());
            let wrong = bytes.filter(|bytes| Digest::of(digest.algorithm(), bytes) != *digest);
            if wrong.is_some() {
                manifests.remove(key.get())?;
            }
            Ok(wrong)
        });
        self.manifests.forget(digest);
        taken
    }

    /// Blobs with digests after `cursor`, at most `limit`.
    pub(crate) fn blobs_after(
        &self,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Digest>, IndexError> {
        let start = cursor.map_or(Bound::Unbounded, |(_, key)| Bound::Excluded(key.as_slice()));
        self.read(|t| {
            let blobs = t.open_table(BLOBS)?;
            let rows = blobs.range::<&[u8]>((start, Bound::Unbounded))?.take(limit);
            rows.map(|row| keys::digest(row?.0.value())).collect()
        })
    }

    /// Blobs and manifests, how many.
    pub(crate) fn counts(&self) -> Result<(u64, u64), IndexError> {
        self.read(|t| Ok((t.open_table(BLOBS)?.len()?, t.open_table(MANIFESTS)?.len()?)))
    }
}

fn join(first: &[u8], second: &[u8]) -> Vec<u8> {
    // The first may be empty, which no digest key is.
    let mark = [u8::from(!first.is_empty())];
    [&mark[..], first, second].concat()
}

fn unjoin(both: &[u8]) -> Result<(&[u8], &[u8]), IndexError> {
    let damaged = || IndexError::Damaged("a place to go on is none".into());
    match both.split_first() {
        Some((0, second)) => Ok((&[], second)),
        Some((_, rest)) => match keys::split(rest)?[..] {
            [first, second] => Ok((first, second)),
            _ => Err(damaged()),
        },
        None => Err(damaged()),
    }
}

fn repair_row(
    t: &WriteTransaction,
    table: AuditTable,
    name: &str,
    first: &[u8],
    second: &[u8],
) -> Result<(), IndexError> {
    let has_link = t.open_table(LINKS)?.get((name, first))?.is_some();
    let revisions = t.open_table(REVISIONS)?;
    let subject = revisions.get((name, second))?.map(|subject| subject.value().to_vec());
    match table {
        AuditTable::Links if has_link => {
            t.open_table(LINKED_BY)?.insert((first, name), ())?;
        }
        AuditTable::LinkedBy if !has_link => {
            t.open_table(LINKED_BY)?.remove((first, name))?;
        }
        AuditTable::RevisionOf if revisions.get((name, first))?.is_none() => {
            t.open_table(REVISION_OF)?.remove((first, name))?;
        }
        AuditTable::References if subject.is_none() => {
            t.open_table(REFERENCES)?.remove((name, first, second))?;
        }
        AuditTable::Referrers if subject.as_deref() != Some(first) => {
            t.open_table(REFERRERS)?.remove((name, first, second))?;
        }
        _ => {}
    }
    Ok(())
}

/// Writes what is derived from a manifest of a repository again.
fn repair_revision(t: &WriteTransaction, name: &str, key: &[u8]) -> Result<(), IndexError> {
    let subject = t.open_table(REVISIONS)?.get((name, key))?.map(|row| row.value().to_vec());
    let Some(subject) = subject else { return Ok(()) };
    t.open_table(REVISION_OF)?.insert((key, name), ())?;
    t.open_table(REPOSITORIES)?.insert(name, ())?;
    let row = t.open_table(MANIFESTS)?.get(key)?.map(|row| {
        let (media_type, bytes) = row.value();
        (media_type.to_owned(), bytes.to_vec())
    });
    let Some((media_type, bytes)) = row else { return Ok(()) };
    let mut children = reach::children_of(&media_type, &bytes);
    // What the caller of the put named beyond the bytes stays.
    if let Some(list) = t.open_table(CHILDREN)?.get((name, key))? {
        let named = keys::split(list.value())?.into_iter().map(keys::digest);
        children.get_or_insert_default().extend(named.collect::<Result<Vec<_>, _>>()?);
    }
    reach::forget(t, name, key)?;
    reach::store(t, name, key, children.as_ref())?;
    let mut referrers = t.open_table(REFERRERS)?;
    if !subject.is_empty()
        && referrers.get((name, subject.as_slice(), key))?.is_none()
        && let Ok(manifest) = Manifest::parse(Some(&media_type), &bytes)
    {
        let own = manifest.referrer_descriptor(keys::digest(key)?, bytes.len() as u64).to_json();
        referrers.insert((name, subject.as_slice(), key), own.as_slice())?;
    }
    Ok(())
}
