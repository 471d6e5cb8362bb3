//! An HTTP proxy that sends writes to one node and reads to another.
//!
//! It decides only where a request goes: everything that changes something, and everything that
//! belongs to an upload, to the writer; every other GET and HEAD to the reader. It must never
//! change a byte of what it passes on, retry anything, or answer in a node's place.

mod message;

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use message::{Body, Head};

/// A peer that sends nothing for so long has hung up without a word.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// After the answer is through, how long the rest of the request may still be on its way.
const BODY_GRACE: Duration = Duration::from_secs(5);

/// Bytes on their way through, for one direction of one connection.
const BUFFER_BYTES: usize = 64 << 10;

/// How many requests went where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) writer: u64,
    pub(super) reader: u64,
}

/// A running proxy. Dropping it ends the acceptance of connections.
#[derive(Debug)]
pub(super) struct Splitter {
    /// `127.0.0.1:PORT` of the proxy.
    pub(super) address: String,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    writer: SocketAddr,
    reader: SocketAddr,
    to_writer: AtomicU64,
    to_reader: AtomicU64,
    ended: AtomicBool,
}

impl Splitter {
    /// Starts on a port of loopback that the system chooses.
    pub(super) fn start(writer: &str, reader: &str) -> Result<Self> {
        let shared = Arc::new(Shared {
            writer: writer.parse().with_context(|| format!("not an address: {writer}"))?,
            reader: reader.parse().with_context(|| format!("not an address: {reader}"))?,
            to_writer: AtomicU64::new(0),
            to_reader: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let mine = Arc::clone(&shared);
        let accepting = thread::spawn(move || accept(&listener, &mine));
        Ok(Self { address, shared, accepting: Some(accepting) })
    }

    /// How many requests went where, up to now.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            writer: self.shared.to_writer.load(Ordering::Relaxed),
            reader: self.shared.to_reader.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Splitter {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; when that fails it has ended already.
        TcpStream::connect(&self.address).ok();
        if let Some(accepting) = self.accepting.take() {
            accepting.join().ok();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        let shared = Arc::clone(shared);
        if let Ok(client) = client {
            thread::spawn(move || {
                // What breaks here breaks for the client too, and it is the client that reports.
                if let Err(error) = serve(&client, &shared) {
                    println!("        splitter: {error:#}");
                }
                client.shutdown(Shutdown::Both).ok();
            });
        }
    }
}

/// One connection of a client: requests one after the other until either side wants no more.
fn serve(client: &TcpStream, shared: &Shared) -> Result<()> {
    client.set_read_timeout(Some(SILENCE_LIMIT))?;
    client.set_nodelay(true)?;
    let mut requests = BufReader::with_capacity(BUFFER_BYTES, client);
    while let Some(head) = Head::read(&mut requests)? {
        let (method, target) = head.request_line()?;
        let (node, count) = if goes_to_writer(method, target) {
            (shared.writer, &shared.to_writer)
        } else {
            (shared.reader, &shared.to_reader)
        };
        count.fetch_add(1, Ordering::Relaxed);
        let context = format!("{method} {target}");
        if !exchange(&mut requests, client, &head, node).context(context)? {
            break;
        }
    }
    Ok(())
}

/// One request and its answer, on a connection of its own to the node. False when the client's
/// connection is of no more use.
fn exchange(
    requests: &mut BufReader<&TcpStream>,
    client: &TcpStream,
    head: &Head,
    node: SocketAddr,
) -> Result<bool> {
    let upstream = TcpStream::connect(node)?;
    upstream.set_read_timeout(Some(SILENCE_LIMIT))?;
    upstream.set_nodelay(true)?;
    (&upstream).write_all(head.bytes())?;
    let body = head.request_body()?;
    let (sent, whole) = mpsc::channel();
    thread::scope(|scope| {
        let to = &upstream;
        scope.spawn(move || {
            let passed = body.pass(requests, to);
            // An error here means that the node has closed: its answer says why.
            sent.send(passed.is_ok()).ok();
        });
        let answered = answer(&upstream, client, head);
        // The node may answer before it has read everything, and the client then stop sending.
        let whole = whole.recv_timeout(BODY_GRACE).unwrap_or(false);
        let keep = answered.as_ref().is_ok_and(|keep| *keep) && whole && !head.wants_close();
        if !keep {
            upstream.shutdown(Shutdown::Both).ok();
            client.shutdown(Shutdown::Both).ok();
        }
        answered.map(|_| keep)
    })
}

/// Passes on the node's answer, with all interim ones before it. False when it ends by a close.
fn answer(upstream: &TcpStream, client: &TcpStream, request: &Head) -> Result<bool> {
    let mut answers = BufReader::with_capacity(BUFFER_BYTES, upstream);
    loop {
        let head = Head::read(&mut answers)?.context("the node closed without an answer")?;
        let mut client = client;
        client.write_all(head.bytes())?;
        let status = head.status()?;
        if (100..200).contains(&status) {
            continue;
        }
        let (method, _) = request.request_line()?;
        let body = head.answer_body(method, status)?;
        let ends_by_close = body == Body::UntilClose || head.wants_close();
        body.pass(&mut answers, client).map_err(of_answer)?;
        return Ok(!ends_by_close);
    }
}

fn of_answer(error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context("the body of the answer was cut")
}

fn goes_to_writer(method: &str, target: &str) -> bool {
    !matches!(method, "GET" | "HEAD") || target.contains("/blobs/uploads/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A node that answers each connection with the next text, and what it was sent.
    fn node(answers: &'static [&'static str]) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = thread::spawn(move || {
            answers.iter().map(|answer| one(&listener.accept().unwrap().0, answer)).collect()
        });
        (address, thread)
    }

    fn one(mut stream: &TcpStream, answer: &str) -> String {
        stream.write_all(answer.as_bytes()).unwrap();
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).ok();
        String::from_utf8(seen).unwrap()
    }

    /// Sends everything, ends its side, and gives all that comes back.
    fn talk(splitter: &Splitter, requests: &str) -> String {
        let mut stream = TcpStream::connect(&splitter.address).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        answers
    }

    #[test]
    fn writes_and_uploads_go_to_the_writer() {
        for (method, target) in [
            ("POST", "/v2/a/blobs/uploads/"),
            ("PUT", "/v2/a/manifests/1"),
            ("PATCH", "/x"),
            ("DELETE", "/v2/a/manifests/1"),
            ("GET", "/v2/a/blobs/uploads/7"),
        ] {
            assert!(goes_to_writer(method, target), "{method} {target}");
        }
        for (method, target) in [("GET", "/v2/a/tags/list"), ("HEAD", "/v2/a/blobs/sha256:0")] {
            assert!(!goes_to_writer(method, target), "{method} {target}");
        }
    }

    #[test]
    fn one_connection_of_a_client_reaches_both_and_nothing_changes() {
        let (writer, at_writer) = node(&[
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n",
        ]);
        let (reader, at_reader) = node(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        ]);
        let splitter = Splitter::start(&writer, &reader).unwrap();
        let put = "PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc";
        let head = "HEAD /b HTTP/1.1\r\n\r\n";
        let patch = "PATCH /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
                     3;x=y\r\ndef\r\n0\r\n\r\n";
        let get = "GET /d HTTP/1.1\r\n\r\n";
        let answers = talk(&splitter, &[put, head, patch, get].concat());
        assert_eq!(
            answers,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\
             HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n\
             2\r\nok\r\n0\r\nT: 1\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        );
        assert_eq!(at_writer.join().unwrap(), [put, patch]);
        assert_eq!(at_reader.join().unwrap(), [head, get]);
        assert_eq!(splitter.counts(), Counts { writer: 2, reader: 2 });
    }

    #[test]
    fn an_answer_that_ends_by_a_close_ends_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; b"GET / HTTP/1.1\r\n\r\n".len()]).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").unwrap();
        });
        let splitter = Splitter::start(&address, &address).unwrap();
        let answers = talk(&splitter, "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        assert_eq!(answers, "HTTP/1.1 200 OK\r\n\r\nuntil the end");
        node.join().unwrap();
    }
}
