//! Which images an operator has pinned.
//!
//! Decides that a pin is a lease without end on each part of an image: so whatever honours leases honours pins.
//! Parts that several images share are free when the last of their pins is gone. A pin goes with its manifest,
//! in the same transaction; the removal of a tag does not concern it.

use super::keys::{self, Key};
use super::{DigestKey, Index, LEASES, LINKS, REVISIONS, outside};
use crate::error::IndexError;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

/// (repository, manifest) -> (what the operator called it, digest keys of its parts one after the other).
pub(super) const PINS: TableDefinition<'_, (&str, DigestKey), (&str, &[u8])> =
    TableDefinition::new("pins");
/// (part, repository, manifest): the part is pinned with this image.
pub(super) const PINNED: TableDefinition<'_, (DigestKey, &str, DigestKey), ()> =
    TableDefinition::new("pinned");

/// How many tables there are here.
pub(super) const PIN_TABLES: usize = 2;

/// Manifests and blobs of one pinned image.
pub const MAX_PINNED_PARTS: usize = 8192;
/// Pinned images.
pub const MAX_PINS: usize = 4096;
/// Bytes of the words that an image was pinned by.
pub const MAX_PIN_LABEL_BYTES: usize = 1024;

/// When a pin ends.
const NEVER: u64 = u64::MAX;

/// An image that is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedImage {
    /// The repository.
    pub repository: RepositoryName,
    /// Its manifest or index.
    pub manifest: Digest,
    /// What the operator called it.
    pub label: String,
    /// The manifest, its members and their blobs.
    pub parts: Vec<Digest>,
}

/// The tables, created where they are missing.
pub(super) fn create_tables(t: &WriteTransaction) -> Result<(), IndexError> {
    t.open_table(PINS)?;
    t.open_table(PINNED)?;
    Ok(())
}

/// Ends the pin of a manifest; whether there was one.
pub(super) fn unpin(
    t: &WriteTransaction,
    repository: &str,
    manifest: &[u8],
) -> Result<bool, IndexError> {
    let mut pins = t.open_table(PINS)?;
    let Some(row) = pins.remove((repository, manifest))? else { return Ok(false) };
    let mut pinned = t.open_table(PINNED)?;
    let mut leases = t.open_table(LEASES)?;
    for part in keys::split(row.value().1)? {
        pinned.remove((part, repository, manifest))?;
        let elsewhere = match pinned.range((part, "", &[][..])..)?.next() {
            Some(row) => row?.0.value().0 == part,
            None => false,
        };
        let is_ours = leases.get(part)?.is_some_and(|until| until.value() == NEVER);
        if is_ours && !elsewhere {
            leases.remove(part)?;
        }
    }
    Ok(true)
}

/// Those of `parts` that are not in the repository here.
fn absent(
    t: &WriteTransaction,
    repository: &str,
    parts: &[Digest],
) -> Result<Vec<Digest>, IndexError> {
    let (revisions, links) = (t.open_table(REVISIONS)?, t.open_table(LINKS)?);
    let mut absent = Vec::new();
    for part in parts {
        let key = Key::of(part);
        let is_blob =
            links.get((repository, key.get()))?.is_some() && outside::is_kept(t, key.get())?;
        if !is_blob && revisions.get((repository, key.get()))?.is_none() {
            absent.push(*part);
        }
    }
    Ok(absent)
}

impl Index {
    /// Pins an image, unless some of its parts are not here: then nothing is pinned, and those are the answer.
    pub(crate) fn pin_image(&self, image: &PinnedImage) -> Result<Vec<Digest>, IndexError> {
        super::names::check("the name of a pin", image.label.len(), MAX_PIN_LABEL_BYTES)?;
        super::names::check("a pinned image", image.parts.len(), MAX_PINNED_PARTS)?;
        let name = image.repository.as_str();
        let manifest = Key::of(&image.manifest);
        self.write(|t| {
            let absent = absent(t, name, &image.parts)?;
            if !absent.is_empty() {
                return Ok(absent);
            }
            unpin(t, name, manifest.get())?;
            let mut pins = t.open_table(PINS)?;
            super::names::check("the list of pins", pins.len()? as usize + 1, MAX_PINS)?;
            let (mut pinned, mut leases) = (t.open_table(PINNED)?, t.open_table(LEASES)?);
            let mut list = Vec::new();
            for part in &image.parts {
                let key = Key::of(part);
                pinned.insert((key.get(), name, manifest.get()), ())?;
                leases.insert(key.get(), NEVER)?;
                list.extend_from_slice(key.get());
            }
            let row = (image.label.as_str(), list.as_slice());
            pins.insert((name, manifest.get()), row)?;
            Ok(absent)
        })
    }

    pub(crate) fn unpin_image(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<bool, IndexError> {
        self.write(|t| unpin(t, repository.as_str(), Key::of(manifest).get()))
    }

    /// All pinned images, at most [`MAX_PINS`].
    pub(crate) fn pinned_images(&self) -> Result<Vec<PinnedImage>, IndexError> {
        self.read(|t| {
            let mut images = Vec::new();
            for row in t.open_table(PINS)?.iter()?.take(MAX_PINS) {
                let (key, row) = row?;
                let (name, manifest) = key.value();
                let (label, parts) = row.value();
                let parts = keys::split(parts)?.into_iter().map(keys::digest);
                images.push(PinnedImage {
                    repository: keys::name(name)?,
                    manifest: keys::digest(manifest)?,
                    label: label.to_owned(),
                    parts: parts.collect::<Result<_, _>>()?,
                });
            }
            Ok(images)
        })
    }
}
