//! HTTP/1.1 on a plain socket: for measuring and for torture, where curl would be the slow part.
//!
//! It decides nothing: what was sent and what came back is told as it is. An error means that no
//! whole answer came, so the request may have happened or not. It follows no redirection and reads no
//! chunked answer, because no registry here sends one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

/// A server that is silent for so long hangs.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// The longest answer head that is read. Bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The longest body that is kept in memory. Bytes.
const MAX_BODY_BYTES: u64 = 64 << 20;

/// One keep-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    host: String,
    /// Read from the socket and not used yet: the beginning of a body, at most.
    ahead: Vec<u8>,
}

/// Status line and header fields of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Head {
    /// The value of a header field; the name in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Bytes of the body, after an answer to any method but HEAD.
    fn body_bytes(&self) -> io::Result<u64> {
        if self.status == 204 || self.status == 304 {
            return Ok(0);
        }
        let length = self.field("content-length").and_then(|v| v.parse().ok());
        length.ok_or_else(|| io::Error::other(format!("an answer of unknown length: {self:?}")))
    }

    /// Path and query of `Location`, without scheme and host.
    pub(crate) fn location(&self) -> io::Result<&str> {
        let url = self.field("location").ok_or_else(|| io::Error::other("no Location"))?;
        let path = url.find("://").and_then(|at| Some(at + 3 + url[at + 3..].find('/')?));
        Ok(&url[path.unwrap_or(0)..])
    }
}

impl Connection {
    /// Opens a connection.
    pub(crate) fn open(host: &str) -> io::Result<Self> {
        Self::open_for(host, SILENCE_LIMIT)
    }

    /// Opens a connection to a server that may be silent for so long.
    pub(crate) fn open_for(host: &str, silence: Duration) -> io::Result<Self> {
        let address: SocketAddr =
            host.parse().map_err(|_| io::Error::other(format!("not an address: {host}")))?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_write_timeout(Some(silence))?;
        Ok(Self { stream, host: host.to_owned(), ahead: Vec::new() })
    }

