//! Which other registries are mirrored.

use std::path::PathBuf;
use std::time::Duration;

use ddr_oci::UpstreamHost;
use serde::Deserialize;

use super::{ConfigError, Settings};
use crate::duration;

/// Registries with a table of their own, and as many that are only named.
pub const MAX_UPSTREAMS: usize = 256;
/// Mirrored unless configured otherwise.
pub const MIRRORED: [&str; 4] = ["docker.io", "ghcr.io", "quay.io", "registry.k8s.io"];
/// In the list: every registry with a public address.
const ANY: &str = "*";

/// A table `[[upstream]]` of the file: a registry that needs more than its name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct UpstreamTable {
    /// As clients name it.
    pub host: String,
    /// Scheme, host and port of its API.
    pub endpoint: Option<String>,
    /// Who this node is there.
    pub user: Option<String>,
    /// File with the password or access token of `user`.
    pub password_file: Option<PathBuf>,
    /// Docker's configuration file, with the credentials for this registry.
    pub docker_config: Option<PathBuf>,
    /// Further hosts of it, where tokens and content may be.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Content may lie anywhere on the public internet; true unless said otherwise.
    pub follow_public: Option<bool>,
    /// It may have a private address.
    #[serde(default)]
    pub private: bool,
    /// Certificate authorities (PEM) beside those of the system.
    #[serde(default)]
    pub ca_files: Vec<PathBuf>,
    /// Proxy for all that is sent to it.
    pub proxy: Option<String>,
}

/// How other registries are mirrored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MirrorConfig {
    /// Those with a table, and the hosts of these.
    pub upstreams: Vec<(UpstreamHost, UpstreamTable)>,
    /// Those that are only named.
    pub named: Vec<UpstreamHost>,
    /// Every other with a public address, too.
    pub any_public: bool,
    /// The registry that is asked for what nobody pushed under a name without one.
    pub bare: Option<UpstreamHost>,
    /// How long the answer of a registry holds for a tag.
    pub fresh: Duration,
}

pub(super) fn mirror(settings: &Settings) -> Result<MirrorConfig, ConfigError> {
    let wrong = |setting, reason| ConfigError::Value { setting, reason };
    let listed = settings.mirror.clone().unwrap_or_else(|| MIRRORED.map(str::to_owned).into());
    if listed.len().max(settings.upstream.len()) > MAX_UPSTREAMS {
        return Err(wrong("mirror", format!("more than {MAX_UPSTREAMS} registries")));
    }
    let any_public = listed.iter().any(|one| one == ANY);
    let names = listed.iter().filter(|one| !one.is_empty() && *one != ANY);
    let named: Vec<_> = names.map(|one| host("mirror", one)).collect::<Result<_, _>>()?;
    let mut upstreams: Vec<(UpstreamHost, UpstreamTable)> = Vec::new();
    for table in &settings.upstream {
        let host = host("upstream host", &table.host)?;
        if upstreams.iter().any(|(known, _)| *known == host) {
            return Err(wrong("upstream host", format!("{host} has two tables")));
        }
        check(&host, table).map_err(|reason| wrong("upstream", reason))?;
        upstreams.push((host, table.clone()));
    }
    let bare = settings.mirror_bare.as_deref().filter(|bare| !bare.is_empty());
    let bare = bare.map(|bare| host("mirror-bare", bare)).transpose()?;
    if let Some(bare) = &bare
        && !any_public
        && !named.contains(bare)
        && !upstreams.iter().any(|(host, _)| host == bare)
    {
        return Err(wrong("mirror-bare", format!("{bare} is not mirrored: add it to mirror")));
    }
    let fresh = settings.mirror_fresh.as_deref().map(duration::span).transpose();
    let fresh = fresh.map_err(|reason| wrong("mirror-fresh", reason))?;
    let fresh = fresh.unwrap_or(ddr_node::MIRROR_FRESH);
    Ok(MirrorConfig { upstreams, named, any_public, bare, fresh })
}

fn host(setting: &'static str, text: &str) -> Result<UpstreamHost, ConfigError> {
    text.parse().map_err(|_| ConfigError::Value {
        setting,
        reason: format!(
            "{text:?} is no registry: give a host in lower case with a dot in it, and :PORT if it has one"
        ),
    })
}

fn check(host: &UpstreamHost, table: &UpstreamTable) -> Result<(), String> {
    match (&table.user, &table.password_file, &table.docker_config) {
        (Some(_), Some(_), None) | (None, None, _) => Ok(()),
        (_, _, Some(_)) => Err(format!("{host}: give user and password-file, or docker-config")),
        _ => Err(format!("{host}: user and password-file go together")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<MirrorConfig, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
        mirror(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn the_well_known_are_mirrored() {
        let config = given("").expect("right");
        assert_eq!(config.named.len(), MIRRORED.len());
        assert!(!config.any_public && config.bare.is_none() && config.upstreams.is_empty());
        let config = given("mirror = []").expect("right");
        assert!(config.named.is_empty() && !config.any_public);
        let config = given("mirror = ['*']\nmirror-bare = 'docker.io'\nmirror-fresh = '5s'");
        let config = config.expect("right");
        assert!(config.any_public && config.bare.is_some());
        assert_eq!(config.fresh, Duration::from_secs(5));
    }

    #[test]
    fn a_table_says_more_of_one() {
        let text = "[[upstream]]\nhost = 'registry.example:5000'\nendpoint = 'http://10.0.0.7'\n\
                    user = 'ci'\npassword-file = '/p'\nhosts = ['auth.example']\nprivate = true\n\
                    ca-files = ['/ca']\nproxy = 'http://proxy:3128'\nfollow-public = false\n";
        let config = given(text).expect("right");
        let (host, table) = &config.upstreams[0];
        assert_eq!(host.as_str(), "registry.example:5000");
        assert_eq!(table.user.as_deref(), Some("ci"));
        assert!(table.private && table.follow_public == Some(false));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let table = |more: &str| format!("[[upstream]]\nhost = 'a.b'\n{more}\n");
        for (text, says) in [
            ("mirror = ['Docker.io']".to_owned(), "no registry"),
            ("mirror = ['harbor']".to_owned(), "no registry"),
            ("mirror = []\nmirror-bare = 'docker.io'".to_owned(), "not mirrored"),
            ("mirror-fresh = 'soon'".to_owned(), "not a time"),
            (table("user = 'x'"), "go together"),
            (table("password-file = '/x'"), "go together"),
            (table("user = 'x'\npassword-file = '/x'\ndocker-config = '/c'"), "or docker-config"),
            (table("passwort = 'x'"), "unknown field"),
            (table("") + &table(""), "two tables"),
        ] {
            let error = given(&text).expect_err(&text);
            assert!(error.contains(says), "{error}");
        }
    }
}
