//! Names of images in containerd, and what they point to.
//!
//! Decides which of them are names of a registry's repository: those with a host, and a tag or digest. CRI
//! keeps others beside them, such as the digest of an image's configuration, which are left out.

use ddr_oci::{Digest, ImageReference, Reference};

use crate::content::{Source, is_host};
use crate::messages::ImageInfo;

/// Most images that are kept; the rest is left out, with a warning.
pub const MAX_IMAGES: usize = 20_000;

/// An image as containerd names it: `registry.example:5000/team/app:1.0`. Its content may be there in part only.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct Image {
    /// Registry, with its port unlike in [`crate::Content::sources`], and repository.
    pub source: Source,
    /// Its tag, or the digest by which it was pulled.
    pub reference: Reference,
    /// The manifest or index that it points to.
    pub target: Digest,
    /// A namespace of containerd that has it.
    pub namespace: String,
}

impl Image {
    /// What containerd says of an image; `None`: it is not of a registry, or its digest is none of ours.
    pub(crate) fn of(info: &ImageInfo, namespace: &str) -> Option<Self> {
        let name: ImageReference = info.name.parse().ok()?;
        let host = name.host.filter(|host| is_host(host))?;
        let target = info.target.as_ref()?.digest.parse().ok()?;
        let source = Source { host, repository: name.repository };
        Some(Self { source, reference: name.reference, target, namespace: namespace.to_owned() })
    }
}

/// Each name once, in their order; where two namespaces say the same, as the first of them has it.
pub(crate) fn each_once(mut images: Vec<Image>) -> Vec<Image> {
    images.sort_unstable();
    images.dedup_by(|a, b| {
        (&a.source, &a.reference, &a.target) == (&b.source, &b.reference, &b.target)
    });
    let left_out = images.len().saturating_sub(MAX_IMAGES);
    if left_out > 0 {
        tracing::warn!(left_out, "containerd has more images than are read");
        images.truncate(MAX_IMAGES);
    }
    images
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Target;

    fn image(name: &str, namespace: &str) -> Option<Image> {
        let digest = Digest::sha256(b"x").to_string();
        Image::of(&ImageInfo { name: name.to_owned(), target: Some(Target { digest }) }, namespace)
    }

    #[test]
    fn names_of_registries_are_images() {
        let hex = Digest::sha256(b"y").to_string();
        for (name, source, reference) in [
            ("docker.io/library/alpine:3", "docker.io/library/alpine", "3"),
            ("registry.example:5000/a/b:1", "registry.example:5000/a/b", "1"),
            (&format!("quay.io/app@{hex}"), "quay.io/app", &hex),
            (&format!("quay.io/app:1@{hex}"), "quay.io/app", &hex),
        ] {
            let image = image(name, "default").expect("an image");
            assert_eq!(
                (image.source.to_string(), image.reference.to_string()),
                (source.into(), reference.into())
            );
        }
    }

    #[test]
    fn other_names_are_left_out() {
        for name in ["", &Digest::sha256(b"y").to_string(), "local:1", "team/app:1", "a.b/Upper:1"]
        {
            assert_eq!(image(name, "default"), None, "{name}");
        }
        let name = "quay.io/app:1".to_owned();
        assert_eq!(Image::of(&ImageInfo { name: name.clone(), target: None }, "default"), None);
        let target = Some(Target { digest: "md5:00".to_owned() });
        assert_eq!(Image::of(&ImageInfo { name, target }, "default"), None);
    }

    #[test]
    fn each_is_given_once() {
        let images = [("quay.io/b:1", "k8s.io"), ("quay.io/a:1", "x"), ("quay.io/b:1", "default")];
        let images = images.iter().filter_map(|(name, namespace)| image(name, namespace)).collect();
        let got: Vec<String> = each_once(images).into_iter().map(|i| i.namespace).collect();
        assert_eq!(got, ["x", "default"]);
    }
}
