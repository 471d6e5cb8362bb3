//! The peer port under bad input, over real TCP. Each test ends with a member that is served.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use base64::Engine;
use bytes::Bytes;
use ddr_net::{Client, ClientLimits, Identity, Swarm};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{CALL_TIMEOUT, Gate, Home, envelope, tls, within};

/// What a token holds, read by the documented format.
#[derive(Deserialize)]
struct TokenParts {
    root: Vec<u8>,
    authority: Vec<u8>,
    key: Vec<u8>,
    addresses: Vec<SocketAddr>,
    expires_ms: u64,
}

impl TokenParts {
    fn read(token: &str) -> Self {
        let text = token.strip_prefix("ddr1.").unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
        let parts: Self = postcard::from_bytes(&bytes[..bytes.len() - 4]).unwrap();
        assert!(!parts.addresses.is_empty() && parts.expires_ms > 0 && !parts.root.is_empty());
        parts
    }

    fn key(&self) -> KeyPair {
        let der = PrivatePkcs8KeyDer::from(self.key.as_slice());
        KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).unwrap()
    }

    fn authority(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.authority.clone())
    }

    /// A leaf for `key`, signed with the token's key, with the name that members have.
    fn leaf(&self, key: &KeyPair) -> CertificateDer<'static> {
        let params = CertificateParams::new(["node.ddr.internal".to_owned()]).unwrap();
        params.signed_by(key, &self.issuer()).unwrap().into()
    }

    fn issuer(&self) -> Issuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "ddr token");
        Issuer::new(params, self.key())
    }
}

/// A swarm with a serving member, under attack.
struct Target {
    founder: Home,
    swarm: Swarm,
    gate: Gate,
}

impl Target {
    async fn new() -> Self {
        let founder = Home::new();
        let swarm = founder.found_swarm();
        let gate = Gate::open(&founder.identity, &swarm).await;
        Self { founder, swarm, gate }
    }

    fn token(&self, expires: SystemTime) -> TokenParts {
        let token = self.swarm.create_token_until(vec![self.gate.addr], expires).unwrap();
        TokenParts::read(&token.to_string())
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.gate.addr).await.unwrap()
    }

    /// A member that speaks raw HTTP, to send what the client would not.
    async fn member_stream(&self, alpn: &[u8]) -> (Identity, TlsStream<TcpStream>) {
        // The founder's files are a member's credential.
        let chain = vec![read_pem(&self.founder, "member.pem")];
        let key = std::fs::read(self.founder.dir.path().join("node.key")).unwrap();
        let key = rustls::pki_types::pem::PemObject::from_pem_slice(&key).unwrap();
        let stream = handshake(self.gate.addr, config(Some((chain, key)), alpn)).await.unwrap();
        (self.founder.identity.clone(), stream)
    }

    async fn still_serves(&self) {
        let carrier = tls(&self.founder.identity, &self.swarm).await;
        let client = Client::new(carrier, ClientLimits::default());
        let message = envelope(&self.founder.identity);
        within(client.call(self.gate.addr, None, &message, CALL_TIMEOUT)).await.unwrap();
    }

    /// The node must refuse this client, and no application byte may reach it.
    async fn refuses(&self, what: &str, config: ClientConfig) {
        let before = self.gate.service.messages.load(Ordering::SeqCst);
        let bytes = match handshake(self.gate.addr, config).await {
            // In TLS 1.3 the client is done before the server has judged it.
            Ok(mut stream) => {
                stream.write_all(b"GET /ddr/v1/blobs/x HTTP/1.1\r\nhost: x\r\n\r\n").await.ok();
                let mut bytes = Vec::new();
                let read = within(stream.read_to_end(&mut bytes)).await;
                assert!(read.is_err() || bytes.is_empty(), "{what}: {read:?}");
                bytes
            }
            Err(_) => Vec::new(),
        };
        assert!(bytes.is_empty(), "{what} was given {bytes:?}");
        assert_eq!(self.gate.service.messages.load(Ordering::SeqCst), before, "{what}");
        assert_eq!(self.gate.service.joins.load(Ordering::SeqCst), 0, "{what}");
        self.still_serves().await;
    }
}

/// Believes any server: these clients are the attackers.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

type Credential = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn config(credential: Option<Credential>, alpn: &[u8]) -> ClientConfig {
    config_for(credential, alpn, &[&rustls::version::TLS13])
}

fn config_for(
    credential: Option<Credential>,
    alpn: &[u8],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match credential {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.to_vec()];
    }
    config
}

