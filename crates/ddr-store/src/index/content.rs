//! Rows about blobs: that they are there, who may read them, what keeps them.

use super::keys::{self, Key};
use super::{BLOBS, DOOMED, DigestKey, Index, LEASES, LINKED_BY, LINKS, outside, reach};
use crate::error::IndexError;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use redb::{ReadableTable, WriteTransaction};

/// What an unlink did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unlinked {
    /// The repository had the link.
    pub(crate) was_linked: bool,
    /// Nothing holds the blob any more: its row is gone, and its file must go.
    pub(crate) remove_file: bool,
}

impl Index {
    pub(crate) fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, IndexError> {
        self.read(|t| {
            let size = t.open_table(BLOBS)?.get(Key::of(digest).get())?;
            Ok(size.map(|size| size.value()))
        })
    }

    pub(crate) fn blobs(&self) -> Result<Vec<(Digest, u64)>, IndexError> {
        self.read(|t| {
            let table = t.open_table(BLOBS)?;
            table
                .iter()?
                .map(|row| {
                    let (key, size) = row?;
                    Ok((keys::digest(key.value())?, size.value()))
                })
                .collect()
        })
    }

    /// Records a blob whose file is in place, and who may read it.
    pub(crate) fn add_blob(
        &self,
        digest: &Digest,
        size: u64,
        repository: Option<&RepositoryName>,
    ) -> Result<(), IndexError> {
        self.write(|t| {
            let key = Key::of(digest);
            t.open_table(BLOBS)?.insert(key.get(), size)?;
            t.open_table(DOOMED)?.remove(key.get())?;
            reach::found(t, key.get())?;
            match repository {
                Some(repository) => link(t, repository, digest),
                None => reach::touch(t, reach::NO_REPOSITORY, key.get()),
            }
        })
    }

    /// Forgets blobs whose files are missing or damaged. Links stay: they say who may read the
    /// content when it comes back.
    pub(crate) fn forget_blobs(&self, digests: &[Digest]) -> Result<(), IndexError> {
        self.write(|t| {
            let mut blobs = t.open_table(BLOBS)?;
            for digest in digests {
                blobs.remove(Key::of(digest).get())?;
            }
            reach::lose(t, digests)
        })
    }

    /// Digests of deleted blobs whose files may still be there.
    pub(crate) fn doomed(&self) -> Result<Vec<Digest>, IndexError> {
        self.read(|t| {
            let table = t.open_table(DOOMED)?;
            table.iter()?.map(|row| keys::digest(row?.0.value())).collect()
        })
    }

    pub(crate) fn clear_doomed(&self) -> Result<(), IndexError> {
        self.write(|t| {
            t.open_table(DOOMED)?.retain(|_, ()| false)?;
            Ok(())
        })
    }

    pub(crate) fn link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), IndexError> {
        self.write(|t| link(t, repository, digest))
    }

    /// Links a blob only if it is here, in one transaction; whether it is.
    pub(crate) fn link_present(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, IndexError> {
        self.write(|t| {
            let present = outside::is_kept(t, Key::of(digest).get())?;
            if present {
                link(t, repository, digest)?;
            }
            Ok(present)
        })
    }

    pub(crate) fn is_linked(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, IndexError> {
        self.read(|t| {
            let key = Key::of(digest);
            Ok(t.open_table(LINKS)?.get((repository.as_str(), key.get()))?.is_some())
        })
    }

    pub(crate) fn is_linked_anywhere(&self, digest: &Digest) -> Result<bool, IndexError> {
        self.read(|t| {
            let key = Key::of(digest);
            Ok(match t.open_table(LINKED_BY)?.range((key.get(), "")..)?.next() {
                Some(row) => row?.0.value().0 == key.get(),
                None => false,
            })
        })
    }

    /// Removes a link. Where that was the last and no lease holds at `now_ms`, the row of the
    /// blob goes too and the digest is doomed, in the same transaction.
    pub(crate) fn unlink(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        now_ms: u64,
    ) -> Result<Unlinked, IndexError> {
        self.write(|t| unlink(t, repository.as_str(), Key::of(digest).get(), now_ms))
    }

    pub(crate) fn lease(&self, digest: &Digest, until_ms: u64) -> Result<(), IndexError> {
        self.write(|t| {
            let key = Key::of(digest);
            let mut leases = t.open_table(LEASES)?;
            let longer = leases.get(key.get())?.is_none_or(|until| until.value() < until_ms);
            if longer {
                leases.insert(key.get(), until_ms)?;
            }
            Ok(())
        })
    }

    pub(crate) fn leased(&self, digest: &Digest, now_ms: u64) -> Result<bool, IndexError> {
        self.read(|t| {
            let until = t.open_table(LEASES)?.get(Key::of(digest).get())?;
            Ok(until.is_some_and(|until| until.value() > now_ms))
        })
    }

    /// Removes the leases that ended before `now_ms`; how many.
    pub(crate) fn drop_expired_leases(&self, now_ms: u64) -> Result<usize, IndexError> {
        self.write(|t| {
            let mut leases = t.open_table(LEASES)?;
            let mut dropped = 0;
            leases.retain(|_, until| {
                let keep = until > now_ms;
                dropped += usize::from(!keep);
                keep
            })?;
            Ok(dropped)
        })
    }
}

/// Lets a repository read the content.
pub(super) fn link(
    t: &WriteTransaction,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<(), IndexError> {
    let key = Key::of(digest);
    t.open_table(LINKS)?.insert((repository.as_str(), key.get()), ())?;
    t.open_table(LINKED_BY)?.insert((key.get(), repository.as_str()), ())?;
    reach::touch(t, repository.as_str(), key.get())
}

/// Removes a link, and the row of the blob with the last one; see [`Index::unlink`].
pub(super) fn unlink(
    t: &WriteTransaction,
    repository: &str,
    key: &[u8],
    now_ms: u64,
) -> Result<Unlinked, IndexError> {
    let was_linked = t.open_table(LINKS)?.remove((repository, key))?.is_some();
    let mut linked_by = t.open_table(LINKED_BY)?;
    linked_by.remove((key, repository))?;
    let lease = t.open_table(LEASES)?.get(key)?.map(|until| until.value());
    let held = has_link(&linked_by, key)? || lease.is_some_and(|until| until > now_ms);
    let is_last = was_linked && !held;
    if is_last {
        outside::forget(t, key)?;
    }
    let remove_file = is_last && doom(t, key)?;
    Ok(Unlinked { was_linked, remove_file })
}

/// Removes the row of a blob and notes that its files must go; whether there was one.
pub(super) fn doom(t: &WriteTransaction, key: &[u8]) -> Result<bool, IndexError> {
    let was_here = t.open_table(BLOBS)?.remove(key)?.is_some();
    if was_here {
        t.open_table(DOOMED)?.insert(key, ())?;
    }
    Ok(was_here)
}

/// Whether any repository links a digest.
pub(super) fn has_link(
    linked_by: &impl ReadableTable<(DigestKey, &'static str), ()>,
    key: &[u8],
) -> Result<bool, IndexError> {
    Ok(match linked_by.range((key, "")..)?.next() {
        Some(row) => row?.0.value().0 == key,
        None => false,
    })
}
