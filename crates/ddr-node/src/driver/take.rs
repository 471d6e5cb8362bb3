//! Taking in what lies beside: content is read once and proven, then linked, announced and named.
//!
//! Decides what becomes of an image there. In a registry that keeps it, it is like a push, except that it is not
//! copied to other nodes unless that is wanted; what is a cache of mirrored registries is like a pull. What the swarm
//! deleted stays deleted until its tag moves there.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::{Digest, Manifest, Reference, RepositoryName, Tag};
use ddr_proto::wire::ContentKind;
use ddr_store::OutsideBlob;
use futures_core::future::BoxFuture;

use super::moved::{Seen, is_news};
use super::{Driver, DriverError, Root};
use crate::pull::{Shared, keep_or_log};
use crate::push::{Incoming, Origin, Push};
use crate::{ManifestContent, blocking};

/// How deep indexes in indexes are followed.
const MAX_DEPTH: usize = 4;

/// What was found of one image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Taken {
    /// It was here already.
    Known,
    /// It is here now.
    New,
    /// It is not there whole, or the swarm deleted it.
    Left,
}

/// See the module comment.
pub(super) struct Taker {
    pub(super) driver: Arc<dyn Driver>,
    pub(super) shared: Arc<Shared>,
    pub(super) push: Arc<Push>,
    /// Copies on other nodes are wanted of what is found.
    pub(super) copies: bool,
    pub(super) seen: Seen,
}

impl Taker {
    /// Takes in one image of a repository, which a look that began at `moment` found.
    pub(super) async fn image(
        &self,
        repository: &RepositoryName,
        root: &Root,
        moment: u64,
    ) -> Result<Taken, DriverError> {
        let news = self.news(repository, root, moment).await?;
        if news.is_empty() {
            if self.is_marked(repository, &root.digest, ContentKind::Manifest).await? {
                return Ok(Taken::Left);
            }
            if self.is_known(repository, &root.digest).await? {
                self.saw(repository, root, moment);
                return Ok(Taken::Known);
            }
        }
        if !self.manifest(repository, root.digest, news, 0).await? {
            return Ok(Taken::Left);
        }
        self.saw(repository, root, moment);
        Ok(Taken::New)
    }

    /// The tags that moved there.
    async fn news(
        &self,
        repository: &RepositoryName,
        root: &Root,
        moment: u64,
    ) -> Result<Vec<Tag>, DriverError> {
        let mut news = Vec::new();
        for tag in &root.tags {
            let Some(seen) = self.seen.before(repository, tag, moment) else { continue };
            if seen == Some(root.digest) {
                continue;
            }
            let history = self.push.names.history(repository, tag).await.map_err(failed)?;
            let history: Vec<Option<Digest>> = history
                .into_iter()
                .map(|version| version.digest.and_then(|digest| digest.parse().ok()))
                .collect();
            if is_news(&root.digest, seen.as_ref(), &history) {
                news.push(tag.clone());
            }
        }
        Ok(news)
    }

    fn saw(&self, repository: &RepositoryName, root: &Root, moment: u64) {
        for tag in &root.tags {
            self.seen.saw(repository, tag, root.digest, moment);
        }
    }

