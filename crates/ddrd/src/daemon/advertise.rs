//! Under which address other nodes are told to reach this one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Addresses of the documentation ranges (RFC 5737, RFC 3849) that stand for "outside". Connecting
/// a UDP socket only asks the routing table; no packet is sent.
const OUTSIDE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The address to advertise.
///
/// What was `given` wins; its port 0 stands for the real one. Else the address that the peer port
/// listens on, and if that is every address, the one of the interface that leads to the first of
/// `bootstrap`, or to the outside, or loopback on a machine without a network.
pub(super) fn choose(
    given: Option<SocketAddr>,
    listen: SocketAddr,
    bootstrap: &[SocketAddr],
) -> SocketAddr {
    if let Some(given) = given {
        let port = if given.port() == 0 { listen.port() } else { given.port() };
        return SocketAddr::new(given.ip(), port);
    }
    if !listen.ip().is_unspecified() {
        return listen;
    }
    let reachable = |target: &SocketAddr| listen.is_ipv6() || target.is_ipv4();
    let source = bootstrap.iter().chain(&OUTSIDE).filter(|t| reachable(t)).find_map(route_to);
    let loopback = if listen.is_ipv4() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        IpAddr::V6(Ipv6Addr::LOCALHOST)
    };
    SocketAddr::new(source.unwrap_or(loopback), listen.port())
}

/// The source address that the kernel would use towards `target`; `None` without a route.
fn route_to(target: &SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_given_wins_and_port_0_is_filled_in() {
        let listen = at("0.0.0.0:7001");
        assert_eq!(choose(Some(at("192.0.2.7:9")), listen, &[]), at("192.0.2.7:9"));
        assert_eq!(choose(Some(at("192.0.2.7:0")), listen, &[]), at("192.0.2.7:7001"));
    }

    #[test]
    fn a_definite_listen_address_is_advertised_as_it_is() {
        assert_eq!(choose(None, at("127.0.0.1:7001"), &[]), at("127.0.0.1:7001"));
        assert_eq!(choose(None, at("[::1]:7001"), &[]), at("[::1]:7001"));
    }

    #[test]
    fn the_way_to_the_first_bootstrap_address_decides() {
        let chosen = choose(None, at("0.0.0.0:7001"), &[at("127.0.0.9:1")]);
        assert_eq!(chosen, at("127.0.0.1:7001"));
    }

    #[test]
    fn the_unspecified_address_is_never_advertised() {
        for listen in [at("0.0.0.0:7001"), at("[::]:7001")] {
            let chosen = choose(None, listen, &[]);
            assert!(!chosen.ip().is_unspecified());
            assert_eq!(chosen.port(), 7001);
        }
    }
}
