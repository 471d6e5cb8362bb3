//! What a manifest refers to, when content was last used, and what was lost: the rows that the
//! collection of garbage and the repair rest on.
//!
//! Decides that `references` is derived from manifests and their repositories alone, in the
//! transaction that stores or removes the manifest. Must never guess: a manifest whose children
//! are not known keeps everything in its repository.

use super::content::has_link;
use super::keys::{self, Key};
use super::outside;
use super::{BLOBS, DOOMED, DigestKey, Index, LEASES, LINKED_BY, LINKS, MANIFESTS, REVISIONS};
use crate::error::IndexError;
use crate::store::now_ms;
use ddr_oci::digest::Digest;
use ddr_oci::manifest::Manifest;
use ddr_oci::reference::RepositoryName;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::collections::BTreeSet;

/// (repository, child, manifest): the manifest refers to the child. The child is empty where the
/// children of the manifest are not known.
pub(super) const REFERENCES: TableDefinition<'_, (&str, DigestKey, DigestKey), ()> =
    TableDefinition::new("references");
/// (repository, manifest) -> digest keys of its children, one after the other.
pub(super) const CHILDREN: TableDefinition<'_, (&str, DigestKey), &[u8]> =
    TableDefinition::new("children");
/// (repository, digest) -> last use, unix milliseconds. The repository is empty for content that
/// came without one.
pub(super) const TOUCHED: TableDefinition<'_, (&str, DigestKey), u64> =
    TableDefinition::new("touched");
/// digests of linked blobs that were damaged or missing -> since when, unix milliseconds.
pub(super) const LOST: TableDefinition<'_, DigestKey, u64> = TableDefinition::new("lost");

/// How many tables there are here.
pub(super) const REACH_TABLES: usize = 4;

/// A use that is written only if the one before is older than this.
pub(crate) const TOUCH_STEP_MS: u64 = 10 * 60 * 1000;

/// The repository of content that came without one.
pub(super) const NO_REPOSITORY: &str = "";

/// Creates the tables; where `references` is new, it is filled from the manifests.
pub(super) fn create_tables(t: &WriteTransaction) -> Result<(), IndexError> {
    use redb::TableHandle;
    let is_new = !t.list_tables()?.any(|table| table.name() == REFERENCES.name());
    t.open_table(REFERENCES)?;
    t.open_table(CHILDREN)?;
    t.open_table(TOUCHED)?;
    t.open_table(LOST)?;
    if !is_new {
        return Ok(());
    }
    let revisions = t.open_table(REVISIONS)?;
    let manifests = t.open_table(MANIFESTS)?;
    for row in revisions.iter()? {
        let (revision, _) = row?;
        let (name, manifest) = revision.value();
        let children = match manifests.get(manifest)? {
            Some(row) => children_of(row.value().0, row.value().1),
            None => None,
        };
        store(t, name, manifest, children.as_ref())?;
    }
    Ok(())
}

/// Every digest that a manifest names, except its subject; `None` if it is no manifest.
pub(super) fn children_of(media_type: &str, bytes: &[u8]) -> Option<BTreeSet<Digest>> {
    let manifest = Manifest::parse(Some(media_type), bytes).ok()?;
    let all = manifest.config.iter().chain(&manifest.layers).chain(&manifest.manifests);
    Some(all.map(|descriptor| descriptor.digest).collect())
}

/// Notes what a manifest refers to: what its bytes say and what the caller says.
pub(super) fn refer(
    t: &WriteTransaction,
    repository: &str,
    manifest: &[u8],
    entry: &super::ManifestEntry,
) -> Result<(), IndexError> {
    forget(t, repository, manifest)?;
    let mut children = children_of(&entry.media_type, &entry.bytes).unwrap_or_default();
    children.extend(&entry.children);
    store(t, repository, manifest, Some(&children))
}

/// Writes the rows of a manifest that has none.
pub(super) fn store(
    t: &WriteTransaction,
    repository: &str,
    manifest: &[u8],
    children: Option<&BTreeSet<Digest>>,
) -> Result<(), IndexError> {
    let mut references = t.open_table(REFERENCES)?;
    let Some(children) = children else {
        references.insert((repository, &[][..], manifest), ())?;
        return Ok(());
    };
    let mut list = Vec::new();
    for child in children {
        let key = Key::of(child);
        references.insert((repository, key.get(), manifest), ())?;
        list.extend_from_slice(key.get());
    }
    t.open_table(CHILDREN)?.insert((repository, manifest), list.as_slice())?;
    Ok(())
}

/// Forgets what a manifest refers to.
pub(super) fn forget(
    t: &WriteTransaction,
    repository: &str,
    manifest: &[u8],
) -> Result<(), IndexError> {
    let mut references = t.open_table(REFERENCES)?;
    references.remove((repository, &[][..], manifest))?;
    if let Some(list) = t.open_table(CHILDREN)?.remove((repository, manifest))? {
        for child in keys::split(list.value())? {
            references.remove((repository, child, manifest))?;
        }
    }
    Ok(())
}

