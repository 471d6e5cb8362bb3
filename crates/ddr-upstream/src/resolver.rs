//! Names to addresses, without those that must not be connected to.
//!
//! Decides at the moment of connecting, so that a name which changes its address between a check and its use
//! gains nothing. Where a proxy is used it sees the proxy's name only; the proxy resolves the rest.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::Admission;

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// All addresses of a host are such as must not be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{host} has no address that may be connected to: only private or link-local ones")]
pub(crate) struct Refused {
    host: String,
}

/// The system's resolver behind an [`Admission`].
pub(crate) struct Resolver(pub(crate) Admission);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let admission = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let host = name.as_str().trim_end_matches('.').to_ascii_lowercase();
            let allowed = allowed(&admission, host, found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn allowed(
    admission: &Admission,
    host: String,
    found: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, Refused> {
    let admitted = found.filter(|address| admission.admits(&host, address.ip()));
    let allowed: Vec<SocketAddr> = admitted.take(MAX_ADDRESSES).collect();
    if allowed.is_empty() { Err(Refused { host }) } else { Ok(allowed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_admitted_are_left_out() {
        let admission =
            Admission { private: false, endpoint_host: "a.example".to_owned(), proxies: vec![] };
        let found: Vec<SocketAddr> =
            ["10.0.0.1:0", "1.1.1.1:0", "[::1]:0"].map(|a| a.parse().expect("an address")).into();
        let allow = |found: &[SocketAddr]| {
            allowed(&admission, "a.example".to_owned(), found.iter().copied())
        };
        assert_eq!(allow(&found).expect("one left"), found[1..2]);
        let refused = allow(&found[..1]).expect_err("none left");
        assert!(refused.to_string().contains("a.example"));
    }
}
