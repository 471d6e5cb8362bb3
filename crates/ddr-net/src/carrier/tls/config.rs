//! The TLS configurations: TLS 1.3 only, Ed25519 only, the swarm root as the only root.
//!
//! It decides what is offered in a handshake. It must never name a second root or allow a client
//! without a certificate.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig, version};

use super::RevocationCheck;
use super::verify::{ClientVerifier, ServerVerifier};
use crate::carrier::Alpn;

/// Every key of a swarm is Ed25519: no other signature is even considered.
static ED25519: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[webpki::ring::ED25519],
    mapping: &[(rustls::SignatureScheme::ED25519, &[webpki::ring::ED25519])],
};

/// The configuration of the accepting end.
pub(crate) fn server(
    root: &CertificateDer<'static>,
    member: &CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    is_revoked: RevocationCheck,
) -> io::Result<Arc<ServerConfig>> {
    let provider = provider();
    let verifier = ClientVerifier::new(roots(root)?, provider.clone(), is_revoked)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(vec![member.clone()], key)
        .map_err(io::Error::other)?;
    config.alpn_protocols =
        [Alpn::Messages, Alpn::Content].map(|alpn| alpn.name().to_vec()).to_vec();
    // Resumption would skip the certificate, and with it expiry and revocation.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The configuration of the dialling end, which shows `chain`.
pub(crate) fn client(
    root: &CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: Alpn,
) -> io::Result<Arc<ClientConfig>> {
    let provider = provider();
    let verifier = ServerVerifier::new(roots(root)?, provider.clone())?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![alpn.name().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn roots(root: &CertificateDer<'static>) -> io::Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).map_err(io::Error::other)?;
    Ok(Arc::new(roots))
}

fn provider() -> Arc<CryptoProvider> {
    // AES-128 first: it costs less than AES-256 on the bytes path, and both are ample.
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider {
        cipher_suites,
        kx_groups: vec![kx_group::X25519],
        signature_verification_algorithms: ED25519,
        ..default_provider()
    })
}
