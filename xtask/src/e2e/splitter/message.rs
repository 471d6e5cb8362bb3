//! As much of HTTP/1.1 (RFC 9112) as a proxy needs that changes nothing: where a head ends and how
//! long the body after it is.

use std::io::{self, BufRead, Read, Write};

use anyhow::{Context, Result, ensure};

/// A longer head is an error. Bytes.
const MAX_HEAD: u64 = 64 << 10;

/// A longer line with the size of a chunk, or a trailer, is an error. Bytes.
const MAX_CHUNK_LINE: u64 = 4 << 10;

/// How long the body after a head is (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks up to an empty one, then trailers.
    Chunked,
    /// All that comes until the connection ends.
    UntilClose,
}

/// The start line and the headers of a message, as they were sent.
#[derive(Debug)]
pub(super) struct Head {
    bytes: Vec<u8>,
    text: String,
}

impl Head {
    /// Reads up to and with the empty line. `None` when the connection ends before the first byte.
    pub(super) fn read(from: &mut impl BufRead) -> Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut rest = from.take(MAX_HEAD);
        loop {
            let start = bytes.len();
            rest.read_until(b'\n', &mut bytes)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            ensure!(bytes.ends_with(b"\n"), "a head was cut, or is longer than {MAX_HEAD} bytes");
            if start > 0 && matches!(&bytes[start..], b"\r\n" | b"\n") {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Ok(Some(Self { bytes, text }));
            }
        }
    }

    /// What is passed on.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Method and target of a request.
    pub(super) fn request_line(&self) -> Result<(&str, &str)> {
        let mut words = self.text.lines().next().unwrap_or_default().split(' ');
        let method = words.next().context("no method")?;
        Ok((method, words.next().with_context(|| format!("no target after {method}"))?))
    }

    /// Status of an answer.
    pub(super) fn status(&self) -> Result<u16> {
        let line = self.text.lines().next().unwrap_or_default();
        let word = line.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = word.with_context(|| format!("no status in {line:?}"))?;
        ensure!(status != 101, "a node switched protocols, which the splitter cannot pass on");
        Ok(status)
    }

    /// The body of a request: none when nothing says that there is one.
    pub(super) fn request_body(&self) -> Result<Body> {
        Ok(self.declared_body()?.unwrap_or(Body::Length(0)))
    }

    /// The body of an answer to `method`.
    pub(super) fn answer_body(&self, method: &str, status: u16) -> Result<Body> {
        if method == "HEAD" || matches!(status, 204 | 304) {
            return Ok(Body::Length(0));
        }
        Ok(self.declared_body()?.unwrap_or(Body::UntilClose))
    }

    /// True when the sender ends the connection after this message.
    pub(super) fn wants_close(&self) -> bool {
        let old = self.text.lines().next().is_some_and(|l| l.contains("HTTP/1.0"));
        old || self.values("connection").any(|v| v.eq_ignore_ascii_case("close"))
    }

    fn declared_body(&self) -> Result<Option<Body>> {
        if let Some(coding) = self.values("transfer-encoding").last() {
            ensure!(coding.eq_ignore_ascii_case("chunked"), "transfer coding {coding} is unknown");
            return Ok(Some(Body::Chunked));
        }
        let Some(length) = self.values("content-length").next() else { return Ok(None) };
        let length = length.parse().with_context(|| format!("Content-Length: {length}"))?;
        Ok(Some(Body::Length(length)))
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let headers = self.text.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Body {
    /// Passes the body on as it comes.
    pub(super) fn pass(self, from: &mut impl BufRead, mut to: impl Write) -> io::Result<()> {
        match self {
            Self::Length(length) => pass_bytes(from, &mut to, length),
            Self::Chunked => pass_chunks(from, &mut to),
            Self::UntilClose => io::copy(from, &mut to).map(|_| ()),
        }
    }
}

fn pass_bytes(from: &mut impl Read, to: &mut impl Write, length: u64) -> io::Result<()> {
    let passed = io::copy(&mut from.take(length), to)?;
    if passed < length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a body was cut"));
    }
    Ok(())
}

fn pass_chunks(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<()> {
    loop {
        let line = pass_line(from, to)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size == 0 {
            break;
        }
        pass_bytes(from, to, size.checked_add(2).ok_or_else(|| io::Error::other("chunk size"))?)?;
    }
    while !pass_line(from, to)?.trim().is_empty() {}
    Ok(())
}

/// Passes one line on and gives it.
fn pass_line(from: &mut impl BufRead, to: &mut impl Write) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(MAX_CHUNK_LINE).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(io::Error::other("a line of a chunked body was cut or is too long"));
    }
    to.write_all(&line)?;
    String::from_utf8(line).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::read(&mut text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        let mut stream = &b"GET /v2/ HTTP/1.1\r\nA: b\r\n\r\nrest"[..];
        let read = Head::read(&mut stream).unwrap().unwrap();
        assert_eq!(read.request_line().unwrap(), ("GET", "/v2/"));
        assert_eq!(stream, b"rest");
        assert!(Head::read(&mut &b""[..]).unwrap().is_none());
        assert!(Head::read(&mut &b"GET / HTTP/1.1\r\nA:"[..]).is_err());
    }

    #[test]
    fn the_length_of_a_body_follows_the_rules() {
        let fixed = head("HTTP/1.1 200 OK\r\ncontent-LENGTH: 7\r\n\r\n");
        assert_eq!(fixed.answer_body("GET", 200).unwrap(), Body::Length(7));
        assert_eq!(fixed.answer_body("HEAD", 200).unwrap(), Body::Length(0));
        assert_eq!(fixed.answer_body("GET", 304).unwrap(), Body::Length(0));
        let chunked = head("PATCH / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(chunked.request_body().unwrap(), Body::Chunked);
        let bare = head("HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!(bare.answer_body("GET", 200).unwrap(), Body::UntilClose);
        assert_eq!(bare.request_body().unwrap(), Body::Length(0));
        assert!(head("PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n").request_body().is_err());
    }

    #[test]
    fn a_close_is_seen() {
        assert!(head("HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n").wants_close());
        assert!(head("HTTP/1.0 200 OK\r\n\r\n").wants_close());
        assert!(!head("HTTP/1.1 200 OK\r\n\r\n").wants_close());
    }

    #[test]
    fn a_cut_body_is_an_error() {
        let pass = |body: Body, mut from: &[u8]| body.pass(&mut from, io::sink());
        assert!(pass(Body::Length(4), b"abc").is_err());
        assert!(pass(Body::Chunked, b"5\r\nabc").is_err());
        assert!(pass(Body::Chunked, b"zz\r\n").is_err());
        assert!(pass(Body::Chunked, b"3\r\nabc\r\n0\r\n\r\n").is_ok());
    }
}
