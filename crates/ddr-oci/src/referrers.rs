//! What the referrers API answers, and the tag that stood in for it.
//!
//! Decides the JSON of the answer (distribution-spec, "Listing Referrers"). Never decides which
//! manifests refer to a subject: that is the index of the store.

use serde::Serialize;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::media_type::OCI_INDEX;
use crate::reference::Tag;

/// Characters of the algorithm in a fallback tag (distribution-spec, "Referrers Tag Schema").
const TAG_ALGORITHM_CHARS: usize = 32;

/// Characters of the hash in a fallback tag.
const TAG_HASH_CHARS: usize = 64;

/// The OCI index that lists `descriptors`, as JSON; an empty list gives an empty index.
#[must_use]
pub fn index(descriptors: &[Descriptor]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u8,
        media_type: &'a str,
        manifests: &'a [Descriptor],
    }
    let index = Index { schema_version: 2, media_type: OCI_INDEX, manifests: descriptors };
    serde_json::to_vec(&index).expect("descriptors have string keys and write to memory")
}

/// The tag under which clients without the referrers API keep the list for `subject`.
///
/// `<algorithm>-<hex>`, the parts cut to 32 and 64 characters.
#[must_use]
pub fn fallback_tag(subject: &Digest) -> Tag {
    let algorithm = subject.algorithm().name();
    let algorithm = &algorithm[..algorithm.len().min(TAG_ALGORITHM_CHARS)];
    let hex = subject.hex();
    let hex = &hex[..hex.len().min(TAG_HASH_CHARS)];
    format!("{algorithm}-{hex}").parse().expect("letters, digits and one dash, under 128 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;
    use crate::manifest::{Manifest, ManifestKind};

    #[test]
    fn empty_list_is_an_empty_index() {
        let bytes = index(&[]);
        assert_eq!(
            bytes,
            br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
        );
    }

    #[test]
    fn index_reads_back_as_a_manifest_with_the_same_descriptors() {
        let mut one = Descriptor::new(OCI_INDEX, Digest::sha256(b"1"), 1);
        one.artifact_type = Some("text/sig".to_owned());
        one.annotations.insert("k".to_owned(), "v".to_owned());
        let two = Descriptor::new(OCI_INDEX, Digest::of(Algorithm::Sha512, b"2"), 2);
        let read = Manifest::parse(Some(OCI_INDEX), &index(&[one.clone(), two.clone()])).unwrap();
        assert_eq!(read.kind, ManifestKind::Index);
        assert_eq!(read.manifests, [one, two]);
    }

    #[test]
    fn fallback_tag_cuts_sha512() {
        let short = Digest::sha256(b"");
        assert_eq!(fallback_tag(&short).as_str(), format!("sha256-{}", short.hex()));
        let long = Digest::of(Algorithm::Sha512, b"");
        assert_eq!(fallback_tag(&long).as_str(), format!("sha512-{}", &long.hex()[..64]));
    }
}
