//! The questions that containerd is asked.
//!
//! Decides what is asked of which namespace, and how answers of several become one. It keeps nothing but the
//! connection.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ddr_oci::Digest;
use tokio::time::timeout;

use crate::channel::Channel;
use crate::decode::{self, STORE_PLUGIN};
use crate::error::ContainerdError;
use crate::grpc::Call;
use crate::image::{self, Image};
use crate::listing::{Collected, Listing};
use crate::messages::{Filters, IMAGES, LIST, NAMESPACES, PLUGINS};
use crate::namespaces::{MAX_NAMESPACES, is_namespace};
use crate::reading::{self, ContentBytes};
use crate::watch::Watch;

/// Where containerd's socket is unless it is configured otherwise.
pub const DEFAULT_SOCKET: &str = "/run/containerd/containerd.sock";

/// Longest time for a list of everything.
const LIST_TIME: Duration = Duration::from_mins(2);
/// The directory of blobs below the content store's.
const BLOBS: &str = "blobs";

/// Which containerd, and what of it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its socket: [`DEFAULT_SOCKET`].
    pub socket: PathBuf,
    /// The namespaces that are meant, `k8s.io` for Kubernetes and `moby` for docker; empty: all that there
    /// are whenever it is asked. At most [`MAX_NAMESPACES`].
    pub namespaces: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { socket: PathBuf::from(DEFAULT_SOCKET), namespaces: Vec::new() }
    }
}

/// One containerd. Cheap to clone; clones share the connection. After containerd was restarted, the next
/// question connects anew.
#[derive(Clone, Debug)]
pub struct Containerd {
    channel: Arc<Channel>,
    namespaces: Arc<[String]>,
}

impl Containerd {
    /// Connects, and asks which namespaces there are, so that a wrong socket is told at once.
    ///
    /// # Errors
    /// As [`ContainerdError`] says.
    pub async fn connect(settings: Settings) -> Result<Self, ContainerdError> {
        let Settings { socket, namespaces } = settings;
        if let Some(bad) = namespaces.iter().find(|name| !is_namespace(name)) {
            let text = format!("{bad:?} is no namespace of containerd: want k8s.io, moby, default");
            return Err(ContainerdError::Settings(text));
        }
        if namespaces.len() > MAX_NAMESPACES {
            let text = format!("more than {MAX_NAMESPACES} namespaces of containerd");
            return Err(ContainerdError::Settings(text));
        }
        let channel = Arc::new(Channel::new(socket));
        let containerd = Self { channel, namespaces: namespaces.into() };
        containerd.all_namespaces().await?;
        Ok(containerd)
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.channel.socket()
    }

    /// The directory of the content store's files, if containerd tells it and this process may open files
    /// there; see [`blob_path`]. `None`: bytes come through the socket only. containerd names the
    /// directory as it sees it itself: in another mount namespace there may be something else, so a file counts
    /// only if it has the size that it should have.
    ///
    /// # Errors
    /// As [`ContainerdError`] says.
    pub async fn content_root(&self) -> Result<Option<PathBuf>, ContainerdError> {
        let (kind, id) = STORE_PLUGIN;
        let filters = vec![format!("type=={kind},id=={id}")];
        let answer = self.channel.ask(&Call::new(PLUGINS, &Filters { filters })).await?;
        let Some(root) = decode::content_root(answer.only().await?)? else { return Ok(None) };
        Ok(may_open_files(&root).await.then_some(root))
    }

    /// Everything that is whole in the content store, of all namespaces asked for. What is being pulled
    /// comes onto the list when it is whole.
    ///
    /// # Errors
    /// As [`ContainerdError`] says, at the latest after two minutes. No part of a list is given.
    pub async fn list(&self) -> Result<Listing, ContainerdError> {
        let slow = |_| {
            let secs = LIST_TIME.as_secs();
            ContainerdError::Unreachable(format!("containerd does not list within {secs} s"))
        };
        timeout(LIST_TIME, Box::pin(self.list_all())).await.map_err(slow)?
    }

