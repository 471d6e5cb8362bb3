//! Which manifests no tag reaches.
//!
//! Decides that a manifest is kept by a tag, a lease, a pin or its grace window, by an index that
//! is kept and has it as a member, and by a subject that is kept or that is not stored here, unless this
//! run has removed it. A manifest goes only when nothing of this is true and no index that names it is stored any more: so the members of an
//! index never go while the index stays (distribution#3178), and a run repeats its pass until
//! nothing goes. Must never decide by what another transaction saw.

use super::garbage::{Cursor, Looked, Rules, Verdict, after, is_referred};
use super::keys;
use super::reach::{REFERENCES, TOUCHED};
use super::{DigestKey, Index, LEASES, REVISIONS, TAGS, manifests};
use crate::error::IndexError;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use redb::ReadableTable;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Manifests that may stand between one manifest and what keeps it; with more, it is kept.
const MAX_REASONS: usize = 4096;

/// The tables that decide, and what was read of them.
struct Graph<'a, T, R, V, L, U> {
    rules: Rules<'a>,
    tags: T,
    references: R,
    revisions: V,
    leases: L,
    touched: U,
    known: Known,
}

/// What one transaction need not find out twice. It removes no tag: what is tagged stays.
#[derive(Default)]
struct Known {
    /// The tagged manifests of one repository.
    tagged: Option<(String, BTreeSet<Vec<u8>>)>,
    /// Manifests that it has removed.
    removed: BTreeSet<(RepositoryName, Digest)>,
}

