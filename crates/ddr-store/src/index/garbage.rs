//! Which links and blobs are garbage, and how they go.
//!
//! Decides by rows alone: a link is garbage if no manifest of its repository refers to the digest,
//! no lease or pin holds it, and its last use is as old as the grace window; a blob is, if nobody
//! links it and the same holds. What is found in a read transaction is judged again in the write
//! transaction that removes it. Must never look at or remove more than a named number of rows in
//! one transaction.

use super::content::{doom, has_link, unlink};
use super::keys::{self, Key};
use super::reach::{NO_REPOSITORY, REFERENCES, TOUCHED};
use super::{BLOBS, DigestKey, Index, LEASES, LINKED_BY, LINKS, REVISIONS};
use crate::error::IndexError;
use crate::uses::Uses;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use redb::{ReadableTable, WriteTransaction};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Rows looked at in one read transaction.
pub(crate) const LOOK_ROWS: usize = 1024;
/// Rows removed in one write transaction, about as many syncs of directories saved.
pub(crate) const REMOVE_ROWS: usize = 64;
/// A use this far in the future was noted by a clock that was wrong: it counts as one of now.
pub(super) const MAX_SKEW_MS: u64 = 24 * 60 * 60 * 1000;

/// What decides about one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    /// The time of the run, unix milliseconds.
    pub(crate) now_ms: u64,
    /// Milliseconds that must have passed since the last use.
    pub(crate) grace_ms: u64,
    /// What is in use now.
    pub(crate) uses: &'a Uses,
    /// Manifests that are tagged although the local index does not say so.
    pub(crate) tagged: &'a BTreeSet<(RepositoryName, Digest)>,
    /// Manifests that this run has removed.
    pub(crate) removed: &'a BTreeSet<(RepositoryName, Digest)>,
}

/// Why something stays, or that it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Something refers to it.
    Used,
    /// A lease or a pin.
    Held,
    /// Only the grace window.
    Young,
    /// Only the grace window, which begins now: no use was ever noted.
    Unstamped,
    /// Garbage that goes after what refers to it.
    Later,
    Garbage,
}

/// Where a walk over a table goes on: after this (repository, digest).
pub(crate) type Cursor = (String, Vec<u8>);

/// What one look found.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// Rows that were looked at.
    pub(crate) rows: usize,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<Cursor>,
    /// What has to be judged again to be removed or stamped.
    pub(crate) candidates: Vec<Cursor>,
    /// Garbage rows among them.
    pub(crate) garbage: usize,
    /// Garbage that goes after what refers to it.
    pub(crate) later: usize,
    /// Rows that only the grace window keeps.
    pub(crate) young: usize,
    /// Rows that a lease or pin keeps.
    pub(crate) held: usize,
    /// Blobs, and their bytes, that go with the garbage.
    pub(crate) blobs: usize,
    pub(crate) bytes: u64,
}

impl Looked {
    pub(super) fn note(&mut self, verdict: Verdict, row: Cursor) {
        match verdict {
            Verdict::Used => {}
            Verdict::Held => self.held += 1,
            Verdict::Young => self.young += 1,
            Verdict::Later => self.later += 1,
            Verdict::Unstamped => {
                self.young += 1;
                self.candidates.push(row);
            }
            Verdict::Garbage => {
                self.garbage += 1;
                self.candidates.push(row);
            }
        }
    }

    /// Whether the transaction has done its share; then `row` is where the next one begins.
    pub(super) fn is_full(&mut self, row: impl FnOnce() -> Cursor) -> bool {
        let full = self.rows >= LOOK_ROWS || self.candidates.len() >= REMOVE_ROWS;
        if full {
            self.next = Some(row());
        }
        full
    }
}

/// What one removal did.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Rows.
    pub(crate) rows: usize,
    /// Blobs whose files must go, and their bytes.
    pub(crate) blobs: Vec<(Digest, u64)>,
}

