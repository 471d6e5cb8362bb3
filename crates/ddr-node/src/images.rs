//! Reports over the local index: images, tags, who holds what.

use ddr_oci::{Digest, ImageReference, Reference, RepositoryName, Tag};
use ddr_store::{IndexError, Store};
use tokio::time::Instant;

use crate::node::Inner;
use crate::{
    DeleteError, FindError, FindReport, HolderStatus, ImageStatus, ReadError, RemovedImage,
    TagStatus, blocking,
};

/// Repositories, and tags of one, in one report.
const MAX_ROWS: usize = 10_000;

/// See [`crate::Node::images`].
pub(crate) async fn images(store: Store) -> Result<Vec<ImageStatus>, ReadError> {
    blocking(move || list(&store)).await.map_err(ReadError::store)?.map_err(ReadError::store)
}

fn list(store: &Store) -> Result<Vec<ImageStatus>, IndexError> {
    let mut manifests = std::collections::BTreeMap::<RepositoryName, usize>::new();
    for (repository, _) in store.manifests()? {
        *manifests.entry(repository).or_default() += 1;
    }
    let row = |repository: RepositoryName| {
        let tags = store.tags(&repository, None, MAX_ROWS)?.unwrap_or_default();
        let tags = tags
            .into_iter()
            .map(|tag| Ok(store.tag(&repository, &tag)?.map(|digest| (tag, digest))));
        let tags = tags.collect::<Result<Vec<_>, IndexError>>()?;
        let status = |(tag, digest): (Tag, Digest)| TagStatus {
            tag: tag.to_string(),
            digest: digest.to_string(),
        };
        Ok(ImageStatus {
            repository: repository.to_string(),
            tags: tags.into_iter().flatten().map(status).collect(),
            manifests: manifests.get(&repository).copied().unwrap_or_default(),
        })
    };
    store.repositories(None, MAX_ROWS)?.into_iter().map(row).collect()
}

/// See [`crate::Node::remove_image`].
pub(crate) async fn remove(
    node: &Inner,
    image: &ImageReference,
    by_digest: bool,
) -> Result<Option<RemovedImage>, DeleteError> {
    let repository = &image.repository;
    let (tag, digest) = match &image.reference {
        Reference::Digest(digest) => (None, *digest),
        Reference::Tag(tag) => {
            let Some(digest) = node.names.read_strictly(repository, tag).await? else {
                return Ok(None);
            };
            (Some(tag).filter(|_| !by_digest), digest)
        }
    };
    let what = tag.map_or(Reference::Digest(digest), |tag| Reference::Tag(tag.clone()));
    let removed = node.push.delete_manifest(repository, &what).await?;
    Ok(removed.then(|| RemovedImage {
        repository: repository.to_string(),
        tag: tag.map(ToString::to_string),
        digest: digest.to_string(),
    }))
}

/// See [`crate::Node::find`].
pub(crate) async fn find(node: &Inner, what: &str) -> Result<FindReport, FindError> {
    let started = Instant::now();
    let bad = || FindError::BadTarget(what.to_owned());
    let digest = match what.parse::<Digest>() {
        Ok(digest) => Some(digest),
        Err(_) => {
            let image: ImageReference = what.parse().map_err(|_| bad())?;
            let image = node.pull.mirror().place(&image);
            match image.reference {
                Reference::Digest(digest) => Some(digest),
                Reference::Tag(tag) => node.names.read(&image.repository, &tag).await?.digest,
            }
        }
    };
    let mut report = FindReport {
        target: what.to_owned(),
        digest: digest.map(|digest| digest.to_string()),
        size: None,
        local: false,
        holders: Vec::new(),
        took_ms: 0,
    };
    if let Some(digest) = digest {
        let store = node.shared.store.clone();
        let local = blocking(move || local_size(&store, &digest));
        report.size = local.await.map_err(ReadError::store)?.map_err(ReadError::store)?;
        report.local = report.size.is_some();
        let holders = node.pull.holders(&digest).await;
        report.holders = holders
            .into_iter()
            .filter(|holder| holder.contact.id != node.shared.own.id)
            .map(|holder| HolderStatus {
                node_id: holder.contact.id.to_string(),
                addresses: holder.contact.addrs,
                zone: holder.contact.zone,
                complete: holder.complete,
            })
            .collect();
    }
    report.took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

fn local_size(store: &Store, digest: &Digest) -> std::io::Result<Option<u64>> {
    if let Some(size) = store.blob_size(digest)? {
        return Ok(Some(size));
    }
    let manifest = store.any_manifest(digest).map_err(std::io::Error::from)?;
    Ok(manifest.map(|manifest| manifest.bytes.len() as u64))
}
