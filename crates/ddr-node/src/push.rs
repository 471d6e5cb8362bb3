//! Taking content in: uploads, mounts, manifests.
//!
//! Decides the order in which a push becomes visible: blobs and manifest durable here, then
//! announced, then named on a majority, then answered. It must never name what is not stored.

mod manifest;
mod upload;

use std::sync::Arc;
use std::time::Duration;

use ddr_oci::{Digest, RepositoryName};
use ddr_store::UploadError;
use tokio::sync::Notify;

pub(crate) use manifest::Incoming;
pub use upload::Upload;

use crate::announce::Announcer;
use crate::names::Names;
use crate::pull::{Pull, Shared};
use crate::{blocking, upload_blocking};

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
        let (shared, repository) = (Arc::clone(&self.shared), repository.clone());
        let (digest, from) = (*digest, from.cloned());
        upload_blocking(move || {
            let store = &shared.store;
            let may = match &from {
                Some(from) => store.is_linked(from, &digest)?,
                None => is_readable_somewhere(store, &digest)?,
            };
            // In one step: a blob that goes meanwhile must not leave a link behind.
            if !may || !store.link_present(&repository, &digest)? {
                return Ok(false);
            }
            shared.deleted.unmark(&repository, &digest)?;
            Ok(true)
        })
        .await
    }

    /// See [`crate::Node::delete_blob`].
    pub(crate) async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, crate::DeleteError> {
        let (shared, repository, digest) = (Arc::clone(&self.shared), repository.clone(), *digest);
        let done = blocking(move || {
            let linked = shared.store.delete_blob(&repository, &digest)?;
            if linked {
                shared.deleted.mark(&repository, &digest)?;
            }
            let gone = shared.store.blob_size(&digest)?.is_none();
            Ok::<_, std::io::Error>((linked, gone))
        });
        let (linked, gone) =
            done.await.map_err(crate::DeleteError::store)?.map_err(crate::DeleteError::store)?;
        if linked && gone {
            self.withdraw(digest).await;
        }
        Ok(linked)
    }

    /// Takes the announcement of `digest` back, unless the content was pushed again meanwhile.
    async fn withdraw(&self, digest: Digest) {
        self.announcer().withdraw(&digest).await;
        let store = self.shared.store.clone();
        match blocking(move || is_held(&store, &digest)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => self.announcer().announce_again(digest),
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(%digest, %error, "it is unknown whether withdrawn content is back");
            }
        }
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

fn is_held(store: &ddr_store::Store, digest: &Digest) -> std::io::Result<bool> {
    Ok(store.blob_size(digest)?.is_some() || store.any_manifest(digest)?.is_some())
}