impl Rules<'_> {
    /// Whether a lease or a pin holds the content.
    pub(super) fn holds(
        &self,
        leases: &impl ReadableTable<DigestKey, u64>,
        key: &[u8],
    ) -> Result<bool, IndexError> {
        is_held(self.uses, self.now_ms, leases, key)
    }

    /// What the grace window says.
    pub(super) fn age(
        &self,
        touched: &impl ReadableTable<(&'static str, DigestKey), u64>,
        repository: &str,
        key: &[u8],
    ) -> Result<Verdict, IndexError> {
        let written = touched.get((repository, key))?.map(|at| at.value());
        let pending = self.uses.pending(repository, &keys::digest(key)?);
        Ok(match written.max(pending) {
            None if self.grace_ms > 0 => Verdict::Unstamped,
            Some(at) if at > self.now_ms.saturating_add(MAX_SKEW_MS) => Verdict::Unstamped,
            Some(at) if at.saturating_add(self.grace_ms) > self.now_ms => Verdict::Young,
            _ => Verdict::Garbage,
        })
    }

    /// Whether a link is garbage.
    fn link(
        &self,
        references: &impl ReadableTable<(&'static str, DigestKey, DigestKey), ()>,
        leases: &impl ReadableTable<DigestKey, u64>,
        touched: &impl ReadableTable<(&'static str, DigestKey), u64>,
        (repository, key): (&str, &[u8]),
    ) -> Result<Verdict, IndexError> {
        if is_referred(references, repository, key)? || is_referred(references, repository, &[])? {
            return Ok(Verdict::Used);
        }
        if self.holds(leases, key)? {
            return Ok(Verdict::Held);
        }
        self.age(touched, repository, key)
    }

    /// Whether a blob that nobody links is garbage.
    fn orphan(
        &self,
        linked_by: &impl ReadableTable<(DigestKey, &'static str), ()>,
        leases: &impl ReadableTable<DigestKey, u64>,
        touched: &impl ReadableTable<(&'static str, DigestKey), u64>,
        key: &[u8],
    ) -> Result<Verdict, IndexError> {
        if has_link(linked_by, key)? {
            return Ok(Verdict::Used);
        }
        if self.holds(leases, key)? {
            return Ok(Verdict::Held);
        }
        self.age(touched, NO_REPOSITORY, key)
    }

    /// Begins the grace window of what was never used.
    pub(super) fn stamp(
        &self,
        t: &WriteTransaction,
        repository: &str,
        key: &[u8],
    ) -> Result<(), IndexError> {
        t.open_table(TOUCHED)?.insert((repository, key), self.now_ms)?;
        Ok(())
    }
}

/// Whether a lease or a pin holds the content.
pub(super) fn is_held(
    uses: &Uses,
    now_ms: u64,
    leases: &impl ReadableTable<DigestKey, u64>,
    key: &[u8],
) -> Result<bool, IndexError> {
    let leased = leases.get(key)?.is_some_and(|until| until.value() > now_ms);
    Ok(leased || uses.is_pinned(&keys::digest(key)?, now_ms))
}

/// Whether a manifest of the repository refers to a digest; with no digest, whether there is one
/// whose children are unknown.
pub(super) fn is_referred(
    references: &impl ReadableTable<(&'static str, DigestKey, DigestKey), ()>,
    repository: &str,
    key: &[u8],
) -> Result<bool, IndexError> {
    Ok(match references.range((repository, key, &[][..])..)?.next() {
        Some(row) => {
            let (row, _) = row?;
            let (name, child, _) = row.value();
            name == repository && child == key
        }
        None => false,
    })
}

/// The range after a cursor.
pub(super) fn after(cursor: Option<&Cursor>) -> Bound<(&str, &[u8])> {
    cursor.map_or(Bound::Unbounded, |(name, key)| Bound::Excluded((name.as_str(), key.as_slice())))
}

impl Index {
    /// Looks at links after `cursor`.
    pub(crate) fn look_at_links(
        &self,
        cursor: Option<&Cursor>,
        rules: Rules<'_>,
    ) -> Result<Looked, IndexError> {
        self.read(|t| {
            let (references, leases) = (t.open_table(REFERENCES)?, t.open_table(LEASES)?);
            let (touched, blobs) = (t.open_table(TOUCHED)?, t.open_table(BLOBS)?);
            let linked_by = t.open_table(LINKED_BY)?;
            let judge = |row: (&str, &[u8])| rules.link(&references, &leases, &touched, row);
            let mut looked = Looked::default();
            for row in t.open_table(LINKS)?.range((after(cursor), Bound::Unbounded))? {
                let (row, _) = row?;
                let (name, key) = row.value();
                let verdict = judge((name, key))?;
                looked.rows += 1;
                if verdict == Verdict::Garbage
                    && goes_with(&linked_by, (name, key), |name| judge((name, key)))?
                    && let Some(size) = blobs.get(key)?
                {
                    looked.blobs += 1;
                    looked.bytes += size.value();
                }
                looked.note(verdict, (name.into(), key.into()));
                if looked.is_full(|| (name.into(), key.into())) {
                    break;
                }
            }
            Ok(looked)
        })
    }

    /// Removes the links that are still garbage, and the rows of blobs with their last link.
    pub(crate) fn remove_links(
        &self,
        links: &[Cursor],
        rules: Rules<'_>,
    ) -> Result<Removed, IndexError> {
        self.write(|t| {
            let mut removed = Removed::default();
            for (name, key) in links {
                let verdict = {
                    let (references, leases) = (t.open_table(REFERENCES)?, t.open_table(LEASES)?);
                    let touched = t.open_table(TOUCHED)?;
                    rules.link(&references, &leases, &touched, (name, key))?
                };
                if verdict == Verdict::Unstamped {
                    rules.stamp(t, name, key)?;
                }
                // It may have gone by itself; then nobody needs it any more either.
                if verdict != Verdict::Garbage {
                    continue;
                }
                let size = t.open_table(BLOBS)?.get(key.as_slice())?.map(|size| size.value());
                let unlinked = unlink(t, name, key, rules.now_ms)?;
                t.open_table(TOUCHED)?.remove((name.as_str(), key.as_slice()))?;
                removed.rows += usize::from(unlinked.was_linked);
                if unlinked.remove_file {
                    removed.blobs.push((keys::digest(key)?, size.unwrap_or_default()));
                }
            }
            Ok(removed)
        })
    }

    /// Looks at blobs after `cursor` for those that nobody links.
    pub(crate) fn look_at_orphans(
        &self,
        cursor: Option<&Cursor>,
        rules: Rules<'_>,
    ) -> Result<Looked, IndexError> {
        let start = cursor.map_or(Bound::Unbounded, |(_, key)| Bound::Excluded(key.as_slice()));
        self.read(|t| {
            let (linked_by, leases) = (t.open_table(LINKED_BY)?, t.open_table(LEASES)?);
            let touched = t.open_table(TOUCHED)?;
            let mut looked = Looked::default();
            for row in t.open_table(BLOBS)?.range::<&[u8]>((start, Bound::Unbounded))? {
                let (key, size) = row?;
                let verdict = rules.orphan(&linked_by, &leases, &touched, key.value())?;
                looked.rows += 1;
                if verdict == Verdict::Garbage {
                    looked.blobs += 1;
                    looked.bytes += size.value();
                }
                let row = || (NO_REPOSITORY.to_owned(), key.value().to_vec());
                looked.note(verdict, row());
                if looked.is_full(row) {
                    break;
                }
            }
            Ok(looked)
        })
    }

    /// Removes the rows of the blobs that are still garbage.
    pub(crate) fn remove_orphans(
        &self,
        blobs: &[Cursor],
        rules: Rules<'_>,
    ) -> Result<Removed, IndexError> {
        self.write(|t| {
            let mut removed = Removed::default();
            for (_, key) in blobs {
                let verdict = {
                    let (linked_by, leases) = (t.open_table(LINKED_BY)?, t.open_table(LEASES)?);
                    rules.orphan(&linked_by, &leases, &t.open_table(TOUCHED)?, key)?
                };
                if verdict == Verdict::Unstamped {
                    rules.stamp(t, NO_REPOSITORY, key)?;
                }
                let size = t.open_table(BLOBS)?.get(key.as_slice())?.map(|size| size.value());
                if verdict == Verdict::Garbage && doom(t, key)? {
                    t.open_table(TOUCHED)?.remove((NO_REPOSITORY, key.as_slice()))?;
                    removed.rows += 1;
                    removed.blobs.push((keys::digest(key)?, size.unwrap_or_default()));
                }
            }
            Ok(removed)
        })
    }

    /// Removes uses of what is not here any more, among some after `cursor`; where to go on.
    pub(crate) fn drop_touches(
        &self,
        cursor: Option<&Cursor>,
    ) -> Result<Option<Cursor>, IndexError> {
        let (stale, next) = self.read(|t| {
            let (links, revisions) = (t.open_table(LINKS)?, t.open_table(REVISIONS)?);
            let (blobs, linked_by) = (t.open_table(BLOBS)?, t.open_table(LINKED_BY)?);
            let (mut stale, mut rows) = (Vec::new(), 0);
            for row in t.open_table(TOUCHED)?.range((after(cursor), Bound::Unbounded))? {
                let (row, _) = row?;
                let (name, key) = row.value();
                let is_stale = if name == NO_REPOSITORY {
                    blobs.get(key)?.is_none() || has_link(&linked_by, key)?
                } else {
                    links.get((name, key))?.is_none() && revisions.get((name, key))?.is_none()
                };
                if is_stale {
                    stale.push((name.to_owned(), key.to_vec()));
                }
                rows += 1;
                if rows >= LOOK_ROWS {
                    return Ok((stale, Some((name.to_owned(), key.to_vec()))));
                }
            }
            Ok((stale, None))
        })?;
        if !stale.is_empty() {
            // Not judged again: a use that goes too early only begins a new grace window.
            self.write(|t| {
                let mut touched = t.open_table(TOUCHED)?;
                for (name, key) in &stale {
                    touched.remove((name.as_str(), key.as_slice()))?;
                }
                Ok(())
            })?;
        }
        Ok(next)
    }

    /// Rows that a whole run looks at, roughly: manifests, links, blobs.
    pub(crate) fn rows_to_look_at(&self) -> Result<[u64; 3], IndexError> {
        use redb::ReadableTableMetadata;
        self.read(|t| {
            Ok([
                t.open_table(REVISIONS)?.len()?,
                t.open_table(LINKS)?.len()?,
                t.open_table(BLOBS)?.len()?,
            ])
        })
    }

    /// The key of a digest, for tests and locks.
    pub(crate) fn digest_of_key(key: &[u8]) -> Result<Digest, IndexError> {
        keys::digest(key)
    }

    /// The key after which a walk over digests goes on.
    pub(crate) fn cursor_after(digest: &Digest) -> Cursor {
        (NO_REPOSITORY.to_owned(), Key::of(digest).get().to_vec())
    }
}

/// Whether a blob goes when all its garbage links do, and this link is the first of them, so that
/// it is counted once.
fn goes_with(
    linked_by: &impl ReadableTable<(DigestKey, &'static str), ()>,
    (name, key): (&str, &[u8]),
    judge: impl Fn(&str) -> Result<Verdict, IndexError>,
) -> Result<bool, IndexError> {
    let mut first = true;
    for row in linked_by.range((key, "")..)? {
        let (row, _) = row?;
        let (of, other) = row.value();
        if of != key {
            break;
        }
        if std::mem::take(&mut first) && other != name {
            return Ok(false);
        }
        if judge(other)? != Verdict::Garbage {
            return Ok(false);
        }
    }
    Ok(true)
}
