//! Push and pull over the OCI distribution API, as a registry client does it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use ddr_oci::RepositoryName;
use ddr_oci::digest::{Algorithm, Digest, Hasher};
use ddr_oci::media_type;
use futures_util::TryStreamExt;
use futures_util::stream::{self, Stream};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::image::{BlobInfo, Image, Source};
use super::{DemoError, REPOSITORY, TAG};
use crate::client;
use crate::client::registry::Registry;
use crate::progress::Progress;

/// Bytes read from a file and sent at one time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Pushes blobs, then the manifest under its tag.
pub(super) async fn push(
    registry: SocketAddr,
    image: &Image,
    progress: &Arc<Progress>,
) -> Result<(), DemoError> {
    let (registry, name) = (Registry { address: registry }, repository()?);
    for blob in image.blobs() {
        push_blob(&registry, &name, blob, progress).await?;
    }
    let manifest = Bytes::from(image.manifest.clone());
    Ok(registry.put_manifest(&name, TAG, media_type::OCI_MANIFEST, manifest).await?)
}

async fn push_blob(
    registry: &Registry,
    name: &RepositoryName,
    blob: BlobInfo<'_>,
    progress: &Arc<Progress>,
) -> Result<(), DemoError> {
    let (digest, size, sent) = (blob.digest, blob.size, AtomicU64::new(0));
    match blob.source {
        Source::Memory(bytes) => {
            progress.add(size);
            let body = Full::new(Bytes::copy_from_slice(bytes));
            registry.put_blob(name, &digest, size, body, &sent).await?;
        }
        Source::File(path) => {
            let file = File::open(path).await.map_err(super::file("opening a layer"))?;
            let progress = Arc::clone(progress);
            let frames = chunks(file).map_ok(move |bytes| {
                progress.add(bytes.len() as u64);
                Frame::data(bytes)
            });
            let body = StreamBody::new(Box::pin(frames));
            registry.put_blob(name, &digest, size, body, &sent).await?;
        }
    }
    Ok(())
}

fn chunks(file: File) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = bytes::BytesMut::with_capacity(CHUNK_BYTES);
        let read = file.read_buf(&mut chunk).await?;
        Ok((read > 0).then(|| (chunk.freeze(), file)))
    })
}

/// Pulls the tag and everything it names, and compares each digest with what was pushed.
pub(super) async fn pull(
    registry: SocketAddr,
    image: &Image,
    progress: &Progress,
) -> Result<(), DemoError> {
    let (registry, name) = (Registry { address: registry }, repository()?);
    let (_, manifest) = registry.manifest(&name, TAG).await?;
    if manifest[..] != image.manifest[..] {
        return Err(wrong("the tag resolves to another manifest than the one that was pushed"));
    }
    for blob in image.blobs() {
        pull_blob(&registry, &name, blob, progress).await?;
    }
    Ok(())
}

async fn pull_blob(
    registry: &Registry,
    name: &RepositoryName,
    blob: BlobInfo<'_>,
    progress: &Progress,
) -> Result<(), DemoError> {
    let mut body = registry.blob(name, &blob.digest).await?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    while let Some(bytes) = client::next(registry.address, &mut body).await? {
        hasher.update(&bytes);
        progress.add(bytes.len() as u64);
    }
    let got: Digest = hasher.finish();
    if got != blob.digest {
        return Err(wrong(&format!("blob {} came back as {got}", blob.digest)));
    }
    Ok(())
}

fn repository() -> Result<RepositoryName, DemoError> {
    REPOSITORY.parse().map_err(|error| wrong(&format!("{REPOSITORY}: {error}")))
}

fn wrong(text: &str) -> DemoError {
    DemoError::Wrong(text.to_owned())
}
