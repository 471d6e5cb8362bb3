//! One upload session in the hand of one request.

use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::wire::ContentKind;
use ddr_store::{Committed, Hashing, UploadError};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::copies::SecondCopy;
use crate::pull::Shared;
use crate::upload_blocking;
use crate::writer::{Sink, Writer};

/// The session, until it has ended, and who waits for it.
struct Held {
    session: Option<ddr_store::Upload>,
    released: Option<Released>,
}

impl Drop for Held {
    /// A session that is let go may have files to write or to remove, so it goes where that may
    /// block. It is free before those who wait are told.
    fn drop(&mut self) {
        let (session, released) = (self.session.take(), self.released.take());
        let end = move || {
            drop(session);
            drop(released);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}

impl Held {
    fn session(&mut self) -> Result<&mut ddr_store::Upload, UploadError> {
        self.session.as_mut().ok_or(UploadError::Unknown)
    }

    fn end(mut self) -> Result<ddr_store::Upload, UploadError> {
        self.session.take().ok_or(UploadError::Unknown)
    }
}

struct Released(Arc<Notify>);

impl Drop for Released {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl Sink for Held {
    fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.session()?.write(bytes)
    }

    fn hashing(&self) -> Option<Hashing> {
        self.session.as_ref()?.hashing()
    }

    fn offset(&self) -> u64 {
        self.session.as_ref().map_or(0, ddr_store::Upload::offset)
    }
}

/// An upload session that this caller alone may write. Dropping it keeps the session with what is
/// written; see [`Upload::flush`].
pub struct Upload {
    writer: Writer<Held>,
    repository: RepositoryName,
    shared: Arc<Shared>,
    second: SecondCopy,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("repository", &self.repository)
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

impl Upload {
    pub(super) fn new(
        session: ddr_store::Upload,
        repository: RepositoryName,
        released: Arc<Notify>,
        shared: &Arc<Shared>,
        second: SecondCopy,
    ) -> Self {
        let held = Held { session: Some(session), released: Some(Released(released)) };
        Self { writer: Writer::new(held), repository, shared: Arc::clone(shared), second }
    }

    /// Bytes accepted so far, written or not.
    pub fn offset(&self) -> u64 {
        self.writer.accepted()
    }

    /// Tells the digest that is to come, before the first byte of the session: SHA-512 is then
    /// computed on the way, and not by a second pass at the commit.
    pub fn expect_digest(&self, digest: &Digest) {
        if let Some(session) = self.writer.sink().and_then(|held| held.session.as_ref()) {
            session.expect_digest(digest);
        }
    }

    /// Takes the next bytes. Waits while two batches are in memory (back-pressure). The error of
    /// an earlier write shows here, in [`Self::flush`] or in [`Self::commit`].
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        self.second.push(&bytes).await;
        self.writer.push(bytes).await
    }

    /// Waits until every accepted byte is in the store and answers the offset.
    ///
    /// Must be called before a chunk is answered: dropping an `Upload` drops what is not written.
    pub async fn flush(&mut self) -> Result<u64, UploadError> {
        self.second.flush().await;
        self.writer.flush().await?;
        self.writer.job(|held| held.session()?.note()).await?;
        Ok(self.writer.written())
    }

    /// Says that nobody knows the session: it ends with this handle, and what it has goes.
    pub fn keep_unnamed(&mut self) {
        if let Some(session) = self.writer.sink_mut().and_then(|held| held.session.as_mut()) {
            session.keep_unnamed();
        }
    }

    /// Says that this is a second copy itself.
    pub(crate) fn is_second_copy(&mut self) {
        self.second.give_up();
    }

    /// Ends the session: proves the digest, makes the blob durable, links it, announces it.
    /// With the wrong digest the session is gone.
    pub async fn commit(self, digest: &Digest) -> Result<Committed, UploadError> {
        let (shared, repository, digest) = (self.shared, self.repository, *digest);
        let content = (&repository, &digest, ContentKind::Blob);
        // Before the content comes in: then no delete from before counts against it.
        let (held, settled, ()) = tokio::join!(
            self.writer.finish(),
            shared.deleted.pushing(content),
            self.second.end(&digest)
        );
        let held = held?;
        settled.map_err(super::unavailable)?;
        let committed = upload_blocking(move || held.end()?.commit(&digest)).await?;
        let link = || {
            let (store, repository) = (shared.store.clone(), repository.clone());
            upload_blocking(move || match store.link_present(&repository, &digest)? {
                true => Ok(()),
                false => Err(UploadError::Unavailable("the blob was deleted meanwhile".into())),
            })
        };
        let marked = shared.deleted.contains(content);
        if marked.await.map_err(super::unavailable)? {
            shared.deleted.push(content, super::unavailable, link).await?;
        }
        shared.locator.forget(&digest);
        shared.announcer.announced(&digest, &[]).await;
        Ok(committed)
    }

    /// Ends the session and throws away what was written.
    pub async fn cancel(mut self) -> Result<(), UploadError> {
        self.second.give_up();
        let held = self.writer.finish().await?;
        upload_blocking(move || {
            held.end()?.cancel();
            Ok(())
        })
        .await
    }
}
