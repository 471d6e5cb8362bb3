//! The content store of the containerd on this machine.
//!
//! Decides that its images of registries that could be mirrored are what lies there, by the names that these have here;
//! others are the swarm's own business. It is a cache: containerd collects what no image needs. Bytes are read from
//! containerd's files where this process may open them, else through its socket.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ddr_containerd::{Containerd, ContainerdError, Image, Settings, blob_path};
use ddr_oci::{Digest, MAX_MANIFEST_BYTES, Reference, RepositoryName};
use ddr_store::OutsideBlob;
use ddr_store::disk::{Disk, DiskFile, OpenMode, RealDisk};
use futures_core::future::BoxFuture;
use futures_util::StreamExt;
use tokio::runtime::Handle;

use super::remote::{Bodies, Remote};
use super::{Driver, DriverError, Given, ReadRange, Root};
use crate::Blob;

/// How long a containerd that cannot be asked is left alone.
const AGAIN: Duration = Duration::from_secs(5);

/// See the module comment.
#[derive(Debug)]
pub struct ContainerdDriver {
    settings: Settings,
    runtime: Handle,
    connected: tokio::sync::OnceCell<Connected>,
    watch: tokio::sync::Mutex<Option<ddr_containerd::Watch>>,
    listed: Mutex<Arc<Listed>>,
}

#[derive(Debug)]
struct Connected {
    containerd: Containerd,
    /// Where its files are, if they can be read.
    root: Option<PathBuf>,
}

/// What was there at the last look.
#[derive(Debug, Default)]
struct Listed {
    /// Size, and a namespace.
    contents: BTreeMap<Digest, (u64, String)>,
    images: BTreeMap<RepositoryName, Vec<Digest>>,
}

impl ContainerdDriver {
    /// Must be called where a runtime is. Connects when it is asked first; no namespaces are all.
    #[must_use]
    pub fn new(socket: PathBuf, namespaces: Vec<String>) -> Self {
        Self {
            settings: Settings { socket, namespaces },
            runtime: Handle::current(),
            connected: tokio::sync::OnceCell::new(),
            watch: tokio::sync::Mutex::default(),
            listed: Mutex::default(),
        }
    }

    async fn connected(&self) -> Result<&Connected, ContainerdError> {
        let connect = || async {
            let containerd = Containerd::connect(self.settings.clone()).await?;
            let root = containerd.content_root().await?;
            if root.is_none() {
                tracing::info!("containerd's content is read through its socket");
            }
            Ok(Connected { containerd, root })
        };
        self.connected.get_or_try_init(connect).await
    }

    /// Looks at everything.
    async fn list(&self) -> Result<Arc<Listed>, ContainerdError> {
        let Connected { containerd, .. } = self.connected().await?;
        let listing = containerd.list().await?;
        if listing.left_out > 0 {
            tracing::warn!(left_out = listing.left_out, "containerd has more than is looked at");
        }
        let contents = listing.contents.into_iter();
        let contents = contents.map(|one| (one.digest, (one.size, one.namespace))).collect();
        let mut images: BTreeMap<RepositoryName, Vec<Digest>> = BTreeMap::new();
        for Image { source, target, .. } in containerd.images().await? {
            if let Some(repository) = source.name_here() {
                images.entry(repository).or_default().push(target);
            }
        }
        let listed = Arc::new(Listed { contents, images });
        *self.listed() = Arc::clone(&listed);
        Ok(listed)
    }

    /// What was there lately.
    async fn lately(&self) -> Result<Arc<Listed>, ContainerdError> {
        let listed = Arc::clone(&self.listed());
        if listed.contents.is_empty() { self.list().await } else { Ok(listed) }
    }