    /// Whether an image is here with all that it names.
    async fn is_known(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, DriverError> {
        let (store, repository, digest) = (self.shared.store.clone(), repository.clone(), *digest);
        let look = move || {
            let (mut left, mut seen) = (vec![digest], BTreeSet::new());
            while let Some(digest) = left.pop() {
                if !seen.insert(digest) {
                    continue;
                }
                let Some(stored) = store.manifest(&repository, &digest)? else {
                    // The platforms of an index need not all be there.
                    if seen.len() > 1 { continue } else { return Ok(false) }
                };
                let Ok(manifest) = Manifest::parse(Some(&stored.media_type), &stored.bytes) else {
                    return Ok(false);
                };
                for blob in manifest.required_blobs() {
                    if store.outside(&blob.digest)?.is_none() {
                        return Ok(false);
                    }
                }
                left.extend(manifest.manifests.iter().map(|child| child.digest));
            }
            Ok::<_, std::io::Error>(true)
        };
        blocking(look).await.map_err(failed)?.map_err(failed)
    }

    /// Takes in a manifest with all that it names; false where it is not there whole.
    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: Digest,
        tags: Vec<Tag>,
        depth: usize,
    ) -> BoxFuture<'a, Result<bool, DriverError>> {
        Box::pin(async move {
            let Some((media_type, bytes)) = self.driver.manifest(repository, &digest).await? else {
                return Ok(false);
            };
            let parsed = Manifest::parse(media_type.as_deref(), &bytes);
            let (Ok(manifest), true) = (parsed, is_right(&digest, &bytes)) else {
                tracing::debug!(%repository, %digest, "no manifest");
                return Ok(false);
            };
            if depth < MAX_DEPTH {
                for child in &manifest.manifests {
                    self.manifest(repository, child.digest, Vec::new(), depth + 1).await?;
                }
            }
            for blob in manifest.required_blobs() {
                if !self.blob(repository, blob.digest, blob.size).await? {
                    tracing::debug!(%repository, %digest, blob = %blob.digest, "a blob is not there");
                    return Ok(false);
                }
            }
            self.keep(repository, (digest, bytes), manifest, tags).await?;
            Ok(true)
        })
    }

    /// Proves a blob there, if that was not done, and lets the repository read it.
    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: Digest,
        size: u64,
    ) -> Result<bool, DriverError> {
        let is_kept = self.driver.keeps();
        let blob = OutsideBlob { digest, size, repository: repository.clone(), is_kept };
        // Own copies go as soon as they could be evicted.
        let caches = self.shared.limits.upkeep.cache.options(u64::MAX);
        let (store, stopped) = (self.shared.store.clone(), self.shared.stopped.clone());
        let take = move || {
            if store.outside(&digest)?.is_none_or(|known| known.is_kept != is_kept)
                && !store.take_outside(&blob, || *stopped.borrow())?
            {
                return Ok(false);
            }
            store.leave_outside(&digest, caches)?;
            Ok::<_, std::io::Error>(true)
        };
        if !blocking(take).await.map_err(failed)?.map_err(failed)? {
            return Ok(false);
        }
        if is_kept && !self.push.link(repository, &digest).await.map_err(failed)? {
            return Ok(false);
        }
        self.shared.announcer.announce_later(digest);
        Ok(true)
    }

    async fn keep(
        &self,
        repository: &RepositoryName,
        (digest, bytes): (Digest, Bytes),
        manifest: Manifest,
        tags: Vec<Tag>,
    ) -> Result<(), DriverError> {
        let media_type = manifest.media_type.clone();
        if !self.driver.keeps() {
            let content = ManifestContent { digest, media_type, bytes, is_stale: false };
            keep_or_log(&self.shared, repository, &content, &manifest).await;
            return Ok(());
        }
        let incoming = Incoming {
            repository,
            reference: &Reference::Digest(digest),
            tags: &tags,
            content_type: Some(&media_type),
            bytes,
            origin: Origin::Beside { copies: self.copies },
        };
        self.push.put_manifest(incoming).await.map_err(failed)?;
        Ok(())
    }

    async fn is_marked(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        kind: ContentKind,
    ) -> Result<bool, DriverError> {
        let (shared, name, digest) = (Arc::clone(&self.shared), repository.clone(), *digest);
        let marked = blocking(move || shared.deleted.is_marked((&name, &digest, kind))).await;
        marked.map_err(failed)?.map_err(failed)
    }
}

fn is_right(digest: &Digest, bytes: &[u8]) -> bool {
    Digest::of(digest.algorithm(), bytes) == *digest
}

fn failed(error: impl std::fmt::Display) -> DriverError {
    DriverError::Failed(error.to_string())
}
