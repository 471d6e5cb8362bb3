//! `ddr setup`: the files by which a container runtime asks this node's registry port first.
//!
//! Decides which files of which client change and what they say then, from what is on disk and nothing
//! else: each client is a pure function from [`Seen`] to a [`Plan`]. It must never write a file that it has not
//! kept a copy of, change what somebody else wrote beyond the mirror itself, or name the mirror as the
//! only source: when `ddrd` is not there, pulls go to the registry as before.

pub mod change;
mod containerd;
mod daemon_json;
mod docker;
mod hosts;
pub mod machine;
mod podman;
pub mod record;
pub mod seen;
pub mod state;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use ddr_oci::UpstreamHost;

use seen::Seen;

/// The runtime that is set up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Client {
    /// Docker Engine: daemon.json, and certs.d for its containerd image store
    Docker,
    /// containerd: a hosts directory, as CRI and nerdctl read it
    Containerd,
    /// podman, buildah and skopeo: registries.conf.d
    Podman,
    /// CRI-O: the same file as podman
    Crio,
}

impl Client {
    /// As the command line calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Crio => "crio",
        }
    }

    /// Where the backup of what was there before lies. podman and CRI-O read one file, so they have one backup.
    #[must_use]
    pub fn record(self) -> &'static str {
        match self {
            Self::Docker => "/var/lib/ddr-setup/docker.json",
            Self::Containerd => "/var/lib/ddr-setup/containerd.json",
            Self::Podman | Self::Crio => "/var/lib/ddr-setup/podman.json",
        }
    }

    /// The systemd unit of a runtime that reads its configuration only when it is told to.
    #[must_use]
    pub fn unit(self) -> Option<&'static str> {
        match self {
            Self::Docker => Some("docker"),
            Self::Crio => Some("crio"),
            Self::Containerd | Self::Podman => None,
        }
    }

    /// The same, if `path` is what it has to be told about. `hosts.toml` is read at each pull.
    #[must_use]
    pub fn reloaded_for(self, path: &str) -> Option<&'static str> {
        self.unit().filter(|_| self != Self::Docker || path == docker::DAEMON_JSON)
    }
}

/// What the user wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where the registry of `ddrd` listens.
    pub registry: SocketAddr,
    /// Whose images, for files that need names.
    pub mirrors: Vec<UpstreamHost>,
    /// Major version of docker, if it is known.
    pub docker: Option<u32>,
}

impl Wanted {
    /// The mirror as an address that a client dials.
    fn url(&self) -> String {
        format!("http://{}", self.registry)
    }
}

/// What has to be on disk, by path.
#[derive(Debug, Default)]
pub struct Plan {
    /// Whole new contents.
    pub files: BTreeMap<String, String>,
    /// What the user has to know or to do, one paragraph each.
    pub notes: Vec<String>,
    /// The hosts directory that the files lie in, for clients that are told it.
    pub hosts_dir: Option<String>,
}

/// Why nothing was set up. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The disk said no.
    #[error("cannot {doing} {}: {error}{}", .path.display(), hint(.error))]
    Io {
        /// `read`, `write`, ...
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file that is to be changed or heeded is not what it should be.
    #[error("{place}: {reason}; mend it first, nothing was changed")]
    Broken {
        /// File and line.
        place: Place,
        /// What is wrong.
        reason: String,
    },
    /// A file that somebody else wrote lies where ours would.
    #[error("{path} is not from ddr setup and stays as it is; put the text above into it by hand")]
    Foreign {
        /// The file.
        path: String,
        /// What it lacks.
        text: String,
    },
    /// `dockerd` refuses to start with mirrors in two places.
    #[error(
        "{0} gives dockerd --registry-mirror, which does not go together with daemon.json: \
         move it to registry-mirrors in /etc/docker/daemon.json first; nothing was changed"
    )]
    Flag(String),
}

/// A file, and the line in it where that is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The file.
    pub path: String,
    /// From 1.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

impl SetupError {
    fn io(doing: &'static str, path: impl Into<PathBuf>, error: io::Error) -> Self {
        Self::Io { doing, path: path.into(), error }
    }

    fn broken(path: &str, line: Option<usize>, reason: impl Into<String>) -> Self {
        Self::Broken { place: Place { path: path.to_owned(), line }, reason: reason.into() }
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run it with sudo",
        _ => "",
    }
}

/// What `client` needs, given what it finds now.
///
/// # Errors
///
/// See [`SetupError`]: a broken file, one of somebody else, a flag that forbids it.
pub fn plan(client: Client, seen: &Seen, wanted: &Wanted) -> Result<Plan, SetupError> {
    let mut plan = match client {
        Client::Docker => docker::plan(seen, wanted),
        Client::Containerd => containerd::plan(seen, wanted),
        Client::Podman | Client::Crio => podman::plan(seen, wanted),
    }?;
    if !wanted.registry.ip().is_loopback() {
        plan.notes.push(format!(
            "{} is not on this machine and is asked over plain HTTP: who is on the way can change \
             what a tag means.",
            wanted.registry
        ));
    }
    Ok(plan)
}

/// Reads a TOML file, or says in which line it is none.
fn toml(path: &str, text: &str) -> Result<toml::Table, SetupError> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
        SetupError::broken(path, line, format!("not TOML: {}", error.message()))
    })
}

#[cfg(test)]
mod tests {
    use super::{Plan, SetupError, Wanted};

    /// The defaults of the command line.
    pub(super) fn wanted() -> Wanted {
        let names = ["docker.io", "ghcr.io", "quay.io", "registry.k8s.io"];
        let mirrors = names.iter().map(|name| name.parse().unwrap()).collect();
        Wanted { registry: "127.0.0.1:5000".parse().unwrap(), mirrors, docker: None }
    }

    pub(super) fn refused(planned: Result<Plan, SetupError>) -> String {
        planned.unwrap_err().to_string()
    }
}
