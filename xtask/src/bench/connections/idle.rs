//! Connections that ask once and then rest.
//!
//! This side keeps nothing of a connection but its socket: a TLS session is forgotten after its
//! first answer, so that the memory of the machine is the daemon's.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Connections from one source address: so few that a free port is found at once.
const PER_SOURCE: usize = 4_000;
/// Who open connections at the same time.
const OPENERS: usize = 4;
/// Connections that one of them begins before it waits for the first answer.
const BATCH: usize = 128;
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

const PING: &[u8] = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Asks `GET /v2/` and reads the answer.
pub(super) fn ping(stream: &mut (impl Read + Write)) -> Result<()> {
    stream.write_all(PING)?;
    answer(stream)
}

fn answer(stream: &mut impl Read) -> Result<()> {
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
    match tls {
        None => spread(
            numbers,
            |number| {
                let mut stream = dial(to, number)?;
                stream.write_all(PING)?;
                Ok(stream)
            },
            |mut stream| answer(&mut stream).map(|()| stream),
        ),
        Some(tls) => spread(
            numbers,
            |number| {
                let mut secure = tls.over(dial(to, number)?)?;
                secure.conn.write_tls(&mut secure.sock)?;
                Ok(secure)
            },
            |mut secure| ping(&mut secure).map(|()| secure.sock),
        ),
    }
}

/// Opens `count` connections over TLS, asks each for one of `targets` and reads nothing.
pub(super) fn ask(
    to: SocketAddr,
    count: usize,
    tls: &Tls,
    targets: &[String],
) -> Result<Vec<TcpStream>> {
    let begin = |number| {
        let mut secure = tls.over(dial(to, number)?)?;
        secure.conn.write_tls(&mut secure.sock)?;
        Ok((secure, &targets[number % targets.len()]))
    };
    spread(0..count, begin, |(mut secure, target)| {
        write!(secure, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        Ok(secure.sock)
    })
}

/// Begins and finishes each of `numbers`. Some have begun before the first is finished, so that
/// nobody waits for every single answer.
fn spread<T>(
    numbers: Range<usize>,
    begin: impl Fn(usize) -> Result<T> + Sync,
    finish: impl Fn(T) -> Result<TcpStream> + Sync,
) -> Result<Vec<TcpStream>> {
    let (begin, finish) = (&begin, &finish);
    let mut all = Vec::with_capacity(numbers.len());
    thread::scope(|scope| {
        let openers = (0..OPENERS).map(|first| {
            let numbers: Vec<usize> = numbers.clone().skip(first).step_by(OPENERS).collect();
            scope.spawn(move || {
                let mut done = Vec::with_capacity(numbers.len());
                for batch in numbers.chunks(BATCH) {
                    let begun = batch.iter().map(|number| begin(*number));
                    let begun = begun.collect::<Result<Vec<_>>>()?;
                    done.extend(begun.into_iter().map(finish).collect::<Result<Vec<_>>>()?);
                }
                Ok::<_, anyhow::Error>(done)
            })
        });
        for opener in openers.collect::<Vec<_>>() {
            let opened = opener.join().map_err(|_| anyhow::anyhow!("an opener panicked"))?;
            all.extend(opened?);
        }
        Ok(all)
    })
}

/// How many of them the daemon has closed, whatever lies in front of the end.
pub(super) fn closed(open: &[TcpStream]) -> Result<usize> {
    let mut closed = 0;
    for stream in open {
        let mut look = [PollFd::new(stream, PollFlags::RDHUP)];
        closed += poll(&mut look, Some(&Timespec::default()))?;
    }
    Ok(closed)
}
