//! A registry that runs on this machine beside `ddrd`.
//!
//! Decides which of its repositories are the swarm's: all but those whose names belong to mirrored registries. What
//! lies there stays until somebody deletes it there.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::{Digest, Mirrored, Reference, RepositoryName, Tag};
use ddr_store::OutsideBlob;
use ddr_store::disk::DiskFile;
use ddr_upstream::{Upstream, UpstreamError};
use futures_core::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::runtime::Handle;

use super::remote::{Bodies, Remote};
use super::{Driver, DriverError, Given, MAX_ROOTS, ReadRange, Root};
use crate::{Blob, MAX_REFERRERS};

/// Repositories that are looked at; more are left out.
const MAX_REPOSITORIES: usize = 100_000;
/// Repositories asked for in one page.
const PAGE: usize = 1000;
/// Tags that are asked for at once, and subjects.
const MAX_TAGS_AT_ONCE: usize = 8;

/// See the module comment.
#[derive(Debug)]
pub struct RegistryDriver {
    upstream: Upstream,
    runtime: Handle,
}

impl RegistryDriver {
    /// Must be called where a runtime is.
    #[must_use]
    pub fn new(upstream: Upstream) -> Self {
        Self { upstream, runtime: Handle::current() }
    }

    async fn all_repositories(&self) -> Result<Vec<RepositoryName>, DriverError> {
        let (mut all, mut last) = (Vec::new(), None::<String>);
        loop {
            let page = self.upstream.catalog(last.as_deref(), PAGE).await.map_err(failed)?;
            all.extend(page.repositories);
            // One that names the same again would do so for ever.
            if page.last.is_none() || page.last == last || all.len() > MAX_REPOSITORIES {
                break;
            }
            last = page.last;
        }
        if all.len() > MAX_REPOSITORIES {
            tracing::warn!("the registry beside has more than {MAX_REPOSITORIES} repositories");
            all.truncate(MAX_REPOSITORIES);
        }
        all.retain(|name| Mirrored::of(name).is_none());
        Ok(all)
    }

    async fn all_roots(&self, repository: &RepositoryName) -> Result<Vec<Root>, DriverError> {
        let tags = self.upstream.tags(repository, MAX_ROOTS).await.map_err(failed)?;
        let asked = tags.unwrap_or_default().into_iter().map(|tag| async move {
            let found = self.upstream.resolve(repository, &tag).await.map_err(failed)?;
            Ok::<_, DriverError>(found.map(|found| (found.digest, tag)))
        });
        let mut asked = stream::iter(asked).buffered(MAX_TAGS_AT_ONCE);
        let mut roots: BTreeMap<Digest, Vec<Tag>> = BTreeMap::new();
        while let Some(found) = asked.try_next().await? {
            if let Some((digest, tag)) = found {
                roots.entry(digest).or_default().push(tag);
            }
        }
        self.add_referrers(repository, &mut roots).await?;
        Ok(roots.into_iter().map(|(digest, tags)| Root { digest, tags }).collect())
    }

    /// Adds what refers to `roots`, and to that in turn: it has no tags as a rule, and no list names it.
    async fn add_referrers(
        &self,
        repository: &RepositoryName,
        roots: &mut BTreeMap<Digest, Vec<Tag>>,
    ) -> Result<(), DriverError> {
        let mut subjects: Vec<Digest> = roots.keys().copied().collect();
        while !subjects.is_empty() {
            let asked = subjects.into_iter().map(|subject| async move {
                self.upstream.referrers(repository, &subject, MAX_REFERRERS).await.map_err(failed)
            });
            let mut asked = stream::iter(asked).buffered(MAX_TAGS_AT_ONCE);
            let mut found = Vec::new();
            while let Some(referrers) = asked.try_next().await? {
                // It does not know the question, also of the others.
                let Some(referrers) = referrers else { return Ok(()) };
                found.extend(referrers.into_iter().map(|referrer| referrer.digest));
            }
            drop(asked);
            let room = MAX_ROOTS.saturating_sub(roots.len());
            found.retain(|digest| !roots.contains_key(digest));
            found.truncate(room);
            roots.extend(found.iter().map(|digest| (*digest, Vec::new())));
            subjects = found;
        }
        Ok(())
    }
}

