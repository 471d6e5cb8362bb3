//! The daemon and its three ports, from outside.

use std::net::SocketAddr;

use super::facts::{PeerPort, Registry};
use super::{Finding, span};

/// What answered on the admin port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AdminAnswer {
    /// A daemon.
    Daemon {
        /// Its version.
        version: String,
        /// Since when it runs.
        uptime_ms: u64,
        /// Whether it serves and has joined.
        ready: bool,
    },
    /// Nobody listens.
    Nobody,
    /// Something else.
    Foreign,
    /// A daemon that does not answer well; why.
    Ill(String),
}

/// Whether the daemon runs, and is ready.
#[must_use]
pub fn daemon(address: SocketAddr, answer: &AdminAnswer) -> Vec<Finding> {
    const CHECK: &str = "daemon";
    match answer {
        AdminAnswer::Daemon { version, uptime_ms, ready } => {
            let up = format!("ddrd {version} answers on {address}, up {}", span(*uptime_ms));
            vec![Finding::ok(CHECK, up), self::ready(*ready)]
        }
        AdminAnswer::Nobody => vec![Finding::fail(
            CHECK,
            format!("no daemon answers on {address}"),
            "start it: ddrd, or as a service: systemctl start ddrd. If its admin port is another one: ddr --admin \
             ADDR:PORT doctor",
        )],
        AdminAnswer::Foreign => vec![Finding::fail(
            CHECK,
            format!("what answers on {address} is not the admin API of ddrd"),
            "use the address in the line admin that ddrd prints: ddr --admin ADDR:PORT doctor",
        )],
        AdminAnswer::Ill(why) => vec![Finding::fail(
            CHECK,
            format!("the daemon on {address} does not answer as it should: {why}"),
            "look at its log: journalctl -u ddrd; ddr and ddrd have to be of one version; start it again",
        )],
    }
}

fn ready(ready: bool) -> Finding {
    match ready {
        true => Finding::ok("ready", "it serves, and has joined or is alone"),
        false => Finding::fail(
            "ready",
            "/readyz says 503: it found nobody of its swarm yet, or it drains",
            "look at the line bootstrap of ddr status; give it an address that answers: ddrd --bootstrap ADDR:PORT",
        ),
    }
}

/// Whether a port is free that a daemon would listen on: `taken` says why not.
#[must_use]
pub fn free(check: &'static str, address: SocketAddr, flag: &str, taken: Option<&str>) -> Finding {
    match taken {
        None => Finding::ok(check, format!("{address} is free for ddrd")),
        Some(why) => Finding::warn(
            check,
            format!("ddrd could not listen on {address}: {why}"),
            format!(
                "see who does: ss -ltnp 'sport = :{}'; or another one: ddrd {flag}",
                address.port()
            ),
        ),
    }
}

/// What answered `GET /v2/`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RegistryAnswer {
    /// A registry, so fast.
    Registry {
        /// Milliseconds.
        took_ms: u64,
    },
    /// A connection; TLS is not spoken from here.
    Open,
    /// Something else, or nothing.
    Other(String),
}

/// Whether clients get an answer.
#[must_use]
pub fn registry(registry: &Registry, answer: &RegistryAnswer) -> Finding {
    const CHECK: &str = "registry port";
    let (address, scheme) = (registry.address, if registry.tls { "https" } else { "http" });
    let is_local = address.ip().to_canonical().is_loopback();
    let found = match answer {
        RegistryAnswer::Registry { took_ms } => {
            format!("{scheme}://{address} answers GET /v2/ in {}", span(*took_ms))
        }
        RegistryAnswer::Open => format!("{scheme}://{address} is open (not asked: it speaks TLS)"),
        RegistryAnswer::Other(why) => {
            return Finding::fail(
                CHECK,
                format!("{scheme}://{address} does not answer as a registry: {why}"),
                "look at the log of ddrd: journalctl -u ddrd; start it again",
            );
        }
    };
    match (is_local, registry.tls) {
        (true, _) => Finding::ok(CHECK, format!("{found}; loopback: this machine's clients only")),
        (false, true) => Finding::ok(CHECK, format!("{found}; other machines reach it, too")),
        (false, false) => Finding::warn(
            CHECK,
            format!("{found}; not a loopback address"),
            "clients on other machines want TLS: ddrd --registry-tls-cert FILE --registry-tls-key FILE; or listen \
             on 127.0.0.1",
        ),
    }
}

/// What else has to be known of this machine and its peers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Surroundings {
    /// Whether the advertised address is one of this machine.
    pub is_own: bool,
    /// Whether a peer lives at an address that is not a loopback one.
    pub has_far_peers: bool,
}

