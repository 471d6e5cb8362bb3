//! Telling the swarm what this node holds, and taking it back.
//!
//! Decides how many announcements run at once. The core repeats them; this module only makes each
//! happen the first time, and lets a push wait for its own.

use std::sync::Arc;
use std::time::Duration;

use ddr_oci::Digest;
use ddr_proto::id::Key;
use ddr_store::Store;
use tokio::sync::Semaphore;

use crate::flight::Flights;
use crate::overlay::OverlayHandle;

/// Announcements under way at once.
const MAX_AT_ONCE: usize = 16;
/// Announcements that wait for their turn; beyond, whoever announces waits itself.
const MAX_WAITING: usize = 8192;
/// Blobs outside that are read from the index at once.
const OUTSIDE_PAGE: usize = 1024;
/// How long a push waits for its announcements before it answers anyway.
const PUSH_WAIT: Duration = Duration::from_secs(3);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Announcer {
    overlay: OverlayHandle,
    running: Arc<Flights<Key, usize>>,
    turns: Arc<Semaphore>,
}

impl Announcer {
    pub(crate) fn new(overlay: OverlayHandle) -> Self {
        let running = Arc::new(Flights::new(MAX_WAITING));
        Self { overlay, running, turns: Arc::new(Semaphore::new(MAX_AT_ONCE)) }
    }

    /// Announces `digest` soon, behind the caller's back.
    pub(crate) fn announce_later(&self, digest: Digest) {
        let announcer = self.clone();
        tokio::spawn(async move { announcer.announce(Key::of_content(&digest)).await });
    }

    /// Announces that `digest` is on its way here, behind the caller's back. When it is here, say so
    /// with [`Self::announce_again`].
    pub(crate) fn announce_part(&self, digest: Digest) {
        let (overlay, key) = (self.overlay.clone(), Key::of_content(&digest));
        let running = Arc::clone(&self.running);
        tokio::spawn(async move {
            let work = || async move { overlay.provide(key, false).await };
            running.run(key, work).await;
        });
    }

    /// Announces `digest` behind the caller's back, and not by an announcement that runs already:
    /// that one may have begun before a withdrawal.
    pub(crate) fn announce_again(&self, digest: Digest) {
        let announcer = self.clone();
        tokio::spawn(async move {
            let key = Key::of_content(&digest);
            announcer.running.wait(&key).await;
            announcer.announce(key).await;
        });
    }

    /// Waits until `digests` are announced, at most [`PUSH_WAIT`].
    pub(crate) async fn announced(&self, digest: &Digest, running: &[Digest]) {
        let work = async {
            self.announce(Key::of_content(digest)).await;
            for digest in running {
                self.running.wait(&Key::of_content(digest)).await;
            }
        };
        if tokio::time::timeout(PUSH_WAIT, work).await.is_err() {
            tracing::warn!(%digest, "announcements take long; they go on");
        }
    }

    /// Takes the announcement of `digest` back.
    pub(crate) async fn withdraw(&self, digest: &Digest) {
        self.overlay.withdraw(Key::of_content(digest)).await;
    }

    /// Announces everything that the store holds.
    pub(crate) async fn announce_all(&self, store: Store) {
        let digests = match crate::blocking(move || everything(&store)).await {
            Ok(Ok(digests)) => digests,
            Ok(Err(error)) => return tracing::error!(%error, "the store cannot be listed"),
            Err(error) => return tracing::error!(%error, "the store cannot be listed"),
        };
        let count = digests.len();
        let work = digests.into_iter().map(|digest| self.announce(Key::of_content(&digest)));
        let mut work = std::pin::pin!(futures_util::stream::StreamExt::buffer_unordered(
            futures_util::stream::iter(work),
            MAX_AT_ONCE
        ));
        while futures_util::StreamExt::next(&mut work).await.is_some() {}
        tracing::debug!(count, "everything here is announced");
    }

    async fn announce(&self, key: Key) {
        let (overlay, turns) = (self.overlay.clone(), Arc::clone(&self.turns));
        let work = || async move {
            let _turn = turns.acquire().await;
            overlay.provide(key, true).await
        };
        if self.running.run(key, work).await.is_none() {
            self.overlay.provide(key, true).await;
        }
    }
}

/// Blobs that lie outside.
fn outside(store: &Store) -> std::io::Result<Vec<Digest>> {
    let mut digests: Vec<Digest> = Vec::new();
    loop {
        let page = store.outside_after(digests.last(), OUTSIDE_PAGE)?;
        if page.is_empty() {
            return Ok(digests);
        }
        digests.extend(page.into_iter().map(|blob| blob.digest));
    }
}

fn everything(store: &Store) -> std::io::Result<Vec<Digest>> {
    let mut digests: Vec<Digest> = store.blobs()?.into_iter().map(|(digest, _)| digest).collect();
    digests.extend(outside(store)?);
    digests.extend(store.manifests()?.into_iter().map(|(_, digest)| digest));
    digests.sort_unstable();
    digests.dedup();
    Ok(digests)
}
