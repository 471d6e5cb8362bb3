//! Sending parts of files from the kernel's memory to a socket (sendfile(2)).
//!
//! Decides how much goes out in one turn, and that a turn is never held while the client or the
//! disk is waited for. It must never let a thread that serves others wait for a disk.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::sendfile;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::lane::{FilePart, Lane};
use crate::limits::{TURN_BYTES, WARM_BYTES};
use crate::metrics;
use crate::streams::Streams;

/// A wait that ends with a turn, or with content in memory.
type Wait = Pin<Box<dyn Future<Output = io::Result<Option<OwnedSemaphorePermit>>> + Send>>;

/// One connection's sender.
pub(crate) struct FileSender {
    lane: Lane,
    streams: Arc<Streams>,
    part: Option<FilePart>,
    /// End of what is known to be in memory.
    warm_to: u64,
    wait: Option<Wait>,
    turn: Option<OwnedSemaphorePermit>,
    /// The turn was used while others waited for one.
    used: bool,
}

/// What came of an attempt to send.
pub(crate) enum Sent {
    /// So many bytes.
    Bytes(usize),
    /// None, the client has to take some first.
    ClientWaits,
    /// None, for a reason of this node.
    NodeWaits,
}

impl FileSender {
    pub(crate) fn new(lane: Lane, streams: Arc<Streams>) -> Self {
        let (part, wait, turn) = (None, None, None);
        Self { lane, streams, part, warm_to: 0, wait, turn, used: false }
    }

    /// Fails when a byte that only stood for content could be among what is to be written.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.lane.is_broken() {
            return Err(io::Error::other("content left its lane"));
        }
        Ok(())
    }

    /// Sends some bytes of the next file.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
    ) -> io::Result<Sent> {
        if std::mem::take(&mut self.used) {
            // Who gets the turn runs next, before all that is ready. Given up only after these had
            // their chance, it goes once around; small requests are not behind every stream.
            cx.waker().wake_by_ref();
            return Ok(Sent::NodeWaits);
        }
        // Nothing has changed hands since it was used.
        self.turn = None;
        loop {
            match self.poll_wait(cx) {
                Poll::Pending => return Ok(Sent::NodeWaits),
                Poll::Ready(done) => done?,
            }
            match socket.poll_write_ready(cx) {
                Poll::Pending => {
                    self.turn = None;
                    return Ok(Sent::ClientWaits);
                }
                Poll::Ready(writable) => writable?,
            }
            if self.prepare()? {
                continue;
            }
            let sent = self.send(socket);
            self.used = sent.is_ok() && self.part.is_some() && self.streams.is_turn_wanted();
            if !self.used {
                self.turn = None;
            }
            match sent {
                Err(error) if is_passing(&error) => {}
                other => return other.map(Sent::Bytes),
            }
        }
    }

    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(wait) = &mut self.wait else { return Poll::Ready(Ok(())) };
        let done = ready!(wait.as_mut().poll(cx));
        self.wait = None;
        self.turn = done?;
        Poll::Ready(Ok(()))
    }

    /// Sees to it that there is a part, in memory, and a turn. True when that must be waited for.
    fn prepare(&mut self) -> io::Result<bool> {
        let part = match &mut self.part {
            Some(part) => part,
            none => {
                let next = self.lane.next_file();
                self.warm_to = 0;
                none.insert(next.ok_or_else(|| io::Error::other("no file is to be sent"))?)
            }
        };
        let (at, end) = (part.left.start, part.left.end);
        if self.turn.is_none() {
            let turns = Arc::clone(&self.streams.turns);
            let Ok(turn) = Arc::clone(&turns).try_acquire_owned() else {
                self.wait = Some(Box::pin(async move {
                    turns.acquire_owned().await.map(Some).map_err(io::Error::other)
                }));
                return Ok(true);
            };
            self.turn = Some(turn);
        }
        if at >= self.warm_to {
            let turn_end = end.min(at + TURN_BYTES as u64);
            if !part.reader.is_cached(at..turn_end) {
                self.turn = None;
                self.warm_to = end.min(at + WARM_BYTES);
                self.wait = Some(warm(part.clone(), self.warm_to, &self.streams));
                return Ok(true);
            }
            self.warm_to = turn_end;
        }
        Ok(false)
    }

    fn send(&mut self, socket: &TcpStream) -> io::Result<usize> {
        let Some(part) = &mut self.part else { return Ok(0) };
        let file = part.reader.file().ok_or(io::ErrorKind::Unsupported)?;
        let left = self.warm_to.min(part.left.end) - part.left.start;
        let len = usize::try_from(left).unwrap_or(TURN_BYTES).min(TURN_BYTES);
        let mut offset = part.left.start;
        let count = socket.try_io(Interest::WRITABLE, || {
            sendfile(socket, file, Some(&mut offset), len).map_err(io::Error::from)
        });
        let count = count.and_then(|count| match count {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stored file is short")),
            count => Ok(count),
        });
        match &count {
            Ok(count) => {
                part.left.start += *count as u64;
                self.lane.sent(*count);
                if part.left.is_empty() {
                    self.part = None;
                }
            }
            Err(error) if is_passing(error) => {}
            Err(error) => {
                metrics::broken_off();
                let missing = part.left.end - part.left.start;
                tracing::debug!(%error, missing, "a response ends short");
            }
        }
        count
    }
}

/// True when the same can be tried again: a full socket, or a signal in between.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Reads the part up to `end` from the disk, on a thread that may wait.
fn warm(part: FilePart, end: u64, streams: &Streams) -> Wait {
    let warming = Arc::clone(&streams.warming);
    Box::pin(async move {
        let permit = warming.acquire_owned().await.map_err(io::Error::other)?;
        let work = move || {
            let _permit = permit;
            part.reader.warm(part.left.start..end)
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??;
        Ok(None)
    })
}
