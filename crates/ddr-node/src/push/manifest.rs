//! `PUT` and `DELETE` of a manifest.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::{Algorithm, Digest, Manifest, Reference, RepositoryName, Tag};
use ddr_proto::wire::ContentKind;
use futures_util::stream::{self, StreamExt};

use super::Push;
use crate::names::{Publication, Withdrawal};
use crate::{
    DeleteError, ManifestContent, PutManifest, PutManifestError, ReadError, TagWriteError,
    blocking, entry,
};

/// Children that are looked for at once.
const MAX_CHECKS_AT_ONCE: usize = 8;
/// Looks at the blobs of a manifest that come and go before it is refused.
const MAX_LOOKS: usize = 4;

/// A manifest to take in: where, under which name, the bytes.
pub(crate) struct Incoming<'a> {
    pub(crate) repository: &'a RepositoryName,
    pub(crate) reference: &'a Reference,
    pub(crate) tags: &'a [Tag],
    pub(crate) content_type: Option<&'a str>,
    pub(crate) bytes: Bytes,
    pub(crate) origin: Origin,
}

/// Where a manifest comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// A client pushes it.
    Client,
    /// It lies in the registry beside this node; `copies`: other nodes are to keep it, too.
    Beside {
        /// See above.
        copies: bool,
    },
}

impl Origin {
    fn wants_copies(self) -> bool {
        matches!(self, Self::Client | Self::Beside { copies: true })
    }
}