/// Whether the address that peers are told leads here, and is one that they can use.
#[must_use]
pub fn peer_port(port: &PeerPort, around: Surroundings) -> Finding {
    const CHECK: &str = "peer port";
    let Some(last) = port.advertised.last() else {
        return Finding::fail(CHECK, "no address is advertised", ADVERTISE);
    };
    let Some(dial) = port.advertised.iter().find(|dial| dial.reached()) else {
        let found = format!("advertised as {}", last.shown());
        return match around.is_own {
            true => Finding::fail(
                CHECK,
                format!(
                    "{found}, although the address is this machine's; it listens on {}",
                    port.listen
                ),
                ADVERTISE,
            ),
            false => Finding::warn(
                CHECK,
                format!("{found}, seen from here"),
                format!(
                    "an address behind a port forward may look so from inside; the check \"reached by peers\" \
                     decides. The forward has to lead to port {} of this machine",
                    port.listen.port()
                ),
            ),
        };
    };
    let found = format!("advertised as {}, which leads to this node", dial.address);
    match dial.address.ip().to_canonical().is_loopback() {
        true if around.has_far_peers => Finding::warn(
            CHECK,
            format!("{found} on this machine only, and there are peers on others"),
            ADVERTISE,
        ),
        true => {
            Finding::ok(CHECK, format!("{found}; loopback: only this machine's nodes can join"))
        }
        false => Finding::ok(CHECK, found),
    }
}

pub(super) const ADVERTISE: &str = "give the address by which other machines reach this one: ddrd --peer-advertise ADDR:PORT (TOML peer-advertise), and \
     let TCP through to it";

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::super::facts::Dial;
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_daemon_is_there_or_it_is_said_how_to_start_it() {
        let address = at("127.0.0.1:5002");
        let states = |answer| {
            let found = daemon(address, &answer);
            found.iter().map(|finding| finding.state).collect::<Vec<_>>()
        };
        let up = |ready| AdminAnswer::Daemon { version: "1".into(), uptime_ms: 5_000, ready };
        assert_eq!(states(up(true)), [State::Ok, State::Ok]);
        assert_eq!(states(up(false)), [State::Ok, State::Fail]);
        assert_eq!(states(AdminAnswer::Foreign), [State::Fail]);
        assert_eq!(states(AdminAnswer::Ill("no".into())), [State::Fail]);
        let nobody = &daemon(address, &AdminAnswer::Nobody)[0];
        assert!(nobody.advice.as_ref().unwrap().contains("systemctl start ddrd"));
    }

    #[test]
    fn a_port_is_free_or_taken() {
        let port = at("127.0.0.1:5000");
        assert_eq!(free("registry port", port, "--x", None).state, State::Ok);
        let taken = free("registry port", port, "--x", Some("in use"));
        assert_eq!(taken.state, State::Warn);
        assert!(taken.advice.unwrap().contains("sport = :5000"));
    }

    #[test]
    fn a_registry_answers_and_on_other_addresses_with_tls() {
        let well = RegistryAnswer::Registry { took_ms: 2 };
        let state = |address, tls, answer: &RegistryAnswer| {
            registry(&Registry { address: at(address), tls }, answer).state
        };
        assert_eq!(state("127.0.0.1:5000", false, &well), State::Ok);
        assert_eq!(state("0.0.0.0:5000", false, &well), State::Warn);
        assert_eq!(state("0.0.0.0:5000", true, &RegistryAnswer::Open), State::Ok);
        let other = RegistryAnswer::Other("404".into());
        assert_eq!(state("127.0.0.1:5000", false, &other), State::Fail);
    }

    #[test]
    fn the_advertised_address_leads_here_and_is_of_use_to_others() {
        let port = |address: &str, outcome: &str| PeerPort {
            listen: at("0.0.0.0:5001"),
            advertised: vec![Dial { address: at(address), outcome: outcome.into() }],
        };
        let near = Surroundings { is_own: true, has_far_peers: false };
        let far = Surroundings { has_far_peers: true, ..near };
        let state = |port: &PeerPort, around| peer_port(port, around).state;
        assert_eq!(state(&port("192.0.2.7:5001", "reached"), far), State::Ok);
        assert_eq!(state(&port("127.0.0.1:5001", "reached"), near), State::Ok);
        assert_eq!(state(&port("127.0.0.1:5001", "reached"), far), State::Warn);
        for wrong in ["refused", "silent", "stranger", "failed"] {
            assert_eq!(state(&port("192.0.2.7:5001", wrong), near), State::Fail, "{wrong}");
        }
        let behind = Surroundings { is_own: false, has_far_peers: true };
        assert_eq!(state(&port("198.51.100.1:5001", "silent"), behind), State::Warn);
        let none = PeerPort { listen: at("0.0.0.0:1"), advertised: Vec::new() };
        assert_eq!(state(&none, near), State::Fail);
    }
}
