//! The tag in which clients kept the referrers of a subject before registries had an API for it.
//!
//! Decides what of it is in the API's answer (distribution-spec, "Enabling the Referrers API"):
//! the entries whose manifest is here or with a peer and names the subject. What the tag says of
//! them is not believed, old clients wrote poor descriptors: they are made anew from the manifest.
//! Must never make the answer depend on the tag: where it cannot be read, the rest is still true.

use std::collections::BTreeMap;

use ddr_node::{ManifestContent, Node, ReadError};
use ddr_oci::digest::Digest;
use ddr_oci::manifest::{Manifest, ManifestKind};
use ddr_oci::reference::{Reference, RepositoryName};
use ddr_oci::{Descriptor, referrers};
use futures_util::stream::{self, StreamExt as _};

use crate::limits::{MAX_FALLBACK_BYTES, MAX_FALLBACK_ENTRIES, MAX_FALLBACK_READS};

/// How much of the tag is in the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Folded {
    /// All, or there is none.
    Whole,
    /// Something could not be read, or there is too much of it.
    Partly,
}

/// Adds what the tag of `subject` knows to `list`.
pub(crate) async fn fold(
    node: &Node,
    name: &RepositoryName,
    subject: &Digest,
    list: &mut BTreeMap<Digest, Descriptor>,
) -> Result<Folded, ReadError> {
    let tag = Reference::Tag(referrers::fallback_tag(subject));
    let index = match node.manifest(name, &tag).await {
        Ok(None) => return Ok(Folded::Whole),
        Ok(Some(index)) => index,
        Err(error @ ReadError::Store(_)) => return Err(error),
        Err(error) => {
            tracing::warn!(%name, %subject, %error, "a referrers tag cannot be read");
            return Ok(Folded::Partly);
        }
    };
    let Some(index) = parsed(&index).filter(|index| index.kind == ManifestKind::Index) else {
        return Ok(Folded::Whole);
    };
    let mut entries: Vec<Digest> = index.manifests.iter().map(|entry| entry.digest).collect();
    entries.retain(|entry| !list.contains_key(entry));
    entries.sort_unstable();
    entries.dedup();
    let mut folded =
        if entries.len() > MAX_FALLBACK_ENTRIES { Folded::Partly } else { Folded::Whole };
    entries.truncate(MAX_FALLBACK_ENTRIES);

    let reads = entries
        .into_iter()
        .map(|entry| async move { (entry, node.manifest(name, &Reference::Digest(entry)).await) });
    let mut reads = stream::iter(reads).buffer_unordered(MAX_FALLBACK_READS);
    let mut bytes_read = 0;
    while let Some((entry, found)) = reads.next().await {
        match found {
            Ok(Some(content)) => {
                bytes_read += content.bytes.len();
                list.extend(referrer(&content, subject).map(|descriptor| (entry, descriptor)));
            }
            Ok(None) => {}
            Err(error @ ReadError::Store(_)) => return Err(error),
            Err(error) => {
                tracing::debug!(%name, %entry, %error, "an entry of a referrers tag is not there");
                folded = Folded::Partly;
            }
        }
        if bytes_read > MAX_FALLBACK_BYTES {
            tracing::warn!(%name, %subject, bytes_read, "a referrers tag is too long");
            return Ok(Folded::Partly);
        }
    }
    Ok(folded)
}

/// How the API lists the manifest, if it refers to `subject`.
fn referrer(content: &ManifestContent, subject: &Digest) -> Option<Descriptor> {
    let manifest = parsed(content)?;
    let refers = manifest.subject.as_ref().is_some_and(|named| named.digest == *subject);
    refers.then(|| manifest.referrer_descriptor(content.digest, content.bytes.len() as u64))
}

fn parsed(content: &ManifestContent) -> Option<Manifest> {
    Manifest::parse(Some(&content.media_type), &content.bytes).ok()
}
