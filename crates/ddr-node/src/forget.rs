//! Content leaves this node's repositories: the one place where a manifest, a revision or a link
//! is forgotten.
//!
//! Decides nothing: it is told. It must never leave anything in memory that the index no longer
//! says.

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::Key;
use ddr_proto::wire::ContentKind;
use ddr_store::{IndexError, Store};
use tokio::runtime::Handle;

use crate::announce::Announcer;
use crate::names::Cache;
use crate::pull::Locator;

/// Tags of the local list that are remembered, in each of two generations: about 10 MB.
const MAX_LISTED: usize = 65_536;

/// What is in a repository, and as what.
pub(crate) type Content<'a> = (&'a RepositoryName, &'a Digest, ContentKind);

/// See the module comment.
pub(crate) struct Forget {
    store: Store,
    announcer: Announcer,
    locator: Locator,
    /// Per name: what the local list of tags is known to say. `None`: it is not listed.
    pub(crate) listed: Cache<Option<Digest>>,
}

impl Forget {
    pub(crate) fn new(store: Store, announcer: Announcer, locator: Locator) -> Self {
        Self { store, announcer, locator, listed: Cache::new(MAX_LISTED) }
    }

    /// The digest is no longer in the repository here. Blocks; the announcement is taken back behind
    /// the caller's back when nothing here holds it any more.
    pub(crate) fn content(&self, content: Content<'_>) -> Result<(), IndexError> {
        let was = unlink(&self.store, content)?;
        let (repository, digest, _) = content;
        for tag in &was.tags {
            self.listed.remove(Key::of_name(repository, tag).as_bytes());
        }
        self.locator.forget(digest);
        if was.here
            && let Ok(runtime) = Handle::try_current()
        {
            let (store, announcer, digest) = (self.store.clone(), self.announcer.clone(), *digest);
            runtime.spawn(withdraw_unless_held(store, announcer, digest));
        }
        Ok(())
    }
}

/// What [`unlink`] took away.
#[derive(Debug, Default)]
pub(crate) struct Unlinked {
    here: bool,
    tags: Vec<ddr_oci::Tag>,
}

/// Takes content out of its repository in the store, if it is there. Blocks.
pub(crate) fn unlink(store: &Store, content: Content<'_>) -> Result<Unlinked, IndexError> {
    let (repository, digest, kind) = content;
    let mut was = Unlinked::default();
    match kind {
        ContentKind::Manifest => {
            if store.manifest(repository, digest)?.is_some()
                && let Some(tags) = store.delete_manifest(repository, digest)?
            {
                was = Unlinked { here: true, tags };
            }
        }
        ContentKind::Blob => {
            if store.is_linked(repository, digest)? {
                was.here = store.delete_blob(repository, digest)?;
            }
        }
    }
    Ok(was)
}

/// Takes the announcement of `digest` back unless it is still here, or again.
pub(crate) async fn withdraw_unless_held(store: Store, announcer: Announcer, digest: Digest) {
    let held = || {
        let store = store.clone();
        crate::blocking(move || is_held(&store, &digest))
    };
    if let Ok(Ok(true)) = held().await {
        return;
    }
    announcer.withdraw(&digest).await;
    match held().await {
        Ok(Ok(false)) => {}
        Ok(Ok(true)) => announcer.announce_again(digest),
        Ok(Err(error)) | Err(error) => {
            tracing::warn!(%digest, %error, "it is unknown whether withdrawn content is back");
        }
    }
}

fn is_held(store: &Store, digest: &Digest) -> std::io::Result<bool> {
    Ok(store.blob_size(digest)?.is_some() || store.any_manifest(digest)?.is_some())
}
