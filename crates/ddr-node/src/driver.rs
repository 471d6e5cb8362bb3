//! Where the content of this node lives beside its own store: in a registry that the machine runs anyway,
//! or in the content store of containerd (docs/drivers.md).
//!
//! Decides what a place must be able to do. What is in it is taken in by `take`, when `watch` says so; what
//! is pushed to this node goes there by `land`. It must never count bytes that were not read once and proven.

mod containerd;
mod land;
mod moved;
mod registry;
mod remote;
mod take;
mod watch;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ddr_oci::{Digest, Reference, RepositoryName, Tag};
use ddr_store::disk::DiskFile;
use ddr_store::{Outside, OutsideBlob, Store};
use futures_core::future::BoxFuture;

pub use containerd::ContainerdDriver;
pub(crate) use land::Landing;
pub use registry::RegistryDriver;
pub(crate) use watch::Watch;
pub use watch::{DRIVER_EVERY, DriverSettings, DriverStatus};

use crate::{Blob, StartError};

/// Manifests of one repository, tagged or not, that are looked at; more are left out.
pub(crate) const MAX_ROOTS: usize = 100_000;

/// Why a place beside this node did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DriverError {
    /// It cannot be asked now, or refuses; worth another try.
    #[error("{0}")]
    Failed(String),
    /// It never does that.
    #[error("{0}")]
    Unsupported(String),
}

/// A manifest, and its media type where that is told.
pub type Given = (Option<String>, Bytes);

/// A manifest that names others or blobs, and the tags that point to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Root {
    /// Its digest.
    pub digest: Digest,
    /// Its tags; none where the place has no tags of its own.
    pub tags: Vec<Tag>,
}

/// Where content lives beside the own store.
pub trait Driver: Debug + Send + Sync {
    /// `registry` or `containerd`.
    fn name(&self) -> &'static str;

    /// Whether what lies there stays until somebody deletes it, and pushes go there. Else it is a cache of
    /// mirrored registries.
    fn keeps(&self) -> bool;

    /// The repositories there, by the names that they have here.
    fn repositories(&self) -> BoxFuture<'_, Result<Vec<RepositoryName>, DriverError>>;

    /// The images of a repository, at most [`MAX_ROOTS`].
    fn roots<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<Vec<Root>, DriverError>>;

    /// One image of a repository, with the tag by which it is asked for. `None`: it is not there.
    fn root<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Root>, DriverError>>;

    /// A manifest. `None`: it is not there.
    fn manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<Given>, DriverError>>;

    /// Waits until something may have changed; forever where nothing tells.
    fn changed(&self) -> BoxFuture<'_, ()>;

    /// The bytes of a blob. Blocks. `None`: it is not there.
    ///
    /// # Errors
    /// The place cannot be asked now.
    fn open(&self, blob: &OutsideBlob) -> io::Result<Option<Arc<dyn DiskFile>>>;

    /// Takes a blob in. Done when it is durable there.
    fn put_blob<'a>(
        &'a self,
        repository: &'a RepositoryName,
        digest: &'a Digest,
        blob: Blob,
    ) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Takes a manifest in, whose parts are there.
    fn put_manifest<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
        media_type: &'a str,
        bytes: Bytes,
    ) -> BoxFuture<'a, Result<(), DriverError>>;

    /// Deletes a manifest with its tags, or a tag. False: it has none.
    fn delete<'a>(
        &'a self,
        repository: &'a RepositoryName,
        reference: &'a Reference,
    ) -> BoxFuture<'a, Result<bool, DriverError>>;
}

/// Has the store read what lies there, and forget what an earlier run read from a place of another kind.
pub(crate) async fn use_outside(
    store: &Store,
    settings: Option<&DriverSettings>,
) -> Result<(), StartError> {
    let driver = settings.map(|settings| Arc::clone(&settings.driver));
    watch::forget_others(store, driver.as_deref()).await?;
    if let Some(driver) = driver {
        store.set_outside(Arc::new(Place(driver)));
    }
    Ok(())
}

/// A driver as the store sees it.
#[derive(Debug)]
struct Place(Arc<dyn Driver>);

impl Outside for Place {
    fn open(&self, blob: &OutsideBlob) -> io::Result<Option<Arc<dyn DiskFile>>> {
        // Left over from another driver.
        if blob.is_kept != self.0.keeps() {
            return Ok(None);
        }
        self.0.open(blob)
    }
}

/// Bytes of a place that is asked over a socket, to read only.
pub(crate) trait ReadRange: Debug + Send + Sync {
    /// The bytes of a range in order, at most to its end.
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<remote::Bodies>>;
}
