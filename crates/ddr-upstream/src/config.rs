//! What one registry is, and what is allowed with it.

use std::path::PathBuf;

use ddr_oci::UpstreamHost;

/// How one registry is reached. Checked by `Upstream::new`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// As clients name it: `docker.io`.
    pub host: UpstreamHost,
    /// Where its API is: `https://registry-1.docker.io`, or `http://` only as configured here. Scheme, host
    /// and port, no path.
    pub endpoint: String,
    /// Who this node is there.
    pub credentials: Credentials,
    /// Further hosts that belong to it, `auth.example.org` or `*.cdn.example.org`: tokens may be asked for
    /// there with the credentials. The endpoint's own host always is one, and so are those of
    /// [`crate::well_known`] at its endpoint.
    pub hosts: Vec<String>,
    /// Its content may lie anywhere on the public internet: redirects of blobs are followed to any host over
    /// HTTPS, without credentials. Else to its own hosts only.
    pub follow_public: bool,
    /// It may have private, loopback or link-local addresses. Else a connection to one is refused,
    /// whatever name led to it.
    pub private: bool,
    /// PEM files of certificate authorities that are trusted beside those of the system.
    pub ca_files: Vec<PathBuf>,
    /// Proxy for all that is sent: `http://proxy.example:3128`. `None`: as `HTTPS_PROXY`, `HTTP_PROXY` and
    /// `NO_PROXY` say, but none for an endpoint on loopback. A proxy resolves names itself: then only
    /// addresses that stand in URLs are checked here.
    pub proxy: Option<String>,
}

impl Settings {
    /// A registry as everybody reaches it: over HTTPS, at a public address, as nobody.
    #[must_use]
    pub fn named(host: UpstreamHost) -> Self {
        let (endpoint, hosts) = crate::known::well_known(&host);
        Self {
            host,
            endpoint,
            credentials: Credentials::Anonymous,
            hosts,
            follow_public: true,
            private: false,
            ca_files: Vec::new(),
            proxy: None,
        }
    }
}

/// Who this node is at a registry. `Debug` shows no secret.
#[derive(Clone)]
pub enum Credentials {
    /// Nobody.
    Anonymous,
    /// Name and password, or name and access token.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// Whatever docker's configuration file says for this registry, credential helpers included
    /// (`auths`, `credHelpers`, `credsStore`). Read anew when it changes.
    DockerConfig(PathBuf),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { user, .. } => {
                f.debug_struct("Basic").field("user", user).finish_non_exhaustive()
            }
            Self::DockerConfig(path) => f.debug_tuple("DockerConfig").field(path).finish(),
        }
    }
}

/// Why settings cannot be used. One line each, with what to do.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The endpoint, a host or the proxy is none.
    #[error("{0}")]
    Invalid(String),
    /// A file cannot be read or is not what it should be.
    #[error("{}: {reason}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
