//! Where a node's content lives beside its own store.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, Settings};
use crate::duration;

/// Where containerd listens unless configured otherwise.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
/// Shortest time between two looks at everything.
const MIN_EVERY: Duration = Duration::from_secs(1);

/// What a driver is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// Nothing beside the own store.
    #[default]
    Embedded,
    /// A registry on this machine.
    Registry,
    /// The content store of containerd.
    Containerd,
}

/// The table `[driver]` of the file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DriverTable {
    /// Which.
    #[serde(default)]
    pub kind: DriverKind,
    /// Scheme, host and port of the registry.
    pub endpoint: Option<String>,
    /// Who this node is there.
    pub user: Option<String>,
    /// File with the password of `user`.
    pub password_file: Option<PathBuf>,
    /// Docker's configuration file, with the credentials for this registry.
    pub docker_config: Option<PathBuf>,
    /// Certificate authorities (PEM) beside those of the system.
    #[serde(default)]
    pub ca_files: Vec<PathBuf>,
    /// Between two looks at everything.
    pub every: Option<String>,
    /// Other nodes are to keep copies of what is found, too.
    #[serde(default)]
    pub copies: bool,
    /// Where containerd listens.
    pub socket: Option<PathBuf>,
    /// Namespaces of containerd; all without them.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// A driver that can be made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DriverConfig {
    /// What and where it is.
    pub place: PlaceConfig,
    /// Between two looks at everything.
    pub every: Duration,
    /// Other nodes are to keep copies of what is found, too.
    pub copies: bool,
}

/// What lies beside the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlaceConfig {
    /// A registry, by its endpoint and the rest of the table.
    Registry(String, Box<DriverTable>),
    /// containerd.
    Containerd {
        /// Where it listens.
        socket: PathBuf,
        /// Those that are used; all if there are none.
        namespaces: Vec<String>,
    },
}

/// What is given; `None`: nothing lies beside the store.
pub(super) fn driver(settings: &Settings) -> Result<Option<DriverConfig>, ConfigError> {
    let table = settings.driver.clone().unwrap_or_default();
    let wrong = |reason: &str| ConfigError::Value { setting: "driver", reason: reason.to_owned() };
    check(&table).map_err(wrong)?;
    let every = table.every.as_deref().map(duration::span).transpose();
    let every = every.map_err(|reason| wrong(&format!("every: {reason}")))?;
    let every = every.unwrap_or(ddr_node::DRIVER_EVERY);
    if every < MIN_EVERY {
        return Err(wrong("every is one second at least"));
    }
    let copies = table.copies;
    let place = match table.kind {
        DriverKind::Embedded => return Ok(None),
        DriverKind::Registry => {
            let endpoint = table.endpoint.clone().ok_or_else(|| {
                wrong("a registry needs its endpoint, such as http://127.0.0.1:5050")
            })?;
            PlaceConfig::Registry(endpoint, table.into())
        }
        DriverKind::Containerd => PlaceConfig::Containerd {
            socket: table.socket.unwrap_or_else(|| CONTAINERD_SOCKET.into()),
            namespaces: table.namespaces,
        },
    };
    Ok(Some(DriverConfig { place, every, copies }))
}

/// Settings of one kind do not stand in the table of another.
fn check(table: &DriverTable) -> Result<(), &'static str> {
    let of_registry = table.endpoint.is_some()
        || table.user.is_some()
        || table.password_file.is_some()
        || table.docker_config.is_some()
        || !table.ca_files.is_empty()
        || table.copies;
    let of_containerd = table.socket.is_some() || !table.namespaces.is_empty();
    match table.kind {
        DriverKind::Embedded if of_registry || of_containerd || table.every.is_some() => {
            Err("say which: kind = \"registry\" or kind = \"containerd\"")
        }
        DriverKind::Registry if of_containerd => Err("socket and namespaces are of containerd"),
        DriverKind::Containerd if of_registry => {
            Err("with containerd stand kind, socket, namespaces and every only")
        }
        _ => match (&table.user, &table.password_file, &table.docker_config) {
            (Some(_), Some(_), None) | (None, None, _) => Ok(()),
            (_, _, Some(_)) => Err("give user and password-file, or docker-config"),
            _ => Err("user and password-file go together"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> Result<Option<DriverConfig>, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
        driver(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_lies_beside_the_store_unless_it_is_said() {
        assert_eq!(given(""), Ok(None));
        assert_eq!(given("[driver]\nkind = 'embedded'"), Ok(None));
    }

    #[test]
    fn each_kind_has_its_settings() {
        let config = given("[driver]\nkind = 'registry'\nendpoint = 'http://127.0.0.1:5050'");
        let config = config.expect("right").expect("one");
        assert_eq!((config.every, config.copies), (ddr_node::DRIVER_EVERY, false));
        assert!(matches!(config.place, PlaceConfig::Registry(url, _) if url.ends_with(":5050")));
        let config = given("[driver]\nkind = 'containerd'\nevery = '30s'").expect("right");
        let config = config.expect("one");
        assert_eq!(config.every, Duration::from_secs(30));
        let socket = CONTAINERD_SOCKET.into();
        assert_eq!(config.place, PlaceConfig::Containerd { socket, namespaces: Vec::new() });
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, says) in [
            ("kind = 'registry'", "needs its endpoint"),
            ("endpoint = 'http://127.0.0.1:5050'", "say which"),
            ("kind = 'registry'\nendpoint = 'x'\nsocket = '/s'", "of containerd"),
            ("kind = 'containerd'\nendpoint = 'x'", "only"),
            ("kind = 'registry'\nendpoint = 'x'\nuser = 'u'", "go together"),
            ("kind = 'registry'\nendpoint = 'x'\nevery = 'soon'", "not a time"),
            ("kind = 'registry'\nendpoint = 'x'\nevery = '0s'", "one second"),
            ("kind = 'harbor'", "unknown variant"),
            ("kid = 'registry'", "unknown field"),
        ] {
            let error = given(&format!("[driver]\n{text}\n")).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
