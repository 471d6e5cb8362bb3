//! Images that an operator has pinned to this node.
//!
//! Decides what belongs to an image: its manifest, all members, and the blobs that they need. An image is pinned
//! whole or not at all, so it must be here; bringing it is the business of a pull.

use std::collections::{BTreeSet, VecDeque};

use ddr_oci::{Digest, ImageReference, Manifest, Reference, RepositoryName};
use ddr_store::{IndexError, MAX_PINNED_PARTS, PinnedImage, Store};
use serde::Serialize;

use crate::node::Inner;
use crate::pull::by_reference;
use crate::{ReadError, blocking};

/// A pinned image, for `ddr pin --list`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct PinStatus {
    /// What it was called when it was pinned.
    pub image: String,
    /// The repository.
    pub repository: String,
    /// Its manifest.
    pub digest: String,
    /// Manifests and blobs of it.
    pub parts: usize,
}

impl From<&PinnedImage> for PinStatus {
    fn from(pin: &PinnedImage) -> Self {
        Self {
            image: pin.label.clone(),
            repository: pin.repository.to_string(),
            digest: pin.manifest.to_string(),
            parts: pin.parts.len(),
        }
    }
}

/// Why an image was not pinned or unpinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Nobody has it.
    #[error("nobody holds {0}")]
    Unknown(String),
    /// Parts of it are not on this disk.
    #[error(
        "{count} parts of {image} are not on this node, first {first}; bring them with: ddr pull {image}"
    )]
    NotHere {
        /// The image.
        image: String,
        /// How many.
        count: usize,
        /// One of them.
        first: Box<Digest>,
    },
    /// A limit was reached.
    #[error("{0}")]
    TooLarge(String),
    /// The image could not be found out.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<IndexError> for PinError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            other => Self::Read(ReadError::store(other)),
        }
    }
}

/// See [`crate::Node::pin`].
pub(crate) async fn pin(node: &Inner, image: &ImageReference) -> Result<PinStatus, PinError> {
    let found = by_reference(&node.names, &node.pull, &image.repository, &image.reference).await?;
    let manifest = found.ok_or_else(|| PinError::Unknown(image.to_string()))?.digest;
    let (store, image) = (node.shared.store.clone(), image.clone());
    let work = move || {
        let parts = parts_of(&store, &image.repository, manifest)?;
        let label = image.to_string();
        let pin = PinnedImage { repository: image.repository, manifest, label, parts };
        let absent = store.pin_image(&pin)?;
        match absent.first() {
            None => Ok(PinStatus::from(&pin)),
            Some(first) => {
                let (count, first) = (absent.len(), Box::new(*first));
                Err(PinError::NotHere { image: pin.label, count, first })
            }
        }
    };
    let pinned = blocking(work).await.map_err(ReadError::store)??;
    tracing::info!(image = pinned.image, digest = pinned.digest, "an image is pinned");
    Ok(pinned)
}

/// See [`crate::Node::unpin`].
pub(crate) async fn unpin(
    store: Store,
    image: ImageReference,
) -> Result<Vec<PinStatus>, ReadError> {
    let work = move || {
        let mut gone = Vec::new();
        for pin in store.pinned_images()?.iter().filter(|pin| is_meant(pin, &image)) {
            if store.unpin_image(&pin.repository, &pin.manifest)? {
                gone.push(PinStatus::from(pin));
            }
        }
        Ok::<_, IndexError>(gone)
    };
    blocking(work).await.map_err(ReadError::store)?.map_err(ReadError::store)
}

/// See [`crate::Node::pins`].
pub(crate) async fn pins(store: Store) -> Result<Vec<PinStatus>, ReadError> {
    let pins = blocking(move || store.pinned_images()).await;
    let pins = pins.map_err(ReadError::store)?.map_err(ReadError::store)?;
    Ok(pins.iter().map(PinStatus::from).collect())
}

/// Whether an operator means this pin: by its digest, or by what it was called then.
fn is_meant(pin: &PinnedImage, image: &ImageReference) -> bool {
    let is_named = match &image.reference {
        Reference::Digest(digest) => pin.manifest == *digest,
        Reference::Tag(_) => {
            pin.label.parse::<ImageReference>().is_ok_and(|then| then.reference == image.reference)
        }
    };
    is_named && pin.repository == image.repository
}

/// The manifest, its members, and the blobs that they need, as far as the manifests are here. Blocks.
fn parts_of(
    store: &Store,
    repository: &RepositoryName,
    manifest: Digest,
) -> Result<Vec<Digest>, PinError> {
    let (mut parts, mut waiting) = (BTreeSet::from([manifest]), VecDeque::from([manifest]));
    while let Some(digest) = waiting.pop_front() {
        let Some(stored) = store.manifest(repository, &digest)? else { continue };
        let manifest = Manifest::parse(Some(&stored.media_type), &stored.bytes);
        let manifest = manifest.map_err(ReadError::store)?;
        parts.extend(manifest.required_blobs().map(|blob| blob.digest));
        let members = manifest.manifests.iter().map(|member| member.digest);
        waiting.extend(members.filter(|member| parts.insert(*member)));
        if parts.len() > MAX_PINNED_PARTS {
            let reason = format!("an image with more than {MAX_PINNED_PARTS} parts is not pinned");
            return Err(PinError::TooLarge(reason));
        }
    }
    Ok(parts.into_iter().collect())
}
