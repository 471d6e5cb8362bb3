//! Members that open more than they need, or ask and take nothing: limits hold, what is held for them
//! does not grow, and another member is answered meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ddr_net::carrier::Stream;
use ddr_net::{Alpn, Carrier, Client, ServeLimits, blob_path};
use ddr_oci::Digest;
use ddr_proto::wire::{MAX_MARKS, Mark, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::support::{
    CALL_TIMEOUT, DEADLINE, Home, KINDS, Kind, TestNode, TestService, carriers, envelope,
    eventually, repository, within,
};

/// Streams that the attacker opens on one connection.
const STREAMS: u32 = 10_000;
/// What it may have open at the same time, and how many more are refused before it is enough.
const MAX_STREAMS: usize = ddr_net::server::MAX_STREAMS as usize;
const MAX_REFUSED_STREAMS: usize = ddr_net::server::MAX_REFUSED_STREAMS;
/// Tasks that the other parts of a test may take: connections, the attacker, the honest client.
const OTHER_TASKS: usize = 12;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection without any protocol.
type Raw = Box<dyn Stream>;

/// A server, a member that attacks it, and one that does not.
struct Field {
    server: TestNode,
    attacker: (Home, Arc<dyn Carrier>),
    honest: (Home, Client),
}

impl Field {
    async fn new(kind: Kind, service: TestService, limits: ServeLimits) -> Self {
        let mut made = carriers(kind, 3).await.into_iter();
        let mut next = || made.next().unwrap();
        let (home, carrier) = next();
        let server = TestNode::start_with(home, carrier, service, limits);
        let attacker = next();
        let (home, carrier) = next();
        let field =
            Self { server, attacker, honest: (home, Client::new(carrier, Default::default())) };
        field.honest_is_answered().await;
        field
    }

    async fn honest_is_answered(&self) {
        let message = envelope(&self.honest.0.identity);
        let call = self.honest.1.call(self.server.addr(), None, &message, CALL_TIMEOUT);
        within(call).await.unwrap();
    }

    /// A connection on which the attacker may write what it likes.
    async fn open(&self, alpn: Alpn) -> std::io::Result<Raw> {
        let dialled = within(self.attacker.1.dial(self.server.addr(), alpn, None)).await;
        dialled.map(|connection| connection.stream)
    }

    async fn open_http2(&self) -> (Frames, WriteHalf<Raw>) {
        let (read, mut write) = tokio::io::split(self.open(Alpn::Messages).await.unwrap());
        write.write_all(PREFACE).await.unwrap();
        write.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
        (Frames(read), write)
    }

    fn asked(&self) -> usize {
        self.server.service.messages.load(Ordering::SeqCst)
    }
}

/// Tasks of this test's runtime that have not ended.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

// Frames of HTTP/2, RFC 9113, section 6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const GOAWAY: u8 = 7;
// Error codes, section 7.
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// `POST /ddr/v1/message`, as HPACK without the dynamic table (RFC 7541).
fn post() -> Vec<u8> {
    let path = b"/ddr/v1/message";
    [&[0x83, 0x87, 0x04, path.len() as u8], &path[..], &[0x01, 1, b'x']].concat()
}

/// The frames that the server sends.
struct Frames(ReadHalf<Raw>);

impl Frames {
    /// Kind, stream and payload of the next frame; `None` at the end.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        within(self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        within(self.0.read_exact(&mut payload)).await.ok()?;
        Some((head[3], stream, payload))
    }
}

/// Requests whose bodies never come: as many as allowed wait, some are refused, then it is enough.
#[tokio::test]
async fn ten_thousand_streams_leave_room_for_others() {
    for kind in KINDS {
        let limits = ServeLimits {
            message_timeout: 2 * DEADLINE,
            stream_timeout: 2 * DEADLINE,
            ..ServeLimits::default()
        };
        let field = Field::new(kind, TestService::default(), limits).await;
        let before = tasks();
        let (mut frames, mut write) = field.open_http2().await;
        let flood = tokio::spawn(async move {
            for number in 0..STREAMS {
                let request = frame(HEADERS, END_HEADERS, 2 * number + 1, &post());
                if write.write_all(&request).await.is_err() {
                    break;
                }
            }
            write.flush().await.ok();
        });
        let (mut refused, mut most, mut ended) = (0, 0, false);
        while let Some((kind, _, payload)) = frames.next().await {
            refused += usize::from(kind == RST_STREAM && payload == REFUSED_STREAM);
            ended |= kind == GOAWAY && payload[4..8] == ENHANCE_YOUR_CALM;
            most = most.max(tasks());
            if refused % 500 == 0 {
                field.honest_is_answered().await;
            }
        }
        assert!(ended, "{kind:?}: the connection is ended with a reason");
        assert_eq!(refused, MAX_REFUSED_STREAMS, "{kind:?}");
        assert!(
            most <= before + MAX_STREAMS + OTHER_TASKS,
            "{kind:?}: {most} tasks, {before} before"
        );
        within(flood).await.unwrap();
        drop(frames);
        eventually("what it held is given up", || tasks() <= before).await;
        field.honest_is_answered().await;
    }
}