async fn handshake(addr: SocketAddr, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("node.ddr.internal").unwrap();
    within(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
}

fn read_pem(home: &Home, name: &str) -> CertificateDer<'static> {
    let bytes = std::fs::read(home.dir.path().join(name)).unwrap();
    rustls::pki_types::pem::PemObject::from_pem_slice(&bytes).unwrap()
}

fn new_key() -> (KeyPair, PrivateKeyDer<'static>) {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (key, der)
}

fn pkcs8(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(60)
}

/// Reads until the node closes; gives what it said.
async fn all_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    within(stream.read_to_end(&mut bytes)).await.ok();
    bytes
}

/// True for what TLS says to a stranger in clear: nothing or one alert record.
fn is_alert_or_nothing(bytes: &[u8]) -> bool {
    bytes.is_empty() || (bytes[0] == 21 && bytes.len() <= 7)
}

#[tokio::test]
async fn garbage_and_plain_http_get_an_alert_at_most() {
    let target = Target::new().await;
    let mut zeros = vec![0u8; 100_000];
    zeros[0] = 22;
    let inputs: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\xff\xff garbage",
        b"\x00",
        &[0xff; 4096],
        &zeros,
    ];
    for input in inputs {
        let mut stream = target.tcp().await;
        stream.write_all(input).await.ok();
        stream.shutdown().await.ok();
        let answer = all_of(&mut stream).await;
        assert!(is_alert_or_nothing(&answer), "{answer:?}");
    }
    target.still_serves().await;
}

/// The bytes of a ClientHello as rustls makes it.
fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("node.ddr.internal").unwrap();
    let config = Arc::new(config(None, b"h2"));
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn half_a_client_hello_is_dropped_at_close_or_after_the_handshake_timeout() {
    let target = Target::new().await;
    let hello = client_hello();
    let half = &hello[..hello.len() / 2];
    let mut closing = target.tcp().await;
    closing.write_all(half).await.unwrap();
    closing.shutdown().await.unwrap();
    assert!(is_alert_or_nothing(&all_of(&mut closing).await));

    let start = tokio::time::Instant::now();
    let mut hanging = target.tcp().await;
    hanging.write_all(half).await.unwrap();
    target.still_serves().await;
    assert!(all_of(&mut hanging).await.is_empty());
    let waited = start.elapsed();
    assert!(waited >= ddr_net::carrier::tls::HANDSHAKE_TIMEOUT, "{waited:?}");
}

#[tokio::test]
async fn silent_strangers_do_not_lock_members_out() {
    let target = Target::new().await;
    let start = tokio::time::Instant::now();
    let mut silent = Vec::new();
    for _ in 0..ddr_net::carrier::tls::MAX_HANDSHAKES + 50 {
        silent.push(target.tcp().await);
    }
    target.still_serves().await;
    // The oldest gave way to the newest, before its time was over.
    assert!(all_of(&mut silent[0]).await.is_empty());
    assert!(start.elapsed() < ddr_net::carrier::tls::HANDSHAKE_TIMEOUT);
}

#[tokio::test]
async fn strangers_get_a_refused_handshake_and_nothing_else() {
    let target = Target::new().await;
    target.refuses("no certificate", config(None, b"http/1.1")).await;

    let (key, der) = new_key();
    let own = CertificateParams::new(["node.ddr.internal".to_owned()]).unwrap();
    let own: CertificateDer<'_> = own.self_signed(&key).unwrap().into();
    target.refuses("self-signed", config(Some((vec![own], der)), b"http/1.1")).await;

    let other = Home::new();
    other.found_swarm();
    let node_key = std::fs::read(other.dir.path().join("node.key")).unwrap();
    let node_key: PrivateKeyDer<'static> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&node_key).unwrap();
    let member = vec![read_pem(&other, "member.pem")];
    let with_root = vec![member[0].clone(), read_pem(&other, "swarm.pem")];
    for chain in [member, with_root] {
        let credential = Some((chain, node_key.clone_key()));
        target.refuses("member of another swarm", config(credential, b"http/1.1")).await;
    }
}

#[tokio::test]
async fn a_stolen_certificate_without_its_key_is_refused() {
    let target = Target::new().await;
    let (_, der) = new_key();
    let chain = vec![read_pem(&target.founder, "member.pem")];
    // rustls itself will not sign for a key that does not fit; the resolver below does not ask.
    let signing = rustls::crypto::ring::sign::any_supported_type(&der).unwrap();
    let stolen = Arc::new(rustls::sign::CertifiedKey::new(chain, signing));
    let mut config = config(None, b"http/1.1");
    config.client_auth_cert_resolver = Arc::new(Always(stolen));
    target.refuses("stolen certificate", config).await;
}

