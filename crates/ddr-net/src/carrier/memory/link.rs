//! A stream that a test can stall or cut while both ends hold it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// What a link does with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    Open,
    Stalled,
    Cut,
}

/// The wire between two ends. Cut is final.
#[derive(Debug, Default)]
pub(super) struct Link {
    state: AtomicU8,
    /// Reader and writer of each end.
    wakers: [AtomicWaker; 4],
}

impl Link {
    pub(super) fn set(&self, state: LinkState) {
        if self.get() == LinkState::Cut {
            return;
        }
        self.state.store(state as u8, Ordering::Release);
        self.wakers.iter().for_each(AtomicWaker::wake);
    }

    fn get(&self) -> LinkState {
        match self.state.load(Ordering::Acquire) {
            0 => LinkState::Open,
            1 => LinkState::Stalled,
            _ => LinkState::Cut,
        }
    }

    /// Ready when bytes may pass; an error when the link is cut.
    fn poll_pass(&self, cx: &Context<'_>, waker: usize) -> Poll<io::Result<()>> {
        self.wakers[waker].register(cx.waker());
        match self.get() {
            LinkState::Open => Poll::Ready(Ok(())),
            LinkState::Stalled => Poll::Pending,
            LinkState::Cut => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

/// One end of a [`Link`].
pub(super) struct LinkedStream {
    inner: DuplexStream,
    link: Arc<Link>,
    end: usize,
}

impl LinkedStream {
    pub(super) fn new(inner: DuplexStream, link: Arc<Link>, end: usize) -> Self {
        Self { inner, link, end }
    }
}

impl AsyncRead for LinkedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.link.poll_pass(cx, self.end * 2))?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for LinkedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.link.poll_pass(cx, self.end * 2 + 1))?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.link.poll_pass(cx, self.end * 2 + 1))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
