//! `PUT` and `DELETE` of a manifest.

use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::{Algorithm, Digest, Manifest, Reference, RepositoryName, Tag};
use futures_util::stream::{self, StreamExt};

use super::Push;
use crate::{
    DeleteError, ManifestContent, PutManifest, PutManifestError, ReadError, blocking, entry,
};

/// Children that are looked for at once.
const MAX_CHECKS_AT_ONCE: usize = 8;
/// Looks at the blobs of a manifest that come and go before it is refused.
const MAX_LOOKS: usize = 4;
/// Tags read at once when a manifest is deleted.
const TAG_PAGE: usize = 1000;

/// A manifest to take in: where, under which name, the bytes.
pub(crate) struct Incoming<'a> {
    pub(crate) repository: &'a RepositoryName,
    pub(crate) reference: &'a Reference,
    pub(crate) tags: &'a [Tag],
    pub(crate) content_type: Option<&'a str>,
    pub(crate) bytes: Bytes,
}

impl Push {
    /// See [`crate::Node::put_manifest`].
    pub(crate) async fn put_manifest(
        &self,
        incoming: Incoming<'_>,
    ) -> Result<PutManifest, PutManifestError> {
        let repository = incoming.repository;
        let manifest = Manifest::parse(incoming.content_type, &incoming.bytes)?;
        let digest = checked_digest(incoming.reference, &incoming.bytes)?;
        let blobs: Vec<Digest> = manifest.required_blobs().map(|blob| blob.digest).collect();
        self.check_blobs(repository, &blobs).await?;
        let content = ManifestContent {
            digest,
            media_type: manifest.media_type.clone(),
            bytes: incoming.bytes,
        };
        // The tags go into the local list only after a majority keeps them.
        let entry = Arc::new(entry::of(&content, &manifest));
        // No tag reaches it before a majority keeps one: until then this does.
        let _pin = self.shared.store.pin(&digest, 0);
        self.store_over(repository, Arc::clone(&entry), &blobs).await?;
        self.announcer().announced(&digest, &blobs).await;
        let mut tags: Vec<&Tag> = incoming.tags.iter().collect();
        if let Reference::Tag(tag) = incoming.reference {
            tags.push(tag);
        }
        tags.sort_unstable();
        tags.dedup();
        for tag in tags {
            self.names.write(repository, tag, Some(digest)).await.map_err(|error| match error {
                ReadError::Unavailable(why) => PutManifestError::Unavailable(why),
                other => PutManifestError::Store(other.to_string()),
            })?;
        }
        self.store_again_if_gone(repository, entry, &blobs).await?;
        Ok(PutManifest { digest, subject: manifest.subject.map(|subject| subject.digest) })
    }

