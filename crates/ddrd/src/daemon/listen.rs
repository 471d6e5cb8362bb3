//! The ports for clients.
//!
//! Decides how many connections may wait to be accepted. It must never share a port with another
//! process: a second daemon on it must fail (so no `SO_REUSEPORT`, which would hand it half of the
//! clients).

use std::net::SocketAddr;
use std::path::PathBuf;

use ddr_registry::Tls;
use tokio::net::{TcpListener, TcpSocket};

use super::DaemonError;
use crate::config::TlsFiles;

/// Connections that wait to be accepted, where the system allows so many
/// (`net.core.somaxconn`); a client beyond tries again by itself.
const BACKLOG: u32 = 4096;

/// A listener on `address`, alone.
pub(super) fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, DaemonError> {
    let bound = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // A port whose last connections still linger is free; one that is listened on is not.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| DaemonError::Bind { setting, address, source })
}

/// Reads the certificate of the registry port, if there is one.
pub(super) async fn tls(files: Option<TlsFiles>) -> Result<Option<Tls>, DaemonError> {
    let Some(TlsFiles { certificate, key }) = files else { return Ok(None) };
    let load = move |certificate: PathBuf, key: PathBuf| Tls::load(&certificate, &key);
    match tokio::task::spawn_blocking(move || load(certificate, key)).await {
        Ok(loaded) => Ok(Some(loaded?)),
        Err(error) => Err(DaemonError::Runtime(error.to_string())),
    }
}
