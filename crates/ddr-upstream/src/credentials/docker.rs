//! docker's configuration file, `config.json`.
//!
//! Decides which entry belongs to a registry, by docker's rules: Docker Hub stands under
//! `https://index.docker.io/v1/`, others under their host, with or without scheme and API path. Never runs
//! anything itself.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ddr_oci::UpstreamHost;
use serde::Deserialize;

use super::Login;

/// Largest file that is read, in bytes.
const MAX_CONFIG_BYTES: usize = 1024 * 1024;
/// The key of Docker Hub.
const HUB_SERVER: &str = "https://index.docker.io/v1/";
/// Hosts under which it is found, too.
const HUB_HOSTS: [&str; 3] = ["index.docker.io", "docker.io", "registry-1.docker.io"];

/// What of the file means something here.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct File {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// What a helper calls the registry.
pub(super) fn server_of(host: &UpstreamHost) -> &str {
    if is_hub(host) { HUB_SERVER } else { host.as_str() }
}

fn is_hub(host: &UpstreamHost) -> bool {
    HUB_HOSTS.contains(&host.as_str())
}

impl File {
    /// Reads the file's bytes. The reason on failure repeats nothing of them.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(format!("larger than {MAX_CONFIG_BYTES} bytes"));
        }
        serde_json::from_slice(bytes).map_err(|error| {
            format!("not docker's JSON, line {} column {}", error.line(), error.column())
        })
    }

    /// Name of the helper that knows the registry.
    pub(super) fn helper(&self, host: &UpstreamHost) -> Option<&str> {
        let special = find(&self.helpers, host);
        let name = special.map_or(self.store.as_str(), String::as_str);
        (!name.is_empty()).then_some(name)
    }

    /// What the file itself says of the registry.
    pub(super) fn login(&self, host: &UpstreamHost) -> Option<Login> {
        find(&self.auths, host)?.login()
    }
}

impl Entry {
    fn login(&self) -> Option<Login> {
        if !self.identitytoken.is_empty() {
            return Some(Login::Identity(self.identitytoken.clone()));
        }
        if self.auth.is_empty() {
            let Self { username, password, .. } = self;
            let login = Login::Basic { user: username.clone(), password: password.clone() };
            return (!username.is_empty()).then_some(login);
        }
        let text = String::from_utf8(STANDARD.decode(self.auth.trim()).ok()?).ok()?;
        let (user, password) = text.split_once(':')?;
        let password = password.trim_matches('\0');
        Some(Login::Basic { user: user.to_owned(), password: password.to_owned() })
    }
}

/// The entry under docker's own key, else the first under another spelling.
fn find<'a, T>(entries: &'a BTreeMap<String, T>, host: &UpstreamHost) -> Option<&'a T> {
    let is_ours = |key: &str| {
        let key = host_of_key(key);
        key == Some(host.as_str()) || (is_hub(host) && key.is_some_and(|k| HUB_HOSTS.contains(&k)))
    };
    let other = || entries.iter().find(|(key, _)| is_ours(key)).map(|(_, entry)| entry);
    entries.get(server_of(host)).or_else(|| entries.get(host.as_str())).or_else(other)
}

/// The host of `https://HOST/v1/` and its like. A key with another path is somebody else's: podman writes
/// credentials of single repositories so.
fn host_of_key(key: &str) -> Option<&str> {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    matches!(path.trim_end_matches('/'), "" | "v1" | "v2").then_some(host)
}