    /// The images of all namespaces asked for that are named after a registry, sorted, at most
    /// [`crate::MAX_IMAGES`].
    ///
    /// # Errors
    /// As [`ContainerdError`] says.
    pub async fn images(&self) -> Result<Vec<Image>, ContainerdError> {
        let mut images = Vec::new();
        for namespace in self.asked_namespaces().await?.iter() {
            let call = Call::new(IMAGES, &Filters::default()).within(namespace)?;
            let answer = self.channel.ask(&call).await?;
            images.extend(decode::images(answer.only().await?, namespace)?);
        }
        Ok(image::each_once(images))
    }

    /// Bytes of content in `namespace`, as [`crate::Content`] names it. Waits for the first of
    /// them. Each stream holds a few MiB that wait to be read, so the caller bounds how many there are.
    ///
    /// # Errors
    /// [`ContainerdError::Absent`] if it is not there (any more), [`ContainerdError::Failed`] if the range
    /// begins after its end; the stream ends with an error if the range ends after it.
    pub async fn read(
        &self,
        namespace: &str,
        digest: &Digest,
        range: Range<u64>,
    ) -> Result<ContentBytes, ContainerdError> {
        Box::pin(reading::read(&self.channel, namespace, digest, range)).await
    }

    /// Subscribes to changes. A list is asked for after that, so that no change falls between the two.
    /// containerd does not say when it has begun to listen, and does not tell every change (see [`Watch`]): a
    /// list now and then does no harm.
    ///
    /// # Errors
    /// As [`ContainerdError`] says.
    pub async fn watch(&self) -> Result<Watch, ContainerdError> {
        Watch::new(Arc::clone(&self.channel), Arc::clone(&self.namespaces)).await
    }

    async fn list_all(&self) -> Result<Listing, ContainerdError> {
        let mut collected = Collected::default();
        for namespace in self.asked_namespaces().await?.iter() {
            self.list_namespace(namespace, &mut collected).await?;
        }
        Ok(collected.listing())
    }

    async fn list_namespace(
        &self,
        namespace: &str,
        collected: &mut Collected,
    ) -> Result<(), ContainerdError> {
        let call = Call::new(LIST, &Filters::default()).within(namespace)?;
        let mut answer = self.channel.ask(&call).await?;
        while let Some(message) = answer.next_soon().await? {
            decode::contents(message, namespace)?.into_iter().for_each(|c| collected.add(c));
        }
        Ok(())
    }

    async fn asked_namespaces(&self) -> Result<Arc<[String]>, ContainerdError> {
        if self.namespaces.is_empty() {
            return Ok(self.all_namespaces().await?.into());
        }
        Ok(Arc::clone(&self.namespaces))
    }

    async fn all_namespaces(&self) -> Result<Vec<String>, ContainerdError> {
        let answer = self.channel.ask(&Call::new(NAMESPACES, &Filters::default())).await?;
        let mut namespaces = decode::namespaces(answer.only().await?)?;
        if namespaces.len() > MAX_NAMESPACES {
            let left_out = namespaces.len() - MAX_NAMESPACES;
            tracing::warn!(left_out, "containerd has more namespaces than are read");
            namespaces.truncate(MAX_NAMESPACES);
        }
        Ok(namespaces)
    }
}

/// Where a blob is in the content store's directory.
#[must_use]
pub fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join(BLOBS).join(digest.algorithm().name()).join(digest.hex())
}

/// Whether files below the store's directory can be opened by their names. A store that never had content
/// has no directory of blobs yet.
async fn may_open_files(root: &Path) -> bool {
    // The dot makes this need the right to search the directory, not only to see it.
    match tokio::fs::metadata(root.join(BLOBS).join("sha256").join(".")).await {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            tokio::fs::metadata(root.join(".")).await.is_ok_and(|found| found.is_dir())
        }
        Err(_) => false,
    }
}
