//! The HTTP client beneath: certificates, proxy, resolver.
//!
//! Decides whom a connection may be made to and which certificates are trusted. It never follows a redirect,
//! decompresses nothing and keeps no cookies.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, ClientBuilder, Proxy, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::config::{Settings, SettingsError};
use crate::hosts::{Reach, host_of};
use crate::resolver::Resolver;

/// Longest wait for a connection with its TLS handshake.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next request.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// Most connections to one host that are kept.
const MAX_IDLE_PER_HOST: usize = 8;
/// Who asks.
const USER_AGENT: &str = concat!("ddr/", env!("CARGO_PKG_VERSION"));

/// Where the system's proxies are configured.
const PROXY_VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Hosts of the proxies that may be used.
pub(crate) fn proxy_hosts(settings: &Settings) -> Result<Vec<String>, SettingsError> {
    if let Some(proxy) = &settings.proxy {
        return Ok(vec![proxy_host(proxy).ok_or_else(invalid_proxy)?]);
    }
    let values = PROXY_VARIABLES.iter().filter_map(|name| std::env::var(name).ok());
    Ok(values.filter_map(|value| proxy_host(&value)).collect())
}

fn proxy_host(text: &str) -> Option<String> {
    // Variables often hold `proxy:3128` alone.
    let has_scheme = text.contains("://");
    let url = if has_scheme { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
    let url = url.ok()?;
    let is_web = matches!(url.scheme(), "http" | "https");
    (is_web && url.has_host()).then(|| host_of(&url).to_owned())
}

/// Without the text: it may hold a password.
fn invalid_proxy() -> SettingsError {
    SettingsError::Invalid("the proxy is none: want http://HOST:PORT".to_owned())
}

/// A client for these settings.
pub(crate) fn build(settings: &Settings, reach: &Reach) -> Result<Client, SettingsError> {
    let builder = Client::builder()
        .tls_backend_preconfigured(tls(&settings.ca_files)?)
        .http1_only()
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIME)
        .pool_idle_timeout(IDLE_TIME)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .dns_resolver(Arc::new(Resolver(reach.admission().clone())));
    let client = with_proxy(builder, settings, reach)?.build();
    client.map_err(|_| SettingsError::Invalid("no HTTP client with these settings".to_owned()))
}

/// As in `Settings::proxy`; a loopback endpoint is asked directly, as other clients do.
fn with_proxy(
    builder: ClientBuilder,
    settings: &Settings,
    reach: &Reach,
) -> Result<ClientBuilder, SettingsError> {
    if let Some(proxy) = &settings.proxy {
        return Ok(builder.proxy(Proxy::all(proxy).map_err(|_| invalid_proxy())?));
    }
    let host = host_of(reach.endpoint());
    let address = host.parse::<std::net::IpAddr>();
    let is_loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    Ok(if is_loopback { builder.no_proxy() } else { builder })
}

/// The system's authorities and those of the files.
fn tls(ca_files: &[impl AsRef<Path>]) -> Result<ClientConfig, SettingsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    for path in ca_files {
        add_file(&mut roots, path.as_ref())?;
    }
    if roots.is_empty() {
        tracing::warn!("no certificate authority is known: HTTPS will fail");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| SettingsError::Invalid(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), SettingsError> {
    let failed = |reason: String| SettingsError::File { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))?;
    let before = roots.len();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.len() == before {
        return Err(failed("holds no certificate: want PEM".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_proxy_is_found_in_all_its_spellings() {
        for (text, host) in [
            ("http://proxy.example:3128", "proxy.example"),
            ("http://user:secret@Proxy.example:3128/", "proxy.example"),
            ("proxy.example:3128", "proxy.example"),
            ("10.0.0.1:3128", "10.0.0.1"),
        ] {
            assert_eq!(proxy_host(text).as_deref(), Some(host), "{text}");
        }
        for bad in ["", "socks5://a.example:1080", "http://"] {
            assert_eq!(proxy_host(bad), None, "{bad}");
        }
    }
}
