//! Rows about manifests: their bytes, the repositories and tags that name them, their referrers.

use super::keys::{self, Key};
use super::{
    Index, MANIFESTS, REFERRERS, REPOSITORIES, REVISION_OF, REVISIONS, TAGS, content, pins, reach,
    replicas,
};
use crate::error::IndexError;
use crate::store::now_ms;
use ddr_oci::digest::Digest;
use ddr_oci::manifest::MAX_MANIFEST_BYTES;
use ddr_oci::reference::{RepositoryName, Tag};
use redb::{ReadableTable, WriteTransaction};
use std::ops::Bound;
use std::sync::Arc;

/// Longest media type, bytes (RFC 6838, section 4.2: 127 for each half, and the slash).
const MAX_MEDIA_TYPE_BYTES: usize = 255;

/// A manifest to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// The digest of `bytes`.
    pub digest: Digest,
    /// The media type to answer with.
    pub media_type: String,
    /// The manifest, exactly as it came in; at most [`MAX_MANIFEST_BYTES`].
    pub bytes: Vec<u8>,
    /// What the manifest refers to; the repository may read all of it from now on.
    pub children: Vec<Digest>,
    /// The subject, and the descriptor (JSON) by which the referrers of the subject list this
    /// manifest.
    pub subject: Option<(Digest, Vec<u8>)>,
}

/// A manifest as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// The media type to answer with.
    pub media_type: String,
    /// The manifest.
    pub bytes: Vec<u8>,
}

impl Index {
    /// Stores a manifest unless some of `expected` are not linked and here; those that are not.
    pub(crate) fn put_manifest(
        &self,
        repository: &RepositoryName,
        entry: &ManifestEntry,
        tags: &[Tag],
        expected: &[Digest],
    ) -> Result<Vec<Digest>, IndexError> {
        check(entry)?;
        let key = Key::of(&entry.digest);
        let name = repository.as_str();
        let stored = self.write(|t| {
            let gone = reach::gone(t, name, expected)?;
            if !gone.is_empty() {
                return Ok(gone);
            }
            let value = (entry.media_type.as_str(), entry.bytes.as_slice());
            t.open_table(MANIFESTS)?.insert(key.get(), value)?;
            let subject = entry.subject.as_ref().map(|(subject, _)| Key::of(subject));
            let subject = subject.as_ref().map_or(&[][..], Key::get);
            t.open_table(REVISIONS)?.insert((name, key.get()), subject)?;
            t.open_table(REVISION_OF)?.insert((key.get(), name), ())?;
            t.open_table(REPOSITORIES)?.insert(name, ())?;
            if let Some((_, descriptor)) = &entry.subject {
                let row = (name, subject, key.get());
                t.open_table(REFERRERS)?.insert(row, descriptor.as_slice())?;
            }
            reach::refer(t, name, key.get(), entry)?;
            reach::touch(t, name, key.get())?;
            for child in &entry.children {
                content::link(t, repository, child)?;
            }
            let mut table = t.open_table(TAGS)?;
            for tag in tags {
                table.insert((name, tag.as_str()), key.get())?;
            }
            Ok(Vec::new())
        });
        self.manifests.forget(&entry.digest);
        stored
    }

    /// The manifest, if this repository (or, without one, any) has it.
    pub(crate) fn manifest(
        &self,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<Option<StoredManifest>, IndexError> {
        let (key, moment) = (Key::of(digest), self.manifests.moment());
        let found = self.read(|t| {
            if let Some(repository) = repository
                && t.open_table(REVISIONS)?.get((repository.as_str(), key.get()))?.is_none()
            {
                return Ok(None);
            }
            let row = t.open_table(MANIFESTS)?.get(key.get())?;
            Ok(row.map(|row| {
                let (media_type, bytes) = row.value();
                StoredManifest { media_type: media_type.into(), bytes: bytes.into() }
            }))
        })?;
        if let (Some(repository), Some(manifest)) = (repository, &found) {
            self.manifests.keep(moment, repository, digest, manifest);
        }
        Ok(found)
    }

    /// As [`Index::manifest`], if it is in memory. Never waits for the disk; `None` says nothing.
    pub(crate) fn cached_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Option<(Arc<StoredManifest>, bool)> {
        self.manifests.get(repository, digest, now_ms())
    }

    /// Removes a manifest from a repository, with the tags that name it; those tags, or `None`
    /// where the repository did not have it.
    pub(crate) fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Vec<Tag>>, IndexError> {
        let removed = self.write(|t| remove(t, repository.as_str(), Key::of(digest).get()));
        // Also after an error: it may have been committed all the same.
        self.manifests.forget(digest);
        removed
    }

    pub(crate) fn tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, IndexError> {
        self.read(|t| {
            let row = t.open_table(TAGS)?.get((repository.as_str(), tag.as_str()))?;
            row.map(|row| keys::digest(row.value())).transpose()
        })
    }

    pub(crate) fn set_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), IndexError> {
        self.write(|t| {
            let key = Key::of(digest);
            t.open_table(TAGS)?.insert((repository.as_str(), tag.as_str()), key.get())?;
            t.open_table(REPOSITORIES)?.insert(repository.as_str(), ())?;
            Ok(())
        })
    }