    /// Sends a whole request. `fields` are lines without their end. A body has its length in front.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        fields: &[&str],
        body: Option<&[u8]>,
    ) -> io::Result<()> {
        let length = body.map(|b| format!("Content-Length: {}", b.len()));
        let mut all = fields.to_vec();
        all.extend(length.as_deref());
        let mut bytes = self.head(method, target, &all);
        match body {
            // One write for what fits into one packet: no second wake-up of the server.
            Some(body) if body.len() <= 4096 => {
                bytes.extend_from_slice(body);
                self.stream.write_all(&bytes)
            }
            Some(body) => {
                self.stream.write_all(&bytes)?;
                self.stream.write_all(body)
            }
            None => self.stream.write_all(&bytes),
        }
    }

    /// Sends a request whose body has no length in front, in chunks of `chunk_bytes`, as docker
    /// does.
    pub(crate) fn send_chunked(
        &mut self,
        method: &str,
        target: &str,
        body: &[u8],
        chunk_bytes: usize,
    ) -> io::Result<()> {
        let fields = ["Transfer-Encoding: chunked", "Content-Type: application/octet-stream"];
        let head = self.head(method, target, &fields);
        self.stream.write_all(&head)?;
        let mut piece = Vec::with_capacity(chunk_bytes + 16);
        for chunk in body.chunks(chunk_bytes) {
            piece.clear();
            piece.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            piece.extend_from_slice(chunk);
            piece.extend_from_slice(b"\r\n");
            self.stream.write_all(&piece)?;
        }
        self.stream.write_all(b"0\r\n\r\n")
    }

    fn head(&self, method: &str, target: &str, fields: &[&str]) -> Vec<u8> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for field in fields {
            head.push_str(field);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Reads the head of an answer.
    pub(crate) fn receive_head(&mut self) -> io::Result<Head> {
        loop {
            let end = loop {
                if let Some(end) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                    break end + 4;
                }
                if self.ahead.len() > MAX_HEAD_BYTES {
                    return Err(io::Error::other("an answer's head has no end"));
                }
                let mut piece = [0; 8192];
                let read = self.stream.read(&mut piece)?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.ahead.extend_from_slice(&piece[..read]);
            };
            let head = parse_head(&self.ahead[..end])?;
            self.ahead.drain(..end);
            if head.status >= 200 {
                return Ok(head);
            }
        }
    }

    /// Reads exactly the body of an answer and hands it over in the pieces in which it came.
    /// `buffer` bounds a piece.
    pub(crate) fn receive_body(
        &mut self,
        head: &Head,
        buffer: &mut [u8],
        mut piece: impl FnMut(&[u8]),
    ) -> io::Result<u64> {
        let total = head.body_bytes()?;
        let mut left = total;
        let ahead = usize::try_from(left).unwrap_or(usize::MAX).min(self.ahead.len());
        piece(&self.ahead[..ahead]);
        self.ahead.drain(..ahead);
        left -= ahead as u64;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read = self.stream.read(&mut buffer[..most])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            piece(&buffer[..read]);
            left -= read as u64;
        }
        Ok(total)
    }

    /// Takes the body of an answer without copying it out of the kernel (`MSG_TRUNC`): what is
    /// measured then is the one who sends.
    pub(crate) fn discard_body(&mut self, head: &Head, buffer: &mut [u8]) -> io::Result<u64> {
        let total = head.body_bytes()?;
        let ahead = usize::try_from(total).unwrap_or(usize::MAX).min(self.ahead.len());
        self.ahead.drain(..ahead);
        let mut left = total - ahead as u64;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let (_, taken) = recv(&self.stream, &mut buffer[..most], RecvFlags::TRUNC)?;
            if taken == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= taken as u64;
        }
        Ok(total)
    }

    /// Reads a whole answer to any method but HEAD.
    pub(crate) fn receive(&mut self) -> io::Result<Answer> {
        let head = self.receive_head()?;
        if head.body_bytes()? > MAX_BODY_BYTES {
            return Err(io::Error::other("an answer too large for memory"));
        }
        let mut body = Vec::new();
        self.receive_body(&head, &mut [0; 64 * 1024], |piece| body.extend_from_slice(piece))?;
        Ok(Answer { head, body })
    }

    /// One request without header fields of its own, and its answer.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        target: &str,
        body: Option<&[u8]>,
    ) -> io::Result<Answer> {
        self.send(method, target, &[], body)?;
        self.receive()
    }
}

/// `target` with one more query parameter.
pub(crate) fn with_query(target: &str, parameter: &str) -> String {
    let mark = if target.contains('?') { '&' } else { '?' };
    format!("{target}{mark}{parameter}")
}

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {first}")))?;
    let fields = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    Ok(Head { status, fields })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn answers_are_read_one_after_the_other() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let read = stream.read(&mut request).unwrap();
            stream
                .write_all(
                    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\nLocation: \
                      http://a.example:1/v2/x?y=1\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 404 Not \
                      Found\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",
                )
                .unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let mut connection = Connection::open(&host).unwrap();
        let first = connection.ask("PUT", "/v2/x", Some(b"hello")).unwrap();
        assert_eq!((first.head.status, first.body.as_slice()), (202, b"abc".as_slice()));
        assert_eq!(first.head.location().unwrap(), "/v2/x?y=1");
        assert_eq!(connection.receive().unwrap().head.status, 404);
        assert!(connection.receive().is_err(), "a body that is cut off is no answer");
        assert!(server.join().unwrap().ends_with("Content-Length: 5\r\n\r\nhello"));
    }

    #[test]
    fn a_query_is_added() {
        assert_eq!(with_query("/a", "b=1"), "/a?b=1");
        assert_eq!(with_query("/a?c", "b=1"), "/a?c&b=1");
    }
}
