//! The tags of mirrored repositories, as their registries list them.
//!
//! Decides how long a list holds for the pages that are asked of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddr_oci::{RepositoryName, Tag};
use ddr_upstream::UpstreamError;
use tokio::time::Instant;

use super::Source;
use crate::flight::Flights;
use crate::pull::Shared;

/// Tags of one repository that are listed; the others are left out.
const MAX_TAGS: usize = 100_000;
/// Tags of all lists that are kept; beyond, the oldest lists go.
const MAX_KEPT: usize = 200_000;
/// Lists that are asked for at once.
const MAX_ASKING: usize = 64;

/// As a registry gave them; `None`: it has no such repository.
type Tags = Option<Arc<BTreeSet<Tag>>>;

struct Kept {
    tags: Tags,
    at: Instant,
}

/// The lists that registries gave lately.
pub(super) struct Lists {
    fresh: Duration,
    kept: Mutex<BTreeMap<RepositoryName, Kept>>,
    asking: Flights<RepositoryName, Result<Tags, UpstreamError>>,
}

impl Lists {
    pub(super) fn new(fresh: Duration) -> Self {
        Self { fresh, kept: Mutex::default(), asking: Flights::new(MAX_ASKING) }
    }

    fn fresh(&self, repository: &RepositoryName) -> Option<Tags> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, one| one.at.elapsed() < self.fresh);
        kept.get(repository).map(|one| one.tags.clone())
    }

    fn keep(&self, repository: RepositoryName, tags: Tags) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(repository, Kept { tags, at: Instant::now() });
        // An empty list takes a place, too.
        let size = |one: &Kept| 1 + one.tags.as_ref().map_or(0, |tags| tags.len());
        let mut all: usize = kept.values().map(size).sum();
        while all > MAX_KEPT
            && let Some(oldest) =
                kept.iter().min_by_key(|(_, one)| one.at).map(|(name, _)| name.clone())
        {
            all -= kept.remove(&oldest).map_or(0, |one| size(&one));
        }
    }
}

/// The tags of a repository after `last` in byte order, at most `limit`, as its registry gave them in the time that
/// an answer holds.
pub(crate) async fn tags(
    shared: &Arc<Shared>,
    repository: &RepositoryName,
    source: Source,
    (last, limit): (Option<&str>, usize),
) -> Result<Option<Vec<Tag>>, UpstreamError> {
    let tags = match shared.mirror.lists.fresh(repository) {
        Some(tags) => tags,
        None => ask(shared, repository, source).await?,
    };
    let after = |tag: &&Tag| last.is_none_or(|last| tag.as_str() > last);
    Ok(tags.map(|tags| tags.iter().filter(after).take(limit).cloned().collect()))
}

async fn ask(
    shared: &Arc<Shared>,
    repository: &RepositoryName,
    source: Source,
) -> Result<Tags, UpstreamError> {
    let (asker, name) = (Arc::clone(shared), repository.clone());
    let work = || async move {
        let answer = source.upstream.tags(&source.repository, MAX_TAGS).await;
        let tags = asker.mirror.heard(&source, answer)?.map(Arc::new);
        asker.mirror.lists.keep(name, tags.clone());
        Ok(tags)
    };
    let asked = shared.mirror.lists.asking.run(repository.clone(), work).await;
    asked.unwrap_or_else(|| Err(UpstreamError::Failed("too many lists are asked for".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_list_holds_for_a_time_and_all_lists_together_are_bounded() {
        let lists = Lists::new(Duration::from_secs(60));
        let name = |number: usize| format!("up.test/r{number}").parse().expect("a name");
        let tags = |count: usize| (0..count).map(|tag| format!("t{tag}").parse().expect("a tag"));
        for number in 0..3 {
            lists.keep(name(number), Some(Arc::new(tags(MAX_KEPT / 2 - 1).collect())));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!(lists.fresh(&name(0)).is_none(), "the oldest went");
        assert!(lists.fresh(&name(1)).is_some() && lists.fresh(&name(2)).is_some());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(lists.fresh(&name(2)).is_none(), "it is old");
    }
}
