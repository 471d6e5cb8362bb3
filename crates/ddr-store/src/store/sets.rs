//! What the node keeps for its swarm, passed on to the index.

use super::Store;
use crate::error::IndexError;
use crate::index::{Batch, Outcome, SetPage, SetRows};

/// All of these return [`IndexError`] when the disk fails or is full.
impl Store {
    /// Keeps name records and entries of sets where they are newer than what is kept (higher rank,
    /// of equal ones greater bytes), and changes the local list of tags: one durable step. The
    /// outcomes stand in the order of names, then entries.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn keep(&self, batch: &Batch) -> Result<Vec<Outcome>, IndexError> {
        self.inner.index.keep(batch)
    }

    /// Forgets name records (key, rank) and entries (set, member, rank), where their rank is still
    /// the given one.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn forget_kept(
        &self,
        names: &[([u8; 32], u128)],
        entries: &[([u8; 32], Vec<u8>, u128)],
    ) -> Result<(), IndexError> {
        self.inner.index.forget_kept(names, entries)
    }

    /// One entry of a set.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn set_entry(&self, set: [u8; 32], member: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.inner.index.set_entry(set, member)
    }

    /// Entries of one set with members from `from` on: at most `limit`, and as many as fit into
    /// `max_bytes`, but one at least; and whether there are more.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn set_page(
        &self,
        set: [u8; 32],
        from: &[u8],
        limit: usize,
        max_bytes: usize,
    ) -> Result<SetPage, IndexError> {
        self.inner.index.set_page(set, from, limit, max_bytes)
    }

    /// At most `limit` entries of any set after a place (set, member), in the order of places.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn sets(
        &self,
        limit: usize,
        after: Option<([u8; 32], &[u8])>,
    ) -> Result<SetRows, IndexError> {
        self.inner.index.sets(limit, after)
    }
}
