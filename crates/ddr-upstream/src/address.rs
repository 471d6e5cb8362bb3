//! Which network addresses may be connected to.
//!
//! Decides what is public internet, what is private, and what is never a registry: addresses at which
//! clouds hand out the credentials of the machine. An IPv4 address inside an IPv6 one (mapped, 6to4,
//! NAT64) counts as that IPv4 address. Never resolves a name itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is good for.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// Anybody on the internet.
    Public,
    /// Private, loopback, shared, or set aside for documentation and tests.
    Private,
    /// Link-local, or where a cloud answers questions about the machine and its rights.
    Metadata,
    /// Nobody: unspecified, multicast, broadcast.
    Nobody,
}

/// Where clouds answer such questions outside of link-local space: Alibaba, Oracle, Azure.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// The same of AWS and Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// IPv4 blocks that are not public, by first address and prefix length (IANA special-purpose registry).
const PRIVATE_V4: [([u8; 4], u32); 12] = [
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([240, 0, 0, 0], 4),
];

/// IPv6 blocks within 2000::/3 that are not public: protocol assignments with Teredo, documentation.
const PRIVATE_V6: [(Ipv6Addr, u32); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether anybody on the internet may have this address.
pub(crate) fn is_public(address: IpAddr) -> bool {
    kind(address) == Kind::Public
}

/// What `address` is good for.
pub(crate) fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    let [first, ..] = address.octets();
    if METADATA_V4.contains(&address) || address.is_link_local() {
        Kind::Metadata
    } else if first == 0 || address.is_multicast() || address.is_broadcast() {
        Kind::Nobody
    } else if PRIVATE_V4.iter().any(|(block, bits)| is_in_v4(address, (*block).into(), *bits)) {
        Kind::Private
    } else {
        Kind::Public
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    if METADATA_V6.contains(&address) || address.is_unicast_link_local() {
        return Kind::Metadata;
    }
    if address.is_unspecified() || address.is_multicast() {
        return Kind::Nobody;
    }
    if let Some(inner) = embedded(address) {
        return kind_v4(inner);
    }
    let is_global = is_in_v6(address, Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
    let is_private = PRIVATE_V6.iter().any(|(block, bits)| is_in_v6(address, *block, *bits));
    if is_global && !is_private { Kind::Public } else { Kind::Private }
}

/// The IPv4 address that packets to `address` really go to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let two = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match s {
        // Mapped (RFC 4291), translated (RFC 2765) and NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(two(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(two(high, low)),
        // Compatible (RFC 4291), without ::1.
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) != (0, 1) => Some(two(high, low)),
        _ => None,
    }
}

fn is_in_v4(address: Ipv4Addr, block: Ipv4Addr, bits: u32) -> bool {
    (u32::from(address) ^ u32::from(block)) >> (32 - bits) == 0
}

fn is_in_v6(address: Ipv6Addr, block: Ipv6Addr, bits: u32) -> bool {
    (u128::from(address) ^ u128::from(block)) >> (128 - bits) == 0
}

/// Which addresses a host name or an address in a URL may lead to.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    /// Private and loopback addresses are fine.
    pub(crate) private: bool,
    /// The endpoint's own host, the only one that may be link-local, and only with `private`.
    pub(crate) endpoint_host: String,
    /// Hosts of proxies: they are configured, and may be anywhere.
    pub(crate) proxies: Vec<String>,
}

impl Admission {
    /// Whether a connection to `address` may be made because `host` leads to it.
    pub(crate) fn admits(&self, host: &str, address: IpAddr) -> bool {
        if self.proxies.iter().any(|proxy| proxy == host) {
            return true;
        }
        match kind(address) {
            Kind::Public => true,
            Kind::Private => self.private,
            Kind::Metadata => self.private && host == self.endpoint_host,
            Kind::Nobody => false,
        }
    }
}

#[cfg(test)]
mod tests;
