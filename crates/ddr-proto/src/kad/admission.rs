//! Who may enter a bucket: the limits on addresses, and what a usable contact is.
//!
//! S/Kademlia, section 4.1, makes many IDs expensive; these limits make many IDs behind one address
//! useless. That a node must have answered first is enforced by the core, which calls the table
//! only with nodes that did.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::config::KadConfig;
use crate::wire::Contact;

/// Whether all addresses of `contact`, of which others told, may be dialled by the node `own`.
///
/// Nobody can talk a node into dialling itself. An address of the loopback means another machine
/// to each node that hears of it, so only a node that tells others such an address of its own, in a
/// swarm on one machine, dials those of others.
pub(super) fn may_be_dialled(contact: &Contact, own: &Contact) -> bool {
    let loopback = |addr: &SocketAddr| addr.ip().to_canonical().is_loopback();
    let on_one_machine = own.addrs.is_empty() || own.addrs.iter().any(loopback);
    !contact.has_impossible_address()
        && contact.addrs.iter().all(|addr| !own.addrs.contains(addr))
        && (on_one_machine || !contact.addrs.iter().any(loopback))
}

/// Limits on what nodes of one bucket may share.
#[derive(Copy, Clone, Debug)]
pub(super) struct AddressLimits {
    per_address: usize,
    per_prefix: usize,
}

impl AddressLimits {
    pub(super) const fn new(cfg: &KadConfig) -> Self {
        Self { per_address: cfg.max_per_address, per_prefix: cfg.max_per_prefix }
    }

    /// Whether `newcomer` fits beside the other `members` of its bucket.
    ///
    /// A node counts for each of its addresses, so that listing more of them gains nothing.
    pub(super) fn allow<'a>(
        &self,
        newcomer: &Contact,
        members: impl Iterator<Item = &'a Contact> + Clone,
    ) -> bool {
        newcomer.addrs.iter().map(|addr| addr.ip()).all(|ip| {
            let sharing = |same: &dyn Fn(IpAddr) -> bool| {
                let shares = |member: &&Contact| member.addrs.iter().any(|addr| same(addr.ip()));
                members.clone().filter(|m| m.id != newcomer.id).filter(shares).count()
            };
            sharing(&|other| other == ip) < self.per_address
                && sharing(&|other| prefix(other) == prefix(ip)) < self.per_prefix
        })
    }
}

/// The /24 of an IPv4 address or the /64 of an IPv6 address.
fn prefix(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}