#[derive(Debug)]
struct Always(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Always {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn expired_and_misused_tokens_are_refused() {
    let target = Target::new().await;
    let expired = target.token(SystemTime::now() - Duration::from_secs(2));
    let (key, der) = new_key();
    let chain = vec![expired.leaf(&key), expired.authority()];
    target.refuses("expired token", config(Some((chain, der)), b"http/1.1")).await;

    let token = target.token(soon());
    let (key, der) = new_key();
    let alone = vec![token.leaf(&key)];
    target.refuses("leaf alone", config(Some((alone, der.clone_key())), b"http/1.1")).await;

    let authority = vec![token.authority()];
    let credential = Some((authority, pkcs8(&token.key())));
    target.refuses("authority as a leaf", config(credential, b"http/1.1")).await;

    // An authority below the token's authority, to admit others or to hide the serial.
    let (middle_key, _) = new_key();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let middle: CertificateDer<'_> = params.signed_by(&middle_key, &token.issuer()).unwrap().into();
    let leaf = CertificateParams::new(["node.ddr.internal".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(params, middle_key)).unwrap().into();
    let chain = vec![leaf, middle, token.authority()];
    target.refuses("authority below", config(Some((chain, der.clone_key())), b"http/1.1")).await;

    let longer = vec![token.leaf(&key), token.authority(), token.authority()];
    target.refuses("longer chain", config(Some((longer, der)), b"http/1.1")).await;
}

#[tokio::test]
async fn tls_1_2_and_unknown_protocols_are_refused() {
    let target = Target::new().await;
    let token = target.token(soon());
    let (key, der) = new_key();
    let chain = || vec![token.leaf(&key), token.authority()];
    let old = [&rustls::version::TLS12];
    let credential = Some((chain(), der.clone_key()));
    target.refuses("TLS 1.2", config_for(credential, b"http/1.1", &old)).await;
    for alpn in [&b""[..], b"h3", b"imap"] {
        target.refuses("protocol", config(Some((chain(), der.clone_key())), alpn)).await;
    }
}

#[tokio::test]
async fn a_token_holder_cannot_pose_as_a_member_that_is_dialled() {
    let target = Target::new().await;
    let token = target.token(soon());
    let (key, der) = new_key();
    let chain = vec![token.leaf(&key), token.authority()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, der)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let impostor = tokio::spawn(async move {
        let tcp = listener.accept().await.unwrap().0;
        TlsAcceptor::from(Arc::new(server)).accept(tcp).await.map(drop)
    });
    let carrier = tls(&target.founder.identity, &target.swarm).await;
    let error = within(carrier.dial(addr, ddr_net::Alpn::Messages, None)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(within(impostor).await.unwrap().is_err(), "the impostor hears an alert");
}

#[tokio::test]
async fn a_joiner_may_join_and_nothing_else() {
    let target = Target::new().await;
    let token = target.token(soon());
    let digest = ddr_oci::Digest::sha256(b"x");
    let blob = format!("/ddr/v1/blobs/{digest}?repository=team/app");
    let manifest = format!("/ddr/v1/manifests/{digest}");
    let requests = [
        (Method::GET, blob.as_str()),
        (Method::HEAD, blob.as_str()),
        (Method::GET, manifest.as_str()),
        (Method::POST, "/ddr/v1/message"),
        (Method::GET, "/ddr/v1/join"),
        (Method::GET, "/"),
        (Method::POST, "/ddr/v1/join?x"),
    ];
    for (method, path) in requests {
        let (key, der) = new_key();
        let chain = vec![token.leaf(&key), token.authority()];
        let config = config(Some((chain, der)), b"http/1.1");
        let stream = handshake(target.gate.addr, config).await.unwrap();
        let body = envelope(&target.founder.identity).encode();
        let (status, _) = send(stream, method.clone(), path, body.into()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    let counts = &target.gate.service;
    assert_eq!(counts.messages.load(Ordering::SeqCst), 0);
    assert_eq!(counts.contents.load(Ordering::SeqCst), 0);
    assert_eq!(counts.joins.load(Ordering::SeqCst), 0);

    // Even to join it must name its own key.
    let (key, der) = new_key();
    let chain = vec![token.leaf(&key), token.authority()];
    let stream =
        handshake(target.gate.addr, config(Some((chain, der)), b"http/1.1")).await.unwrap();
    let body = target.founder.identity.public_key().to_vec();
    let (status, _) = send(stream, Method::POST, "/ddr/v1/join", body.into()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(counts.joins.load(Ordering::SeqCst), 0);
    target.still_serves().await;
}

async fn send(
    stream: TlsStream<TcpStream>,
    method: Method,
    path: &str,
    body: Bytes,
) -> (StatusCode, Bytes) {
    let (mut sender, driver) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let request =
        Request::builder().method(method).uri(path).header("host", "x").body(Full::new(body));
    let response = within(sender.send_request(request.unwrap())).await.unwrap();
    let status = response.status();
    (status, within(response.into_body().collect()).await.unwrap().to_bytes())
}

#[tokio::test]
async fn malformed_requests_of_a_member_have_their_status() {
    let target = Target::new().await;
    let digest = ddr_oci::Digest::sha256(b"x");
    let blob = format!("/ddr/v1/blobs/{digest}?repository=team/app");
    let cases: [(Method, &str, &[u8], StatusCode); 9] = [
        (Method::POST, "/ddr/v1/message", b"", StatusCode::BAD_REQUEST),
        (Method::POST, "/ddr/v1/message", b"\xff\xff\xff\xff\xff", StatusCode::BAD_REQUEST),
        (Method::POST, "/ddr/v1/message", &[0; 500], StatusCode::BAD_REQUEST),
        (Method::GET, "/ddr/v1/message", b"", StatusCode::METHOD_NOT_ALLOWED),
        (Method::POST, "/ddr/v1/join", b"", StatusCode::FORBIDDEN),
        (Method::GET, "/ddr/v1/blobs/sha256:zz", b"", StatusCode::NOT_FOUND),
        (Method::GET, "/../etc/passwd", b"", StatusCode::NOT_FOUND),
        (Method::DELETE, &blob, b"", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, &blob, b"", StatusCode::NOT_FOUND),
    ];
    for (method, path, body, wanted) in cases {
        let (_, stream) = target.member_stream(b"http/1.1").await;
        let (status, _) = send(stream, method.clone(), path, Bytes::copy_from_slice(body)).await;
        assert_eq!(status, wanted, "{method} {path}");
    }
    assert_eq!(target.gate.service.blamed(), [], "a newer version may say what is not known here");
    let (_, mut stream) = target.member_stream(b"http/1.1").await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(10_000));
    stream.write_all(long.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.ok();
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    target.still_serves().await;
}

#[tokio::test]
async fn an_oversized_message_is_refused_and_not_taken_in() {
    let target = Target::new().await;
    // Announced: refused without reading.
    let (_, stream) = target.member_stream(b"http/1.1").await;
    let (status, _) = send(stream, Method::POST, "/ddr/v1/message", vec![0; 65_537].into()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);

    // Unannounced and endless, over HTTP/2: refused, and the sender is held by flow control.
    let (_, stream) = target.member_stream(b"h2").await;
    let (mut sender, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(driver);
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    let endless = futures_util::stream::repeat_with(move || {
        counter.fetch_add(16 * 1024, Ordering::SeqCst);
        Ok::<_, io::Error>(Frame::data(Bytes::from_static(&[7; 16 * 1024])))
    });
    let request = Request::post("https://x/ddr/v1/message").body(StreamBody::new(endless)).unwrap();
    let response = within(sender.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    drop((response, sender));
    let taken = sent.load(Ordering::SeqCst);
    assert!(taken <= 2 * 1024 * 1024, "{taken} bytes were taken from the sender");
    target.still_serves().await;
}

#[tokio::test]
async fn a_body_that_never_comes_times_out_and_the_rest_goes_on() {
    let target = Target::new().await;
    let (_, stream) = target.member_stream(b"h2").await;
    let (mut sender, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(driver);
    let never = futures_util::stream::pending::<io::Result<Frame<Bytes>>>();
    let request = Request::post("https://x/ddr/v1/message").body(StreamBody::new(never)).unwrap();
    let waiting = tokio::spawn(sender.send_request(request));
    target.still_serves().await;
    let response = within(waiting).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn garbage_after_the_handshake_ends_only_its_connection() {
    let target = Target::new().await;
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let (_, mut stream) = target.member_stream(alpn).await;
        stream.write_all(&[0xff; 20_000]).await.ok();
        let mut answer = Vec::new();
        within(stream.read_to_end(&mut answer)).await.ok();
        assert!(answer.len() < 1024);
    }
    target.still_serves().await;
}

#[tokio::test]
async fn connections_of_the_gone_are_forgotten() {
    let target = Target::new().await;
    for _ in 0..100 {
        let (_, stream) = target.member_stream(b"h2").await;
        drop(stream);
    }
    // More than one node may hold: they must all have been given up.
    target.still_serves().await;
}
