//! The descriptor: a typed, sized pointer to content by digest.
//!
//! Decides which fields are kept (all that the image specification names) and that a digest of
//! an unknown algorithm, a negative size or a missing media type is an error. Never follows
//! `urls` and never trusts `data`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;

/// A content descriptor (image-spec, descriptor.md, "Properties").
///
/// JSON field names are camelCase; absent and `null` are the same; empty fields are not written;
/// fields that the specification does not name are dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the content, without parameters.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size of the content in bytes.
    pub size: u64,
    /// Where else the content can be had; used by non-distributable layers.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free key and value pairs.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Type of the artifact, when the content is a manifest of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Platform of an index member, kept as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<serde_json::Value>,
    /// The content itself in base64, kept as it came and not trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl Descriptor {
    /// A descriptor with the three required fields.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            artifact_type: None,
            platform: None,
            data: None,
        }
    }

    /// Reads one descriptor from JSON, as [`Descriptor::to_json`] wrote it.
    ///
    /// # Errors
    /// The JSON error if the bytes are not a descriptor.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The descriptor as compact JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a descriptor has string keys and writes to memory")
    }
}

/// Reads `null` like an absent field; Go writes nil slices and maps that way.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimal_descriptor_writes_three_fields() {
        let digest = Digest::sha256(b"x");
        let descriptor = Descriptor::new("text/plain", digest, 1);
        let expected = format!(r#"{{"mediaType":"text/plain","digest":"{digest}","size":1}}"#);
        assert_eq!(String::from_utf8(descriptor.to_json()).unwrap(), expected);
        assert_eq!(Descriptor::from_json(expected.as_bytes()).unwrap(), descriptor);
    }

    #[test]
    fn full_descriptor_survives_a_round_trip() {
        let mut descriptor = Descriptor::new("text/plain", Digest::sha256(b"x"), u64::MAX);
        descriptor.urls = vec!["https://example.com/x".to_owned()];
        descriptor.annotations.insert("a".to_owned(), "b".to_owned());
        descriptor.artifact_type = Some("text/sig".to_owned());
        descriptor.platform = Some(serde_json::json!({"os": "linux", "architecture": "amd64"}));
        descriptor.data = Some("eA==".to_owned());
        assert_eq!(Descriptor::from_json(&descriptor.to_json()).unwrap(), descriptor);
    }

    #[test]
    fn null_collections_are_empty_and_unknown_fields_are_dropped() {
        let digest = Digest::sha256(b"x");
        let json = format!(
            r#"{{"mediaType":"a/b","digest":"{digest}","size":0,"urls":null,"annotations":null,"new":[]}}"#
        );
        let read = Descriptor::from_json(json.as_bytes()).unwrap();
        assert_eq!(read, Descriptor::new("a/b", digest, 0));
    }

    #[test]
    fn bad_fields_are_errors() {
        let digest = Digest::sha256(b"x");
        for json in [
            format!(r#"{{"digest":"{digest}","size":0}}"#),
            format!(r#"{{"mediaType":"a/b","digest":"{digest}"}}"#),
            format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":-1}}"#),
            format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":1.5}}"#),
            format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":18446744073709551616}}"#),
            format!(r#"{{"mediaType":"a/b","digest":"{digest}","digest":"{digest}","size":0}}"#),
            r#"{"mediaType":"a/b","digest":"sha256:00","size":0}"#.to_owned(),
            r#"{"mediaType":"a/b","digest":"md5:00","size":0}"#.to_owned(),
        ] {
            assert!(Descriptor::from_json(json.as_bytes()).is_err(), "{json}");
        }
    }
}
