//! From the configuration of mirrored registries to what the node works with.

use std::path::{Path, PathBuf};

use ddr_node::MirrorSettings;
use ddr_oci::UpstreamHost;
use ddr_upstream::{Credentials, Settings, SettingsError, Upstream};

use super::error::DaemonError;
use crate::config::{MirrorConfig, UpstreamTable};

/// Bytes that a password may have.
const MAX_PASSWORD_BYTES: usize = 16 * 1024;

/// Reads passwords and certificates. Blocks.
pub(super) fn settings(config: MirrorConfig) -> Result<MirrorSettings, DaemonError> {
    let MirrorConfig { upstreams, named, any_public, bare: _, fresh } = config;
    let upstream = |(host, table): (UpstreamHost, UpstreamTable)| {
        let text = host.to_string();
        let made = one(host, table).and_then(Upstream::new);
        made.map_err(|source| DaemonError::Upstream { host: text, source })
    };
    let upstreams = upstreams.into_iter().map(upstream).collect::<Result<_, _>>()?;
    Ok(MirrorSettings { upstreams, named, any_public, fresh })
}

fn one(host: UpstreamHost, table: UpstreamTable) -> Result<Settings, SettingsError> {
    let credentials = credentials(table.user, table.password_file, table.docker_config)?;
    let usual = Settings::named(host);
    Ok(Settings {
        credentials,
        endpoint: table.endpoint.unwrap_or(usual.endpoint),
        hosts: usual.hosts.into_iter().chain(table.hosts).collect(),
        follow_public: table.follow_public.unwrap_or(true),
        private: table.private,
        ca_files: table.ca_files,
        proxy: table.proxy,
        host: usual.host,
    })
}

/// Who this node is at a registry.
pub(super) fn credentials(
    user: Option<String>,
    password_file: Option<PathBuf>,
    docker_config: Option<PathBuf>,
) -> Result<Credentials, SettingsError> {
    Ok(match (user, password_file, docker_config) {
        (Some(user), Some(file), _) => Credentials::Basic { user, password: password(&file)? },
        (_, _, Some(file)) => Credentials::DockerConfig(file),
        _ => Credentials::Anonymous,
    })
}

fn password(path: &Path) -> Result<String, SettingsError> {
    let wrong = |reason: String| SettingsError::File { path: PathBuf::from(path), reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        return Err(wrong("want one line with the password".into()));
    }
    Ok(password.to_owned())
}
