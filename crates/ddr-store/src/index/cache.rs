//! Which blobs are only a cache, and how they go.
//!
//! Decides by rows alone: a blob is a duty if a row of copies names it; it is held by a lease or a pin; it is
//! young if a repository used it a short time ago, or one that has no manifest for it a longer time ago: the push that it
//! may belong to may still go on. Everything else may go, with its links; manifests stay. What a read transaction found is judged again
//! in the write transaction that removes it. Must never look at or remove more than a named number of rows in
//! one transaction.

use super::content::doom;
use super::garbage::{LOOK_ROWS, MAX_SKEW_MS, REMOVE_ROWS, Removed, is_held, is_referred};
use super::keys;
use super::reach::{NO_REPOSITORY, REFERENCES, TOUCHED};
use super::replicas::{REPLICA_OF, is_kept};
use super::{BLOBS, DigestKey, Index, LEASES, LINKED_BY, LINKS, outside};
use crate::error::IndexError;
use crate::uses::Uses;
use redb::{ReadableTable, WriteTransaction};
use std::ops::Bound;

/// What decides about one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheRules<'a> {
    /// The time of the run, unix milliseconds.
    pub(crate) now_ms: u64,
    /// Milliseconds that must have passed since the last use.
    pub(crate) min_age_ms: u64,
    /// The same for a use by a repository of which no manifest refers to it.
    pub(crate) loose_age_ms: u64,
    /// What is in use now.
    pub(crate) uses: &'a Uses,
}

impl CacheRules<'_> {
    fn is_young(self, used_ms: u64, is_referred: bool) -> bool {
        let age_ms = if is_referred { self.min_age_ms } else { self.loose_age_ms };
        used_ms.saturating_add(age_ms) > self.now_ms
    }
}

/// What a blob is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Kept for the swarm.
    Duty,
    /// A lease or a pin.
    Held,
    /// Used a short time ago.
    Young,
    /// A cache, last used then.
    Cache(u64),
}

/// A blob that may go. The order is that in which they go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    /// Last use, unix milliseconds; 0 if none was noted.
    pub(crate) used_ms: u64,
    /// The digest.
    pub(crate) key: Vec<u8>,
    /// Its size.
    pub(crate) bytes: u64,
}

/// What one look found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Blobs that were looked at.
    pub(crate) blobs: u64,
    /// Where to go on; `None` at the end.
    pub(crate) next: Option<Vec<u8>>,
    pub(crate) candidates: Vec<Candidate>,
    /// Bytes of what may not go.
    pub(crate) duty_bytes: u64,
    pub(crate) held_bytes: u64,
    pub(crate) young_bytes: u64,
}

/// The tables that decide.
struct Tables<P, L, B, R, U> {
    replica_of: P,
    leases: L,
    linked_by: B,
    references: R,
    touched: U,
}

macro_rules! tables {
    ($t:ident) => {
        Tables {
            replica_of: $t.open_table(REPLICA_OF)?,
            leases: $t.open_table(LEASES)?,
            linked_by: $t.open_table(LINKED_BY)?,
            references: $t.open_table(REFERENCES)?,
            touched: $t.open_table(TOUCHED)?,
        }
    };
}

