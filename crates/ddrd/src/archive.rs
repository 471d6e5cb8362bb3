//! Images in files: OCI image layouts (image-spec, image-layout.md) and docker archives, in a
//! directory or in a tar.
//!
//! Decides which images a file holds, what they are called and where their bytes are, and how an
//! export looks. All of it comes from strangers: no path leads out of the archive, no size and no
//! digest is believed, and memory stays within the limits named here whatever the file says. It
//! must never talk to a registry and never convert content.

mod closure;
mod docker;
mod error;
mod files;
mod layout;
mod members;
mod name;
mod section;
mod spool;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use ddr_oci::{Descriptor, Digest, MAX_MANIFEST_BYTES};

pub use closure::{Closure, Walk, member_for};
pub use error::ArchiveError;
use files::Files;
pub use layout::{INDEX, LAYOUT, MARK, blob_path};
pub use name::Name;
pub use section::Section;
pub use write::{Target, Writer};

/// Files in one tar.
pub const MAX_MEMBERS: usize = 65_536;
/// Bytes of a file's name in a tar.
pub const MAX_NAME_BYTES: usize = 512;
/// Bytes of an extended header of a tar (a long name, or what pax adds).
pub const MAX_EXTENSION_BYTES: u64 = 64 * 1024;
/// Bytes after the end mark of a tar; GNU tar fills up to 10 KiB.
pub const MAX_PADDING_BYTES: u64 = 1024 * 1024;
/// Links that are followed from one name.
pub const MAX_LINKS: usize = 8;
/// Bytes that a compressed archive, or one from a pipe, may have when it is unpacked.
pub const MAX_SPOOL_BYTES: u64 = 1 << 40;
/// Images in one archive.
pub const MAX_IMAGES: usize = 4096;
/// Bytes of the config of an image in a docker archive.
pub const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;
/// Manifests of one image with all its platforms.
pub const MAX_MANIFESTS: usize = 1024;
/// Bytes of all of them; they are kept in memory.
pub const MAX_CLOSURE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes that are read and sent at one time.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// One image of an archive.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its manifest or index.
    pub root: Descriptor,
    /// What the archive calls it, if anything.
    pub name: Option<Name>,
}

/// An archive whose images are known. Blobs are read when they are asked for.
#[derive(Debug)]
pub struct Archive {
    files: Files,
    images: Vec<Image>,
    /// Manifests that were made here, for images of docker archives, which have none.
    made: BTreeMap<Digest, Bytes>,
    /// Configs and layers of docker archives; their names say nothing about their digests.
    found: BTreeMap<Digest, Section>,
}

impl Archive {
    /// Opens a directory or a tar; `-` is standard input. A pipe and a gzip go to a temporary file
    /// first. Where both an OCI layout and docker's manifest.json are there, the layout counts.
    ///
    /// Blocks: docker archives are read once as a whole, because only their bytes tell the digests.
    ///
    /// # Errors
    ///
    /// See [`ArchiveError`].
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let mut archive = Self {
            files: Files::open(path)?,
            images: Vec::new(),
            made: BTreeMap::new(),
            found: BTreeMap::new(),
        };
        if let Some(images) = layout::images(&archive.files)? {
            archive.images = images;
        } else if !docker::read(&mut archive)? {
            return Err(ArchiveError::Format(
                "neither an OCI layout (oci-layout, index.json) nor a docker archive (manifest.json)"
                    .into(),
            ));
        }
        if archive.images.is_empty() {
            return Err(ArchiveError::Format("the archive holds no image".into()));
        }
        Ok(archive)
    }

    /// The images, in the order of the archive. Several can have the same root.
    #[must_use]
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The bytes of a manifest. Not verified; [`Walk::give`] does that.
    ///
    /// # Errors
    ///
    /// See [`ArchiveError`].
    pub fn manifest(&self, wanted: &Descriptor) -> Result<Bytes, ArchiveError> {
        if let Some(bytes) = self.made.get(&wanted.digest) {
            return Ok(bytes.clone());
        }
        let section = self.section(wanted)?;
        section.read_all(&blob_path(&wanted.digest), MAX_MANIFEST_BYTES as u64).map(Bytes::from)
    }

    /// Where a blob is. Its size is that of the descriptor; its digest is not verified.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Missing`] and [`ArchiveError::Size`].
    pub fn blob(&self, wanted: &Descriptor) -> Result<Section, ArchiveError> {
        let section = self.section(wanted)?;
        if section.size() != wanted.size {
            return Err(ArchiveError::Size {
                digest: wanted.digest,
                said: wanted.size,
                is: section.size(),
            });
        }
        Ok(section)
    }

    /// Everything that an image needs.
    ///
    /// # Errors
    ///
    /// See [`ArchiveError`].
    pub fn closure(&self, root: &Descriptor) -> Result<Closure, ArchiveError> {
        let mut walk = Walk::new(root.clone());
        while let Some(wanted) = walk.next_wanted() {
            let bytes = self.manifest(&wanted)?;
            walk.give(wanted, bytes)?;
        }
        Ok(walk.finish())
    }

    /// Whether opening has read a blob and knows its digest.
    #[must_use]
    pub fn is_verified(&self, digest: &Digest) -> bool {
        self.found.contains_key(digest)
    }

    fn section(&self, wanted: &Descriptor) -> Result<Section, ArchiveError> {
        if let Some(section) = self.found.get(&wanted.digest) {
            return Ok(section.clone());
        }
        let found = self.files.find(&blob_path(&wanted.digest))?;
        found.ok_or_else(|| ArchiveError::Missing {
            digest: wanted.digest,
            media_type: wanted.media_type.clone(),
        })
    }
}