    async fn read_manifest(&self, digest: &Digest) -> Result<Option<Bytes>, ContainerdError> {
        let Connected { containerd, .. } = self.connected().await?;
        let listed = self.lately().await?;
        let Some((size, namespace)) = listed.contents.get(digest) else { return Ok(None) };
        if *size > MAX_MANIFEST_BYTES as u64 {
            return Ok(None);
        }
        let mut parts = match containerd.read(namespace, digest, 0..*size).await {
            Ok(parts) => parts,
            Err(ContainerdError::Absent) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = BytesMut::new();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| ContainerdError::Failed(error.to_string()))?;
            bytes.extend_from_slice(&part);
        }
        Ok(Some(bytes.freeze()))
    }

    async fn next_change(&self) -> Result<(), ContainerdError> {
        let Connected { containerd, .. } = self.connected().await?;
        let mut watch = self.watch.lock().await;
        if watch.is_none() {
            *watch = Some(containerd.watch().await?);
        }
        match watch.as_mut() {
            Some(watch) => watch.changed().await,
            None => Ok(()),
        }
    }

    fn listed(&self) -> MutexGuard<'_, Arc<Listed>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver for ContainerdDriver {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn keeps(&self) -> bool {
        false
    }

    fn repositories(&self) -> BoxFuture<'_, Result<Vec<RepositoryName>, DriverError>> {
        Box::pin(async move {
            let listed = self.list().await.map_err(failed)?;
            Ok(listed.images.keys().cloned().collect())
        })
    }

    fn roots<'a>(
        &'a self,
        repository: &'a RepositoryName,
    ) -> BoxFuture<'a, Result<Vec<Root>, DriverError>> {
        Box::pin(async move {
            let listed = self.lately().await.map_err(failed)?;
            let mut targets = listed.images.get(repository).cloned().unwrap_or_default();
            targets.sort_unstable();
            targets.dedup();
            Ok(targets.into_iter().map(|digest| Root { digest, tags: Vec::new() }).collect())
        })
    }

    /// Nobody asks here for what is not known: a client of a mirrored registry asks that.
    fn root<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Reference,
    ) -> BoxFuture<'a, Result<Option<Root>, DriverError>> {
        Box::pin(async { Ok(None) })
    }

    fn manifest<'a>(
        &'a self,
        _: &'a RepositoryName,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Result<Option<Given>, DriverError>> {
        Box::pin(async move {
            let bytes = self.read_manifest(digest).await.map_err(failed)?;
            Ok(bytes.map(|bytes| (None, bytes)))
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            while let Err(error) = self.next_change().await {
                tracing::debug!(%error, "containerd does not tell what changes");
                tokio::time::sleep(AGAIN).await;
            }
        })
    }

    fn open(&self, blob: &OutsideBlob) -> io::Result<Option<Arc<dyn DiskFile>>> {
        let Connected { containerd, root } = self.runtime.block_on(self.connected())?;
        if let Some(root) = root {
            return match RealDisk.open(&blob_path(root, &blob.digest), OpenMode::Read) {
                Ok(file) if file.len()? == blob.size => Ok(Some(file)),
                Ok(_) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            };
        }
        let listed = self.runtime.block_on(self.lately())?;
        let found = listed.contents.get(&blob.digest).filter(|(size, _)| *size == blob.size);
        let Some((size, namespace)) = found else { return Ok(None) };
        let (containerd, namespace) = (containerd.clone(), namespace.clone());
        let place = Place { containerd, namespace, digest: blob.digest };
        Ok(Some(Arc::new(Remote::new(place, *size, self.runtime.clone()))))
    }

    fn put_blob<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Digest,
        _: Blob,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async { Err(read_only()) })
    }

    fn put_manifest<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Reference,
        _: &'a str,
        _: Bytes,
    ) -> BoxFuture<'a, Result<(), DriverError>> {
        Box::pin(async { Err(read_only()) })
    }

    fn delete<'a>(
        &'a self,
        _: &'a RepositoryName,
        _: &'a Reference,
    ) -> BoxFuture<'a, Result<bool, DriverError>> {
        Box::pin(async { Err(read_only()) })
    }
}

fn read_only() -> DriverError {
    DriverError::Unsupported("nothing is written to containerd".into())
}

fn failed(error: ContainerdError) -> DriverError {
    DriverError::Failed(error.to_string())
}

/// One blob there, read through the socket.
#[derive(Debug)]
struct Place {
    containerd: Containerd,
    namespace: String,
    digest: Digest,
}

impl ReadRange for Place {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bodies>> {
        Box::pin(
            async move { Ok(self.containerd.read(&self.namespace, &self.digest, range).await?) },
        )
    }
}
