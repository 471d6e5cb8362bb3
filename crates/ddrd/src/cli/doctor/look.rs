//! What the command sees for itself, and what it asks the daemon. Nothing here waits without an end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::cli::CliError;
use crate::cli::admin::AdminClient;
use crate::client::{self, ClientError};
use crate::doctor::facts::{Facts, PeerPort, Reach, Registry};
use crate::doctor::ports::{AdminAnswer, RegistryAnswer, Surroundings};

/// Wait for a port that answers at once when all is well.
const PORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait for what the daemon sees of itself: four dials and a write to the disk.
const FACTS_TIMEOUT: Duration = Duration::from_secs(15);
/// Wait for the other nodes; the daemon gives each 15 s, and one caller at a time its turn.
const REACH_TIMEOUT: Duration = Duration::from_secs(40);

#[derive(Deserialize)]
struct Status {
    version: String,
    uptime_ms: u64,
}

#[derive(Deserialize)]
struct Peer {
    #[serde(default)]
    addresses: Vec<SocketAddr>,
}

/// What answers on the admin port.
pub(super) async fn admin(admin: &AdminClient) -> AdminAnswer {
    match get(admin.address(), "/healthz").await {
        Err(ClientError::NoServer(_)) => return AdminAnswer::Nobody,
        Err(ClientError::TimedOut(_)) => return AdminAnswer::Ill("it is silent".into()),
        Ok((StatusCode::OK, _)) => {}
        Ok(_) | Err(ClientError::Broken { .. }) => return AdminAnswer::Foreign,
    }
    let status: Status = match ask(admin, "/api/v1/status", PORT_TIMEOUT).await {
        Ok(status) => status,
        Err(CliError::Foreign(_)) => return AdminAnswer::Foreign,
        Err(error) => return AdminAnswer::Ill(error.to_string()),
    };
    let ready = matches!(get(admin.address(), "/readyz").await, Ok((StatusCode::OK, _)));
    AdminAnswer::Daemon { version: status.version, uptime_ms: status.uptime_ms, ready }
}

/// What the daemon says about itself and its machine.
pub(super) async fn facts(admin: &AdminClient) -> Result<Facts, String> {
    let asked = ask(admin, "/api/v1/doctor", FACTS_TIMEOUT).await;
    asked.map_err(|error| format!("it does not tell about itself: {error}"))
}

/// What the daemon found out about the ways between it and others.
pub(super) async fn reach(admin: &AdminClient) -> Result<Reach, String> {
    let asked = ask(admin, "/api/v1/doctor/peers", REACH_TIMEOUT).await;
    asked.map_err(|error| format!("the daemon could not ask its peers: {error}"))
}

/// What answers on the registry port.
pub(super) async fn registry(registry: &Registry) -> RegistryAnswer {
    let (address, at) = (dialled(registry.address), Instant::now());
    if registry.tls {
        return match timeout(PORT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => RegistryAnswer::Open,
            Ok(Err(error)) => RegistryAnswer::Other(error.to_string()),
            Err(_) => RegistryAnswer::Other("no connection in time".into()),
        };
    }
    match get(address, "/v2/").await {
        Ok((StatusCode::OK | StatusCode::UNAUTHORIZED, _)) => {
            let took_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            RegistryAnswer::Registry { took_ms }
        }
        Ok((status, _)) => RegistryAnswer::Other(format!("it says {status}")),
        Err(error) => RegistryAnswer::Other(error.to_string()),
    }
}

/// What else is known of this machine and of the peers.
pub(super) async fn around(admin: &AdminClient, port: &PeerPort) -> Surroundings {
    let peers: Vec<Peer> = ask(admin, "/api/v1/peers", PORT_TIMEOUT).await.unwrap_or_default();
    let is_far = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    Surroundings {
        is_own: port.advertised.iter().all(|dial| is_own(dial.address.ip())),
        has_far_peers: peers.iter().flat_map(|peer| &peer.addresses).any(is_far),
    }
}

/// The address by which a program on this machine reaches a listener.
pub(super) fn dialled(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Whether an address is one of this machine: a socket can have it. No packet is sent.
fn is_own(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

async fn get(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
    let broken = |reason: String| ClientError::Broken { address, reason };
    let request = Request::get(path).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| broken(error.to_string()))?;
    let work = async {
        let answer = client::send(address, request).await?;
        let status = answer.status();
        Ok((status, client::read(address, answer).await?))
    };
    timeout(PORT_TIMEOUT, work).await.unwrap_or(Err(ClientError::TimedOut(address)))
}

async fn ask<T: DeserializeOwned>(
    admin: &AdminClient,
    path: &str,
    limit: Duration,
) -> Result<T, CliError> {
    let late = || CliError::Client(ClientError::TimedOut(admin.address()));
    let value = timeout(limit, admin.get(path)).await.map_err(|_| late())??;
    admin.view(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unspecified_address_is_reached_by_the_loopback() {
        let at = |text: &str| dialled(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:5000"), "127.0.0.1:5000");
        assert_eq!(at("[::]:5000"), "[::1]:5000");
        assert_eq!(at("192.0.2.7:5000"), "192.0.2.7:5000");
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_own(Ipv4Addr::new(192, 0, 2, 1).into()), "a documentation address");
    }
}
