//! Where this daemon looks for others, and what it says of itself on the LAN.
//!
//! It must never speak on the LAN for an address that only this machine reaches, nor say there more
//! of the swarm than a hash of its public ID.

use std::net::{SocketAddr, SocketAddrV4};

use ddr_net::discover::mdns::{self, Mdns, MdnsConfig};
use ddr_net::discover::{Discovery, Origin, shuffle};
use ddr_net::{Identity, SwarmId};
use ddr_node::{Rhythm, Sources};
use ddr_oci::Digest;

use crate::config::Config;

/// File of the data directory for the peers that were met.
const BOOK_FILE: &str = "peers.json";
/// Addresses of the configured sources at which a new node asks to be let in, beside the token's.
const MAX_DOORS: usize = 8;
/// What the hash is of, beside the ID: it must not equal a hash made for something else.
const HASH_DOMAIN: &[u8] = b"ddr mdns 1";
/// Hexadecimal digits of the swarm's hash and of the node's ID on the LAN.
const SHOWN_DIGITS: usize = 16;

/// Everything that the configuration names. `advertise` is what other nodes are told.
pub(super) fn sources(
    config: &Config,
    identity: &Identity,
    swarm: SwarmId,
    advertise: SocketAddr,
) -> Sources {
    let mdns = lan_address(config.mdns, advertise).and_then(|addr| {
        let node = identity.node_id().to_string()[..SHOWN_DIGITS].to_owned();
        let started = Mdns::start(&MdnsConfig { swarm: hash(swarm), node, addr, port: mdns::PORT });
        started
            .inspect_err(|error| tracing::warn!(%error, "the LAN is not asked for other nodes"))
            .ok()
    });
    Sources {
        discovery: Discovery { mdns, ..configured(config) },
        book: Some(config.data_dir.join(BOOK_FILE)),
        rhythm: Rhythm::default(),
    }
}

/// Addresses where members may be whom the token does not name; for a node that is none yet.
pub(super) async fn doors(config: &Config) -> Vec<SocketAddr> {
    let discovery = configured(config);
    let mut doors = Vec::new();
    for origin in [Origin::Static, Origin::Dns] {
        match discovery.look(origin).await {
            Ok(found) => doors.extend(found),
            Err(error) => tracing::warn!(source = %origin, %error, "no addresses to join by"),
        }
    }
    shuffle(&mut doors);
    doors.truncate(MAX_DOORS);
    doors
}

fn configured(config: &Config) -> Discovery {
    Discovery {
        places: config.bootstrap.clone(),
        dns: config.bootstrap_dns.clone(),
        ..Discovery::default()
    }
}

/// The address for the LAN, if this node is to speak there. mDNS here is IPv4 only.
fn lan_address(wanted: bool, advertise: SocketAddr) -> Option<SocketAddrV4> {
    match advertise {
        SocketAddr::V4(addr) if wanted && !addr.ip().is_loopback() => Some(addr),
        _ => None,
    }
}

fn hash(swarm: SwarmId) -> String {
    let digest = Digest::sha256(&[HASH_DOMAIN, swarm.as_bytes()].concat());
    digest.hex()[..SHOWN_DIGITS].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_on_the_lan_for_loopback_or_against_the_setting() {
        let at = |text: &str| text.parse().unwrap();
        assert!(lan_address(true, at("192.0.2.1:5001")).is_some());
        for (wanted, text) in [
            (false, "192.0.2.1:5001"),
            (true, "127.0.0.1:5001"),
            (true, "127.9.9.9:5001"),
            (true, "[::1]:5001"),
            (true, "[2001:db8::1]:5001"),
        ] {
            assert_eq!(lan_address(wanted, at(text)), None, "{text}");
        }
    }

    #[test]
    fn the_hash_tells_swarms_apart_and_is_not_their_id() {
        let (one, two) = (SwarmId::of_root_key(&[1; 32]), SwarmId::of_root_key(&[2; 32]));
        assert_ne!(hash(one), hash(two));
        assert!(!one.to_string().contains(&hash(one)));
        assert_eq!(hash(one).len(), SHOWN_DIGITS);
    }
}