/// Those of `digests` that the repository does not link, or that are not here.
pub(super) fn gone(
    t: &WriteTransaction,
    repository: &str,
    digests: &[Digest],
) -> Result<Vec<Digest>, IndexError> {
    let links = t.open_table(LINKS)?;
    let mut gone = Vec::new();
    for digest in digests {
        let key = Key::of(digest);
        let here = links.get((repository, key.get()))?.is_some() && outside::is_kept(t, key.get())?;
        if !here {
            gone.push(*digest);
        }
    }
    Ok(gone)
}

/// Notes a use now.
pub(super) fn touch(
    t: &WriteTransaction,
    repository: &str,
    digest: &[u8],
) -> Result<(), IndexError> {
    t.open_table(TOUCHED)?.insert((repository, digest), now_ms())?;
    Ok(())
}

/// Notes blobs whose rows go although somebody may read them.
pub(super) fn lose(t: &WriteTransaction, digests: &[Digest]) -> Result<(), IndexError> {
    let linked_by = t.open_table(LINKED_BY)?;
    let mut lost = t.open_table(LOST)?;
    for digest in digests {
        let key = Key::of(digest);
        if has_link(&linked_by, key.get())? {
            lost.insert(key.get(), now_ms())?;
        }
    }
    Ok(())
}

/// The blob is here.
pub(super) fn found(t: &WriteTransaction, digest: &[u8]) -> Result<(), IndexError> {
    t.open_table(LOST)?.remove(digest)?;
    Ok(())
}

impl Index {
    /// Writes uses that were kept in memory, where they are worth it.
    pub(crate) fn touch_all(
        &self,
        uses: &[(RepositoryName, Digest, u64)],
    ) -> Result<(), IndexError> {
        let worth = self.read(|t| {
            let touched = t.open_table(TOUCHED)?;
            let is_worth = |(name, digest, at): &&(RepositoryName, Digest, u64)| {
                let last = touched.get((name.as_str(), Key::of(digest).get()))?;
                let last = last.map_or(0, |last| last.value());
                Ok::<_, IndexError>(last.saturating_add(TOUCH_STEP_MS) <= *at)
            };
            let mut worth = Vec::new();
            for one in uses {
                if is_worth(&one)? {
                    worth.push(one.clone());
                }
            }
            Ok(worth)
        })?;
        if worth.is_empty() {
            return Ok(());
        }
        self.write(|t| {
            let mut touched = t.open_table(TOUCHED)?;
            for (name, digest, at) in &worth {
                touched.insert((name.as_str(), Key::of(digest).get()), *at)?;
            }
            Ok(())
        })
    }

    /// Linked blobs that were damaged or missing and did not come back, at most `limit`. Those
    /// that nobody links any more are forgotten.
    pub(crate) fn lost(&self, limit: usize) -> Result<Vec<Digest>, IndexError> {
        let (lost, stale) = self.read(|t| {
            let linked_by = t.open_table(LINKED_BY)?;
            let (mut lost, mut stale) = (Vec::new(), Vec::new());
            for row in t.open_table(LOST)?.iter()? {
                if lost.len() >= limit {
                    break;
                }
                let (key, _) = row?;
                let is_linked = has_link(&linked_by, key.value())?;
                let list = if is_linked { &mut lost } else { &mut stale };
                list.push(keys::digest(key.value())?);
            }
            Ok((lost, stale))
        })?;
        if !stale.is_empty() {
            self.write(|t| {
                let linked_by = t.open_table(LINKED_BY)?;
                let mut lost = t.open_table(LOST)?;
                for digest in &stale {
                    let key = Key::of(digest);
                    if !has_link(&linked_by, key.get())? {
                        lost.remove(key.get())?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(lost)
    }

    /// Repositories that link a digest, at most `limit`.
    pub(crate) fn linking(
        &self,
        digest: &Digest,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, IndexError> {
        let key = Key::of(digest);
        self.read(|t| {
            let mut names = Vec::new();
            for row in t.open_table(LINKED_BY)?.range((key.get(), "")..)? {
                let (row, ()) = row.map(|(key, value)| (key, value.value()))?;
                let (of, name) = row.value();
                if of != key.get() || names.len() >= limit {
                    break;
                }
                names.push(keys::name(name)?);
            }
            Ok(names)
        })
    }

    /// Whether a blob was deleted and its files may still be there.
    pub(crate) fn is_doomed(&self, digest: &Digest) -> Result<bool, IndexError> {
        self.read(|t| Ok(t.open_table(DOOMED)?.get(Key::of(digest).get())?.is_some()))
    }

    /// Blobs that nobody links or leases, and their bytes.
    pub(crate) fn orphans(&self) -> Result<(u64, u64), IndexError> {
        self.read(|t| {
            let (linked_by, leases) = (t.open_table(LINKED_BY)?, t.open_table(LEASES)?);
            let (mut count, mut bytes) = (0, 0);
            for row in t.open_table(BLOBS)?.iter()? {
                let (key, size) = row?;
                if !has_link(&linked_by, key.value())? && leases.get(key.value())?.is_none() {
                    count += 1;
                    bytes += size.value();
                }
            }
            Ok((count, bytes))
        })
    }
}