impl<T, R, V, L, U> Graph<'_, T, R, V, L, U>
where
    T: ReadableTable<(&'static str, &'static str), DigestKey>,
    R: ReadableTable<(&'static str, DigestKey, DigestKey), ()>,
    V: ReadableTable<(&'static str, DigestKey), &'static [u8]>,
    L: ReadableTable<DigestKey, u64>,
    U: ReadableTable<(&'static str, DigestKey), u64>,
{
    fn judge(&mut self, name: &str, manifest: &[u8]) -> Result<Verdict, IndexError> {
        if is_referred(&self.references, name, &[])? {
            return Ok(Verdict::Used);
        }
        let own = self.own_reason(name, manifest)?;
        if own != Verdict::Garbage {
            return Ok(own);
        }
        let mut seen = BTreeSet::from([manifest.to_vec()]);
        let mut open = vec![manifest.to_vec()];
        let mut has_parent = false;
        while let Some(one) = open.pop() {
            let parents = self.parents(name, &one)?;
            has_parent |= one == manifest && !parents.is_empty();
            for reason in parents.into_iter().chain(self.subject(name, &one)?) {
                if seen.len() >= MAX_REASONS
                    || self.is_elsewhere(name, &reason)?
                    || self.own_reason(name, &reason)? != Verdict::Garbage
                {
                    return Ok(Verdict::Used);
                }
                if seen.insert(reason.clone()) {
                    open.push(reason);
                }
            }
        }
        Ok(if has_parent { Verdict::Later } else { Verdict::Garbage })
    }

    /// What keeps a manifest without the help of others.
    fn own_reason(&mut self, name: &str, manifest: &[u8]) -> Result<Verdict, IndexError> {
        let known = (keys::name(name)?, keys::digest(manifest)?);
        if self.is_tagged(name, manifest)? || self.rules.tagged.contains(&known) {
            return Ok(Verdict::Used);
        }
        if self.rules.holds(&self.leases, manifest)? {
            return Ok(Verdict::Held);
        }
        self.rules.age(&self.touched, name, manifest)
    }

    fn is_tagged(&mut self, name: &str, manifest: &[u8]) -> Result<bool, IndexError> {
        if let Some((of, tagged)) = &self.known.tagged
            && of == name
        {
            return Ok(tagged.contains(manifest));
        }
        let mut tagged = BTreeSet::new();
        for row in self.tags.range((name, "")..)? {
            let (row, digest) = row?;
            if row.value().0 != name {
                break;
            }
            tagged.insert(digest.value().to_vec());
        }
        let is_tagged = tagged.contains(manifest);
        self.known.tagged = Some((name.to_owned(), tagged));
        Ok(is_tagged)
    }

    /// The stored manifests that name this one as a member.
    fn parents(&self, name: &str, manifest: &[u8]) -> Result<Vec<Vec<u8>>, IndexError> {
        let mut parents = Vec::new();
        for row in self.references.range((name, manifest, &[][..])..)? {
            let (row, _) = row?;
            let (of, child, parent) = row.value();
            if of != name || child != manifest || parents.len() > MAX_REASONS {
                break;
            }
            if self.revisions.get((name, parent))?.is_some() {
                parents.push(parent.to_vec());
            }
        }
        Ok(parents)
    }

    /// The subject of a manifest, unless this run has removed it.
    fn subject(&self, name: &str, manifest: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let subject = self.revisions.get((name, manifest))?.map(|row| row.value().to_vec());
        let Some(subject) = subject.filter(|subject| !subject.is_empty()) else { return Ok(None) };
        let known = (keys::name(name)?, keys::digest(&subject)?);
        let is_removed = self.rules.removed.contains(&known) || self.known.removed.contains(&known);
        Ok(Some(subject).filter(|_| !is_removed))
    }

    /// Whether a manifest is not stored here: another node may have it, and a tag of it.
    fn is_elsewhere(&self, name: &str, manifest: &[u8]) -> Result<bool, IndexError> {
        Ok(self.revisions.get((name, manifest))?.is_none())
    }
}

macro_rules! graph {
    ($t:ident, $rules:ident, $known:expr) => {
        Graph {
            rules: $rules,
            tags: $t.open_table(TAGS)?,
            references: $t.open_table(REFERENCES)?,
            revisions: $t.open_table(REVISIONS)?,
            leases: $t.open_table(LEASES)?,
            touched: $t.open_table(TOUCHED)?,
            known: $known,
        }
    };
}

impl Index {
    /// Looks at manifests after `cursor`.
    pub(crate) fn look_at_manifests(
        &self,
        cursor: Option<&Cursor>,
        rules: Rules<'_>,
    ) -> Result<Looked, IndexError> {
        self.read(|t| {
            let mut graph = graph!(t, rules, Known::default());
            let mut looked = Looked::default();
            for row in t.open_table(REVISIONS)?.range((after(cursor), Bound::Unbounded))? {
                let (row, _) = row?;
                let (name, key) = row.value();
                looked.rows += 1;
                looked.note(graph.judge(name, key)?, (name.into(), key.into()));
                if looked.is_full(|| (name.into(), key.into())) {
                    break;
                }
            }
            Ok(looked)
        })
    }

    /// Removes the manifests that still no tag reaches; which.
    pub(crate) fn remove_manifests(
        &self,
        candidates: &[Cursor],
        rules: Rules<'_>,
    ) -> Result<BTreeSet<(RepositoryName, Digest)>, IndexError> {
        let removed = self.write(|t| {
            let mut known = Known::default();
            for (name, key) in candidates {
                // The tables are closed again before anything is removed from them.
                let verdict = {
                    let mut graph = graph!(t, rules, std::mem::take(&mut known));
                    let verdict = graph.judge(name, key)?;
                    known = graph.known;
                    verdict
                };
                if verdict == Verdict::Unstamped {
                    rules.stamp(t, name, key)?;
                }
                if verdict == Verdict::Garbage && manifests::remove(t, name, key)?.is_some() {
                    t.open_table(TOUCHED)?.remove((name.as_str(), key.as_slice()))?;
                    known.removed.insert((keys::name(name)?, keys::digest(key)?));
                }
            }
            Ok(known.removed)
        });
        // Also after an error: it may have been committed all the same.
        self.manifests.clear();
        removed
    }
}
