//! Names of registries that are mirrored, and of their repositories in this swarm.
//!
//! Decides which repository names belong to other registries: those whose first part has a dot, as
//! `docker.io/library/alpine`, and more parts after it. All others are the swarm's own. So neither can stand for the
//! other. A port is written after `_`, which no host name has: `registry.example:5000/app` is
//! `registry.example_5000/app` here.

use std::fmt;
use std::str::FromStr;

use crate::reference::{MAX_HOST_BYTES, ReferenceError, RepositoryName};
use crate::text::serde_as_text;

/// The registry for which clients imply `library/` before names of one part.
const DOCKER_HUB: &str = "docker.io";
/// What they imply.
const OFFICIAL: &str = "library/";

/// Host and port of another registry, such as `docker.io` or `registry.example:5000`: lower case, with a
/// dot in the host, and a repository name when the port is written after `_`.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct UpstreamHost(String);

impl UpstreamHost {
    /// As clients write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the port.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.split_once(':').map_or(self.0.as_str(), |(host, _)| host)
    }

    /// The name that `repository` of this registry has here.
    ///
    /// # Errors
    /// [`ReferenceError::Name`] if that is too long.
    pub fn name_here(&self, repository: &RepositoryName) -> Result<RepositoryName, ReferenceError> {
        let implied = self.0 == DOCKER_HUB && !repository.as_str().contains('/');
        let official = if implied { OFFICIAL } else { "" };
        format!("{}/{official}{repository}", self.first_part()).parse()
    }

    fn first_part(&self) -> String {
        self.0.replace(':', "_")
    }
}

impl FromStr for UpstreamHost {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let is_label = |label: &str| {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            label.bytes().all(inner)
                && !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_host = host.contains('.') && host.split('.').all(is_label);
        let is_port = |port: &str| {
            let digits = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
            digits && port.parse::<u16>().is_ok()
        };
        if text.len() <= MAX_HOST_BYTES && is_host && port.is_none_or(is_port) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ReferenceError::Host)
        }
    }
}

impl fmt::Display for UpstreamHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UpstreamHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(UpstreamHost, "a registry such as docker.io or registry.example:5000");

/// A repository of another registry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mirrored {
    /// The registry.
    pub host: UpstreamHost,
    /// The name that the repository has there.
    pub repository: RepositoryName,
}

impl Mirrored {
    /// What `name` stands for, if it belongs to another registry. `library/` is implied for Docker Hub.
    #[must_use]
    pub fn of(name: &RepositoryName) -> Option<Self> {
        let (first, rest) = name.as_str().split_once('/')?;
        let (host, port) = match first.rsplit_once('_') {
            Some((host, port)) => (host, Some(port)),
            None => (first, None),
        };
        let text = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let host: UpstreamHost = text.parse().ok()?;
        let official = if host.0 == DOCKER_HUB && !rest.contains('/') { OFFICIAL } else { "" };
        let repository = format!("{official}{rest}").parse().ok()?;
        Some(Self { host, repository })
    }

    /// Whether `name` belongs to another registry: its first part has a dot, and there are more.
    #[must_use]
    pub fn is_reserved(name: &RepositoryName) -> bool {
        name.as_str().split_once('/').is_some_and(|(first, _)| first.contains('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        text.parse().expect("a name")
    }

    #[test]
    fn names_here_and_there_are_each_others_inverse() {
        for (host, there, here) in [
            ("docker.io", "library/alpine", "docker.io/library/alpine"),
            ("ghcr.io", "team/app", "ghcr.io/team/app"),
            ("quay.io", "app", "quay.io/app"),
            ("registry.example:5000", "a/b/c", "registry.example_5000/a/b/c"),
            ("192.0.2.1:80", "a", "192.0.2.1_80/a"),
        ] {
            let host: UpstreamHost = host.parse().expect("a host");
            assert_eq!(host.name_here(&name(there)), Ok(name(here)));
            let mirrored = Mirrored::of(&name(here)).expect("mirrored");
            assert_eq!(mirrored, Mirrored { host, repository: name(there) });
            assert!(Mirrored::is_reserved(&name(here)));
        }
    }

    #[test]
    fn library_is_implied_for_docker_hub_only() {
        let hub: UpstreamHost = "docker.io".parse().expect("a host");
        assert_eq!(hub.name_here(&name("alpine")), Ok(name("docker.io/library/alpine")));
        let mirrored = Mirrored::of(&name("docker.io/alpine")).expect("mirrored");
        assert_eq!(mirrored.repository, name("library/alpine"));
        let other = Mirrored::of(&name("quay.io/alpine")).expect("mirrored");
        assert_eq!(other.repository, name("alpine"));
    }

    #[test]
    fn the_swarms_own_names_are_nobody_elses() {
        for own in ["app", "team/app", "team_1/app", "my-team/app", "localhost/app", "docker.io"] {
            assert_eq!(Mirrored::of(&name(own)), None, "{own}");
            assert!(!Mirrored::is_reserved(&name(own)), "{own}");
        }
        // No host, but nobody's own either: a later version may read more.
        for odd in ["a.b_x/app", "a.b__5000/app", "a.b_0/app", "a.b_99999/app"] {
            assert_eq!(Mirrored::of(&name(odd)), None, "{odd}");
            assert!(Mirrored::is_reserved(&name(odd)), "{odd}");
        }
    }

    #[test]
    fn hosts_are_read_strictly() {
        for bad in [
            "",
            ".",
            "a",
            "harbor",
            "localhost",
            "localhost:5000",
            "a.",
            ".a",
            "a..b",
            "A.b",
            "a.b:",
            "a.b:0",
            "a.b:05",
            "a.b:65536",
            "a.b:x",
            "a.b:1:2",
            "a.b/c",
            "u@a.b",
            "a_c.b",
            "-a.b",
            "a.b-",
            "[::1]:5000",
            "a.b ",
            "a.b?x",
            "a.b#",
        ] {
            assert_eq!(bad.parse::<UpstreamHost>(), Err(ReferenceError::Host), "{bad}");
        }
        let long = format!("{}.io", "a".repeat(MAX_HOST_BYTES));
        assert!(long.parse::<UpstreamHost>().is_err());
        assert_eq!(
            "a.b:65535".parse::<UpstreamHost>().map(|h| h.host().to_owned()),
            Ok("a.b".into())
        );
    }
}
