//! The registry of the daemon, as the commands that move content see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;

use super::CliError;
use super::admin::AdminClient;
use crate::client::registry::Registry;

#[derive(Deserialize)]
struct View {
    registry: SocketAddr,
}

/// Where the daemon says that its registry listens.
pub(super) async fn of(admin: &AdminClient) -> Result<Registry, CliError> {
    let view: View = admin.view(admin.get("/api/v1/status").await?)?;
    Ok(Registry { address: reachable(view.registry) })
}

/// An address of this machine for one that means all of them.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn all_addresses_are_reached_at_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:5000"), "127.0.0.1:5000");
        assert_eq!(at("[::]:5000"), "[::1]:5000");
        assert_eq!(at("10.0.0.1:5000"), "10.0.0.1:5000");
    }
}
