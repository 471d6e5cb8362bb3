//! What a push or a delete says in names and lists.
//!
//! Decides the order: tags and referrers first, then whether the repository is in the catalogue. A
//! node that is alone writes all of a push in one durable step.

use std::sync::{Arc, PoisonError};

use ddr_oci::{Digest, RepositoryName, Tag};
use ddr_proto::id::Key;
use ddr_proto::names;
use ddr_proto::wire::{Fact, FactRecord, MAX_VALUE_BYTES, Member, NameRecord, SetEntry, SetName};
use ddr_store::{IndexError, Outcome};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::keeper::Keeping;
use super::{MAX_ATTEMPTS, Names, Parts};
use crate::{ReadError, TagWriteError, blocking};

/// Tags of one push or delete that are written at once.
const MAX_WRITES_AT_ONCE: usize = 8;
/// Tags that one delete takes away; beyond, it is refused.
const MAX_WITHDRAWN: usize = 100_000;

/// A manifest that is stored, and under which names it is to be found.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) repository: RepositoryName,
    pub(crate) digest: Digest,
    /// Each once.
    pub(crate) tags: Vec<Tag>,
    /// The subject, and the descriptor (JSON) by which its referrers list the manifest.
    pub(crate) referrer: Option<(Digest, Vec<u8>)>,
}

/// A manifest that is to go, and what names it.
#[derive(Clone, Debug)]
pub(crate) struct Withdrawal {
    pub(crate) repository: RepositoryName,
    pub(crate) digest: Digest,
    pub(crate) subject: Option<Digest>,
}

impl Names {
    /// Points tags to a manifest, lists it with its subject, and has its repository in the
    /// catalogue. Done when a majority keeps each of these durably.
    pub(crate) async fn publish(&self, publication: Publication) -> Result<(), TagWriteError> {
        self.in_turn(|parts| async move {
            if parts.is_alone() {
                return parts.publish_alone(publication).await;
            }
            parts.publish(&publication).await
        })
        .await
    }

    /// Refuses a push that would move an immutable tag, before anything of it is stored.
    pub(crate) async fn check_immutable(
        &self,
        repository: &RepositoryName,
        tags: &[Tag],
        digest: &Digest,
    ) -> Result<(), TagWriteError> {
        for tag in tags.iter().filter(|tag| self.parts.rules.is_immutable(repository, tag)) {
            let _turn = self.turns.acquire().await.map_err(ReadError::store)?;
            self.parts.check_immutable(repository, tag, Some(digest)).await?;
        }
        Ok(())
    }

    /// Deletes a tag.
    pub(crate) async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<(), TagWriteError> {
        let (repository, tag) = (repository.clone(), tag.clone());
        self.in_turn(|parts| async move {
            parts.write_tag(&repository, &tag, None).await?;
            Ok(parts.settle_repository(&repository).await?)
        })
        .await
    }

    /// Deletes every tag that points to a manifest, and takes it off the list of its subject.
    pub(crate) async fn withdraw(&self, withdrawal: Withdrawal) -> Result<(), TagWriteError> {
        self.in_turn(|parts| async move { parts.withdraw(&withdrawal).await }).await
    }

    /// Takes a repository out of the catalogue that has neither a tag nor a manifest here.
    pub(crate) async fn settle_repository(
        &self,
        repository: RepositoryName,
    ) -> Result<(), ReadError> {
        self.in_turn(|parts| async move { parts.settle_repository(&repository).await }).await
    }

    /// The members of a set from `from` on for which `wanted` gives something, at most `limit`.
    pub(crate) async fn members<T>(
        &self,
        set: &SetName,
        from: Member,
        limit: usize,
        wanted: impl FnMut(SetEntry) -> Option<T>,
    ) -> Result<Vec<T>, ReadError> {
        self.listing(self.parts.members(set, from, limit, wanted)).await
    }

    /// Whether the catalogue has `repository`.
    pub(crate) async fn is_listed(&self, repository: &RepositoryName) -> Result<bool, ReadError> {
        let member = Member::text(repository.as_str());
        let entry = self.listing(self.parts.read_entry(&SetName::Repositories, &member)).await?;
        Ok(entry.is_some_and(|entry| entry.is_present()))
    }
}

