//! Which hosts belong to the registry, and where a redirect or a token may lead.
//!
//! Decides by name, scheme and address before anything is sent; what a name resolves to is
//! [`crate::resolver`]'s. Never lets credentials out of the registry's own hosts, and never prints more of a
//! foreign URL than its host: the rest may be a signature.

use std::net::IpAddr;

use reqwest::Url;

use crate::address::{Admission, is_public};
use crate::api::UpstreamError;
use crate::config::{Settings, SettingsError};
use crate::known::well_known;

/// Most further hosts of one registry.
const MAX_HOSTS: usize = 64;

/// A host, or all hosts under a suffix.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Pattern {
    Exact(String),
    /// With the dot at its beginning.
    Under(String),
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if let Some(suffix) = text.strip_prefix("*.") {
            // A whole top-level domain is nobody's.
            let fits = is_name(suffix) && suffix.contains('.') && suffix.parse::<IpAddr>().is_err();
            return fits.then(|| Self::Under(format!(".{suffix}")));
        }
        (is_name(&text) || text.parse::<IpAddr>().is_ok()).then_some(Self::Exact(text))
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Under(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        }
    }
}

fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let fits = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        !label.is_empty() && fits
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// The host of a URL as it is compared: lower case, without brackets and a dot at its end.
pub(crate) fn host_of(url: &Url) -> &str {
    let host = url.host_str().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host)
}

/// Where requests may go.
pub(crate) struct Reach {
    endpoint: Url,
    own: Vec<Pattern>,
    follow_public: bool,
    admission: Admission,
}

impl Reach {
    /// `proxies`: their hosts.
    pub(crate) fn new(settings: &Settings, proxies: Vec<String>) -> Result<Self, SettingsError> {
        let endpoint = endpoint(&settings.endpoint)?;
        let endpoint_host = host_of(&endpoint).to_owned();
        let mut own = vec![Pattern::Exact(endpoint_host.clone())];
        let (known_endpoint, known_hosts) = well_known(&settings.host);
        let is_known = Url::parse(&known_endpoint).is_ok_and(|known| known == endpoint);
        let known_hosts = if is_known { known_hosts } else { Vec::new() };
        for host in settings.hosts.iter().chain(&known_hosts) {
            let pattern = Pattern::parse(host).ok_or_else(|| {
                let want = "want a host such as auth.example.org or *.cdn.example.org";
                SettingsError::Invalid(format!("hosts: {host:?}: {want}"))
            })?;
            own.push(pattern);
        }
        if own.len() > MAX_HOSTS {
            return Err(SettingsError::Invalid(format!("hosts: more than {MAX_HOSTS}")));
        }
        let admission = Admission { private: settings.private, endpoint_host, proxies };
        Ok(Self { endpoint, own, follow_public: settings.follow_public, admission })
    }

    pub(crate) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Whether `url` is at the endpoint itself: scheme, host and port.
    pub(crate) fn is_origin(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    fn is_own(&self, host: &str) -> bool {
        self.own.iter().any(|pattern| pattern.matches(host))
    }

    /// Whether a redirect to `url` may be followed, without credentials.
    pub(crate) fn may_follow(&self, url: &Url) -> Result<(), UpstreamError> {
        self.check_form(url, "a redirect")?;
        let host = host_of(url);
        if self.is_own(host) {
            return Ok(());
        }
        if !self.follow_public {
            return Err(forbidden(format!(
                "the registry redirects to {host}, which is none of its hosts: add it to hosts, or set follow_public"
            )));
        }
        self.check_proxy(host)
    }

    /// Whether a token may be asked for at `realm`.
    pub(crate) fn may_ask_token(
        &self,
        realm: &Url,
        with_credentials: bool,
    ) -> Result<(), UpstreamError> {
        self.check_form(realm, "its token service")?;
        let host = host_of(realm);
        if self.is_own(host) {
            return Ok(());
        }
        if with_credentials {
            return Err(forbidden(format!(
                "the registry wants the credentials sent to {host}, which is none of its hosts: add it to hosts if it is"
            )));
        }
        if !self.follow_public {
            return Err(forbidden(format!(
                "the registry's token service is {host}, which is none of its hosts: add it to hosts, or set follow_public"
            )));
        }
        self.check_proxy(host)
    }

    /// Whether the host, where it is an address, may be connected to. Names are the resolver's.
    pub(crate) fn check_address(&self, url: &Url) -> Result<(), UpstreamError> {
        let host = host_of(url);
        let Ok(address) = host.parse::<IpAddr>() else { return Ok(()) };
        // A proxy's address is no exception here: this is where the request goes, not the way.
        let admission = Admission { proxies: Vec::new(), ..self.admission.clone() };
        if admission.admits(host, address) {
            return Ok(());
        }
        let why = if is_public(address) { "not allowed" } else { "not a public address" };
        Err(forbidden(format!("{host} is {why}")))
    }

    /// HTTPS, or HTTP among the hosts of a registry that has no HTTPS itself; nobody's name in it.
    fn check_form(&self, url: &Url, what: &str) -> Result<(), UpstreamError> {
        let host = host_of(url);
        if host.is_empty() || !url.username().is_empty() || url.password().is_some() {
            return Err(forbidden(format!("{what} has a URL with a user name, or without a host")));
        }
        let plain = url.scheme() == "http" && self.endpoint.scheme() == "http" && self.is_own(host);
        if url.scheme() != "https" && !plain {
            return Err(forbidden(format!("{what} leads to {host} without HTTPS")));
        }
        Ok(())
    }

    /// The resolver lets a proxy's name through; so that name is no target.
    fn check_proxy(&self, host: &str) -> Result<(), UpstreamError> {
        if self.admission.proxies.iter().any(|proxy| proxy == host) {
            return Err(forbidden(format!("the registry leads to {host}, which is the proxy")));
        }
        Ok(())
    }
}

fn forbidden(text: String) -> UpstreamError {
    UpstreamError::Forbidden(text)
}

/// `scheme://host[:port]` and nothing more.
fn endpoint(text: &str) -> Result<Url, SettingsError> {
    let invalid = || {
        let want = "want https://HOST[:PORT], without a path";
        SettingsError::Invalid(format!("the endpoint is none: {want}"))
    };
    let url = Url::parse(text).map_err(|_| invalid())?;
    let is_web = matches!(url.scheme(), "https" | "http") && !host_of(&url).is_empty();
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
    let is_nobodys = url.username().is_empty() && url.password().is_none();
    let fits = is_web && is_bare && is_nobodys && url.fragment().is_none();
    fits.then_some(url).ok_or_else(invalid)
}

#[cfg(test)]
mod tests;
