//! Lists of the whole swarm: tags, repositories, referrers.
//!
//! Decides how much of a list is read. What is on it says the set (see [`crate::names`]), of a mirrored repository its
//! registry, and what is known here while that cannot be asked.

use std::collections::BTreeMap;

use ddr_oci::{Descriptor, Digest, Manifest, RepositoryName, Tag};
use ddr_proto::wire::{Fact, FactRecord, Member, SetEntry, SetName};

use crate::mirror::{Source, listed_tags};
use crate::names::CUT;
use crate::node::Inner;
use crate::{ReadError, TagList, blocking};

/// Referrers of one subject that are listed; those with greater digests are left out.
pub const MAX_REFERRERS: usize = 4096;
/// Bytes of their descriptors as JSON: past this no more are listed.
pub const MAX_REFERRERS_BYTES: usize = 16 * 1024 * 1024;

/// What refers to a manifest.
#[derive(Debug)]
pub struct Referrers {
    /// In the order of their digests.
    pub descriptors: Vec<Descriptor>,
    /// Who says that these are they.
    pub by: ListedBy,
}

/// Who says what is on a list.
#[derive(Debug)]
pub enum ListedBy {
    /// The nodes that keep it.
    Swarm,
    /// The registry that the repository is mirrored from.
    Registry,
    /// This node remembers them: that registry could not be asked.
    Memory(ReadError),
}

/// See [`crate::Node::tags`].
pub(crate) async fn tags(
    node: &Inner,
    repository: &RepositoryName,
    last: Option<&str>,
    limit: usize,
) -> Result<Option<TagList>, ReadError> {
    if let Some(source) = node.pull.mirror().source(repository) {
        return mirrored_tags(node, repository, source, (last, limit)).await;
    }
    match tags_of_swarm(node, repository, last, limit).await {
        Ok(tags) => Ok(tags.map(|tags| TagList { tags, is_stale: false })),
        Err(error) => node.names.stale_tags(repository, last, limit, error).await,
    }
}

/// Those that the swarm has seen stand in while the registry cannot be asked.
async fn mirrored_tags(
    node: &Inner,
    repository: &RepositoryName,
    source: Source,
    (last, limit): (Option<&str>, usize),
) -> Result<Option<TagList>, ReadError> {
    let asked = listed_tags(&node.shared, repository, source.clone(), (last, limit)).await;
    let error = match asked.map_err(|error| source.read_error(&error)) {
        Ok(tags) => return Ok(tags.map(|tags| TagList { tags, is_stale: false })),
        Err(error @ ReadError::Denied(_)) => return Err(error),
        Err(error) => error,
    };
    let seen = tags_of_swarm(node, repository, last, limit).await?;
    seen.map(|tags| Some(TagList { tags, is_stale: true })).ok_or(error)
}

async fn tags_of_swarm(
    node: &Inner,
    repository: &RepositoryName,
    last: Option<&str>,
    limit: usize,
) -> Result<Option<Vec<Tag>>, ReadError> {
    let set = SetName::Tags(repository.clone());
    let tag = |entry| match entry {
        SetEntry::Tag(record) => Some(record.tag),
        SetEntry::Fact(_) => None,
    };
    let tags = node.names.members(&set, after(last), limit, tag).await?;
    if !tags.is_empty() || node.names.is_listed(repository).await? {
        return Ok(Some(tags));
    }
    // A manifest without a tag, of which the catalogue may not know.
    let (store, repository) = (node.shared.store.clone(), repository.clone());
    let here = blocking(move || store.tags(&repository, None, 1)).await;
    let here = here.map_err(ReadError::store)?.map_err(ReadError::store)?;
    Ok(here.map(|_| tags))
}

/// See [`crate::Node::repositories`].
pub(crate) async fn repositories(
    node: &Inner,
    last: Option<&str>,
    limit: usize,
) -> Result<Vec<RepositoryName>, ReadError> {
    let name = |entry| match entry {
        SetEntry::Fact(FactRecord { fact: Fact::Repository(name), .. }) => Some(name),
        _ => None,
    };
    node.names.members(&SetName::Repositories, after(last), limit, name).await
}