impl Parts {
    async fn publish(&self, publication: &Publication) -> Result<(), TagWriteError> {
        let Publication { repository, digest, tags, referrer } = publication;
        let writes: Vec<_> =
            tags.iter().map(|tag| self.write_tag(repository, tag, Some(*digest))).collect();
        let writes = stream::iter(writes).buffer_unordered(MAX_WRITES_AT_ONCE);
        let writes = writes.try_collect::<Vec<()>>();
        let refers = async {
            let Some((subject, descriptor)) = referrer else { return Ok(()) };
            let fact = referrer_fact(repository, subject, digest);
            self.settle_fact(&fact, Some(&bounded(descriptor))).await.map(drop)
        };
        let (tagged, listed) = tokio::join!(writes, refers);
        tagged?;
        listed?;
        // After the tags: whoever takes the repository away looks for tags after that, so one of
        // the two sees the other.
        self.settle_fact(&Fact::Repository(repository.clone()), Some(&Vec::new())).await?;
        Ok(())
    }

    async fn withdraw(&self, withdrawal: &Withdrawal) -> Result<(), TagWriteError> {
        let Withdrawal { repository, digest, subject } = withdrawal;
        let set = SetName::Tags(repository.clone());
        let tags = self.members(&set, Member::first(), MAX_WITHDRAWN + 1, |entry| match entry {
            SetEntry::Tag(record) => (record.digest == Some(*digest)).then_some(record.tag),
            SetEntry::Fact(_) => None,
        });
        let tags = tags.await?;
        if tags.len() > MAX_WITHDRAWN {
            return Err(ReadError::Busy("tags of one manifest").into());
        }
        // All of them are looked at before the first one goes.
        for tag in tags.iter().filter(|tag| self.rules.is_immutable(repository, tag)) {
            let record = self.read(Key::of_name(repository, tag)).await?;
            if record.and_then(|record| record.digest) == Some(*digest) {
                return Err(TagWriteError::Immutable { tag: tag.clone(), digest: *digest });
            }
        }
        let untags: Vec<_> = tags.iter().map(|tag| self.untag(repository, tag, digest)).collect();
        let untags = stream::iter(untags).buffer_unordered(MAX_WRITES_AT_ONCE);
        untags.try_collect::<Vec<()>>().await?;
        if let Some(subject) = subject {
            self.settle_fact(&referrer_fact(repository, subject, digest), None).await?;
        }
        Ok(())
    }

