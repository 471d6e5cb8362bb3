//! One image is brought to this disk: its manifests, then its blobs, a few at once.
//!
//! Decides what belongs to an image and in which order it comes. What cannot be had is noted, and the
//! rest comes all the same. It must never read content of a repository that does not link it.

use std::collections::VecDeque;
use std::sync::Arc;

use ddr_oci::{Descriptor, Digest, Manifest, ManifestKind, Platform, RepositoryName};
use ddr_proto::wire::ContentKind;
use futures_util::StreamExt;
use futures_util::stream;

use super::parts::{PartKind, Parts};
use crate::pull::{Pull, Shared};
use crate::{ManifestContent, ReadError};

/// Blobs that come at once.
const MAX_AT_ONCE: usize = 3;
/// Manifests of one image; what is beyond fails.
const MAX_MANIFESTS: usize = 256;
/// Blobs of one image; what is beyond fails.
const MAX_BLOBS: usize = 2048;

/// What is to be brought.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) repository: RepositoryName,
    pub(super) manifest: Digest,
    /// Of an index only the members for it.
    pub(super) platform: Option<Platform>,
}

/// Brings images here.
#[derive(Clone)]
pub(super) struct Bringer {
    pub(super) pull: Arc<Pull>,
    pub(super) shared: Arc<Shared>,
}

impl Bringer {
    /// Brings the image here; `parts` tells what came of it. It ends early when the node stops.
    pub(super) async fn bring(&self, wanted: &Wanted, parts: &Parts) {
        let mut stopped = self.shared.stopped.clone();
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.bring_all(wanted, parts) => {}
        }
    }

    async fn bring_all(&self, wanted: &Wanted, parts: &Parts) {
        let blobs = self.bring_manifests(wanted, parts).await;
        let fetches = blobs.into_iter().map(|(at, digest)| async move {
            parts.begin(at);
            match self.blob(&wanted.repository, &digest).await {
                Ok(()) => parts.done(at),
                Err(why) => parts.failed(at, why),
            }
        });
        stream::iter(fetches).for_each_concurrent(MAX_AT_ONCE, |fetch| fetch).await;
    }

    /// All manifests, one after the other; the blobs that they need.
    async fn bring_manifests(&self, wanted: &Wanted, parts: &Parts) -> Vec<(usize, Digest)> {
        let (mut waiting, mut blobs, mut manifests) = (VecDeque::new(), Vec::new(), 1);
        waiting.extend(
            parts.add(PartKind::Manifest, wanted.manifest, 0).map(|at| (at, wanted.manifest)),
        );
        while let Some((at, digest)) = waiting.pop_front() {
            parts.begin(at);
            let (content, manifest) = match self.manifest(&wanted.repository, &digest).await {
                Ok(found) => found,
                Err(why) => {
                    parts.failed(at, why);
                    continue;
                }
            };
            let members = match members(&manifest, wanted.platform.as_ref()) {
                Ok(members) => members,
                Err(why) => {
                    parts.failed(at, why);
                    continue;
                }
            };
            parts.done_with(at, content.bytes.len() as u64);
            for member in members {
                let Some(at) = parts.add(PartKind::Manifest, member.digest, member.size) else {
                    continue;
                };
                manifests += 1;
                if manifests > MAX_MANIFESTS {
                    parts.failed(at, format!("an image has at most {MAX_MANIFESTS} manifests"));
                    break;
                }
                waiting.push_back((at, member.digest));
            }
            for blob in manifest.required_blobs() {
                let Some(at) = parts.add(PartKind::Blob, blob.digest, blob.size) else { continue };
                if blobs.len() >= MAX_BLOBS {
                    parts.failed(at, format!("an image has at most {MAX_BLOBS} blobs"));
                    break;
                }
                blobs.push((at, blob.digest));
            }
        }
        blobs
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(ManifestContent, Manifest), String> {
        let found = self.pull.manifest(repository, digest).await;
        let content =
            found.map_err(text)?.ok_or("no node that can be reached has this manifest")?;
        let manifest = Manifest::parse(Some(&content.media_type), &content.bytes);
        let manifest = manifest.map_err(|error| error.to_string())?;
        Ok((content, manifest))
    }

    async fn blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), String> {
        let content = (repository, digest, ContentKind::Blob);
        if self.shared.deleted.contains(content).await.map_err(text)? {
            return Err("it was deleted from this repository".into());
        }
        match self.pull.bring(repository, digest).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("no node that can be reached has this blob".into()),
            Err(error) => Err(text(error)),
        }
    }
}

/// The manifests that belong to the image through this one.
fn members<'m>(
    manifest: &'m Manifest,
    platform: Option<&Platform>,
) -> Result<Vec<&'m Descriptor>, String> {
    let admits = |member: &&Descriptor| platform.is_none_or(|platform| platform.admits(member));
    let members: Vec<&Descriptor> = manifest.manifests.iter().filter(admits).collect();
    match platform {
        Some(platform) if manifest.kind == ManifestKind::Index && members.is_empty() => {
            Err(format!("nothing in this index is for {platform}"))
        }
        _ => Ok(members),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn text(error: ReadError) -> String {
    error.to_string()
}
