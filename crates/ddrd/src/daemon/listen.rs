//! The ports for clients.
//!
//! Decides how many connections may wait to be accepted, and that each serving thread has a queue of
//! them (`SO_REUSEPORT`). It must never share a port with another process: a second daemon on it
//! must fail, and not take half of the clients.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ddr_registry::Tls;
use tokio::net::{TcpListener, TcpSocket};

use super::DaemonError;
use crate::config::TlsFiles;

/// Connections that wait to be accepted, where the system allows so many
/// (`net.core.somaxconn`); a client beyond tries again by itself.
const BACKLOG: u32 = 4096;

/// Queues of one port at most; more threads than these share.
const MAX_QUEUES: usize = 8;

/// A listener on `address`, alone.
pub(super) fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, DaemonError> {
    let bound = || bind(address, false)?.listen(BACKLOG);
    bound().map_err(|source| DaemonError::Bind { setting, address, source })
}

/// A listener for each serving thread on `address`, which nobody else listens on.
pub(super) fn listen_each(
    setting: &'static str,
    address: SocketAddr,
) -> Result<Vec<TcpListener>, DaemonError> {
    let threads = tokio::runtime::Handle::current().metrics().num_workers();
    let bound = || {
        // Without `SO_REUSEPORT` it fails when anybody listens, whatever that one has set. Two
        // daemons that start in the same instant may both pass and share the port.
        drop(bind(address, false)?);
        let first = bind(address, true)?.listen(BACKLOG)?;
        let address = first.local_addr()?;
        let mut listeners = vec![first];
        while listeners.len() < threads.min(MAX_QUEUES) {
            listeners.push(bind(address, true)?.listen(BACKLOG)?);
        }
        Ok(listeners)
    };
    bound().map_err(|source| DaemonError::Bind { setting, address, source })
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A port whose last connections still linger is free; one that is listened on is not.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    Ok(socket)
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
