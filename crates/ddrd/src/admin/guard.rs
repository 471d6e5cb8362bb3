//! Who may use the admin API.
//!
//! It listens on loopback without a password, so any web page that the user opens could try to
//! speak to it. Two things stop that: a page always sends `Origin` on writes and on readable
//! cross-site requests, and a page that rebinds its own DNS name to 127.0.0.1 sends that name in
//! `Host`. Both are refused; no response carries a CORS header.

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

/// Checks the headers of a request.
///
/// # Errors
///
/// One line that says why the request is refused.
pub(super) fn check(headers: &HeaderMap) -> Result<(), &'static str> {
    if headers.contains_key(ORIGIN) {
        return Err("the admin API does not answer web pages (Origin header)");
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_loopback(host) => Ok(()),
        _ => Err("the admin API answers only to a loopback name in the Host header"),
    }
}

fn is_loopback(host: &HeaderValue) -> bool {
    let Some(authority) = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok()) else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let loopback = |ip: std::net::IpAddr| ip.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn loopback_hosts_pass() {
        for host in ["localhost", "LocalHost:5002", "127.0.0.1:5002", "127.9.9.9", "[::1]:5002"] {
            assert_eq!(check(&with(&[("host", host)])), Ok(()), "{host}");
        }
    }

    #[test]
    fn rebound_names_are_refused() {
        for host in [
            "evil.example",
            "evil.example:5002",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil.example@localhost",
            "192.0.2.1:5002",
            "0.0.0.0:5002",
            "[::]:5002",
            "",
        ] {
            assert!(check(&with(&[("host", host)])).is_err(), "{host}");
        }
        assert!(check(&HeaderMap::new()).is_err());
        let mut two = with(&[("host", "localhost")]);
        two.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(check(&two).is_err());
    }

    #[test]
    fn web_pages_are_refused() {
        for origin in ["http://evil.example", "http://localhost:5002", "null"] {
            assert!(check(&with(&[("host", "localhost"), ("origin", origin)])).is_err());
        }
    }
}