    async fn check_blobs(
        &self,
        repository: &RepositoryName,
        blobs: &[Digest],
    ) -> Result<(), PutManifestError> {
        let checks = blobs
            .iter()
            .copied()
            .map(|digest| async move { (digest, self.pull.stat_blob(repository, &digest).await) });
        let mut checks = stream::iter(checks).buffered(MAX_CHECKS_AT_ONCE);
        let mut unknown = Vec::new();
        while let Some((digest, size)) = checks.next().await {
            match size {
                Ok(Some(_)) => {}
                Ok(None) => unknown.push(digest),
                Err(ReadError::Store(why)) => return Err(PutManifestError::Store(why)),
                Err(error) => return Err(PutManifestError::Unavailable(error.to_string())),
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(PutManifestError::BlobsUnknown(unknown)) }
    }

    /// Stores the manifest in one step with a second look at its blobs: what was seen here may
    /// have been collected or deleted since. What is not here must be with a peer.
    async fn store_over(
        &self,
        repository: &RepositoryName,
        entry: Arc<ddr_store::ManifestEntry>,
        blobs: &[Digest],
    ) -> Result<(), PutManifestError> {
        let mut expected = blobs.to_vec();
        let mut gone = Vec::new();
        for _ in 0..MAX_LOOKS {
            gone = self.try_store(repository, Arc::clone(&entry), expected.clone()).await?;
            if gone.is_empty() {
                return Ok(());
            }
            for digest in &gone {
                match self.pull.size_elsewhere(repository, digest).await {
                    Ok(Some(_)) => expected.retain(|one| one != digest),
                    // It may have been pushed again meanwhile.
                    Ok(None) => self.check_blobs(repository, &[*digest]).await?,
                    Err(ReadError::Store(why)) => return Err(PutManifestError::Store(why)),
                    Err(error) => return Err(PutManifestError::Unavailable(error.to_string())),
                }
            }
        }
        Err(PutManifestError::BlobsUnknown(gone))
    }

    /// Stores the manifest unless some of `expected` are not here; those.
    async fn try_store(
        &self,
        repository: &RepositoryName,
        entry: Arc<ddr_store::ManifestEntry>,
        expected: Vec<Digest>,
    ) -> Result<Vec<Digest>, PutManifestError> {
        let (shared, repository) = (Arc::clone(&self.shared), repository.clone());
        let digest = entry.digest;
        let stored = blocking(move || {
            let gone = shared.store.put_manifest_over(&repository, &entry, &[], &expected)?;
            if gone.is_empty() {
                shared.deleted.unmark(&repository, &entry.digest)?;
            }
            Ok::<_, ddr_store::IndexError>(gone)
        });
        let gone = stored.await.map_err(PutManifestError::store)??;
        self.shared.locator.forget(&digest);
        Ok(gone)
    }

    /// A delete by digest may have taken the manifest away while its tags were written: then they
    /// would name what is not stored. The push ended later, so it counts.
    async fn store_again_if_gone(
        &self,
        repository: &RepositoryName,
        entry: Arc<ddr_store::ManifestEntry>,
        blobs: &[Digest],
    ) -> Result<(), PutManifestError> {
        let (store, name, digest) = (self.shared.store.clone(), repository.clone(), entry.digest);
        let stored = blocking(move || store.manifest(&name, &digest)).await;
        if stored.map_err(PutManifestError::store)??.is_some() {
            return Ok(());
        }
        self.store_over(repository, entry, blobs).await?;
        self.announcer().announce_again(digest);
        Ok(())
    }

    /// See [`crate::Node::delete_manifest`].
    pub(crate) async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<bool, DeleteError> {
        match reference {
            Reference::Tag(tag) => self.delete_tag(repository, tag).await,
            Reference::Digest(digest) => self.delete_digest(repository, digest).await,
        }
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<bool, DeleteError> {
        if self.names.read(repository, tag).await?.is_none() {
            return Ok(false);
        }
        self.names.write(repository, tag, None).await?;
        Ok(true)
    }

    /// Names first, then the record, then the content: nothing named is ever missing.
    async fn delete_digest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, DeleteError> {
        let (store, name, wanted) = (self.shared.store.clone(), repository.clone(), *digest);
        let tags = blocking(move || tags_of(&store, &name, &wanted));
        let tags = tags.await.map_err(DeleteError::store)?.map_err(DeleteError::store)?;
        for tag in tags {
            // Another node may have moved it meanwhile: then it stays.
            if self.names.read(repository, &tag).await? == Some(*digest) {
                self.names.write(repository, &tag, None).await?;
            }
        }
        let (shared, name, digest) = (Arc::clone(&self.shared), repository.clone(), *digest);
        let deleted = blocking(move || {
            let was = shared.store.delete_manifest(&name, &digest)?.is_some();
            if was {
                shared.deleted.mark(&name, &digest)?;
            }
            let gone = shared.store.any_manifest(&digest)?.is_none();
            Ok::<_, ddr_store::IndexError>((was, gone))
        });
        let (was, gone) = deleted.await.map_err(DeleteError::store)?.map_err(DeleteError::store)?;
        if was && gone {
            self.withdraw(digest).await;
        }
        Ok(was)
    }
}

fn checked_digest(reference: &Reference, bytes: &[u8]) -> Result<Digest, PutManifestError> {
    match reference {
        Reference::Tag(_) => Ok(Digest::of(Algorithm::Sha256, bytes)),
        Reference::Digest(given) => {
            let actual = Digest::of(given.algorithm(), bytes);
            if actual == *given {
                Ok(actual)
            } else {
                Err(PutManifestError::DigestMismatch { given: *given, actual: Box::new(actual) })
            }
        }
    }
}

fn tags_of(
    store: &ddr_store::Store,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Vec<Tag>, ddr_store::IndexError> {
    let mut found = Vec::new();
    let mut last: Option<Tag> = None;
    loop {
        let page = store.tags(repository, last.as_ref().map(Tag::as_str), TAG_PAGE)?;
        let page = page.unwrap_or_default();
        let Some(end) = page.last().cloned() else { return Ok(found) };
        last = Some(end);
        for tag in page {
            if store.tag(repository, &tag)? == Some(*digest) {
                found.push(tag);
            }
        }
    }
}
