//! The questions that a mirrored registry is asked.
//!
//! Decides what counts as an answer to each: a manifest fits its digest, a part of a blob begins where it
//! was asked for. It keeps nothing but connections, tokens and the pause.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use bytes::Bytes;
use ddr_oci::{Descriptor, Digest, Reference, RepositoryName, Tag, UpstreamHost};
use futures_util::stream::BoxStream;
use tokio::time::timeout;

use crate::api::{BlobBody, Found, Manifest, Page, UpstreamError};
use crate::config::{Settings, SettingsError};
use crate::exchange::Exchange;

mod blobs;
mod catalog;
mod manifests;
mod pages;
mod referrers;
mod tags;
mod uploads;

/// Longest wait for what a tag points to: a client waits for it, and other nodes may know.
const RESOLVE_TIME: Duration = Duration::from_secs(10);

/// Longest wait for all pages of one list.
const LIST_TIME: Duration = Duration::from_secs(60);

/// One registry. Cheap to clone; clones share connections, tokens and the pause after 429.
///
/// While it pauses, every question is answered with [`UpstreamError::RateLimited`] and not sent.
#[derive(Clone)]
pub struct Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    host: UpstreamHost,
    exchange: Exchange,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("host", &self.shared.host).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Checks the settings and reads the files they name. Sends nothing.
    ///
    /// # Errors
    /// [`SettingsError`] if they cannot be used.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let exchange = Exchange::new(&settings)?;
        Ok(Self { shared: Arc::new(Shared { host: settings.host, exchange }) })
    }

    /// As clients name it.
    #[must_use]
    pub fn host(&self) -> &UpstreamHost {
        &self.shared.host
    }

    /// What `tag` points to; `None`: no such tag or repository. Asks with HEAD first, which costs nothing
    /// at Docker Hub, and reads the manifest only if that says nothing.
    ///
    /// # Errors
    /// As [`UpstreamError`] says; at the latest after 10 s.
    pub async fn resolve(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Found>, UpstreamError> {
        self.within(RESOLVE_TIME, manifests::resolve(&self.shared.exchange, repository, tag)).await
    }

    async fn within<T>(
        &self,
        time: Duration,
        work: impl Future<Output = Result<T, UpstreamError>>,
    ) -> Result<T, UpstreamError> {
        let slow = |_| {
            let (host, secs) = (self.host(), time.as_secs());
            UpstreamError::Unreachable(format!("{host} does not answer within {secs} s"))
        };
        timeout(time, Box::pin(work)).await.map_err(slow)?
    }

    /// The manifest with this digest; its bytes are checked.
    ///
    /// # Errors
    /// [`UpstreamError::Lied`] if the bytes have another digest.
    pub async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Manifest>, UpstreamError> {
        Box::pin(manifests::manifest(&self.shared.exchange, repository, digest)).await
    }

    /// Bytes of the blob with this digest, as the registry says.
    ///
    /// # Errors
    /// As [`UpstreamError`] says.
    pub async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, UpstreamError> {
        Box::pin(blobs::size(&self.shared.exchange, repository, digest)).await
    }

    /// The blob from byte `start` on, or from its beginning where the registry ignores ranges: see
    /// [`BlobBody::start`]. Nothing is checked but the length.
    ///
    /// # Errors
    /// [`UpstreamError::Lied`] if another part comes than was asked for.
    pub async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        start: u64,
    ) -> Result<Option<BlobBody>, UpstreamError> {
        Box::pin(blobs::blob(&self.shared.exchange, repository, digest, (start, None))).await
    }

    /// Bytes of a part of a blob, not empty; from the blob's beginning to its end where the registry ignores
    /// ranges: see [`BlobBody::start`].
    ///
    /// # Errors
    /// As [`Self::blob`].
    pub async fn blob_part(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        part: Range<u64>,
    ) -> Result<Option<BlobBody>, UpstreamError> {
        let part = (part.start, Some(part.end.saturating_sub(1)));
        Box::pin(blobs::blob(&self.shared.exchange, repository, digest, part)).await
    }

    /// Puts a blob of `size` bytes there, unless it is there; `body` gives its bytes from the beginning, and is
    /// called again if the connection breaks. Done when the registry has answered that it has it.
    ///
    /// # Errors
    /// As [`UpstreamError`] says.
    pub async fn put_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        size: u64,
        body: impl Fn() -> BoxStream<'static, io::Result<Bytes>> + Send,
    ) -> Result<(), UpstreamError> {
        let exchange = &self.shared.exchange;
        Box::pin(uploads::put_blob(exchange, repository, (digest, size), body)).await
    }

    /// Puts a manifest there whose parts are there.
    ///
    /// # Errors
    /// [`UpstreamError::Unsupported`] if it takes none such.
    pub async fn put_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<(), UpstreamError> {
        let exchange = &self.shared.exchange;
        let put = uploads::put_manifest(exchange, repository, reference, media_type, bytes);
        Box::pin(put).await
    }

    /// Deletes a manifest with the tags that point to it, or a tag; false: there is none.
    ///
    /// # Errors
    /// [`UpstreamError::Unsupported`] if it deletes nothing or no tags.
    pub async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<bool, UpstreamError> {
        Box::pin(uploads::delete_manifest(&self.shared.exchange, repository, reference)).await
    }

    /// One page of its repositories: at most `n` after `last`, if it keeps to that.
    ///
    /// # Errors
    /// [`UpstreamError::Unsupported`] if it lists none.
    pub async fn catalog(&self, last: Option<&str>, n: usize) -> Result<Page, UpstreamError> {
        Box::pin(catalog::catalog(&self.shared.exchange, last, n)).await
    }

    /// The repository's tags, at most `max`, page by page. Texts that are no tags are left out. `None`: it has no
    /// such repository.
    ///
    /// # Errors
    /// As [`UpstreamError`] says; at the latest after 60 s.
    pub async fn tags(
        &self,
        repository: &RepositoryName,
        max: usize,
    ) -> Result<Option<BTreeSet<Tag>>, UpstreamError> {
        self.within(LIST_TIME, tags::tags(&self.shared.exchange, repository, max)).await
    }

    /// What refers to the manifest `subject`, at most `max` and about 16 MiB, page by page. `None`: the registry cannot
    /// be asked that, or has no such repository.
    ///
    /// # Errors
    /// As [`UpstreamError`] says; at the latest after 60 s.
    pub async fn referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        max: usize,
    ) -> Result<Option<Vec<Descriptor>>, UpstreamError> {
        let list = referrers::referrers(&self.shared.exchange, repository, subject, max);
        self.within(LIST_TIME, list).await
    }

    /// What is left of the pause after a 429; `None`: there is none.
    #[must_use]
    pub fn paused(&self) -> Option<Duration> {
        self.shared.exchange.wire.pause.left(Instant::now())
    }

    /// Somebody else was told 429: asks nothing for so long, at most [`crate::MAX_PAUSE`]. Never shortens a
    /// pause.
    pub fn pause(&self, time: Duration) {
        self.shared.exchange.wire.pause.extend(Instant::now(), time);
    }
}
