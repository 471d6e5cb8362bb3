//! Which repository a request means: one of the swarm's own, or one of a registry that is mirrored.
//!
//! Decides how `ns` (distribution-spec, "Registry Proxying"), the first part of the path, and a bare name become one
//! name (docs/mirror.md). What belongs to another registry is never pushed to here. It must never ask anybody.

use ddr_oci::{Mirrored, RepositoryName, Request, UpstreamHost, route};
use http::header::{HeaderName, HeaderValue};

use crate::error::ApiError;
use crate::host;
use crate::respond::{self, Reply};

/// Which registry answered a request with `ns` (distribution-spec, "Registry Proxying").
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");

/// What the query says of the registry that is meant.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Namespace(Option<UpstreamHost>);

impl Namespace {
    /// Reads `ns`; `hosts` are further names of this registry, for which it says nothing.
    pub(crate) fn read(query: Option<&str>, hosts: &[String]) -> Result<Self, ApiError> {
        let Some(text) = route::namespace(query.unwrap_or_default())? else {
            return Ok(Self::default());
        };
        let is_own = text.parse().is_ok_and(|authority| host::is_loopback_or(&authority, hosts));
        if is_own {
            return Ok(Self::default());
        }
        text.parse().map(|host| Self(Some(host))).map_err(|_| ApiError::namespace_invalid())
    }

    /// Gives `request` the name that is meant. A request that would change what belongs to another registry is
    /// refused.
    pub(crate) fn place(&self, request: &mut Request) -> Result<(), ApiError> {
        let changes = request.changes();
        let Some(name) = request.name_mut() else { return Ok(()) };
        let own_prefix = Mirrored::of(name);
        let placed = match (&self.0, own_prefix) {
            // With a path at the mirror some clients say both.
            (Some(host), Some(mirrored)) if mirrored.host == *host => {
                Some(host.name_here(&mirrored.repository))
            }
            (Some(host), _) => Some(host.name_here(name)),
            (None, Some(mirrored)) => Some(mirrored.host.name_here(&mirrored.repository)),
            (None, None) => None,
        };
        if let Some(placed) = placed.transpose().map_err(|_| ApiError::namespace_invalid())? {
            *name = placed;
        }
        if changes && Mirrored::is_reserved(name) {
            return Err(ApiError::not_ours(name));
        }
        Ok(())
    }

    /// Says in the answer which registry it is of.
    pub(crate) fn mark(&self, reply: &mut Reply) {
        if let Some(host) = &self.0 {
            let value: HeaderValue = respond::value(host.as_str());
            reply.headers_mut().insert(OCI_NAMESPACE, value);
        }
    }
}

/// The same request for a repository of `bare`, the registry that is asked for what nobody pushed under a bare
/// name. `None`: the name is not bare, or this is no request for content.
pub(crate) fn at_bare(request: &Request, bare: &UpstreamHost) -> Option<Request> {
    let content = matches!(request, Request::Manifest { .. } | Request::Blob { .. });
    let mut request = request.clone();
    let name: &mut RepositoryName = request.name_mut().filter(|_| content)?;
    if Mirrored::is_reserved(name) {
        return None;
    }
    *name = bare.name_here(name).ok()?;
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(method: &str, path: &str, query: &str) -> Result<String, u16> {
        let hosts = ["registry.lab".to_owned()];
        let status = |error: ApiError| error.into_reply().status().as_u16();
        let query = Some(query).filter(|query| !query.is_empty());
        let mut request =
            route::parse(method, path, query).map_err(|error| status(error.into()))?;
        let namespace = Namespace::read(query, &hosts).map_err(status)?;
        namespace.place(&mut request).map_err(status)?;
        Ok(request.name_mut().map(|name| name.to_string()).unwrap_or_default())
    }

    #[test]
    fn all_forms_of_a_name_are_one() {
        for (path, query) in [
            ("/v2/library/alpine/tags/list", "ns=docker.io"),
            ("/v2/alpine/tags/list", "ns=docker.io"),
            ("/v2/docker.io/library/alpine/tags/list", ""),
            ("/v2/docker.io/alpine/tags/list", ""),
            ("/v2/docker.io/library/alpine/tags/list", "ns=docker.io"),
        ] {
            let named = place("GET", path, query);
            assert_eq!(named.as_deref(), Ok("docker.io/library/alpine"), "{path} {query}");
        }
        let named = place("GET", "/v2/a/b/tags/list", "ns=registry.example%3A5000");
        assert_eq!(named.as_deref(), Ok("registry.example_5000/a/b"));
    }

    #[test]
    fn own_names_stay_own() {
        for query in
            ["", "ns=localhost:5000", "ns=127.0.0.1:5000", "ns=registry.lab", "ns=%5B::1%5D:5000"]
        {
            assert_eq!(
                place("GET", "/v2/team/app/tags/list", query).as_deref(),
                Ok("team/app"),
                "{query}"
            );
        }
    }

    #[test]
    fn what_is_no_registry_is_refused() {
        for ns in [
            "UPPER.example",
            "a.b/c",
            "u%40a.b",
            "harbor",
            "a.b:0",
            "a.b:99999",
            "..",
            "a.b%00",
            "http://a.b",
            "%5Bfe80::1%5D:80",
        ] {
            let named = place("GET", "/v2/app/tags/list", &format!("ns={ns}"));
            assert_eq!(named, Err(400), "{ns}");
        }
    }

    #[test]
    fn nobody_pushes_in_the_name_of_another_registry() {
        for (method, path, query) in [
            ("POST", "/v2/docker.io/library/alpine/blobs/uploads/", ""),
            ("PUT", "/v2/library/alpine/manifests/latest", "ns=docker.io"),
            ("PUT", "/v2/a.b__x/app/manifests/latest", ""),
            ("DELETE", "/v2/docker.io/library/alpine/manifests/latest", ""),
        ] {
            assert_eq!(place(method, path, query), Err(403), "{method} {path}");
        }
        assert!(place("PUT", "/v2/library/alpine/manifests/latest", "").is_ok());
    }

    #[test]
    fn bare_names_go_to_one_registry_for_content_only() {
        let hub: UpstreamHost = "docker.io".parse().expect("a host");
        let at = |method, path| {
            let request = route::parse(method, path, None).expect("a request");
            at_bare(&request, &hub)
                .map(|mut request| request.name_mut().expect("a name").to_string())
        };
        assert_eq!(
            at("GET", "/v2/alpine/manifests/3").as_deref(),
            Some("docker.io/library/alpine")
        );
        assert_eq!(at("GET", "/v2/quay.io/app/manifests/3"), None);
        assert_eq!(at("GET", "/v2/alpine/tags/list"), None);
        assert_eq!(at("PUT", "/v2/alpine/manifests/3"), None);
    }
}
