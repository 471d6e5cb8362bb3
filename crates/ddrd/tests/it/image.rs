//! Images over the registry API: push and pull with every status checked.

use std::net::SocketAddr;

use ddr_oci::digest::Digest;
use ddr_oci::media_type;

use super::http::{self, Answer};

/// Bytes that differ from seed to seed and do not compress.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// Starts an upload session and answers its path.
pub(crate) fn begin(registry: SocketAddr, repository: &str) -> String {
    let path = format!("/v2/{repository}/blobs/uploads/");
    let answer = http::request(registry, "POST", &path, &[], b"");
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.header("location").unwrap().to_owned()
}

/// Ends an upload session with the last `bytes`.
pub(crate) fn end(registry: SocketAddr, session: &str, digest: &Digest, bytes: &[u8]) -> Answer {
    let mark = if session.contains('?') { '&' } else { '?' };
    let path = format!("{session}{mark}digest={digest}");
    http::request(registry, "PUT", &path, &[("Content-Type", media_type::OCTET_STREAM)], bytes)
}

pub(crate) fn push_blob(registry: SocketAddr, repository: &str, bytes: &[u8]) -> Digest {
    let digest = Digest::sha256(bytes);
    let answer = end(registry, &begin(registry, repository), &digest, bytes);
    assert_eq!(answer.status, 201, "{}", answer.text());
    digest
}

/// Pushes an image of these layers and answers the digest of its manifest.
pub(crate) fn push(registry: SocketAddr, repository: &str, tag: &str, layers: &[&[u8]]) -> Digest {
    let config = format!("{{\"rootfs\":{{\"type\":\"layers\"}},\"author\":\"{tag}\"}}");
    let descriptor = |kind: &str, bytes: &[u8]| {
        let digest = push_blob(registry, repository, bytes);
        serde_json::json!({ "mediaType": kind, "digest": digest.to_string(), "size": bytes.len() })
    };
    let config = descriptor(media_type::OCI_CONFIG, config.as_bytes());
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<_> = layers.iter().map(|bytes| descriptor(kind, bytes)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
    });
    let manifest = manifest.to_string().into_bytes();
    let path = format!("/v2/{repository}/manifests/{tag}");
    let headers = [("Content-Type", media_type::OCI_MANIFEST)];
    let answer = http::request(registry, "PUT", &path, &headers, &manifest);
    assert_eq!(answer.status, 201, "{}", answer.text());
    Digest::sha256(&manifest)
}

/// Pulls a tag and everything it names; all digests are checked. Answers the manifest's digest.
pub(crate) fn pull(registry: SocketAddr, repository: &str, tag: &str) -> Digest {
    let path = format!("/v2/{repository}/manifests/{tag}");
    let accept = [("Accept", media_type::OCI_MANIFEST)];
    let answer = http::request(registry, "GET", &path, &accept, b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let manifest = answer.json();
    let mut blobs = manifest["layers"].as_array().unwrap().clone();
    blobs.push(manifest["config"].clone());
    for blob in blobs {
        let digest: Digest = blob["digest"].as_str().unwrap().parse().unwrap();
        let answer = pull_blob(registry, repository, &digest);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(Digest::sha256(&answer.body), digest);
    }
    Digest::sha256(&answer.body)
}

pub(crate) fn pull_blob(registry: SocketAddr, repository: &str, digest: &Digest) -> Answer {
    http::get(registry, &format!("/v2/{repository}/blobs/{digest}"))
}
