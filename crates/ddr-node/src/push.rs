//! Taking content in: uploads, mounts, manifests.
//!
//! Decides the order in which a push becomes visible: blobs and manifest durable here, then
//! announced, then durable on other nodes, then named on a majority, then answered. It must never name what is not stored.

mod manifest;
mod upload;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ddr_net::{UploadFrame, UploadReply};
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::wire::ContentKind;
use ddr_store::UploadError;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::Notify;

pub(crate) use manifest::{Incoming, Origin};
pub use upload::Upload;

use crate::announce::Announcer;
use crate::copies::Copies;
use crate::driver::Landing;
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
    copies: Arc<Copies>,
    /// Where what is pushed goes, too.
    landing: Option<Landing>,
    released: Arc<Notify>,
}

impl Push {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        pull: &Arc<Pull>,
        names: &Arc<Names>,
        copies: &Arc<Copies>,
        landing: Option<Landing>,
    ) -> Self {
        let (shared, pull) = (Arc::clone(shared), Arc::clone(pull));
        let (names, copies) = (Arc::clone(names), Arc::clone(copies));
        Self { shared, pull, names, copies, landing, released: Arc::default() }
    }

    pub(crate) fn landing(&self) -> Option<&Landing> {
        self.landing.as_ref()
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
        let second = self.copies.second(repository, id, session.offset());
        let released = Arc::clone(&self.released);
        Ok(Upload::new(session, repository.clone(), released, &self.shared, second))
    }

    /// Takes in content that another node sends while it takes it in itself.
    pub(crate) async fn receive(
        &self,
        repository: &RepositoryName,
        mut frames: BoxStream<'static, io::Result<UploadFrame>>,
    ) -> Result<(), UploadReply> {
        let _turn = self.copies.receive().await?;
        let id = self.begin(repository).await.map_err(|error| reply(&error))?;
        let mut upload = self.upload(repository, &id).await.map_err(|error| reply(&error))?;
        upload.is_second_copy();
        // The other node has the session; here nobody knows it.
        upload.keep_unnamed();
        while let Some(Ok(frame)) = frames.next().await {
            match frame {
                UploadFrame::Bytes(bytes) => {
                    upload.append(bytes).await.map_err(|error| reply(&error))?;
                }
                UploadFrame::End(digest) => {
                    let committed = upload.commit(&digest).await;
                    return committed.map(drop).map_err(|error| reply(&error));
                }
            }
        }
        Err(UploadReply::Broken)
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
        self.link(repository, digest).await
    }

    /// Links a blob that this node keeps; false: it does not.
    pub(crate) async fn link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<bool, UploadError> {
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

/// What another node is told of a second copy that failed.
const fn reply(error: &UploadError) -> UploadReply {
    match error {
        UploadError::NoSpace => UploadReply::Full,
        UploadError::Busy => UploadReply::Busy,
        UploadError::DigestMismatch => UploadReply::Broken,
        _ => UploadReply::Failed,
    }
}

/// A push that cannot be settled in the swarm now.
pub(crate) fn unavailable(error: ReadError) -> UploadError {
    match error {
        ReadError::Unavailable(why) => UploadError::Unavailable(why),
        ReadError::Busy(_) | ReadError::Denied(_) => UploadError::Unavailable(error.to_string()),
        ReadError::Store(why) => UploadError::Io(io::Error::other(why)),
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
