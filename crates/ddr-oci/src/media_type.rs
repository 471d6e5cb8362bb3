//! The media types that mean something here.
//!
//! Decides which types are manifests and which layers are not distributed. Never converts one
//! type into another: bytes and type leave as they came.

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, plain tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, tar with gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, tar with zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The two-byte `{}` that stands where an artifact needs no content (image-spec, manifest.md).
pub const EMPTY_JSON: &str = "application/vnd.oci.empty.v1+json";
/// Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, tar with gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker image manifest, version 2 schema 1. Refused: it is unsigned by digest in practice.
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Docker image manifest, version 2 schema 1, signed. Refused.
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Bytes of no stated type; what blobs are served as.
pub const OCTET_STREAM: &str = "application/octet-stream";
/// Plain JSON; what errors and lists are served as.
pub const JSON: &str = "application/json";

/// Every layer type that is fetched from its `urls` and never pushed.
const NON_DISTRIBUTABLE: [&str; 4] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// The type without parameters: what stands before the first `;`, without blanks around it.
#[must_use]
pub fn essence(content_type: &str) -> &str {
    content_type.split_once(';').map_or(content_type, |(essence, _)| essence).trim()
}

/// Whether a layer of this type is never pushed (image-spec, layer.md, "Non-Distributable
/// Layers"; docker's foreign layers).
#[must_use]
pub fn is_non_distributable(media_type: &str) -> bool {
    NON_DISTRIBUTABLE.contains(&media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn essence_drops_parameters_and_blanks() {
        assert_eq!(essence("application/json; charset=utf-8"), JSON);
        assert_eq!(essence(" application/json ;x"), JSON);
        assert_eq!(essence(OCI_INDEX), OCI_INDEX);
        assert_eq!(essence(""), "");
    }

    #[test]
    fn only_foreign_layers_are_non_distributable() {
        assert!(NON_DISTRIBUTABLE.iter().all(|media_type| is_non_distributable(media_type)));
        for pushed in [OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, DOCKER_LAYER_GZIP, EMPTY_JSON] {
            assert!(!is_non_distributable(pushed), "{pushed}");
        }
    }
}