/// See [`crate::Node::referrers`].
pub(crate) async fn referrers(
    node: &Inner,
    repository: &RepositoryName,
    subject: &Digest,
) -> Result<Referrers, ReadError> {
    let mut by = ListedBy::Swarm;
    if let Some(source) = node.pull.mirror().source(repository) {
        let (there, host) = (&source.repository, &source.upstream);
        let asked = host.referrers(there, subject, MAX_REFERRERS).await;
        match node.pull.mirror().heard(&source, asked) {
            Ok(Some(descriptors)) => {
                let by = ListedBy::Registry;
                return Ok(Referrers { descriptors, by });
            }
            Ok(None) => {}
            Err(error) => match source.read_error(&error) {
                error @ ReadError::Denied(_) => return Err(error),
                error => by = ListedBy::Memory(error),
            },
        }
    }
    let descriptors = referrers_of_swarm(node, repository, subject).await?;
    Ok(Referrers { descriptors, by })
}

async fn referrers_of_swarm(
    node: &Inner,
    repository: &RepositoryName,
    subject: &Digest,
) -> Result<Vec<Descriptor>, ReadError> {
    let set = SetName::Referrers(repository.clone(), *subject);
    let mut bytes = 0;
    let descriptor = |entry: SetEntry| {
        let value = entry.value()?;
        bytes += value.len();
        Descriptor::from_json(value).ok().filter(|_| bytes <= MAX_REFERRERS_BYTES)
    };
    let listed = node.names.members(&set, Member::first(), MAX_REFERRERS, descriptor).await?;
    let mut found = with_those_here(node, repository, subject, listed).await?;
    for at in 0..found.len() {
        if found[at].annotations.contains_key(CUT) {
            bytes += complete(node, repository, &mut found[at]).await?;
        }
        if bytes > MAX_REFERRERS_BYTES {
            tracing::warn!(%repository, %subject, listed = at, "a list of referrers is too long");
            found.truncate(at);
            break;
        }
    }
    Ok(found)
}

/// The list with the referrers that are stored here: a crash may have cut a push off before the
/// list had its manifest, or a delete after the list had lost it. What can be read is listed.
async fn with_those_here(
    node: &Inner,
    repository: &RepositoryName,
    subject: &Digest,
    listed: Vec<Descriptor>,
) -> Result<Vec<Descriptor>, ReadError> {
    let (store, repository, subject) = (node.shared.store.clone(), repository.clone(), *subject);
    let here = blocking(move || store.referrers(&repository, &subject)).await;
    let here = here.map_err(ReadError::store)?.map_err(ReadError::store)?;
    let here = here.iter().filter_map(|json| Descriptor::from_json(json).ok());
    let all = here.chain(listed).map(|descriptor| (descriptor.digest, descriptor));
    let all: BTreeMap<_, _> = all.collect();
    Ok(all.into_values().take(MAX_REFERRERS).collect())
}

/// Gives a descriptor the annotations of its manifest; how many bytes it has with them.
async fn complete(
    node: &Inner,
    repository: &RepositoryName,
    listed: &mut Descriptor,
) -> Result<usize, ReadError> {
    let content = node.pull.manifest(repository, &listed.digest).await?;
    let manifest =
        content.as_ref().and_then(|one| Manifest::parse(Some(&one.media_type), &one.bytes).ok());
    match manifest {
        Some(manifest) => *listed = manifest.referrer_descriptor(listed.digest, listed.size),
        // Listed all the same: one that is lost must not hide the others.
        None => tracing::warn!(digest = %listed.digest, "no node that can be reached holds it"),
    }
    Ok(listed.to_json().len())
}

fn after(last: Option<&str>) -> Member {
    last.map_or_else(Member::first, |last| Member::text(last).successor())
}
