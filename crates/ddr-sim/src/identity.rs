//! Who the simulated nodes are: real Ed25519 keys from the seed, and addresses that tell the number
//! of a node.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ddr_proto::wire::Contact;
use ddr_proto::{Key, NodeId, Signer};
use ed25519_dalek::SigningKey;

use crate::dice::Dice;

/// The port at which every simulated host listens.
const PORT: u16 = 5001;
/// Ports from here on belong to further identities on the same host.
const SHARED_PORT: u16 = 20_000;
/// Every host has a /24 of its own: host n lives in the /24 number (n + this) * 8.
const FIRST_HOST: u32 = 0x1000;
/// Bits of an address below the number of the host.
const HOST_SHIFT: u32 = 11;
/// Hosts from here on do not exist; invented contacts point there.
pub(crate) const NOBODY: u32 = 0x7_0000;

/// A node's secret half, made again from its seed whenever it is needed.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    pub(crate) fn random(dice: &mut Dice) -> Self {
        Self(dice.bytes())
    }

    /// Of `tries` random keys the one whose ID is closest to `target`: what grinding buys.
    pub(crate) fn ground(dice: &mut Dice, target: &Key, tries: u32) -> Self {
        let keys = (0..tries.max(1)).map(|_| Self::random(dice));
        let closest = keys.min_by_key(|secret| secret.signer().node_id().distance(target));
        closest.unwrap_or(Self([0; 32]))
    }

    pub(crate) fn signer(&self) -> Signer {
        Signer::from(SigningKey::from_bytes(&self.0))
    }
}

/// The address of a host.
pub(crate) fn host_addr(host: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(((host + FIRST_HOST) << HOST_SHIFT) | 1), PORT))
}

/// The address of a further identity on a host.
pub(crate) fn shared_addr(host: u32, number: u16) -> SocketAddr {
    let mut addr = host_addr(host);
    addr.set_port(SHARED_PORT.saturating_add(number));
    addr
}

/// The host at an address, and whether it is the host's own identity that listens there.
pub(crate) fn host_of(addr: &SocketAddr) -> Option<(u32, bool)> {
    let SocketAddr::V4(v4) = addr else {
        return None;
    };
    let host = (v4.ip().to_bits() >> HOST_SHIFT).checked_sub(FIRST_HOST)?;
    Some((host, v4.port() == PORT))
}

pub(crate) fn contact(id: NodeId, addr: SocketAddr, zone: &str) -> Arc<Contact> {
    Arc::new(Contact { id, addrs: vec![addr], zone: zone.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn addresses_name_their_hosts_and_share_no_prefix() {
        let mut prefixes = BTreeSet::new();
        for host in (0..NOBODY).step_by(997).chain([NOBODY]) {
            let addr = host_addr(host);
            assert_eq!(host_of(&addr), Some((host, true)));
            assert_eq!(host_of(&shared_addr(host, 3)), Some((host, false)));
            assert!(!addr.ip().is_loopback() && !addr.ip().is_multicast());
            let SocketAddr::V4(v4) = addr else { panic!("not IPv4") };
            assert!(prefixes.insert(v4.ip().to_bits() >> 8));
        }
    }

    #[test]
    fn grinding_brings_nearer() {
        let key = Key([0x5a; 32]);
        let near = |tries| {
            let mut dice = Dice::new(3, 0);
            let ids = (0..40).map(|_| Secret::ground(&mut dice, &key, tries).signer().node_id());
            ids.map(|id| id.distance(&key).shared_bits()).sum::<u32>()
        };
        assert!(near(16) > near(1) + 100);
    }
}
