//! Many readers of blobs in one thread: fast ones read whatever is there, slow ones a little now
//! and then.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{Timespec, epoll};

use super::idle::dial;

/// Bytes that a fast reader takes at once.
const FAST_BYTES: usize = 256 * 1024;
/// Bytes that a slow reader takes, and how often: about 8 KiB/s.
const SLOW_BYTES: usize = 16 * 1024;
const SLOW_EVERY: Duration = Duration::from_secs(2);
/// Bytes of a response's header.
const MAX_HEAD_BYTES: usize = 4096;
/// Sockets that are looked at after one wait.
const EVENTS: usize = 256;
/// Longest wait for any of them.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// The readers.
pub(super) struct Load {
    epoll: rustix::fd::OwnedFd,
    readers: Vec<Reader>,
    slow: usize,
    targets: Vec<String>,
    buffer: Vec<u8>,
}

struct Reader {
    stream: TcpStream,
    head: Vec<u8>,
    left: u64,
    bytes: u64,
}

/// What came of a run.
pub(super) struct Outcome {
    bytes: u64,
    seconds: f64,
    /// Readers that got any byte of a blob.
    pub(super) fed: usize,
    /// Answers 503.
    pub(super) refused: usize,
}

impl Outcome {
    pub(super) fn gb(&self) -> f64 {
        self.bytes as f64 / 1e9
    }

    pub(super) fn mb_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds
    }
}

impl Load {
    /// `count` connections, of which the first `slow` read slowly; each has asked for a blob.
    pub(super) fn open(
        to: SocketAddr,
        count: usize,
        slow: usize,
        targets: &[String],
    ) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut load = Self {
            epoll,
            readers: Vec::with_capacity(count),
            slow,
            targets: targets.to_vec(),
            buffer: vec![0; FAST_BYTES],
        };
        for number in 0..count {
            let stream = dial(to, number)?;
            stream.set_nonblocking(true)?;
            if number >= slow {
                let data = epoll::EventData::new_u64(number as u64);
                epoll::add(&load.epoll, &stream, data, epoll::EventFlags::IN)?;
            }
            load.readers.push(Reader { stream, head: Vec::new(), left: 0, bytes: 0 });
            load.ask(number)?;
        }
        Ok(load)
    }

    fn ask(&mut self, number: usize) -> Result<()> {
        let target = &self.targets[number % self.targets.len()];
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let reader = &mut self.readers[number];
        reader.head.clear();
        reader.stream.write_all(request.as_bytes()).context("a request is not taken")
    }

    /// Reads for `time`; `look` is called about every 100 ms.
    pub(super) fn run(
        &mut self,
        time: Duration,
        mut look: impl FnMut() -> Result<()>,
    ) -> Result<Outcome> {
        let mut outcome = Outcome { bytes: 0, seconds: 0.0, fed: 0, refused: 0 };
        let mut events = Vec::with_capacity(EVENTS);
        let began = Instant::now();
        let (mut looked, mut next_slow) = (began, 0);
        while began.elapsed() < time {
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&WAIT))?;
            for event in &events {
                let number = usize::try_from(event.data.u64())?;
                self.read(number, FAST_BYTES, &mut outcome)?;
            }
            // As many slow readers as their time has come for.
            let due = began.elapsed().as_secs_f64() / SLOW_EVERY.as_secs_f64() * self.slow as f64;
            while (next_slow as f64) < due {
                self.read(next_slow % self.slow, SLOW_BYTES, &mut outcome)?;
                next_slow += 1;
            }
            if looked.elapsed() > Duration::from_millis(100) {
                looked = Instant::now();
                look()?;
            }
        }
        outcome.seconds = began.elapsed().as_secs_f64();
        outcome.fed = self.readers.iter().filter(|reader| reader.bytes > 0).count();
        Ok(outcome)
    }

    /// Reads once; asks again when the blob is complete.
    fn read(&mut self, number: usize, most: usize, outcome: &mut Outcome) -> Result<()> {
        let reader = &mut self.readers[number];
        let count = match reader.stream.read(&mut self.buffer[..most]) {
            Ok(0) => bail!("a stream was closed with {} bytes to come", reader.left),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("a stream broke"),
        };
        let mut body = count as u64;
        if reader.left == 0 {
            let Some(rest) = reader.head(&self.buffer[..count], outcome)? else { return Ok(()) };
            body = rest;
        }
        reader.left = reader.left.checked_sub(body).context("more bytes than were promised")?;
        reader.bytes += body;
        outcome.bytes += body;
        if reader.left == 0 {
            self.ask(number)?;
        }
        Ok(())
    }
}

impl Reader {
    /// Takes in the header of an answer; the number of body bytes that came with its end.
    fn head(&mut self, bytes: &[u8], outcome: &mut Outcome) -> Result<Option<u64>> {
        let before = self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(MAX_HEAD_BYTES)]);
        let Some(end) = self.head.windows(4).position(|window| window == b"\r\n\r\n") else {
            ensure!(self.head.len() < MAX_HEAD_BYTES, "a header has no end");
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&self.head[..end]).to_ascii_lowercase();
        outcome.refused += usize::from(text.starts_with("http/1.1 503"));
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        self.left = length.context("no length")?.parse()?;
        Ok(Some((before + bytes.len() - (end + 4)) as u64))
    }
}
