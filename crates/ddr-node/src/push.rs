//! Taking content in: uploads, mounts, manifests.
//!
//! Decides the order in which a push becomes visible: blobs and manifest durable here, then
//! announced, then named on a majority, then answered. It must never name what is not stored.

mod manifest;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::wire::ContentKind;
use ddr_store::UploadError;
use tokio::sync::Notify;

pub(crate) use manifest::Incoming;
pub use upload::Upload;

use crate::announce::Announcer;
use crate::names::Names;
use crate::pull::{Pull, Shared};
use crate::{ReadError, upload_blocking};

/// How long a request waits for the one before it to let a session go: the client's connection
/// broke and it comes back while its last bytes are still being written.
const RELEASE_WAIT: Duration = Duration::from_secs(2);

/// See the module comment.
pub(crate) struct Push {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pull: Arc<Pull>,
    pub(crate) names: Arc<Names>,
    released: Arc<Notify>,
}

impl Push {
    pub(crate) fn new(shared: Arc<Shared>, pull: Arc<Pull>, names: Arc<Names>) -> Self {
        Self { shared, pull, names, released: Arc::default() }
    }

    fn announcer(&self) -> &Announcer {
        &self.shared.announcer
    }

    /// See [`crate::Node::begin_upload`].
    pub(crate) async fn begin(&self, repository: &RepositoryName) -> Result<String, UploadError> {
        let (store, repository) = (self.shared.store.clone(), repository.clone());
        upload_blocking(move || store.begin_upload(&repository)).await
    }

    /// See [`crate::Node::upload`].
    pub(crate) async fn upload(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<Upload, UploadError> {
        let attempts = async {
            loop {
                let released = self.released.notified();
                let (store, repository, id) =
                    (self.shared.store.clone(), repository.clone(), id.to_owned());
                match upload_blocking(move || store.upload(&repository, &id)).await {
                    Err(UploadError::Busy) => released.await,
                    done => return done,
                }
            }
        };
        let session = match tokio::time::timeout(RELEASE_WAIT, attempts).await {
            Ok(session) => session?,
            Err(_) => return Err(UploadError::Busy),
        };
        Ok(Upload::new(session, repository.clone(), Arc::clone(&self.released), &self.shared))
    }

    /// See [`crate::Node::mount`].
    pub(crate) async fn mount(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<bool, UploadError> {
        if !self.may_mount(from, digest).await? {
            return Ok(false);
        }
        let link = || {
            let (store, repository) = (self.shared.store.clone(), repository.clone());
            let digest = *digest;
            // In one step: a blob that goes meanwhile must not leave a link behind.
            upload_blocking(move || Ok(store.link_present(&repository, &digest)?))
        };
        self.shared.deleted.push((repository, digest, ContentKind::Blob), unavailable, link).await
    }

    /// Whether the blob is here, and linked by `source` or, without one, by any repository that
    /// the caller may read.
    async fn may_mount(
        &self,
        source: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<bool, UploadError> {
        let (store, source, digest) = (self.shared.store.clone(), source.cloned(), *digest);
        upload_blocking(move || {
            let readable = match &source {
                Some(source) => store.is_linked(source, &digest)?,
                None => is_readable_somewhere(&store, &digest)?,
            };
            Ok(readable && store.blob_size(&digest)?.is_some())
        })
        .await
    }

    /// See [`crate::Node::delete_blob`].
    pub(crate) async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, crate::DeleteError> {
        if self.pull.stat_blob(repository, digest).await?.is_none() {
            return Ok(false);
        }
        self.shared.deleted.delete((repository, digest, ContentKind::Blob)).await?;
        Ok(true)
    }
}

/// A push that cannot be settled in the swarm now.
pub(crate) fn unavailable(error: ReadError) -> UploadError {
    match error {
        ReadError::Unavailable(why) => UploadError::Unavailable(why),
        ReadError::Busy(_) => UploadError::Unavailable(error.to_string()),
        ReadError::Store(why) => UploadError::Io(std::io::Error::other(why)),
    }
}

/// Whether a repository that the caller may read has the blob.
///
/// The client port knows no callers yet, so that is every repository; rules of access belong here.
fn is_readable_somewhere(
    store: &ddr_store::Store,
    digest: &Digest,
) -> Result<bool, ddr_store::IndexError> {
    store.is_linked_anywhere(digest)
}
