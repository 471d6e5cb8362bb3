//! One client connection: its bytes, and whether it is still alive.
//!
//! Decides what counts as stalled and what as at rest, and sends files past hyper. It must never
//! look at a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep};

use crate::lane::is_stand_in;
use crate::limits::{MIN_PROGRESS_BYTES, YIELD_BYTES};
use crate::sendfile::{FileSender, Sent};
use crate::tls::Transport;

/// The bytes of a connection; writing fails when its peer takes next to nothing for too long.
pub(crate) struct ClientIo {
    inner: TokioIo<Transport>,
    /// What was read to learn the protocol.
    first: Bytes,
    files: Option<FileSender>,
    write_timeout: Duration,
    /// Runs while a write waits.
    stalled: Option<Stalled>,
    /// Since when the peer has waited for this node, which is not held against it.
    node_waits: Option<Instant>,
    /// Bytes written since others had a chance to run.
    written_in_row: usize,
    activity: Activity,
}

struct Stalled {
    until: Pin<Box<Sleep>>,
    /// Bytes that the peer took since.
    taken: usize,
}

impl ClientIo {
    pub(crate) fn new(
        transport: Transport,
        files: Option<FileSender>,
        write_timeout: Duration,
        activity: Activity,
    ) -> Self {
        let (inner, first, stalled) = (TokioIo::new(transport), Bytes::new(), None);
        Self {
            inner,
            first,
            files,
            write_timeout,
            stalled,
            node_waits: None,
            written_in_row: 0,
            activity,
        }
    }

    /// Gives `bytes` to the next reads. Copied: they may be the rest of a large buffer, which must
    /// not stay with a connection at rest.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        self.first = Bytes::copy_from_slice(bytes);
    }

    /// True when the next read needs nothing from the peer.
    pub(crate) fn has_unread(&self) -> bool {
        !self.first.is_empty()
    }

    pub(crate) fn transport(&mut self) -> &mut Transport {
        self.inner.inner_mut()
    }

    /// The peer took `count` bytes: when that is enough, it is alive.
    fn progress(&mut self, count: usize) {
        if let Some(stalled) = &mut self.stalled {
            stalled.taken += count;
            if stalled.taken >= MIN_PROGRESS_BYTES {
                self.stalled = None;
            }
        }
    }

    /// The peer must take some before more can be written.
    fn stall<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.written_in_row = 0;
        self.node_is_ready();
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            until: Box::pin(tokio::time::sleep(timeout)),
            taken: 0,
        });
        ready!(stalled.until.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The node was waited for, if it was: the peer has as much more time.
    fn node_is_ready(&mut self) {
        if let (Some(since), Some(stalled)) = (self.node_waits.take(), &mut self.stalled) {
            let until = stalled.until.deadline() + since.elapsed();
            stalled.until.as_mut().reset(until);
        }
    }

    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Ok(count)) => {
                self.written_in_row += count;
                self.progress(count);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.stall(cx),
        }
        result
    }

    fn send_file(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let (Some(files), Transport::Plain(socket)) = (&mut self.files, self.inner.inner()) else {
            return Poll::Ready(Err(io::Error::other("content for a lane that is not there")));
        };
        match files.poll_send(cx, socket)? {
            Sent::Bytes(count) => {
                self.node_is_ready();
                self.watch(cx, Poll::Ready(Ok(count)))
            }
            Sent::ClientWaits => self.stall(cx),
            Sent::NodeWaits => {
                self.written_in_row = 0;
                self.node_waits.get_or_insert_with(Instant::now);
                Poll::Pending
            }
        }
    }

    /// Ready when something may be written now: nothing of content is out of place, and others had
    /// their chance to run.
    fn poll_may_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.files.as_ref().map_or(Ok(()), FileSender::check)?;
        self.activity.set_unflushed(true);
        if self.written_in_row < YIELD_BYTES {
            return Poll::Ready(Ok(()));
        }
        self.written_in_row = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Read for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl Write for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_may_write(cx))?;
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.watch(cx, result)
    }

    /// hyper calls it when all it had is written, so what the peer has still to take is in the
    /// kernel: no reason to watch it.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if flushed.is_pending() {
            return self.stall(cx);
        }
        self.stalled = None;
        self.activity.set_unflushed(false);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        if shut.is_pending() { self.stall(cx) } else { shut }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_may_write(cx))?;
        let bufs = match bufs.iter().position(is_stand_in) {
            Some(0) => return self.send_file(cx),
            Some(file) => &bufs[..file],
            None => bufs,
        };
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.watch(cx, result)
    }
}

