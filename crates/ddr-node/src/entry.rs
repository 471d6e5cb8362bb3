//! A parsed manifest as the store's index takes it.

use ddr_oci::Manifest;
use ddr_store::ManifestEntry;

use crate::ManifestContent;

/// The entry of `content`.
///
/// Only required blobs become readable through it. The children of an index are manifests and are
/// not linked: naming a digest in an index must not make a blob of another repository readable.
pub(crate) fn of(content: &ManifestContent, manifest: &Manifest) -> ManifestEntry {
    let subject = manifest.subject.as_ref().map(|subject| {
        let own = manifest.referrer_descriptor(content.digest, content.bytes.len() as u64);
        (subject.digest, own.to_json())
    });
    ManifestEntry {
        digest: content.digest,
        media_type: content.media_type.clone(),
        bytes: content.bytes.to_vec(),
        children: manifest.required_blobs().map(|blob| blob.digest).collect(),
        subject,
    }
}
