//! From the configuration of what lies beside the store to what the node works with.

use std::sync::Arc;

use ddr_node::{ContainerdDriver, Driver, DriverSettings, RegistryDriver};
use ddr_oci::UpstreamHost;
use ddr_upstream::{Settings, SettingsError, Upstream};

use super::error::DaemonError;
use super::mirror::credentials;
use crate::config::{DriverConfig, DriverTable, PlaceConfig};

/// How the registry is called where its endpoint is no name of a registry.
const BESIDE: &str = "registry.localhost";

/// Reads passwords and certificates; must be called where a runtime is.
pub(super) fn settings(
    config: Option<DriverConfig>,
) -> Result<Option<DriverSettings>, DaemonError> {
    let Some(DriverConfig { place, every, copies }) = config else { return Ok(None) };
    let driver: Arc<dyn Driver> = match place {
        PlaceConfig::Registry(endpoint, table) => {
            let upstream = registry(endpoint, *table).and_then(Upstream::new);
            Arc::new(RegistryDriver::new(upstream.map_err(DaemonError::Driver)?))
        }
        PlaceConfig::Containerd { socket, namespaces } => {
            Arc::new(ContainerdDriver::new(socket, namespaces))
        }
    };
    Ok(Some(DriverSettings { driver, every, copies }))
}

fn registry(endpoint: String, table: DriverTable) -> Result<Settings, SettingsError> {
    let authority = endpoint.split("://").nth(1).unwrap_or_default();
    let host = authority.parse::<UpstreamHost>().or_else(|_| BESIDE.parse());
    let host = host.map_err(|_| SettingsError::Invalid(format!("{endpoint} is no endpoint")))?;
    Ok(Settings {
        credentials: credentials(table.user, table.password_file, table.docker_config)?,
        endpoint,
        hosts: Vec::new(),
        follow_public: false,
        private: true,
        ca_files: table.ca_files,
        proxy: None,
        host,
    })
}
