//! Reads without a majority, where [`TagReads::StaleOk`] allows them.
//!
//! Decides which record is the last that is known here: the newest of what the voters that can be
//! reached say and of what this node keeps, else the row of the local list. It must never serve what
//! was deleted as far as anybody that can be reached knows, or pass for a read of a majority.

use std::collections::BTreeMap;

use ddr_oci::{Digest, RepositoryName, Tag};
use ddr_proto::id::Key;
use ddr_proto::wire::{MAX_ENTRIES_PER_PAGE, Member, NameRecord, SetEntry, SetName};
use ddr_store::IndexError;

use super::rules::TagReads;
use super::{Names, Parts};
use crate::{ReadError, blocking};

/// Tags in the answer to one stale list; those that come after are left out.
const MAX_STALE_TAGS: usize = 100_000;

/// What a tag points to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Named {
    /// `None`: unknown or deleted.
    pub(crate) digest: Option<Digest>,
    /// No majority said so.
    pub(crate) is_stale: bool,
}

/// Tags of one repository.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TagList {
    /// In byte order.
    pub tags: Vec<Tag>,
    /// No majority of the nodes that keep the list answered: it is what is known here.
    pub is_stale: bool,
}

impl Names {
    /// The tags after `last` that are known here, at most `limit`; `None` when there are none.
    /// For a list that could not be read because of `error`.
    pub(crate) async fn stale_tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
        error: ReadError,
    ) -> Result<Option<TagList>, ReadError> {
        if !self.parts.may_be_stale(&error) {
            return Err(error);
        }
        let known = self.parts.known_tags(repository, last, limit.min(MAX_STALE_TAGS));
        let tags = self.listing(known).await?;
        if tags.is_empty() && last.is_none() {
            return Err(error);
        }
        Ok(Some(TagList { tags, is_stale: true }))
    }
}

impl Parts {
    fn may_be_stale(&self, error: &ReadError) -> bool {
        self.rules.reads == TagReads::StaleOk && matches!(error, ReadError::Unavailable(_))
    }

    /// The last that is known of `tag`, where that may be answered: `told` is what voters said too
    /// few of whom answered, and `error` says so.
    pub(super) async fn stale(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        told: Option<NameRecord>,
        error: ReadError,
    ) -> Result<Named, ReadError> {
        if !self.may_be_stale(&error) {
            return Err(error);
        }
        let (keeper, store) = (self.keeper.clone(), self.store.clone());
        let (repository, tag) = (repository.clone(), tag.clone());
        let work = move || {
            let kept = keeper.record(Key::of_name(&repository, &tag))?;
            let kept = kept.map(|kept| NameRecord::clone(&kept));
            let newest = told.into_iter().chain(kept).max_by(NameRecord::cmp_newness);
            Ok::<_, IndexError>(match newest {
                Some(newest) => Some(newest.digest),
                None => store.tag(&repository, &tag)?.map(Some),
            })
        };
        let known = blocking(work).await.map_err(ReadError::store)?.map_err(ReadError::store)?;
        let digest = known.ok_or(error)?;
        Ok(Named { digest, is_stale: true })
    }

    async fn known_tags(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Tag>, ReadError> {
        let set = SetName::Tags(repository.clone());
        let mut from = last.map_or_else(Member::first, |last| Member::text(last).successor());
        let mut known = self.listed_here(repository, last, limit).await?;
        let Ok(voters) = self.voters(&set.key()).await else { return Ok(known) };
        let mut found = BTreeMap::<Tag, bool>::new();
        // One page at least for each page of the answer: deleted tags take room too.
        for _ in 0..=limit.div_ceil(MAX_ENTRIES_PER_PAGE) {
            let asked = (&set, &from, MAX_ENTRIES_PER_PAGE as u16);
            let merged = self.ask_page(asked, &voters).await.merge();
            found.extend(merged.entries.into_iter().filter_map(|merged| match merged.entry {
                SetEntry::Tag(record) => Some((record.tag, record.digest.is_some())),
                SetEntry::Fact(_) => None,
            }));
            let Some(next) = merged.next else { break };
            from = next;
        }
        known.retain(|tag| !found.contains_key(tag));
        known.extend(found.into_iter().filter_map(|(tag, is_present)| is_present.then_some(tag)));
        known.sort_unstable();
        known.truncate(limit);
        Ok(known)
    }

    async fn listed_here(
        &self,
        repository: &RepositoryName,
        last: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Tag>, ReadError> {
        let (store, repository) = (self.store.clone(), repository.clone());
        let last = last.map(str::to_owned);
        let work = move || store.tags(&repository, last.as_deref(), limit);
        let listed = blocking(work).await.map_err(ReadError::store)?.map_err(ReadError::store)?;
        Ok(listed.unwrap_or_default())
    }
}