    pub(crate) fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<bool, IndexError> {
        self.write(|t| {
            let name = repository.as_str();
            let removed = t.open_table(TAGS)?.remove((name, tag.as_str()))?.is_some();
            if removed {
                forget_repository_if_empty(t, name)?;
            }
            Ok(removed)
        })
    }

    pub(crate) fn tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<Tag>>, IndexError> {
        let name = repository.as_str();
        let start = last.map_or(Bound::Included((name, "")), |last| Bound::Excluded((name, last)));
        self.read(|t| {
            if t.open_table(REPOSITORIES)?.get(name)?.is_none() {
                return Ok(None);
            }
            let mut tags = Vec::new();
            for row in t.open_table(TAGS)?.range((start, Bound::Unbounded))? {
                let (key, _) = row?;
                let (owner, tag) = key.value();
                if owner != name || tags.len() >= limit {
                    break;
                }
                tags.push(keys::name(tag)?);
            }
            Ok(Some(tags))
        })
    }

    pub(crate) fn repositories(
        &self,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RepositoryName>, IndexError> {
        let start = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.read(|t| {
            let table = t.open_table(REPOSITORIES)?;
            let rows = table.range::<&str>((start, Bound::Unbounded))?;
            rows.take(limit).map(|row| keys::name(row?.0.value())).collect()
        })
    }

    pub(crate) fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
    ) -> Result<Vec<Vec<u8>>, IndexError> {
        let name = repository.as_str();
        let subject = Key::of(subject);
        self.read(|t| {
            let mut found = Vec::new();
            for row in t.open_table(REFERRERS)?.range((name, subject.get(), &[][..])..)? {
                let (key, descriptor) = row?;
                let (owner, of, _) = key.value();
                if owner != name || of != subject.get() {
                    break;
                }
                found.push(descriptor.value().to_vec());
            }
            Ok(found)
        })
    }

    pub(crate) fn manifests(&self) -> Result<Vec<(RepositoryName, Digest)>, IndexError> {
        self.read(|t| {
            let table = t.open_table(REVISIONS)?;
            table
                .iter()?
                .map(|row| {
                    let (key, _) = row?;
                    let (name, digest) = key.value();
                    Ok((keys::name(name)?, keys::digest(digest)?))
                })
                .collect()
        })
    }
}

fn check(entry: &ManifestEntry) -> Result<(), IndexError> {
    let descriptor = entry.subject.as_ref().map_or(0, |(_, descriptor)| descriptor.len());
    let lengths = [
        ("a manifest", entry.bytes.len(), MAX_MANIFEST_BYTES),
        ("a media type", entry.media_type.len(), MAX_MEDIA_TYPE_BYTES),
        ("a descriptor", descriptor, MAX_MANIFEST_BYTES),
    ];
    for (what, len, limit) in lengths {
        if len > limit {
            return Err(IndexError::TooLarge { what, limit });
        }
    }
    if Digest::of(entry.digest.algorithm(), &entry.bytes) != entry.digest {
        return Err(IndexError::DigestMismatch);
    }
    Ok(())
}

/// Removes a manifest from a repository; see [`Index::delete_manifest`].
pub(super) fn remove(
    t: &WriteTransaction,
    name: &str,
    key: &[u8],
) -> Result<Option<Vec<Tag>>, IndexError> {
    let Some(subject) =
        t.open_table(REVISIONS)?.remove((name, key))?.map(|row| row.value().to_vec())
    else {
        return Ok(None);
    };
    if !subject.is_empty() {
        t.open_table(REFERRERS)?.remove((name, subject.as_slice(), key))?;
    }
    replicas::drop_record(t, name, key)?;
    pins::unpin(t, name, key)?;
    reach::forget(t, name, key)?;
    let mut revision_of = t.open_table(REVISION_OF)?;
    revision_of.remove((key, name))?;
    let elsewhere = match revision_of.range((key, "")..)?.next() {
        Some(row) => row?.0.value().0 == key,
        None => false,
    };
    if !elsewhere {
        t.open_table(MANIFESTS)?.remove(key)?;
    }
    let tags = remove_tags_of(t, name, key)?;
    forget_repository_if_empty(t, name)?;
    Ok(Some(tags))
}

/// Removes the tags of a repository that name a digest.
fn remove_tags_of(
    t: &WriteTransaction,
    repository: &str,
    digest: &[u8],
) -> Result<Vec<Tag>, IndexError> {
    let mut table = t.open_table(TAGS)?;
    let mut removed = Vec::<Tag>::new();
    for row in table.range((repository, "")..)? {
        let (key, value) = row?;
        let (owner, tag) = key.value();
        if owner != repository {
            break;
        }
        if value.value() == digest {
            removed.push(keys::name(tag)?);
        }
    }
    for tag in &removed {
        table.remove((repository, tag.as_str()))?;
    }
    Ok(removed)
}

pub(super) fn forget_repository_if_empty(
    t: &WriteTransaction,
    repository: &str,
) -> Result<(), IndexError> {
    let has_tag = match t.open_table(TAGS)?.range((repository, "")..)?.next() {
        Some(row) => row?.0.value().0 == repository,
        None => false,
    };
    let has_manifest = match t.open_table(REVISIONS)?.range((repository, &[][..])..)?.next() {
        Some(row) => row?.0.value().0 == repository,
        None => false,
    };
    if !has_tag && !has_manifest {
        t.open_table(REPOSITORIES)?.remove(repository)?;
    }
    Ok(())
}
