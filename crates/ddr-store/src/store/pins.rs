//! What an operator has pinned, and how much there is.

use super::Store;
use crate::error::IndexError;
use crate::index::PinnedImage;
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;

impl Store {
    /// Pins an image: its parts stay, whatever is collected or evicted, until it is unpinned or its manifest
    /// is deleted. Parts that are not here are the answer; then nothing is pinned.
    ///
    /// # Errors
    /// [`IndexError`]; `TooLarge` beyond [`crate::MAX_PINS`], [`crate::MAX_PINNED_PARTS`] and
    /// [`crate::MAX_PIN_LABEL_BYTES`].
    pub fn pin_image(&self, image: &PinnedImage) -> Result<Vec<Digest>, IndexError> {
        self.inner.index.pin_image(image)
    }

    /// Ends a pin; whether there was one.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn unpin_image(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<bool, IndexError> {
        self.inner.index.unpin_image(repository, manifest)
    }

    /// All pinned images.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn pinned_images(&self) -> Result<Vec<PinnedImage>, IndexError> {
        self.inner.index.pinned_images()
    }

    /// Bytes of all blobs.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn blob_bytes(&self) -> Result<u64, IndexError> {
        self.inner.index.blob_bytes()
    }
}