/// The requests that one connection has in progress, answers included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    running: AtomicUsize,
    begun: AtomicUsize,
    /// Something of an answer is not yet with the kernel, even if its body has ended.
    unflushed: AtomicBool,
}

/// One request in progress; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running(Arc<Counts>);

impl Activity {
    pub(crate) fn begin(&self) -> Running {
        self.0.running.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(&self.0))
    }

    /// Requests begun since the connection was opened.
    pub(crate) fn begun(&self) -> usize {
        self.0.begun.load(Ordering::Relaxed)
    }

    fn set_unflushed(&self, unflushed: bool) {
        self.0.unflushed.store(unflushed, Ordering::Relaxed);
    }

    /// True when nothing runs, all answers are written and nothing began since the call that filled `seen`.
    pub(crate) fn at_rest(&self, seen: &mut usize) -> bool {
        let begun = self.begun();
        let nothing_new = std::mem::replace(seen, begun) == begun;
        nothing_new
            && self.0.running.load(Ordering::Relaxed) == 0
            && !self.0.unflushed.load(Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use ddr_oci::digest::Digest;
    use ddr_store::{Store, StoreConfig};
    use http::Response;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::lane::Lane;
    use crate::limits::Limits;
    use crate::respond::ReplyBody;
    use crate::streams::Streams;

    const CONTENT: &[u8] = &[7; 300_000];

    fn stored(dir: &tempfile::TempDir) -> ddr_node::BlobReader {
        let store = Store::open(StoreConfig::new(dir.path())).unwrap();
        let name = "a".parse().unwrap();
        let id = store.begin_upload(&name).unwrap();
        let mut upload = store.upload(&name, &id).unwrap();
        upload.append(CONTENT).unwrap();
        upload.commit(&Digest::sha256(CONTENT)).unwrap();
        store.blob(&Digest::sha256(CONTENT)).unwrap().unwrap()
    }

    /// What a client gets of a file through a connection whose hyper writes as `vectored` says.
    async fn received(vectored: bool) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let reader = stored(&dir);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let lane = Lane::default();
        let limits = Limits::default();
        let files = FileSender::new(lane.clone(), Arc::new(Streams::new(&limits)));
        let transport = Transport::Plain(socket);
        let io =
            ClientIo::new(transport, Some(files), Duration::from_secs(60), Activity::default());
        let service = service_fn(move |_| {
            let body = ReplyBody::of_file(reader.clone(), 0..CONTENT.len() as u64, &lane);
            async move { Ok::<_, Infallible>(Response::new(body)) }
        });
        let connection = http1::Builder::new().writev(vectored).serve_connection(io, service);
        let served = tokio::spawn(connection);
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut seen = Vec::new();
        let _ = client.read_to_end(&mut seen).await;
        assert_eq!(served.await.unwrap().is_ok(), vectored);
        seen
    }

    #[tokio::test]
    async fn a_file_arrives_whole() {
        assert!(received(true).await.ends_with(CONTENT));
    }

    #[tokio::test]
    async fn bytes_that_only_stand_for_a_file_never_leave() {
        let seen = received(false).await;
        assert!(!seen.contains(&0), "stand-in bytes are zeros");
        assert!(!seen.ends_with(CONTENT));
    }
}