impl<P, L, B, R, U> Tables<P, L, B, R, U>
where
    P: ReadableTable<(DigestKey, &'static str, DigestKey), ()>,
    L: ReadableTable<DigestKey, u64>,
    B: ReadableTable<(DigestKey, &'static str), ()>,
    R: ReadableTable<(&'static str, DigestKey, DigestKey), ()>,
    U: ReadableTable<(&'static str, DigestKey), u64>,
{
    /// What a blob is, and how many rows had to be read for it.
    fn judge(&self, rules: CacheRules<'_>, key: &[u8]) -> Result<(Standing, usize), IndexError> {
        if is_kept(&self.replica_of, key)? {
            return Ok((Standing::Duty, 1));
        }
        if is_held(rules.uses, rules.now_ms, &self.leases, key)? {
            return Ok((Standing::Held, 1));
        }
        let names = self.linking(key)?;
        let mut last_ms = self.used_ms(rules, NO_REPOSITORY, key)?;
        // Fetched content has no repository before it has its link.
        let mut is_young = rules.is_young(last_ms, !names.is_empty());
        for name in &names {
            let used_ms = self.used_ms(rules, name, key)?;
            let is_referred = is_referred(&self.references, name, key)?
                || is_referred(&self.references, name, &[])?;
            is_young |= rules.is_young(used_ms, is_referred);
            last_ms = last_ms.max(used_ms);
        }
        let standing = if is_young { Standing::Young } else { Standing::Cache(last_ms) };
        Ok((standing, 1 + names.len()))
    }

    /// When a repository last used it, as far as that is known: a clock that was wrong says nothing.
    fn used_ms(&self, rules: CacheRules<'_>, name: &str, key: &[u8]) -> Result<u64, IndexError> {
        let written = self.touched.get((name, key))?.map(|at| at.value());
        let pending = rules.uses.pending(name, &keys::digest(key)?);
        let latest = rules.now_ms.saturating_add(MAX_SKEW_MS);
        Ok(written.max(pending).filter(|at| *at <= latest).unwrap_or_default())
    }

    /// The repositories that link a blob.
    fn linking(&self, key: &[u8]) -> Result<Vec<String>, IndexError> {
        let mut names = Vec::new();
        for row in self.linked_by.range((key, "")..)? {
            let (row, _) = row?;
            let (of, name) = row.value();
            if of != key {
                break;
            }
            names.push(name.to_owned());
        }
        Ok(names)
    }
}

/// What a blob is here.
pub(super) fn standing(
    t: &WriteTransaction,
    rules: CacheRules<'_>,
    key: &[u8],
) -> Result<Standing, IndexError> {
    let tables = tables!(t);
    Ok(tables.judge(rules, key)?.0)
}

impl Index {
    /// Looks at blobs after `cursor`.
    pub(crate) fn survey_cache(
        &self,
        cursor: Option<&[u8]>,
        rules: CacheRules<'_>,
    ) -> Result<Survey, IndexError> {
        let start = cursor.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|t| {
            let tables = tables!(t);
            let (mut survey, mut rows) = (Survey::default(), 0);
            for row in t.open_table(BLOBS)?.range::<&[u8]>((start, Bound::Unbounded))? {
                let (key, size) = row?;
                let (key, bytes) = (key.value(), size.value());
                let (standing, read) = tables.judge(rules, key)?;
                survey.blobs += 1;
                match standing {
                    Standing::Duty => survey.duty_bytes += bytes,
                    Standing::Held => survey.held_bytes += bytes,
                    Standing::Young => survey.young_bytes += bytes,
                    Standing::Cache(used_ms) => {
                        survey.candidates.push(Candidate { used_ms, key: key.to_vec(), bytes });
                    }
                }
                rows += read;
                if rows >= LOOK_ROWS {
                    survey.next = Some(key.to_vec());
                    break;
                }
            }
            Ok(survey)
        })
    }

    /// Removes those blobs that still are a cache, with their links; at most [`REMOVE_ROWS`] are looked at.
    pub(crate) fn evict(
        &self,
        candidates: &[Candidate],
        rules: CacheRules<'_>,
    ) -> Result<Removed, IndexError> {
        self.write(|t| {
            let mut removed = Removed::default();
            for Candidate { key, bytes, .. } in candidates.iter().take(REMOVE_ROWS) {
                // The tables are closed again before anything is removed from them.
                let names = {
                    let tables = tables!(t);
                    match tables.judge(rules, key)?.0 {
                        Standing::Cache(_) => tables.linking(key)?,
                        _ => continue,
                    }
                };
                if !doom(t, key)? {
                    continue;
                }
                // Who may read it reads it there.
                if outside::is_outside(t, key)? {
                    removed.blobs.push((keys::digest(key)?, *bytes));
                    continue;
                }
                let (mut links, mut linked_by) = (t.open_table(LINKS)?, t.open_table(LINKED_BY)?);
                let mut touched = t.open_table(TOUCHED)?;
                touched.remove((NO_REPOSITORY, key.as_slice()))?;
                for name in &names {
                    links.remove((name.as_str(), key.as_slice()))?;
                    linked_by.remove((key.as_slice(), name.as_str()))?;
                    touched.remove((name.as_str(), key.as_slice()))?;
                }
                removed.rows += names.len();
                removed.blobs.push((keys::digest(key)?, *bytes));
            }
            Ok(removed)
        })
    }

    /// Bytes of all blobs.
    pub(crate) fn blob_bytes(&self) -> Result<u64, IndexError> {
        self.read(|t| {
            let mut bytes = 0;
            for row in t.open_table(BLOBS)?.iter()? {
                bytes += row?.1.value();
            }
            Ok(bytes)
        })
    }
}
