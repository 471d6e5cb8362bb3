//! Sends images to the registry: blobs that are not there, then manifests, the name last.
//!
//! Every byte is checked against its digest before it is sent. The registry decides what it takes;
//! here it is only asked again when it says that it cannot for the moment.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ddr_oci::{Descriptor, Reference, RepositoryName};
use futures_util::stream::{self, Stream};
use http::StatusCode;
use http_body_util::StreamBody;
use hyper::body::Frame;

use super::super::{CliError, joined};
use super::name::Wanted;
use crate::archive::{Archive, ArchiveError, Closure, Section};
use crate::client::registry::{Registry, RegistryError};
use crate::progress::{Progress, Show};

/// How often something is sent when the registry cannot take it for the moment.
const MAX_TRIES: u32 = 5;
/// The longest wait in between, whatever the registry asks.
const MAX_WAIT: Duration = Duration::from_secs(15);
/// The wait when it asks for none.
const WAIT: Duration = Duration::from_secs(2);

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    pub(super) manifests: u64,
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    pub(super) blobs_there: u64,
}

/// An image with all that it needs.
struct Job<'a> {
    wanted: &'a Wanted,
    closure: Closure,
    /// Blobs that no image before has in the same repository.
    blobs: Vec<Descriptor>,
}

/// Pushes all of them, one after the other. Nothing is sent before it is known that all blobs of
/// all images are in the archive.
pub(super) async fn all(
    registry: Registry,
    archive: Archive,
    wanted: &[Wanted],
    show: Show,
) -> Result<Pushed, CliError> {
    let jobs = plan(&archive, wanted)?;
    let total = jobs.iter().flat_map(|job| &job.blobs).map(|blob| blob.size);
    let progress = Progress::new("import".into(), total.fold(0, u64::saturating_add), show);
    let mut push =
        Push { registry, archive, progress: Arc::new(progress), pushed: Pushed::default() };
    for job in &jobs {
        push.image(job).await?;
    }
    push.progress.done();
    Ok(push.pushed)
}

fn plan<'a>(archive: &Archive, wanted: &'a [Wanted]) -> Result<Vec<Job<'a>>, ArchiveError> {
    let mut seen = BTreeSet::new();
    let mut jobs = Vec::new();
    for wanted in wanted {
        let closure = archive.closure(&wanted.root)?;
        let new = |blob: &&Descriptor| seen.insert((&wanted.repository, blob.digest));
        let blobs: Vec<_> = closure.blobs.values().filter(new).cloned().collect();
        for blob in &blobs {
            archive.blob(blob)?;
        }
        jobs.push(Job { wanted, closure, blobs });
    }
    Ok(jobs)
}

struct Push {
    registry: Registry,
    archive: Archive,
    progress: Arc<Progress>,
    pushed: Pushed,
}

impl Push {
    async fn image(&mut self, job: &Job<'_>) -> Result<(), CliError> {
        let name = &job.wanted.repository;
        for blob in &job.blobs {
            self.blob(name, blob).await?;
        }
        // The root is the first of them and goes last, so that a name never leads to less than all.
        for (manifest, bytes) in job.closure.manifests.iter().skip(1).rev() {
            if !self.registry.has_manifest(name, &manifest.digest).await? {
                let reference = Reference::Digest(manifest.digest);
                self.manifest(name, &reference, manifest, bytes).await?;
            }
        }
        let Some((root, bytes)) = job.closure.manifests.first() else { return Ok(()) };
        self.manifest(name, &job.wanted.reference, root, bytes).await
    }

    async fn blob(&mut self, name: &RepositoryName, blob: &Descriptor) -> Result<(), CliError> {
        if self.registry.has_blob(name, &blob.digest).await? {
            self.progress.add(blob.size);
            self.pushed.blobs_there += 1;
            return Ok(());
        }
        let section = self.archive.blob(blob)?;
        if !self.archive.is_verified(&blob.digest) {
            let (section, blob) = (section.clone(), blob.clone());
            joined(tokio::task::spawn_blocking(move || section.verify(&blob))).await??;
        }
        // What is sent a second time counts once.
        let shown = Arc::new(AtomicU64::new(0));
        again(|| async {
            let sent = Arc::new(AtomicU64::new(0));
            let counted = (Arc::clone(&self.progress), Arc::clone(&shown), Arc::clone(&sent));
            let body = StreamBody::new(Box::pin(frames(section.clone(), counted)));
            self.registry.put_blob(name, &blob.digest, blob.size, body, &sent).await
        })
        .await?;
        self.pushed.blobs += 1;
        self.pushed.bytes += blob.size;
        Ok(())
    }

    async fn manifest(
        &mut self,
        name: &RepositoryName,
        reference: &Reference,
        manifest: &Descriptor,
        bytes: &Bytes,
    ) -> Result<(), CliError> {
        let reference = reference.to_string();
        again(|| self.registry.put_manifest(name, &reference, &manifest.media_type, bytes.clone()))
            .await?;
        self.pushed.manifests += 1;
        Ok(())
    }
}

/// The bytes of a section, counted when they are taken: in all, as shown so far, and in this try.
fn frames(
    section: Section,
    (progress, shown, sent): (Arc<Progress>, Arc<AtomicU64>, Arc<AtomicU64>),
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send {
    let next = move |at: u64| {
        let chunk = section.chunk(at);
        let count = |bytes: &Bytes| {
            let end = at + bytes.len() as u64;
            sent.store(end, Ordering::Relaxed);
            let before = shown.fetch_max(end, Ordering::Relaxed);
            progress.add(end.saturating_sub(before));
            end
        };
        let read = chunk.map(|bytes| {
            let end = count(&bytes);
            (!bytes.is_empty()).then(|| (Frame::data(bytes), end))
        });
        std::future::ready(read)
    };
    stream::try_unfold(0, next)
}

/// Tries again while the registry says that it cannot for the moment (429, 503).
async fn again<F>(mut send: impl FnMut() -> F) -> Result<(), RegistryError>
where
    F: Future<Output = Result<(), RegistryError>>,
{
    let mut tries = 1;
    loop {
        let error = match send().await {
            Err(error) if tries < MAX_TRIES => error,
            done => return done,
        };
        let RegistryError::Refused { status, retry_after_s, .. } = &error else {
            return Err(error);
        };
        if !matches!(*status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            return Err(error);
        }
        let wait = retry_after_s.map_or(WAIT, Duration::from_secs).min(MAX_WAIT);
        tokio::time::sleep(wait).await;
        tries += 1;
    }
}
