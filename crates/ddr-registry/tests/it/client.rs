//! An HTTP/1.1 client that sends what it is told, byte by byte, and believes nothing.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for anything a server should do at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The one value of a header; panics when it stands there twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.header_values(name);
        assert!(all.len() < 2, "{name} stands there {} times: {self:?}", all.len());
        all.first().copied()
    }

    pub(crate) fn header_values(&self, name: &str) -> Vec<&str> {
        let fields = self.headers.iter().filter(|(k, _)| k == name);
        fields.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Checks that this is an OCI error with the status and the code.
    #[track_caller]
    pub(crate) fn expect_error(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        let json = self.json();
        let errors = json["errors"].as_array().expect("errors is a list");
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0]["code"], code);
        assert!(errors[0]["message"].as_str().is_some_and(|text| !text.is_empty()));
        errors[0].clone()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(addr).await.unwrap(), read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(DEADLINE, self.stream.write_all(bytes));
        sent.await.expect("the server takes the bytes in time").unwrap();
    }

    /// Sends what the server takes; a server that has answered and closed is no error.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let sent = tokio::time::timeout(DEADLINE, self.stream.write_all(bytes));
        let _ = sent.await.expect("the server takes the bytes or closes in time");
    }

    /// A request line, the fields and the blank line.
    pub(crate) async fn send_head(&mut self, line: &str, headers: &[(&str, &str)]) {
        let mut head = format!("{line} HTTP/1.1\r\nhost: localhost:5000\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes()).await;
    }

    /// A request with its `Content-Length`.
    pub(crate) async fn send_request(&mut self, line: &str, headers: &[(&str, &str)], body: &[u8]) {
        let len = body.len().to_string();
        let mut all = headers.to_vec();
        all.push(("content-length", &len));
        self.send_head(line, &all).await;
        self.try_send(body).await;
    }

    pub(crate) async fn send_chunk(&mut self, bytes: &[u8]) {
        self.send(format!("{:x}\r\n", bytes.len()).as_bytes()).await;
        self.send(bytes).await;
        self.send(b"\r\n").await;
    }

    /// The head of the next response, without its body.
    pub(crate) async fn read_head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = find(&self.read, b"\r\n\r\n") {
                break at;
            }
            assert!(self.fill().await > 0, "closed before a response: {:?}", self.read);
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Answer { status, headers: headers.collect(), body: Vec::new() }
    }

    /// A whole response; `to_head` says that it answers HEAD. Every response must have the length
    /// that it declares.
    pub(crate) async fn read_answer(&mut self, to_head: bool) -> Answer {
        let mut answer = self.read_head().await;
        assert_eq!(answer.header("transfer-encoding"), None, "{answer:?}");
        let declared = answer.header("content-length").map(|len| len.parse::<usize>().unwrap());
        if answer.status == 204 {
            assert_eq!(declared, None, "a 204 has no length");
        } else if to_head {
            declared.expect("a response to HEAD has the length of the GET");
        } else {
            let len = declared.expect("every response has a length");
            while self.read.len() < len {
                assert!(self.fill().await > 0, "the response ends short of {len} bytes");
            }
            answer.body = self.read.drain(..len).collect();
        }
        answer
    }

    /// So many bytes, and no more is asked of the server.
    pub(crate) async fn read_bytes(&mut self, len: usize) -> Vec<u8> {
        while self.read.len() < len {
            assert!(self.fill().await > 0, "closed before {len} bytes");
        }
        self.read.drain(..len).collect()
    }

    /// Says that nothing more will be sent, and still listens.
    pub(crate) async fn half_close(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Everything until the server closes; a reset ends it as well.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        while self.fill().await > 0 {}
        std::mem::take(&mut self.read)
    }

    /// Reads some bytes; 0 when the server has closed.
    async fn fill(&mut self) -> usize {
        let mut buffer = vec![0; 64 * 1024];
        let got = tokio::time::timeout(DEADLINE, self.stream.read(&mut buffer)).await;
        let got = got.expect("the server answers or closes in time").unwrap_or(0);
        self.read.extend_from_slice(&buffer[..got]);
        got
    }
}

/// One request on a connection of its own.
pub(crate) async fn request(
    addr: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut connection = Connection::open(addr).await;
    connection.send_request(line, headers, body).await;
    let answer = connection.read_answer(line.starts_with("HEAD ")).await;
    assert!(connection.read.is_empty(), "bytes after the response: {:?}", connection.read);
    answer
}

/// Asks `probe` again and again until it says yes.
pub(crate) async fn eventually<F: AsyncFnMut() -> bool>(what: &str, mut probe: F) {
    let all = async {
        while !probe().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
