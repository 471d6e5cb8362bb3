//! Everything that an image needs: its manifests and their blobs.
//!
//! Asks for one manifest after the other and is given bytes, wherever they come from: an archive or
//! a registry. It believes no bytes without their digest.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ddr_oci::{Descriptor, Digest, Manifest, ManifestKind, Platform};

use super::{ArchiveError, MAX_CLOSURE_BYTES, MAX_MANIFESTS};

/// What an image needs.
#[derive(Debug, Default)]
pub struct Closure {
    /// Manifests and indexes with their bytes, the root first.
    pub manifests: Vec<(Descriptor, Bytes)>,
    /// Configs and layers, each once, in the order of their digests.
    pub blobs: BTreeMap<Digest, Descriptor>,
}

impl Closure {
    /// Bytes of all blobs.
    #[must_use]
    pub fn blob_bytes(&self) -> u64 {
        self.blobs.values().map(|blob| blob.size).fold(0, u64::saturating_add)
    }
}

/// A walk from a root to everything below it.
#[derive(Debug)]
pub struct Walk {
    waiting: Vec<Descriptor>,
    seen: BTreeSet<Digest>,
    bytes: u64,
    closure: Closure,
}

impl Walk {
    /// Begins at `root`.
    #[must_use]
    pub fn new(root: Descriptor) -> Self {
        let seen = BTreeSet::from([root.digest]);
        Self { waiting: vec![root], seen, bytes: 0, closure: Closure::default() }
    }

    /// The manifest that is wanted next; nothing when all are there.
    pub fn next_wanted(&mut self) -> Option<Descriptor> {
        self.waiting.pop()
    }

    /// Takes the bytes of a manifest that was wanted.
    ///
    /// # Errors
    ///
    /// [`ArchiveError`] when they are not what the descriptor says, no manifest, or too much.
    pub fn give(&mut self, wanted: Descriptor, bytes: Bytes) -> Result<(), ArchiveError> {
        verify(&wanted, &bytes)?;
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_CLOSURE_BYTES {
            let what = "the size of all manifests of the image".to_owned();
            return Err(ArchiveError::TooLarge { what, limit: MAX_CLOSURE_BYTES });
        }
        let manifest = Manifest::parse(Some(&wanted.media_type), &bytes)
            .map_err(|error| ArchiveError::Manifest { digest: wanted.digest, error })?;
        for member in &manifest.manifests {
            self.want(member)?;
        }
        for blob in manifest.required_blobs() {
            self.need(blob)?;
        }
        self.closure.manifests.push((wanted, bytes));
        Ok(())
    }

    /// The end of a walk that wants nothing more.
    #[must_use]
    pub fn finish(self) -> Closure {
        debug_assert!(self.waiting.is_empty(), "the walk is over");
        self.closure
    }

    fn want(&mut self, member: &Descriptor) -> Result<(), ArchiveError> {
        if !self.seen.insert(member.digest) {
            return Ok(());
        }
        if self.seen.len() > MAX_MANIFESTS {
            let what = "the number of manifests of the image".to_owned();
            return Err(ArchiveError::TooLarge { what, limit: MAX_MANIFESTS as u64 });
        }
        self.waiting.push(member.clone());
        Ok(())
    }

    /// Notes a blob. Two sizes of one digest cannot both be true.
    fn need(&mut self, blob: &Descriptor) -> Result<(), ArchiveError> {
        let known = self.closure.blobs.entry(blob.digest).or_insert_with(|| blob.clone());
        if known.size == blob.size {
            Ok(())
        } else {
            Err(ArchiveError::Size { digest: blob.digest, said: blob.size, is: known.size })
        }
    }
}

/// The first member of an index for this platform; nothing when `root` is no index.
///
/// # Errors
///
/// [`ArchiveError`] when the bytes are not those of `root`, or no member is for the platform.
pub fn member_for(
    root: &Descriptor,
    bytes: &[u8],
    platform: &Platform,
) -> Result<Option<Descriptor>, ArchiveError> {
    verify(root, bytes)?;
    let manifest = Manifest::parse(Some(&root.media_type), bytes)
        .map_err(|error| ArchiveError::Manifest { digest: root.digest, error })?;
    if manifest.kind == ManifestKind::Image {
        return Ok(None);
    }
    let member = manifest.manifests.into_iter().find(|member| platform.admits(member));
    let none = || ArchiveError::Format(format!("{} has no image for {platform}", root.digest));
    member.map(Some).ok_or_else(none)
}

/// Checks bytes against a descriptor.
fn verify(wanted: &Descriptor, bytes: &[u8]) -> Result<(), ArchiveError> {
    let (digest, said, size) = (wanted.digest, wanted.size, bytes.len() as u64);
    if said != size {
        return Err(ArchiveError::Size { digest, said, is: size });
    }
    match Digest::of(digest.algorithm(), bytes) {
        is if is == digest => Ok(()),
        is => Err(ArchiveError::Digest { digest, is: Box::new(is) }),
    }
}
