//! A host and a port as an operator or a name server gives them, and the way to its addresses.
//!
//! Names go through the system's resolver, so `/etc/hosts`, search domains and every other source
//! of the machine count. It must never keep more than [`MAX_LOOKUPS`] threads waiting for it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;

use super::name::MAX_NAME_BYTES;

/// The peer port when none is given.
pub const DEFAULT_PEER_PORT: u16 = 5001;
/// Names that the system's resolver looks up at one time; it may take half a minute for each.
pub const MAX_LOOKUPS: usize = 4;
/// Addresses of one name that are looked at; the others are left out.
pub const MAX_ADDRESSES: usize = 256;

static LOOKUPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_LOOKUPS)));

/// A host, as a name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    host: String,
    port: u16,
}

/// The text is none of `HOST`, `HOST:PORT`, `IP`, `IP:PORT`, `[IPV6]:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not HOST:PORT")]
pub struct PlaceError(pub String);

impl Place {
    pub(super) fn new(host: String, port: u16) -> Self {
        Self { host, port }
    }

    /// The host without its port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its addresses now, at most [`MAX_ADDRESSES`]; an IP address is its own.
    ///
    /// # Errors
    ///
    /// The system's words, or `WouldBlock` when [`MAX_LOOKUPS`] run already.
    pub async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.port)]);
        }
        let turn = Arc::clone(&LOOKUPS).try_acquire_owned();
        let turn = turn.map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        let place = self.clone();
        // The turn goes along: it ends with the look-up, not with the patience of who asked.
        let lookup = tokio::task::spawn_blocking(move || {
            let found = (place.host.as_str(), place.port).to_socket_addrs();
            let found = found.map(|addrs| addrs.take(MAX_ADDRESSES).collect());
            drop(turn);
            found
        });
        lookup.await.map_err(io::Error::other)?
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let wrong = || PlaceError(text.to_owned());
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return if addr.port() == 0 { Err(wrong()) } else { Ok(addr.into()) };
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::new(ip.to_string(), DEFAULT_PEER_PORT));
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (text, DEFAULT_PEER_PORT),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let good = (1..MAX_NAME_BYTES).contains(&host.len()) && host.chars().all(plain);
        if good && port != 0 { Ok(Self::new(host.to_owned(), port)) } else { Err(wrong()) }
    }
}

impl From<SocketAddr> for Place {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr.ip().to_string(), addr.port())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_form_is_read_and_addresses_need_no_look_up() {
        for (text, shown) in [
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("192.0.2.1", "192.0.2.1:5001"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("2001:db8::1", "[2001:db8::1]:5001"),
            ("node-1.example", "node-1.example:5001"),
            ("node_1:7", "node_1:7"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown);
        }
        for text in
            ["", ":7", "a:0", "a:b", "a:70000", "a b:1", "http://a:1", "192.0.2.1:0", "a:1:2"]
        {
            assert_eq!(text.parse::<Place>(), Err(PlaceError(text.into())), "{text}");
        }
        let place: Place = "[::1]:7".parse().unwrap();
        assert_eq!(place.addresses().await.unwrap(), ["[::1]:7".parse().unwrap()]);
    }
}
