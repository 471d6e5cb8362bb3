//! Certificates, and what is allowed among HTTPS hosts only.

use std::path::PathBuf;
use std::sync::Arc;

use ddr_upstream::{Settings, Upstream, UpstreamError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::bed::{BASIC, found, resolve, settings, with_password};
use crate::server::{Reply, Server};

/// An authority, its file, and a server's certificate for `localhost`.
struct Authority {
    directory: TempDir,
    acceptor: TlsAcceptor,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a certificate");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.pem"), root.pem()).expect("written");
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        let leaf = params.signed_by(&key, &issuer).expect("a certificate");
        let chain = vec![leaf.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        Self { directory, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }
}

#[tokio::test]
async fn a_configured_authority_is_trusted_and_no_other() {
    let authority = Authority::new();
    let server = Server::start_with(Some(authority.acceptor.clone()), |_| found()).await;
    let unknown = settings(&format!("https://localhost:{}", server.port));
    let trusting = Settings { ca_files: vec![authority.file()], ..unknown.clone() };
    let found = resolve(&Upstream::new(trusting.clone()).expect("settings")).await;
    assert!(found.expect("an answer").is_some());
    let other_name =
        Settings { endpoint: format!("https://127.0.0.1:{}", server.port), ..trusting };
    for settings in [unknown, other_name] {
        let error = resolve(&Upstream::new(settings).expect("settings")).await;
        let error = error.expect_err("no trust");
        let UpstreamError::Unreachable(text) = &error else { panic!("{error:?}") };
        assert!(text.contains("certificate"), "{text}");
    }
    assert_eq!(server.lines().len(), 1);
}

#[test]
fn a_file_without_certificates_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("empty.pem");
    std::fs::write(&path, "text").expect("written");
    let settings = Settings { ca_files: vec![path], ..settings("https://registry.example") };
    let error = Upstream::new(settings).expect_err("refused").to_string();
    assert!(error.contains("empty.pem") && error.contains("no certificate"), "{error}");
}

#[tokio::test]
async fn an_https_registry_redirects_to_https_only() {
    let authority = Authority::new();
    let plain = Server::start(|_| found()).await;
    let location = format!("http://localhost:{}/", plain.port);
    let handler = move |_: &_| Reply::redirect(&location);
    let server = Server::start_with(Some(authority.acceptor.clone()), handler).await;
    let endpoint = format!("https://localhost:{}", server.port);
    let ca_files = vec![authority.file()];
    let settings = Settings { ca_files, follow_public: true, ..settings(&endpoint) };
    let error = resolve(&Upstream::new(settings).expect("settings")).await;
    assert!(matches!(error, Err(UpstreamError::Forbidden(_))), "{error:?}");
    assert!(plain.seen().is_empty());
}

/// A foreign token service over HTTPS, and a registry that names it.
async fn foreign_realm(authority: &Authority) -> (Server, Server) {
    let token = |_: &_| Reply::ok(r#"{"token":"t"}"#);
    let foreign = Server::start_with(Some(authority.acceptor.clone()), token).await;
    let challenge = format!(r#"Bearer realm="https://localhost:{}/token""#, foreign.port);
    let server = Server::start(move |seen| match seen.authorization() {
        Some("Bearer t") => found(),
        _ => Reply::challenge(&challenge),
    })
    .await;
    (server, foreign)
}

#[tokio::test]
async fn a_foreign_token_service_is_asked_by_nobody_in_particular_only() {
    let authority = Authority::new();
    let (server, foreign) = foreign_realm(&authority).await;
    let ca_files = vec![authority.file()];
    let named = Settings { follow_public: true, ca_files, ..with_password(&server) };
    let error = resolve(&Upstream::new(named.clone()).expect("settings")).await;
    assert!(matches!(error, Err(UpstreamError::Forbidden(_))), "{error:?}");
    assert!(foreign.seen().is_empty());
    let credentials = ddr_upstream::Credentials::Anonymous;
    let anonymous = Settings { credentials, ..named.clone() };
    let found = resolve(&Upstream::new(anonymous).expect("settings")).await;
    assert!(found.expect("an answer").is_some());
    assert_eq!(foreign.seen()[0].authorization(), None);
    let own = Settings { hosts: vec!["localhost".to_owned()], ..named };
    let found = resolve(&Upstream::new(own).expect("settings")).await;
    assert!(found.expect("an answer").is_some());
    assert_eq!(foreign.seen()[1].authorization(), Some(BASIC));
}
