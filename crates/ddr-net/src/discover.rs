//! Where other nodes may be, from every source that was configured: addresses to dial, no more.
//!
//! It decides what a source means and bounds what it may bring. Nothing that it brings is believed:
//! whoever is dialled proves in the handshake that it is of the swarm. When to look, and how many
//! addresses to dial, is for the node to decide.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

pub mod mdns;
pub mod message;
pub mod name;
pub mod place;
pub mod resolver;

use self::mdns::Mdns;
use self::name::Name;
use self::place::Place;
use self::resolver::{Resolver, Target};

/// Static places that may be configured.
pub const MAX_STATIC: usize = 64;
/// Names of the DNS sources that are resolved in one look.
pub const MAX_RESOLVED: usize = 4;
/// Addresses that one look at one source gives.
pub const MAX_ADDRESSES: usize = 256;
/// Time for one look at one source.
pub const LOOK_LIMIT: Duration = Duration::from_secs(6);

/// A kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Addresses of the join token.
    Token,
    /// The list of the configuration.
    Static,
    /// A name in the DNS.
    Dns,
    /// The LAN.
    Mdns,
    /// Peers that an earlier run knew.
    Saved,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token",
            Self::Static => "static",
            Self::Dns => "dns",
            Self::Mdns => "mdns",
            Self::Saved => "saved",
        })
    }
}

/// What to ask the DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsName {
    /// A host with many addresses (A and AAAA), by the system's resolver.
    Host(Place),
    /// A service whose first label begins with `_` (SRV, RFC 2782).
    Service(Name),
}

impl std::str::FromStr for DnsName {
    type Err = place::PlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.starts_with('_') {
            return text.parse().map(Self::Host);
        }
        text.parse().map(Self::Service).map_err(|_| place::PlaceError(text.to_owned()))
    }
}

/// The sources of one node. The default has none.
#[derive(Debug, Default)]
pub struct Discovery {
    /// Places of the configuration, at most [`MAX_STATIC`].
    pub places: Vec<Place>,
    /// The name in the DNS.
    pub dns: Option<DnsName>,
    /// Name servers for SRV; `None` for those of the system.
    pub resolver: Option<Resolver>,
    /// The LAN.
    pub mdns: Option<Mdns>,
}

impl Discovery {
    /// The sources that are configured here.
    pub fn origins(&self) -> Vec<Origin> {
        let places = (!self.places.is_empty()).then_some(Origin::Static);
        let dns = self.dns.as_ref().map(|_| Origin::Dns);
        let mdns = self.mdns.as_ref().map(|_| Origin::Mdns);
        [places, dns, mdns].into_iter().flatten().collect()
    }

    /// What a source knows now, without repetition, in no order that matters; at most
    /// [`MAX_ADDRESSES`]. Returns within [`LOOK_LIMIT`].
    ///
    /// # Errors
    ///
    /// What the name servers or the system said.
    pub async fn look(&self, origin: Origin) -> io::Result<Vec<SocketAddr>> {
        let look = async {
            match (origin, &self.dns, &self.mdns) {
                (Origin::Static, ..) => resolved(&self.places).await,
                (Origin::Dns, Some(DnsName::Host(place)), _) => place.addresses().await,
                (Origin::Dns, Some(DnsName::Service(name)), _) => self.service(name).await,
                (Origin::Mdns, _, Some(mdns)) => {
                    mdns.ask();
                    Ok(mdns.found())
                }
                _ => Ok(Vec::new()),
            }
        };
        let found = timeout(LOOK_LIMIT, look).await;
        let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        let found: BTreeSet<SocketAddr> =
            found.into_iter().filter(dialable).take(MAX_ADDRESSES).collect();
        Ok(found.into_iter().collect())
    }

    /// Returns once the LAN brought somebody new; never without mDNS.
    pub async fn changed(&self) {
        match &self.mdns {
            Some(mdns) => mdns.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Tells the LAN that this node goes.
    pub async fn close(&self) {
        if let Some(mdns) = &self.mdns {
            mdns.close().await;
        }
    }

    /// Addresses of a few targets: at random among those of the lowest priority, then of the next.
    async fn service(&self, name: &Name) -> io::Result<Vec<SocketAddr>> {
        let resolver = match &self.resolver {
            Some(resolver) => resolver.clone(),
            None => tokio::task::spawn_blocking(Resolver::of_the_system)
                .await
                .map_err(io::Error::other)?,
        };
        let mut targets = resolver.srv(name).await?;
        shuffle(&mut targets);
        targets.sort_by_key(|target| target.priority);
        let places: Vec<Place> = targets.into_iter().map(|Target { place, .. }| place).collect();
        resolved(&places[..places.len().min(MAX_RESOLVED)]).await
    }
}

/// Addresses of the places; an error only if none could be resolved. IP addresses cost nothing, so
/// all of them are taken, and [`MAX_RESOLVED`] of the names at random.
async fn resolved(places: &[Place]) -> io::Result<Vec<SocketAddr>> {
    let is_ip = |place: &&Place| place.host().parse::<std::net::IpAddr>().is_ok();
    let (fixed, mut names): (Vec<&Place>, Vec<&Place>) = places.iter().partition(is_ip);
    shuffle(&mut names);
    names.truncate(MAX_RESOLVED);
    let lookups = fixed.into_iter().chain(names).map(Place::addresses);
    let mut addrs = Vec::new();
    let mut failed = None;
    for found in futures_util::future::join_all(lookups).await {
        match found {
            Ok(found) => addrs.extend(found),
            Err(error) => failed = Some(error),
        }
    }
    failed.filter(|_| addrs.is_empty()).map_or(Ok(addrs), Err)
}

fn dialable(addr: &SocketAddr) -> bool {
    addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast()
}

/// Puts `items` into random order (Fisher and Yates).
pub fn shuffle<T>(items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let random = getrandom::u64().unwrap_or_default();
        items.swap(last, (random % (last as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_underscore_makes_a_service() {
        assert!(matches!("_ddr._tcp.example.org".parse(), Ok(DnsName::Service(_))));
        assert!(matches!("nodes.example.org".parse(), Ok(DnsName::Host(_))));
        assert!("_ddr..org".parse::<DnsName>().is_err());
        assert!("a b".parse::<DnsName>().is_err());
    }

    #[tokio::test]
    async fn static_places_are_bounded_and_dialable() {
        let places = ["192.0.2.1:1", "192.0.2.1:1", "0.0.0.0:1", "224.0.0.1:1"];
        let places = places.iter().map(|place| place.parse().unwrap()).collect();
        let discovery = Discovery { places, ..Discovery::default() };
        assert_eq!(discovery.origins(), [Origin::Static]);
        let found = discovery.look(Origin::Static).await.unwrap();
        assert_eq!(found, ["192.0.2.1:1".parse().unwrap()]);
        assert_eq!(discovery.look(Origin::Dns).await.unwrap(), []);
    }
}