/// A manifest that is to be stored.
struct Stored<'a> {
    repository: &'a RepositoryName,
    entry: Arc<ddr_store::ManifestEntry>,
    /// Its blobs that somebody has, with their sizes.
    kept: Vec<(Digest, u64)>,
    /// Bytes of the manifest.
    size: u64,
    origin: Origin,
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
        let size = incoming.bytes.len() as u64;
        let tags = all_tags(&incoming);
        self.names.check_immutable(repository, &tags, &digest).await?;
        let mut seen = BTreeSet::new();
        let blobs = manifest.required_blobs().map(|blob| (blob.digest, blob.size));
        let sized: Vec<(Digest, u64)> = blobs.filter(|blob| seen.insert(blob.0)).collect();
        let blobs: Vec<Digest> = sized.iter().map(|(digest, _)| *digest).collect();
        let unknown_blobs = self.check_blobs(repository, &blobs).await?;
        let content = ManifestContent {
            digest,
            media_type: manifest.media_type.clone(),
            bytes: incoming.bytes,
            is_stale: false,
        };
        // The tags go into the local list only after a majority keeps them.
        let mut entry = entry::of(&content, &manifest);
        // To name a digest is no licence to read it: what was not found is not linked.
        let unknown: BTreeSet<&Digest> = unknown_blobs.iter().collect();
        entry.children.retain(|child| !unknown.contains(child));
        let entry = Arc::new(entry);
        // No tag reaches it before a majority keeps one: until then this does.
        let _pin = self.shared.store.pin(&digest, 0);
        let kept: Vec<(Digest, u64)> =
            sized.into_iter().filter(|(blob, _)| !unknown.contains(blob)).collect();
        let origin = incoming.origin;
        let stored = Stored { repository, entry, kept, size, origin };
        self.store_safely(&stored).await?;
        if let (Some(landing), Origin::Client) = (&self.landing, origin) {
            landing.land(&self.pull, repository, &stored.entry, &tags).await?;
        }
        let referrer = stored.entry.subject.clone();
        let publication = Publication { repository: repository.clone(), digest, tags, referrer };
        self.names.publish(publication).await?;
        self.store_again_if_gone(&stored).await?;
        let subject = manifest.subject.map(|subject| subject.digest);
        Ok(PutManifest { digest, subject, unknown_blobs })
    }

    /// Those of `blobs` that nobody has in `repository`, which is an error where all are required.
    async fn check_blobs(
        &self,
        repository: &RepositoryName,
        blobs: &[Digest],
    ) -> Result<Vec<Digest>, PutManifestError> {
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
                Err(error) => return Err(unavailable(error)),
            }
        }
        if unknown.is_empty() || !self.shared.limits.require_blobs {
            return Ok(unknown);
        }
        Err(PutManifestError::BlobsUnknown(unknown))
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
                    Ok(None) => {
                        let unknown = self.check_blobs(repository, &[*digest]).await?;
                        if !unknown.is_empty() {
                            return Err(PutManifestError::BlobsUnknown(unknown));
                        }
                    }
                    Err(error) => return Err(unavailable(error)),
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
        let digest = entry.digest;
        let store = || {
            let (shared, repository) = (Arc::clone(&self.shared), repository.clone());
            let (entry, expected) = (Arc::clone(&entry), expected.clone());
            let stored = blocking(move || {
                shared.store.put_manifest_over(&repository, &entry, &[], &expected)
            });
            async { Ok(stored.await.map_err(PutManifestError::store)??) }
        };
        let content = (repository, &digest, ContentKind::Manifest);
        let gone = self.shared.deleted.push(content, unavailable, store).await?;
        self.shared.locator.forget(&digest);
        Ok(gone)
    }

    /// Stores the manifest, makes it known, and has it kept by other nodes with its blobs; again when a
    /// delete came between.
    async fn store_safely(&self, stored: &Stored<'_>) -> Result<(), PutManifestError> {
        let Stored { repository, entry, kept, size, origin } = stored;
        let digest = entry.digest;
        let known: Vec<Digest> = kept.iter().map(|(blob, _)| *blob).collect();
        for _ in 0..MAX_LOOKS {
            self.store_over(repository, Arc::clone(entry), &known).await?;
            self.announcer().announced(&digest, &known).await;
            if !origin.wants_copies() {
                return Ok(());
            }
            let secured = self.copies.secure(repository, (digest, *size), kept).await;
            if secured.map_err(unavailable)? {
                return Ok(());
            }
        }
        Err(PutManifestError::Unavailable("the image is deleted all the time; try again".into()))
    }

    /// A delete by digest may have taken the manifest away while its tags were written: then they
    /// would name what is not stored. The push ended later, so it counts.
    async fn store_again_if_gone(&self, stored: &Stored<'_>) -> Result<(), PutManifestError> {
        let (store, name, digest) =
            (self.shared.store.clone(), stored.repository.clone(), stored.entry.digest);
        let found = blocking(move || store.manifest(&name, &digest)).await;
        if found.map_err(PutManifestError::store)??.is_some() {
            return Ok(());
        }
        self.store_safely(stored).await?;
        self.announcer().announce_again(digest);
        Ok(())
    }

    /// See [`crate::Node::delete_manifest`].
    pub(crate) async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<bool, DeleteError> {
        let was_there = match reference {
            Reference::Tag(tag) => self.delete_tag(repository, tag).await?,
            Reference::Digest(digest) => self.delete_digest(repository, digest).await?,
        };
        if let Some(landing) = self.landing() {
            landing.delete(repository, reference).await;
        }
        Ok(was_there)
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<bool, DeleteError> {
        if self.names.read_strictly(repository, tag).await?.is_none() {
            return Ok(false);
        }
        self.names.delete_tag(repository, tag).await?;
        Ok(true)
    }

    /// Names first, then the content: nothing named is ever missing.
    async fn delete_digest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, DeleteError> {
        let Some(found) = self.pull.manifest(repository, digest).await? else { return Ok(false) };
        let manifest = Manifest::parse(Some(&found.media_type), &found.bytes).ok();
        let subject = manifest.and_then(|manifest| manifest.subject);
        let withdrawal = Withdrawal {
            repository: repository.clone(),
            digest: *digest,
            subject: subject.map(|subject| subject.digest),
        };
        self.names.withdraw(withdrawal.clone()).await?;
        let content = (repository, digest, ContentKind::Manifest);
        self.shared.deleted.delete(content).await?;
        // A push may have named it while it went. One that has ended since let it in again.
        if self.shared.deleted.contains(content).await? {
            self.names.withdraw(withdrawal).await?;
        }
        self.names.settle_repository(repository.clone()).await?;
        Ok(true)
    }
}

/// The tags that a push names, each once.
fn all_tags(incoming: &Incoming<'_>) -> Vec<Tag> {
    let mut tags: Vec<Tag> = incoming.tags.to_vec();
    if let Reference::Tag(tag) = incoming.reference {
        tags.push(tag.clone());
    }
    tags.sort_unstable();
    tags.dedup();
    tags
}

impl From<TagWriteError> for PutManifestError {
    fn from(error: TagWriteError) -> Self {
        match error {
            TagWriteError::Immutable { tag, digest } => {
                Self::TagImmutable { tag, digest: digest.into() }
            }
            TagWriteError::Other(error) => unavailable(error),
        }
    }
}

fn unavailable(error: ReadError) -> PutManifestError {
    match error {
        ReadError::Unavailable(why) => PutManifestError::Unavailable(why),
        ReadError::Busy(_) | ReadError::Denied(_) => {
            PutManifestError::Unavailable(error.to_string())
        }
        ReadError::Store(why) => PutManifestError::Store(why),
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
