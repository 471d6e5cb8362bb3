//! Whose name a request was sent to.
//!
//! The port has no authentication: what keeps a web page away is that its browser may not talk to
//! this machine in its name. A page whose own name suddenly leads here (DNS rebinding) would get
//! around that, so a request is answered only when its `Host` is no name that a stranger could
//! give to this machine: an IP address, `localhost`, a name without a dot (which only this
//! machine's or its network's own files can know), one under `.localhost` or `.internal` (which
//! no registrar sells), or one that the operator configured. It must never resolve a name.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::Version;
use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;

use crate::error::ApiError;

/// Ends of names that nobody can register (RFC 6761, section 6.3; ICANN resolution 2024.07.29.06).
const PRIVATE_ENDS: [&str; 2] = [".localhost", ".internal"];

/// Checks the target of a request; `known` are names in lower case.
pub(crate) fn check(head: &Parts, known: &[String]) -> Result<(), ApiError> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = fields.next();
    // RFC 9112, section 3.2.
    let missing = field.is_none() && head.version == Version::HTTP_11;
    if fields.next().is_some() || (missing && head.uri.authority().is_none()) {
        return Err(ApiError::host_malformed());
    }
    if let Some(field) = field.filter(|field| !field.is_empty()) {
        let authority = field.to_str().ok().and_then(|text| text.parse().ok());
        check_one(&authority.ok_or_else(ApiError::host_malformed)?, known)?;
    }
    head.uri.authority().map_or(Ok(()), |authority| check_one(authority, known))
}

/// Whether `authority` is this machine itself by its loopback, or one of `known`.
pub(crate) fn is_loopback_or(authority: &Authority, known: &[String]) -> bool {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address: Option<std::net::IpAddr> = host.parse().ok();
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    address.is_some_and(|address| address.to_canonical().is_loopback())
        || name == "localhost"
        || name.ends_with(".localhost")
        || known.contains(&name)
}

fn check_one(authority: &Authority, known: &[String]) -> Result<(), ApiError> {
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).map(|port| port.trim_start_matches(':'));
    let port = port.filter(|port| port.is_empty() || port.parse::<u16>().is_ok());
    // Also what has a name and a password in front does not begin with the host.
    if host.is_empty() || port.is_none() {
        return Err(ApiError::host_malformed());
    }
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // The zone, as RFC 6874 has it: one of this machine's own interfaces.
        let (address, zone) = address.split_once("%25").unwrap_or((address, "0"));
        let parsed = address.parse::<Ipv6Addr>().ok().filter(|_| !zone.is_empty());
        return parsed.map(drop).ok_or_else(ApiError::host_malformed);
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Ok(());
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let ours = !name.contains('.')
        || PRIVATE_ENDS.iter().any(|end| name.ends_with(end))
        || known.contains(&name);
    if ours { Ok(()) } else { Err(ApiError::host_of_others(&name)) }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn status(host: &str) -> u16 {
        let request = Request::builder().uri("/v2/").header(HOST, host).body(()).unwrap();
        let known = ["registry.example".to_owned()];
        match check(&request.into_parts().0, &known) {
            Ok(()) => 200,
            Err(error) => error.into_reply().status().as_u16(),
        }
    }

    #[test]
    fn names_of_this_machine_pass() {
        for host in [
            "localhost:5000",
            "LocalHost",
            "localhost.:5000",
            "127.0.0.1:5000",
            "127.8.9.1",
            "[::1]:5000",
            "[fe80::1%25eth0]:5000",
            "192.0.2.1:5000",
            "registry:5000",
            "a.localhost",
            "host.docker.internal:5000",
            "registry.example:5000",
            "Registry.Example.",
            "",
        ] {
            assert_eq!(status(host), 200, "{host}");
        }
    }

    #[test]
    fn names_of_strangers_do_not() {
        for host in [
            "attacker.example",
            "attacker.example:5000",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example",
            "xlocalhost.com",
            "sub.registry.example",
            "registry.example.attacker.example",
            "1.2.3.4.5",
        ] {
            assert_eq!(status(host), 421, "{host}");
        }
        for host in
            ["a@localhost", "a b", "[::1", "[fe80::1%25]", "localhost:x", "/", "[attacker.example]"]
        {
            assert_eq!(status(host), 400, "{host}");
        }
    }

    #[test]
    fn a_request_names_one_host() {
        let parts = |build: fn(http::request::Builder) -> http::request::Builder| {
            build(Request::builder().uri("/v2/")).body(()).unwrap().into_parts().0
        };
        assert!(check(&parts(|b| b), &[]).is_err(), "HTTP/1.1 needs one");
        assert!(check(&parts(|b| b.version(Version::HTTP_10)), &[]).is_ok());
        let two = parts(|b| b.header(HOST, "localhost").header(HOST, "localhost"));
        assert!(check(&two, &[]).is_err());
        let absolute = parts(|b| b.uri("http://attacker.example/v2/").header(HOST, "localhost"));
        assert!(check(&absolute, &[]).is_err());
        let http2 = parts(|b| b.uri("http://localhost:5000/v2/").version(Version::HTTP_2));
        assert!(check(&http2, &[]).is_ok());
    }
}