impl Driver for RegistryDriver {
    fn name(&self) -> &'static str {
        "registry"
    }

    fn keeps(&self) -> bool {
        true
    }

    fn repositories(&self) -> BoxFuture<'_, Result<Vec<RepositoryName>, DriverError>> {
        Box::pin(self.all_repositories())
    }

    fn roots<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<Vec<Root>, DriverError>> {
        Box::pin(self.all_roots(repository))
    }

    fn root<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Root>, DriverError>> {
        Box::pin(async move {
            Ok(match reference {
                Reference::Tag(tag) => {
                    let found = self.upstream.resolve(repository, tag).await.map_err(failed)?;
                    found.map(|found| Root { digest: found.digest, tags: vec![tag.clone()] })
                }
                Reference::Digest(digest) => {
                    let found = self.upstream.manifest(repository, digest).await.map_err(failed)?;
                    found.map(|_| Root { digest: *digest, tags: Vec::new() })
                }
            })
        })
    }

    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<Given>, DriverError>> {
        Box::pin(async move {
            let given = self.upstream.manifest(repository, digest).await.map_err(failed)?;
            Ok(given.map(|given| (Some(given.media_type), given.bytes)))
        })
    }

    /// What is told of goes to [`crate::Node::look_beside`].
    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn open(&self, blob: &OutsideBlob) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let asked = self.upstream.blob_size(&blob.repository, &blob.digest);
        if self.runtime.block_on(asked).map_err(io::Error::other)? != Some(blob.size) {
            return Ok(None);
        }
        let place = Place { upstream: self.upstream.clone(), blob: blob.clone() };
        Ok(Some(Arc::new(Remote::new(place, blob.size, self.runtime.clone()))))
    }

    fn put_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        blob: Blob,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move {
            let size = blob.size();
            let body = move || blob.stream(0..size).boxed();
            self.upstream.put_blob(repository, digest, size, body).await.map_err(failed)
        })
    }

    fn put_manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        media_type: &'a str,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async move {
            let put = self.upstream.put_manifest(repository, reference, media_type, bytes);
            put.await.map_err(failed)
        })
    }

    fn delete<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<bool, DriverError>> {
        Box::pin(async move {
            self.upstream.delete_manifest(repository, reference).await.map_err(failed)
        })
    }
}

fn failed(error: UpstreamError) -> DriverError {
    match error {
        UpstreamError::Unsupported(why) => DriverError::Unsupported(why),
        error => DriverError::Failed(error.to_string()),
    }
}

/// One blob there.
#[derive(Debug)]
struct Place {
    upstream: Upstream,
    blob: OutsideBlob,
}

impl ReadRange for Place {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bodies>> {
        Box::pin(async move {
            let OutsideBlob { repository, digest, .. } = &self.blob;
            let asked = self.upstream.blob_part(repository, digest, range.clone()).await;
            let body = asked.map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
            if body.size != self.blob.size {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it has another size there",
                ));
            }
            let parts = crate::pull::bytes_from(body, range.start);
            let left = range.end - range.start;
            Ok(cut(parts, left))
        })
    }
}

/// The first `left` bytes.
fn cut(parts: Bodies, left: u64) -> Bodies {
    let first = parts.scan(left, |left, part| {
        let part = part.map(|mut bytes| {
            bytes.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= bytes.len() as u64;
            bytes
        });
        let is_empty = matches!(&part, Ok(bytes) if bytes.is_empty());
        std::future::ready((!is_empty).then_some(part))
    });
    first.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_is_read_than_was_asked_for() {
        let parts = [Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"def"))];
        let cut = cut(stream::iter(parts).boxed(), 4);
        let all: Vec<Bytes> = cut.try_collect().await.unwrap();
        assert_eq!(all.concat(), b"abcd");
    }
}