    /// Deletes `tag` if it points to `digest`: another node may have moved it, then it stays.
    async fn untag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), TagWriteError> {
        let record = self.read(Key::of_name(repository, tag)).await?;
        if record.and_then(|record| record.digest) == Some(*digest) {
            self.write_tag(repository, tag, None).await?;
        }
        Ok(())
    }

    /// See [`Names::settle_repository`].
    async fn settle_repository(&self, repository: &RepositoryName) -> Result<(), ReadError> {
        let fact = Fact::Repository(repository.clone());
        if self.is_in_use(repository).await? {
            return Ok(());
        }
        self.settle_fact(&fact, None).await?;
        if self.is_in_use(repository).await? {
            self.settle_fact(&fact, Some(&Vec::new())).await?;
        }
        Ok(())
    }

    async fn is_in_use(&self, repository: &RepositoryName) -> Result<bool, ReadError> {
        let set = SetName::Tags(repository.clone());
        if !self.members(&set, Member::first(), 1, Some).await?.is_empty() {
            return Ok(true);
        }
        let (store, repository) = (self.store.clone(), repository.clone());
        let here = blocking(move || store.tags(&repository, None, 1)).await;
        Ok(here.map_err(ReadError::store)?.map_err(ReadError::store)?.is_some())
    }

    /// All that a push says, in one durable step on this node, which is the only one.
    async fn publish_alone(
        self: &Arc<Self>,
        publication: Publication,
    ) -> Result<(), TagWriteError> {
        let parts = Arc::clone(self);
        let work = move || {
            let _deciding = parts.deciding.alone.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(refusal) = parts.refusal(&publication)? {
                return Ok(Err(refusal));
            }
            for _ in 0..MAX_ATTEMPTS {
                let keeping = parts.all_of_push(&publication)?;
                let keys: Vec<Key> = keeping.names.iter().map(NameRecord::key).collect();
                let outcomes = parts.keeper.keep(keeping)?;
                keys.iter().for_each(|key| parts.forget.listed.remove(key.as_bytes()));
                if !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Newer(_))) {
                    return Ok(Ok(()));
                }
            }
            Ok::<_, IndexError>(Err(parts
                .lost("the tag changes all the time; try again".into())
                .into()))
        };
        blocking(work).await.map_err(ReadError::store)?.map_err(ReadError::store)?
    }

    /// Why a push to this node alone may not be: an immutable tag points elsewhere. Blocks.
    fn refusal(&self, publication: &Publication) -> Result<Option<TagWriteError>, IndexError> {
        let Publication { repository, digest, tags, .. } = publication;
        for tag in tags.iter().filter(|tag| self.rules.is_immutable(repository, tag)) {
            let kept = self.keeper.record(Key::of_name(repository, tag))?;
            let kept = kept.and_then(|kept| kept.digest).filter(|kept| kept != digest);
            if let Some(digest) = kept {
                return Ok(Some(TagWriteError::Immutable { tag: tag.clone(), digest }));
            }
        }
        Ok(None)
    }

    /// The records of a push, stamped after what is kept here. Blocks.
    fn all_of_push(&self, publication: &Publication) -> Result<Keeping, IndexError> {
        let Publication { repository, digest, tags, referrer } = publication;
        let now = self.clock.now();
        let mut keeping = Keeping::default();
        for tag in tags {
            let kept = self.keeper.record(Key::of_name(repository, tag))?;
            let stamp = names::next_stamp(kept.map(|kept| kept.stamp), now);
            let name = (repository.clone(), tag.clone());
            let record = NameRecord::sign(&self.signer, name.0, name.1, Some(*digest), stamp);
            keeping.entries.push(SetEntry::Tag(record.clone()));
            keeping.names.push(record);
            keeping.tags.push((repository.clone(), tag.clone(), Some(*digest)));
        }
        let refers = referrer.as_ref().map(|(subject, descriptor)| {
            (referrer_fact(repository, subject, digest), bounded(descriptor))
        });
        let exists = (Fact::Repository(repository.clone()), Vec::new());
        for (fact, value) in refers.into_iter().chain([exists]) {
            let kept = self.keeper.entry(&fact.set(), &fact.member())?;
            if kept.as_ref().and_then(SetEntry::value) == Some(&value) {
                continue;
            }
            let stamp = names::next_stamp(kept.as_ref().map(SetEntry::stamp), now);
            let record = FactRecord::sign(&self.signer, fact, Some(value), stamp);
            keeping.entries.push(SetEntry::Fact(record));
        }
        Ok(keeping)
    }
}

/// The annotation of a descriptor whose own annotations are in its manifest only.
pub(crate) const CUT: &str = "ddr.annotations-are-in-the-manifest";

fn referrer_fact(repository: &RepositoryName, subject: &Digest, referrer: &Digest) -> Fact {
    let (subject, referrer) = (*subject, *referrer);
    Fact::Referrer { repository: repository.clone(), subject, referrer }
}

/// The descriptor as the set keeps it. Where its annotations make it too long for a message, the
/// mark [`CUT`] stands in their place, and a reader takes them from the manifest.
fn bounded(descriptor: &[u8]) -> Vec<u8> {
    if descriptor.len() <= MAX_VALUE_BYTES {
        return descriptor.to_vec();
    }
    let Ok(mut short) = ddr_oci::Descriptor::from_json(descriptor) else { return Vec::new() };
    short.annotations = std::iter::once((CUT.to_owned(), "true".to_owned())).collect();
    let short = short.to_json();
    // Media types and artifact types are bounded far below the limit.
    if short.len() <= MAX_VALUE_BYTES { short } else { Vec::new() }
}
