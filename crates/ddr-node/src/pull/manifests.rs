//! Manifests: by tag, which a quorum says, and by digest from a peer: small, so one is read whole,
//! checked, stored and linked.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ddr_net::{ContentBody, GetError};
use ddr_oci::{Digest, MAX_MANIFEST_BYTES, Manifest, Reference, RepositoryName};
use ddr_proto::wire::{Contact, ContentKind};

use super::around::{self, Answer, Outcome};
use super::{ManifestAnswer, Pull, Reach, Shared, cold};
use crate::names::Names;
use crate::{ManifestContent, ReadError, blocking, entry, mirror};

/// A manifest as a peer gave it, with the right bytes.
pub(super) type Given = (ManifestContent, Box<Manifest>);

/// See [`crate::Node::manifest`].
pub(crate) async fn by_reference(
    names: &Arc<Names>,
    pull: &Arc<Pull>,
    repository: &RepositoryName,
    reference: &Reference,
) -> ManifestAnswer {
    let tag = match reference {
        Reference::Digest(digest) => return pull.manifest(repository, digest).await,
        Reference::Tag(tag) => tag,
    };
    let named = match mirror::resolve(names, pull, repository, tag).await {
        Some(mirrored) => mirrored?,
        None => names.read(repository, tag).await?,
    };
    let Some(digest) = named.digest else { return Ok(None) };
    match pull.manifest(repository, &digest).await? {
        Some(manifest) if named.is_stale => {
            Ok(Some(ManifestContent { is_stale: true, ..manifest }))
        }
        Some(manifest) => {
            // The answer is known; that the local list lags behind must not withhold it.
            if let Err(error) = names.keep_tag(repository, tag, &digest).await {
                tracing::warn!(%repository, %tag, %error, "a tag is not in the local list");
            }
            Ok(Some(manifest))
        }
        None => Err(ReadError::Unavailable(format!(
            "the tag {tag} is {digest}, but no node that can be reached holds it"
        ))),
    }
}

/// The manifest if it is on this disk.
pub(super) async fn stored(
    shared: &Shared,
    repository: &RepositoryName,
    digest: &Digest,
) -> ManifestAnswer {
    let (store, name, digest) = (shared.store.clone(), repository.clone(), *digest);
    let stored = blocking(move || store.manifest(&name, &digest)).await;
    let stored = stored.map_err(ReadError::store)?.map_err(ReadError::store)?;
    Ok(stored.map(|stored| {
        let (media_type, bytes) = (stored.media_type, stored.bytes.into());
        ManifestContent { digest, media_type, bytes, is_stale: false }
    }))
}

/// The manifest from the first peer that gives the right bytes, stored here.
pub(super) async fn fetch(
    shared: Arc<Shared>,
    repository: RepositoryName,
    digest: Digest,
    reach: Reach,
) -> ManifestAnswer {
    if reach == Reach::Upstream {
        return cold::manifest(&shared, &repository, &digest, reach).await;
    }
    let mut sources = shared.sources(&digest);
    let question = |peer| {
        let (shared, repository) = (&shared, &repository);
        async move { ask(shared, repository, &digest, &peer).await }
    };
    match around::ask(&mut sources, question).await {
        Outcome { given: Some(((content, manifest), _)), .. } => {
            keep_or_log(&shared, &repository, &content, &manifest).await;
            Ok(Some(content))
        }
        Outcome { any_failed, .. } => {
            let cold = cold::manifest(&shared, &repository, &digest, reach).await?;
            if cold.is_none() && any_failed {
                let why = "every node that holds the manifest failed";
                return Err(ReadError::Unavailable(why.into()));
            }
            Ok(cold)
        }
    }
}

/// Stores a manifest that came; the answer is known, so a full disk must not withhold it.
pub(crate) async fn keep_or_log(
    shared: &Arc<Shared>,
    repository: &RepositoryName,
    content: &ManifestContent,
    manifest: &Manifest,
) {
    if let Err(error) = keep(shared, repository, content.clone(), manifest).await {
        tracing::warn!(%repository, digest = %content.digest, %error, "a pulled manifest is not stored");
    }
}

async fn ask(
    shared: &Shared,
    repository: &RepositoryName,
    digest: &Digest,
    peer: &Contact,
) -> Answer<Given> {
    let path = ddr_net::manifest_path(digest, Some(repository));
    for addr in peer.addrs.iter().copied() {
        match shared.client.get(addr, Some(peer.id), &path, None).await {
            Ok(body) => return check(shared, repository, digest, addr, body).await,
            Err(GetError::NotFound) => return Answer::Absent,
            Err(error) => tracing::debug!(%digest, %addr, %error, "a holder did not answer"),
        }
    }
    Answer::Failed
}

pub(super) async fn check(
    shared: &Shared,
    repository: &RepositoryName,
    digest: &Digest,
    addr: SocketAddr,
    mut body: ContentBody,
) -> Answer<Given> {
    let node = body.node;
    let media_type = body.media_type.take();
    let Some(bytes) = read(body).await else { return Answer::Failed };
    drop(shared.peers.transfer(node, addr));
    shared.gave(node, repository, bytes.len() as u64, true);
    if Digest::of(digest.algorithm(), &bytes) != *digest {
        shared.peers.strike(node, addr, "the manifest it gave was wrong");
        return Answer::Failed;
    }
    match Manifest::parse(media_type.as_deref(), &bytes) {
        Ok(manifest) => {
            let media_type = manifest.media_type.clone();
            let content = ManifestContent { digest: *digest, media_type, bytes, is_stale: false };
            Answer::Given((content, Box::new(manifest)))
        }
        Err(error) => {
            // The digest fits, so either the media type is a lie or a node took in what is none.
            tracing::warn!(%digest, peer = %node, %error, "the bytes are no manifest");
            Answer::Failed
        }
    }
}

async fn read(mut body: ContentBody) -> Option<Bytes> {
    let size = usize::try_from(body.size).ok().filter(|size| *size <= MAX_MANIFEST_BYTES)?;
    let mut bytes = BytesMut::with_capacity(size);
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.ok()?);
        if bytes.len() > size {
            return None;
        }
    }
    (bytes.len() == size).then(|| bytes.freeze())
}

async fn keep(
    shared: &Arc<Shared>,
    repository: &RepositoryName,
    content: ManifestContent,
    manifest: &Manifest,
) -> Result<(), ReadError> {
    let digest = content.digest;
    let entry = entry::of(&content, manifest);
    let (node, repository) = (Arc::clone(shared), repository.clone());
    let stored = blocking(move || {
        node.store.put_manifest(&repository, &entry, &[])?;
        // A delete may have come while the manifest did, and blobs of it may be deleted.
        let blobs = entry.children.iter().map(|blob| (blob, ContentKind::Blob));
        for (digest, kind) in blobs.chain([(&entry.digest, ContentKind::Manifest)]) {
            if node.deleted.is_marked((&repository, digest, kind))? {
                node.forget.content((&repository, digest, kind))?;
            }
        }
        Ok::<_, ddr_store::IndexError>(())
    });
    stored.await.map_err(ReadError::store)?.map_err(ReadError::store)?;
    shared.announcer.announce_later(digest);
    Ok(())
}
