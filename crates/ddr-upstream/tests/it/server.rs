//! An HTTP server that does as it is told, wrong things included, and remembers what it was asked.
//!
//! Written by hand because an HTTP library would not let it break the rules.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `http://127.0.0.1:PORT` of the server that was asked.
    pub(crate) base: String,
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }
}

/// What happens after the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum After {
    Keep,
    Close,
    Hang,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<usize>,
    after: After,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: vec![], body: vec![], length: Some(0), after: After::Keep }
    }

    /// 200 with a body.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200).body(body)
    }

    /// No byte of an answer.
    pub(crate) fn nothing(after: After) -> Self {
        Self { status: 0, ..Self::new(0) }.after(after)
    }

    pub(crate) fn redirect(location: &str) -> Self {
        Self::new(307).header("Location", location)
    }

    pub(crate) fn challenge(challenge: &str) -> Self {
        Self::new(401).header("WWW-Authenticate", challenge)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self.length = Some(self.body.len());
        self
    }

    /// `Content-Length`, whatever the body is; `None`: without, then the body ends with the connection.
    pub(crate) fn length(mut self, length: Option<usize>) -> Self {
        self.length = length;
        if length.is_none() { self.after(After::Close) } else { self }
    }

    pub(crate) fn after(mut self, after: After) -> Self {
        self.after = after;
        self
    }

    fn bytes(&self, with_body: bool) -> Vec<u8> {
        if self.status == 0 {
            return Vec::new();
        }
        let mut head = format!("HTTP/1.1 {} Text\r\n", self.status);
        let length = self.length.map(|length| ("Content-Length".to_owned(), length.to_string()));
        for (name, value) in self.headers.iter().chain(&length) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut bytes = format!("{head}\r\n").into_bytes();
        bytes.extend_from_slice(if with_body { &self.body } else { &[] });
        bytes
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// A server; ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, handler).await
    }

    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::launch(tls, usize::MAX, handler).await
    }

    /// One that answers when it has read `most` bytes of a body. The rest takes the next request's place, so
    /// that each answer to a longer body must end the connection.
    pub(crate) async fn start_impatient(
        most: usize,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::launch(None, most, handler).await
    }

    async fn launch(
        tls: Option<TlsAcceptor>,
        most: usize,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handler, log): (Arc<Handler>, _) = (Arc::new(handler), seen.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, log, tls) = (handler.clone(), log.clone(), tls.clone());
                let base = format!("http://127.0.0.1:{port}");
                tokio::spawn(async move {
                    let asked = (base.as_str(), most);
                    let Some(tls) = tls else { return serve(stream, asked, &handler, &log).await };
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, asked, &handler, &log).await;
                    }
                });
            }
        });
        Self { port, seen }
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything it was asked so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("unpoisoned").clone()
    }

    /// `METHOD PATH` of everything.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    (base, most): (&str, usize),
    handler: &Arc<Handler>,
    log: &Mutex<Vec<Seen>>,
) {
    while let Some(seen) = read(&mut stream, base, most).await {
        let reply = handler(&seen);
        let bytes = reply.bytes(seen.method != "HEAD");
        log.lock().expect("unpoisoned").push(seen);
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        match reply.after {
            After::Keep => {}
            After::Hang => std::future::pending().await,
            After::Close => {
                let _ = stream.shutdown().await;
                return;
            }
        }
    }
}

/// One request, if the connection has another.
async fn read(stream: &mut (impl AsyncRead + Unpin), base: &str, most: usize) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut seen = Seen { base: base.to_owned(), method, path, headers, body: String::new() };
    let length = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length.min(most)];
    stream.read_exact(&mut body).await.ok()?;
    seen.body = String::from_utf8(body).ok()?;
    Some(seen)
}
