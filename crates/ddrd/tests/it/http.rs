//! HTTP/1.1 by hand, so that a test sees every byte: also an answer that ends short.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::daemon::PATIENCE;

/// An answer. `body` may be shorter than the headers promise.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// True when the body is as long as the headers promise.
    pub(crate) fn is_complete(&self) -> bool {
        self.header("content-length").unwrap().parse::<usize>().unwrap() == self.body.len()
    }
}

/// A request whose answer is read step by step.
pub(crate) struct Exchange {
    reader: BufReader<TcpStream>,
    pub(crate) answer: Answer,
}

/// Connects and sends the head of a request; the body is up to the caller.
pub(crate) fn open(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str(&format!("Host: {to}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Reads the head of the answer.
pub(crate) fn head(stream: TcpStream) -> std::io::Result<Exchange> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no status in {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok(Exchange { reader, answer: Answer { status, headers, body: Vec::new() } })
}

impl Exchange {
    /// Reads at least `count` bytes of the body, or what there is.
    pub(crate) fn read_some(&mut self, count: usize) {
        let mut part = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.reader.read(&mut part[filled..]) {
                Ok(0) | Err(_) => break,
                Ok(read) => filled += read,
            }
        }
        self.answer.body.extend_from_slice(&part[..filled]);
    }

    /// Reads to the end, which may come early.
    pub(crate) fn rest(mut self) -> Answer {
        let mut rest = Vec::new();
        // A reset is an early end, too: what came so far is kept.
        let _ = self.reader.read_to_end(&mut rest);
        self.answer.body.extend_from_slice(&rest);
        self.answer
    }
}

pub(crate) fn request(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let length = body.len().to_string();
    let mut headers = headers.to_vec();
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        headers.push(("Content-Length", &length));
    }
    let mut stream = open(to, method, path, &headers);
    stream.write_all(body).unwrap();
    head(stream).unwrap().rest()
}

pub(crate) fn get(to: SocketAddr, path: &str) -> Answer {
    request(to, "GET", path, &[], b"")
}
