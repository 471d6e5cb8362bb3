//! A node asks another to bring an image to its disk, and how that gets on.
//!
//! Decides the form only. One request both begins a run and asks after it: sent again it changes
//! nothing, so an answer that was lost costs nothing.

use ddr_oci::platform::MAX_PLATFORM_BYTES;
use ddr_oci::{Digest, RepositoryName};
use serde::{Deserialize, Serialize};

use super::{WireError, at_most};

/// Longest reason in bytes for which a preheat failed.
pub const MAX_PREHEAT_ERROR_BYTES: usize = 256;

/// Bring this image to your disk, or say how that stands.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PreheatOrder {
    /// What the asking node calls this run: chosen at random, the same in all requests about it.
    pub run: [u8; 16],
    /// The repository in whose name everything is asked for.
    pub repository: RepositoryName,
    /// A manifest or an index.
    pub manifest: Digest,
    /// `OS/ARCH[/VARIANT]`: of an index only these; empty for all. At most [`MAX_PLATFORM_BYTES`].
    pub platform: String,
}

/// How a preheat stands.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct PreheatState {
    /// Whether it has ended.
    pub stage: PreheatStage,
    /// Manifests and blobs of the image that are on the disk.
    pub parts_done: u32,
    /// All of them, as far as its manifests are known.
    pub parts: u32,
    /// Bytes of these that are here, also of those on their way.
    pub bytes_done: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Why it failed, at most [`MAX_PREHEAT_ERROR_BYTES`]; empty if it did not.
    pub error: String,
}

/// Whether a preheat has ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum PreheatStage {
    /// Under way.
    #[default]
    Running,
    /// The whole image is here.
    Done,
    /// Something could not be brought here; [`PreheatState::error`] says what.
    Failed,
}

impl PreheatOrder {
    /// Checks the texts against their limits.
    pub fn check_limits(&self) -> Result<(), WireError> {
        at_most(self.platform.len(), MAX_PLATFORM_BYTES, "MAX_PLATFORM_BYTES")
    }
}

impl PreheatState {
    /// Checks the texts against their limits.
    pub fn check_limits(&self) -> Result<(), WireError> {
        at_most(self.error.len(), MAX_PREHEAT_ERROR_BYTES, "MAX_PREHEAT_ERROR_BYTES")
    }
}
