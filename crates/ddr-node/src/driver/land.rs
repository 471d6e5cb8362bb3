//! Pushes to this node land in the registry beside it.
//!
//! Decides the order there: blobs, the manifests of an index, the manifest, its tags; and that a push is not answered
//! before. Then this node's own copies of the blobs go: the registry keeps them.

use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::{Digest, Manifest, Reference, RepositoryName, Tag};
use ddr_store::{ManifestEntry, OutsideBlob, Store};
use futures_core::future::BoxFuture;

use super::moved::Seen;
use super::{Driver, DriverError, DriverSettings};
use crate::pull::{Pull, Purpose};
use crate::upkeep::CacheSettings;
use crate::{ManifestContent, PutManifestError, blocking};

/// How deep indexes in indexes are followed.
const MAX_DEPTH: usize = 4;

/// See the module comment.
#[derive(Clone)]
pub(crate) struct Landing {
    driver: Arc<dyn Driver>,
    store: Store,
    cache: CacheSettings,
    seen: Seen,
}

impl Landing {
    /// `None` where nothing lands: without a driver, and with one that is only a cache.
    pub(crate) fn new(
        settings: Option<&DriverSettings>,
        store: &Store,
        cache: CacheSettings,
    ) -> Option<Self> {
        let driver = Arc::clone(&settings?.driver);
        if !driver.keeps() {
            return None;
        }
        Some(Self { driver, store: store.clone(), cache, seen: Seen::default() })
    }

    /// What the looks at the registry must know.
    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Puts a manifest there with all that it names.
    pub(crate) async fn land(
        &self,
        pull: &Pull,
        repository: &RepositoryName,
        entry: &ManifestEntry,
        tags: &[Tag],
    ) -> Result<(), PutManifestError> {
        let content = ManifestContent {
            digest: entry.digest,
            media_type: entry.media_type.clone(),
            bytes: Bytes::copy_from_slice(&entry.bytes),
            is_stale: false,
        };
        let writing = self.seen.write(repository, tags);
        let landed = self.manifest(pull, repository, content, tags, 0).await;
        if landed.is_ok() {
            writing.wrote(entry.digest);
        }
        landed.map_err(|error| {
            tracing::warn!(%repository, digest = %entry.digest, %error, "a push does not land beside");
            match error {
                DriverError::Unsupported(why) => PutManifestError::Refused(format!(
                    "the registry beside this node takes no such manifest: {why}"
                )),
                DriverError::Failed(why) => PutManifestError::Unavailable(format!(
                    "the registry beside this node did not take it: {why}; try again"
                )),
            }
        })
    }

    /// Deletes a tag or a manifest there, as far as that registry does so.
    pub(crate) async fn delete(&self, repository: &RepositoryName, reference: &Reference) {
        match self.driver.delete(repository, reference).await {
            Ok(_) => {}
            Err(DriverError::Unsupported(why)) => {
                tracing::info!(%repository, %reference, why, "the registry beside keeps what was deleted");
            }
            Err(error) => {
                tracing::warn!(%repository, %reference, %error, "not deleted in the registry beside");
            }
        }
    }

    fn manifest<'a>(
        &'a self,
        pull: &'a Pull,
        repository: &'a RepositoryName,
        content: ManifestContent,
        tags: &'a [Tag],
        depth: usize,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move {
            let manifest = Manifest::parse(Some(&content.media_type), &content.bytes)
                .map_err(|error| DriverError::Failed(error.to_string()))?;
            for child in manifest.manifests.iter().filter(|_| depth < MAX_DEPTH) {
                self.child(pull, repository, &child.digest, depth + 1).await?;
            }
            for blob in manifest.required_blobs() {
                self.blob(pull, repository, &blob.digest).await?;
            }
            let by_tag = tags.iter().cloned().map(Reference::Tag);
            let by_digest = tags.is_empty().then_some(Reference::Digest(content.digest));
            for reference in by_tag.chain(by_digest) {
                let (media_type, bytes) = (&content.media_type, content.bytes.clone());
                self.driver.put_manifest(repository, &reference, media_type, bytes).await?;
            }
            Ok(())
        })
    }

    /// A manifest of an index, if it is not there: it may have been pushed to another node.
    async fn child(
        &self,
        pull: &Pull,
        repository: &RepositoryName,
        digest: &Digest,
        depth: usize,
    ) -> Result<(), DriverError> {
        if self.driver.manifest(repository, digest).await?.is_some() {
            return Ok(());
        }
        let found = pull.manifest(repository, digest).await;
        match found.map_err(|error| DriverError::Failed(error.to_string()))? {
            Some(content) => self.manifest(pull, repository, content, &[], depth).await,
            // Nobody has it: the index may be pushed all the same.
            None => Ok(()),
        }
    }

    async fn blob(
        &self,
        pull: &Pull,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), DriverError> {
        let found = pull.open_blob(repository, digest, Purpose::Read).await;
        let failed = |error: &dyn std::fmt::Display| DriverError::Failed(error.to_string());
        let Some(blob) = found.map_err(|error| failed(&error))? else { return Ok(()) };
        let size = blob.size();
        self.driver.put_blob(repository, digest, blob).await?;
        let outside =
            OutsideBlob { digest: *digest, size, repository: repository.clone(), is_kept: true };
        let (store, caches) = (self.store.clone(), self.cache.options(u64::MAX));
        let note = move || {
            if store.note_outside(&outside)? {
                store.leave_outside(&outside.digest, caches)?;
            }
            Ok::<_, std::io::Error>(())
        };
        blocking(note).await.and_then(|noted| noted).map_err(|error| failed(&error))
    }
}
