//! One entry of the content store, and where its bytes once came from.
//!
//! Decides what of containerd's labels is believed: names that are none are left out, and so is content under
//! a digest that could not be verified.

use std::fmt;

use ddr_oci::reference::MAX_HOST_BYTES;
use ddr_oci::{Digest, Mirrored, RepositoryName, UpstreamHost};

use crate::messages::Info;

/// Most sources that are kept of one entry; the rest, in order of host and repository, is left out.
pub const MAX_SOURCES: usize = 64;

/// `containerd.io/distribution.source.HOST` = `REPOSITORY,REPOSITORY`, written by a pull.
const SOURCE_LABEL: &str = "containerd.io/distribution.source.";
/// `containerd.io/gc.ref.content`, or more after a dot: what this entry keeps from being collected.
const CHILD_LABEL: &str = "containerd.io/gc.ref.content";

/// Content that is whole in containerd's store. That its bytes fit the digest is containerd's word only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    /// Its name.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// A namespace of containerd in which it can be read.
    pub namespace: String,
    /// Where it was pulled from, sorted, each once, at most [`MAX_SOURCES`]. Empty for what was imported or
    /// built.
    pub sources: Vec<Source>,
    /// It names other content: a manifest or an index. An image without layers and configuration in the
    /// store (a pull of one platform leaves the manifests of others out) may lack this.
    pub has_children: bool,
}

/// A repository of a registry. In [`Content::sources`] the registry's port is missing: containerd leaves it
/// out there. [`crate::Image::source`] has it.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Source {
    /// The registry: letters, digits and `.-_:[]`, at most [`MAX_HOST_BYTES`].
    pub host: String,
    /// The repository's name there.
    pub repository: RepositoryName,
}

impl Source {
    /// The registry and repository, if the registry can be mirrored: `localhost` cannot.
    #[must_use]
    pub fn mirrored(&self) -> Option<Mirrored> {
        let host: UpstreamHost = self.host.parse().ok()?;
        Some(Mirrored { host, repository: self.repository.clone() })
    }

    /// The name that the repository has in this swarm, `docker.io/library/alpine`, if its registry can be
    /// mirrored and that is not too long.
    #[must_use]
    pub fn name_here(&self) -> Option<RepositoryName> {
        let Mirrored { host, repository } = self.mirrored()?;
        host.name_here(&repository).ok()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Content {
    /// What containerd says of an entry; `None`: its digest is none of ours, or its size is none.
    pub(crate) fn of(info: &Info, namespace: &str) -> Option<Self> {
        let digest = info.digest.parse().ok()?;
        let size = u64::try_from(info.size).ok()?;
        let has_children = info.labels.keys().any(|label| is_child(label));
        let mut content = Self {
            digest,
            size,
            namespace: namespace.to_owned(),
            sources: Vec::new(),
            has_children,
        };
        for (label, value) in &info.labels {
            let Some(host) = label.strip_prefix(SOURCE_LABEL).filter(|host| is_host(host)) else {
                continue;
            };
            content.add_sources(sources(host, value));
        }
        Some(content)
    }

    /// The same content in another namespace: it is one entry, and its sources are those of both.
    pub(crate) fn join(&mut self, other: Self) {
        self.has_children |= other.has_children;
        self.add_sources(other.sources);
    }

    fn add_sources(&mut self, more: impl IntoIterator<Item = Source>) {
        self.sources.extend(more);
        self.sources.sort_unstable();
        self.sources.dedup();
        self.sources.truncate(MAX_SOURCES);
    }
}

fn sources(host: &str, repositories: &str) -> impl Iterator<Item = Source> {
    let names = repositories.split(',').filter_map(|name| name.trim().parse().ok());
    names.map(|repository| Source { host: host.to_owned(), repository })
}

fn is_child(label: &str) -> bool {
    label.strip_prefix(CHILD_LABEL).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

pub(crate) fn is_host(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    !text.is_empty() && text.len() <= MAX_HOST_BYTES && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(labels: &[(&str, &str)]) -> Info {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Info { digest: Digest::sha256(b"x").to_string(), size: 1, labels }
    }

    fn sources_of(labels: &[(&str, &str)]) -> Vec<String> {
        let content = Content::of(&info(labels), "default").expect("content");
        content.sources.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sources_come_from_labels() {
        let labels = [
            (
                "containerd.io/distribution.source.docker.io",
                "library/alpine,team/app,library/alpine",
            ),
            ("containerd.io/distribution.source.ghcr.io", "team/app"),
            ("containerd.io/uncompressed", "sha256:00"),
        ];
        assert_eq!(
            sources_of(&labels),
            ["docker.io/library/alpine", "docker.io/team/app", "ghcr.io/team/app"]
        );
    }

    #[test]
    fn names_that_are_none_are_left_out() {
        let label = |host: &str| format!("{SOURCE_LABEL}{host}");
        let long = label(&"a".repeat(MAX_HOST_BYTES + 1));
        for host in [&label(""), &label("a/b"), &label("a b"), &long] {
            assert!(sources_of(&[(host, "app")]).is_empty(), "{host}");
        }
        assert_eq!(sources_of(&[(&label("quay.io"), ",Upper,../x,app,")]), ["quay.io/app"]);
    }

    #[test]
    fn sources_have_a_limit() {
        let many: Vec<String> = (0..2 * MAX_SOURCES).map(|i| format!("r{i:03}")).collect();
        let got = sources_of(&[("containerd.io/distribution.source.quay.io", &many.join(","))]);
        assert_eq!(got.len(), MAX_SOURCES);
        assert_eq!(got[0], "quay.io/r000");
    }

    #[test]
    fn children_make_a_manifest() {
        for (label, has_children) in [
            ("containerd.io/gc.ref.content", true),
            ("containerd.io/gc.ref.content.config", true),
            ("containerd.io/gc.ref.content.l.0", true),
            ("containerd.io/gc.ref.contents", false),
            ("containerd.io/gc.ref.snapshot.overlayfs", false),
        ] {
            let content = Content::of(&info(&[(label, "sha256:00")]), "default").expect("content");
            assert_eq!(content.has_children, has_children, "{label}");
        }
    }

    #[test]
    fn digests_and_sizes_that_are_none_leave_the_entry_out() {
        for digest in ["", "sha256:", "md5:00", "sha256:XY", "blake3:00"] {
            let info = Info { digest: digest.to_owned(), ..info(&[]) };
            assert_eq!(Content::of(&info, "default"), None, "{digest}");
        }
        assert_eq!(Content::of(&Info { size: -1, ..info(&[]) }, "default"), None);
    }

    #[test]
    fn a_source_has_a_name_here() {
        let name = |host: &str, repository: &str| {
            let repository = repository.parse().expect("a name");
            Source { host: host.to_owned(), repository }.name_here().map(|n| n.to_string())
        };
        assert_eq!(
            name("docker.io", "library/alpine").as_deref(),
            Some("docker.io/library/alpine")
        );
        assert_eq!(name("registry.example:5000", "a").as_deref(), Some("registry.example_5000/a"));
        assert_eq!(name("localhost", "a"), None);
    }

    #[test]
    fn two_namespaces_make_one_entry() {
        let from = |host: &str, namespace: &str| {
            let label = format!("{SOURCE_LABEL}{host}");
            Content::of(&info(&[(&label, "app")]), namespace).expect("content")
        };
        let mut one = from("quay.io", "default");
        one.join(from("ghcr.io", "k8s.io"));
        assert_eq!(one.namespace, "default");
        assert_eq!(one.sources.len(), 2);
    }
}