/// Each message connection can hold memory for its streams: one member has few of them.
#[tokio::test]
async fn a_member_has_few_connections_and_fewer_for_messages() {
    for kind in KINDS {
        // What it holds must not time out while it takes more.
        let (header_timeout, keep_alive) = (100 * DEADLINE, 100 * DEADLINE);
        let limits = ServeLimits { header_timeout, keep_alive, ..ServeLimits::default() };
        let field = Field::new(kind, TestService::default(), limits).await;
        let mut held = Vec::new();
        for (alpn, hello, wanted) in [
            (Alpn::Messages, [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat(), 16),
            (Alpn::Content, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 64 - 16),
        ] {
            let already = held.len();
            for _ in 0..100 {
                let Ok(mut stream) = field.open(alpn).await else { continue };
                stream.write_all(&hello).await.ok();
                if within(stream.read_u8()).await.is_ok() {
                    held.push(stream);
                }
            }
            assert_eq!(held.len() - already, wanted, "{kind:?} {alpn:?}");
            field.honest_is_answered().await;
        }
        // Places are free again when their connections end.
        held.clear();
        let again = async {
            loop {
                let Ok(mut stream) = field.open(Alpn::Messages).await else { continue };
                stream.write_all(PREFACE).await.ok();
                if stream.read_u8().await.is_ok() {
                    return;
                }
            }
        };
        within(again).await;
    }
}

/// Large answers, so that the windows and the pipes are soon full.
fn large_answers() -> TestService {
    let marks = vec![Mark([7; 8]); MAX_MARKS];
    TestService { answer: Some(Response::Compared { marks }), ..TestService::default() }
}

/// Writes whole requests, as many as the server lets it.
async fn ask(write: &mut WriteHalf<Raw>, message: &[u8], requests: u32) {
    for number in 0..requests {
        let stream = 2 * number + 1;
        let head = frame(HEADERS, END_HEADERS, stream, &post());
        let request = [head, frame(DATA, END_STREAM, stream, message)].concat();
        if write.write_all(&request).await.is_err() {
            return;
        }
    }
    write.flush().await.ok();
}

/// As many answers are made as streams are allowed, however many are asked for.
#[tokio::test]
async fn answers_that_nobody_reads_are_limited() {
    for kind in KINDS {
        let stall_timeout = Duration::from_secs(1);
        let limits = ServeLimits { stall_timeout, ..ServeLimits::default() };
        let field = Field::new(kind, large_answers(), limits).await;
        let (before, asked) = (tasks(), field.asked());
        let (_unread, mut write) = field.open_http2().await;
        let message = envelope(&field.attacker.0.identity).encode();
        let flood = tokio::spawn(async move { ask(&mut write, &message, STREAMS).await });
        let (mut most, mut honest) = (0, 0);
        while tasks() > before || honest < 20 {
            field.honest_is_answered().await;
            (most, honest) = (most.max(tasks()), honest + 1);
        }
        assert!(
            most <= before + MAX_STREAMS + OTHER_TASKS,
            "{kind:?}: {most} tasks, {before} before"
        );
        // One answer fits into the window of the connection, and makes room for another.
        let answered = field.asked() - asked - honest;
        assert!(answered <= MAX_STREAMS + 1, "{kind:?}: {answered} answers were made");
        within(flood).await.unwrap();
    }
}

/// A peer that gives no window does not hold its answers for ever, though nothing stalls.
#[tokio::test]
async fn answers_that_nobody_takes_are_given_up() {
    for kind in KINDS {
        let stream_timeout = Duration::from_secs(1);
        let limits = ServeLimits { stream_timeout, ..ServeLimits::default() };
        let field = Field::new(kind, large_answers(), limits).await;
        let (mut frames, mut write) = field.open_http2().await;
        let message = envelope(&field.attacker.0.identity).encode();
        ask(&mut write, &message, MAX_STREAMS as u32).await;
        let mut reset = 0;
        // It reads all frames and gives no window: one answer of 32 KiB comes, the others cannot.
        while reset < MAX_STREAMS - 2 {
            let (kind, ..) = frames.next().await.expect("the connection lives on");
            reset += usize::from(kind == RST_STREAM);
        }
        field.honest_is_answered().await;
    }
}

/// Content that is asked for and not read: little of it is fetched, and the connection ends.
#[tokio::test]
async fn content_that_nobody_reads_is_not_fetched_and_its_connection_ends() {
    let blob = Bytes::from(vec![7; 32 << 20]);
    let path = blob_path(&Digest::sha256(&blob), Some(&repository()));
    for kind in KINDS {
        let stall_timeout = Duration::from_millis(200);
        let limits = ServeLimits { stall_timeout, ..ServeLimits::default() };
        let service = TestService::default().with_blob(blob.clone());
        let field = Field::new(kind, service, limits).await;
        let before = tasks();
        let mut unread = field.open(Alpn::Content).await.unwrap();
        unread
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
            .await
            .unwrap();
        unread.flush().await.unwrap();
        let contents = || field.server.service.contents.load(Ordering::SeqCst);
        eventually("it is asked for", || contents() == 1).await;
        field.honest_is_answered().await;
        eventually("the connection is given up", || tasks() <= before).await;
        let given = field.server.service.given.load(Ordering::SeqCst);
        assert!(given <= 16 << 20, "{kind:?}: {given} bytes were fetched for nobody");
    }
}
