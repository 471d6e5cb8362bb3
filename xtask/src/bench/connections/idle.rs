//! Connections that ask once and then rest.
//!
//! This side keeps nothing of a connection but its socket: a TLS session is forgotten after its
//! first answer, so that the memory of the machine is the daemon's.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Connections from one source address: fewer than it has ports.
const PER_SOURCE: usize = 20_000;
/// Who open connections at the same time.
const OPENERS: usize = 4;
/// Bytes of an answer to `GET /v2/`, with room to spare.
const MAX_ANSWER_BYTES: usize = 4096;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a client of the TLS port knows it, and where the daemon finds its certificate.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    certificate: PathBuf,
    key: PathBuf,
}

impl Tls {
    /// A new certificate for `localhost`, in `dir`.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: Arc::new(config), certificate, key })
    }

    /// What the daemon is started with.
    pub(super) fn flags(&self) -> Vec<String> {
        let flag = |name: &str, path: &Path| format!("--registry-tls-{name}={}", path.display());
        vec![flag("cert", &self.certificate), flag("key", &self.key)]
    }

    pub(super) fn over(
        &self,
        stream: TcpStream,
    ) -> Result<StreamOwned<ClientConnection, TcpStream>> {
        let name = ServerName::try_from("localhost")?;
        Ok(StreamOwned::new(ClientConnection::new(Arc::clone(&self.config), name)?, stream))
    }
}

/// A connection from the `number`th place of all.
pub(super) fn dial(to: SocketAddr, number: usize) -> Result<TcpStream> {
    let SocketAddr::V4(to) = to else { bail!("the daemon listens on IPv4") };
    let [high, low] = u16::try_from(1 + number / PER_SOURCE)?.to_be_bytes();
    let from = SocketAddrV4::new(Ipv4Addr::new(127, 1, high, low), 0);
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &from)?;
    connect(&socket, &to).context("the daemon does not accept")?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks `GET /v2/` and reads the answer.
pub(super) fn ping(stream: &mut (impl Read + Write)) -> Result<()> {
    stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = [0; MAX_ANSWER_BYTES];
    let mut len = 0;
    while !answer[..len].ends_with(b"\r\n\r\n{}") {
        let count = stream.read(&mut answer[len..])?;
        ensure!(count > 0, "closed after {:?}", String::from_utf8_lossy(&answer[..len]));
        len += count;
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..len]));
    Ok(())
}

/// Opens the connections of these numbers; each has asked once.
pub(super) fn open(
    to: SocketAddr,
    numbers: Range<usize>,
    tls: Option<&Tls>,
) -> Result<Vec<TcpStream>> {
    spread(numbers, |number| {
        let mut stream = dial(to, number)?;
        match tls {
            None => ping(&mut stream)?,
            Some(tls) => {
                let mut secure = tls.over(stream)?;
                ping(&mut secure)?;
                stream = secure.sock;
            }
        }
        Ok(stream)
    })
}

/// Opens `count` connections over TLS, asks each for one of `targets` and reads nothing.
pub(super) fn ask(
    to: SocketAddr,
    count: usize,
    tls: &Tls,
    targets: &[String],
) -> Result<Vec<TcpStream>> {
    spread(0..count, |number| {
        let mut secure = tls.over(dial(to, number)?)?;
        let target = &targets[number % targets.len()];
        write!(secure, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        Ok(secure.sock)
    })
}

fn spread(
    numbers: Range<usize>,
    open: impl Fn(usize) -> Result<TcpStream> + Sync,
) -> Result<Vec<TcpStream>> {
    let open = &open;
    let mut all = Vec::with_capacity(numbers.len());
    thread::scope(|scope| {
        let openers = (0..OPENERS).map(|first| {
            let numbers = numbers.clone().skip(first).step_by(OPENERS);
            scope.spawn(move || numbers.map(open).collect::<Result<Vec<_>>>())
        });
        for opener in openers.collect::<Vec<_>>() {
            let opened = opener.join().map_err(|_| anyhow::anyhow!("an opener panicked"))?;
            all.extend(opened?);
        }
        Ok(all)
    })
}

/// How many of them the daemon has closed.
pub(super) fn closed(open: &mut [TcpStream]) -> Result<usize> {
    let mut closed = 0;
    for stream in open {
        stream.set_nonblocking(true)?;
        match stream.peek(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => closed += 1,
            // Bytes that nobody asked for: session tickets.
            Ok(_) => {}
        }
    }
    Ok(closed)
}
