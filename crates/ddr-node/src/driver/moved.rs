//! Whether a tag that stands in the registry beside is news to the swarm.
//!
//! Decides by what was seen there before and by what the tag pointed to in the swarm. A tag that stands there
//! unchanged never undoes what the swarm did meanwhile: another push, a delete. What this node itself puts there is no
//! news, also to a look that goes on meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ddr_oci::{Digest, RepositoryName, Tag};

/// Tags whose manifest there is remembered; of more, the swarm's history is asked again.
const MAX_SEEN: usize = 262_144;

/// Whether the swarm's tag is to point to `there`, what the registry's tag points to now.
///
/// `seen`: what it pointed to there when this node looked last, since its start. `history`: what the swarm's tag points
/// and pointed to, newest first, `None` where it was deleted.
pub(super) fn is_news(there: &Digest, seen: Option<&Digest>, history: &[Option<Digest>]) -> bool {
    if history.first() == Some(&Some(*there)) {
        return false;
    }
    match seen {
        Some(seen) => seen != there,
        // It may have moved while this node did not run: then the swarm never had it.
        None => !history.contains(&Some(*there)),
    }
}

/// What the tags there pointed to when this node looked or wrote last. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Seen(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tags: BTreeMap<(RepositoryName, Tag), Entry>,
    /// Counts what is new: ends of writes, and tags that were found elsewhere than before.
    moment: u64,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    digest: Option<Digest>,
    /// Writes of this node that go on.
    writes: usize,
    /// When the last of them ended, or when another digest was found.
    changed: u64,
}

impl Seen {
    /// A look begins.
    pub(super) fn moment(&self) -> u64 {
        self.lock().moment
    }

    /// What a tag pointed to, for a look that began at `moment`. `None`: it changed since, by this node or for
    /// another look, and what this look found may be older.
    pub(super) fn before(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        moment: u64,
    ) -> Option<Option<Digest>> {
        let state = self.lock();
        let Some(entry) = state.tags.get(&(repository.clone(), tag.clone())) else {
            return Some(None);
        };
        (entry.writes == 0 && entry.changed <= moment).then_some(entry.digest)
    }

    /// A look that began at `moment` found a tag.
    pub(super) fn saw(&self, repository: &RepositoryName, tag: &Tag, digest: Digest, moment: u64) {
        let mut state = self.lock();
        if state.tags.len() >= MAX_SEEN {
            state.tags.retain(|_, entry| entry.writes > 0);
        }
        let next = state.moment + 1;
        let entry = state.tags.entry((repository.clone(), tag.clone())).or_default();
        if entry.writes > 0 || entry.changed > moment || entry.digest == Some(digest) {
            return;
        }
        (entry.digest, entry.changed) = (Some(digest), next);
        state.moment = next;
    }

    /// This node writes tags there until the answer is dropped.
    pub(super) fn write(&self, repository: &RepositoryName, tags: &[Tag]) -> Writing {
        let mut state = self.lock();
        let keys: Vec<_> = tags.iter().map(|tag| (repository.clone(), tag.clone())).collect();
        for key in &keys {
            state.tags.entry(key.clone()).or_default().writes += 1;
        }
        Writing { seen: self.clone(), keys }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write of tags; see [`Seen::write`].
pub(super) struct Writing {
    seen: Seen,
    keys: Vec<(RepositoryName, Tag)>,
}

impl Writing {
    /// They point to `digest` there now.
    pub(super) fn wrote(&self, digest: Digest) {
        let mut state = self.seen.lock();
        for key in &self.keys {
            state.tags.entry(key.clone()).or_default().digest = Some(digest);
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut state = self.seen.lock();
        state.moment += 1;
        let moment = state.moment;
        for key in &self.keys {
            if let Some(entry) = state.tags.get_mut(key) {
                entry.writes = entry.writes.saturating_sub(1);
                entry.changed = moment;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::sha256(&[number])
    }

    #[test]
    fn what_the_swarm_has_already_is_no_news() {
        let history = [Some(digest(1))];
        for seen in [None, Some(digest(1)), Some(digest(2))] {
            assert!(!is_news(&digest(1), seen.as_ref(), &history));
        }
    }

    #[test]
    fn a_tag_that_nobody_had_is_news_and_one_that_moved_there_too() {
        assert!(is_news(&digest(1), None, &[]));
        assert!(is_news(&digest(2), None, &[Some(digest(1))]));
        assert!(is_news(&digest(1), Some(&digest(2)), &[Some(digest(2)), Some(digest(1))]));
        assert!(is_news(&digest(1), Some(&digest(2)), &[None, Some(digest(2))]));
    }

    #[test]
    fn what_stands_there_unchanged_undoes_neither_a_push_nor_a_delete() {
        let pushed = [Some(digest(2)), Some(digest(1))];
        let deleted = [None, Some(digest(1))];
        for history in [pushed, deleted] {
            for seen in [None, Some(digest(1))] {
                assert!(!is_news(&digest(1), seen.as_ref(), &history), "{history:?} {seen:?}");
            }
        }
    }

    #[test]
    fn a_look_that_began_before_a_write_of_this_node_ended_says_nothing() {
        let (seen, app) = (Seen::default(), "team/app".parse().unwrap());
        let tag: Tag = "latest".parse().unwrap();
        let first = seen.moment();
        assert_eq!(seen.before(&app, &tag, first), Some(None));
        seen.saw(&app, &tag, digest(1), first);
        assert_eq!(seen.before(&app, &tag, first), None, "another look found more");
        assert_eq!(seen.before(&app, &tag, seen.moment()), Some(Some(digest(1))));
        let writing = seen.write(&app, std::slice::from_ref(&tag));
        let during = seen.moment();
        assert_eq!(seen.before(&app, &tag, during), None);
        writing.wrote(digest(2));
        drop(writing);
        assert_eq!(seen.before(&app, &tag, during), None);
        seen.saw(&app, &tag, digest(1), during);
        assert_eq!(seen.before(&app, &tag, seen.moment()), Some(Some(digest(2))));
    }

    #[test]
    fn a_write_that_failed_leaves_what_was_seen() {
        let (seen, app) = (Seen::default(), "team/app".parse().unwrap());
        let tag: Tag = "latest".parse().unwrap();
        seen.saw(&app, &tag, digest(1), seen.moment());
        drop(seen.write(&app, std::slice::from_ref(&tag)));
        assert_eq!(seen.before(&app, &tag, seen.moment()), Some(Some(digest(1))));
    }
}
