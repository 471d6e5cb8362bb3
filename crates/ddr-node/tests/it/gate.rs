//! A carrier that stops content in the middle: a node sends so many bytes and then holds its
//! breath, until the test lets it go on or kills it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use ddr_net::{Alpn, Carrier, Connection, MemoryCarrier};
use ddr_proto::id::NodeId;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// How much content a node may still send.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    reached: Notify,
}

#[derive(Default)]
struct State {
    /// `None`: no limit.
    left: Option<usize>,
    /// What is sent in the place of what.
    lie: Option<(&'static str, &'static str)>,
    waiting: Vec<Waker>,
}

impl Gate {
    /// From now on at most `bytes` go out, in all connections together.
    pub(crate) fn close_after(&self, bytes: usize) {
        self.state.lock().expect("unpoisoned").left = Some(bytes);
    }

    /// From now on the node says `false_words` where it would say `words`, which are as long.
    pub(crate) fn lie(&self, words: &'static str, false_words: &'static str) {
        assert_eq!(words.len(), false_words.len());
        self.state.lock().expect("unpoisoned").lie = Some((words, false_words));
    }

    fn told(&self, bytes: &[u8]) -> Vec<u8> {
        let mut told = bytes.to_vec();
        if let Some((words, false_words)) = self.state.lock().expect("unpoisoned").lie {
            let place = told.windows(words.len()).position(|found| found == words.as_bytes());
            if let Some(at) = place {
                told[at..at + words.len()].copy_from_slice(false_words.as_bytes());
            }
        }
        told
    }

    /// Everything goes out again.
    pub(crate) fn open(&self) {
        let mut state = self.state.lock().expect("unpoisoned");
        state.left = None;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// Waits until something was held back.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    fn allow(&self, wanted: usize, cx: &Context<'_>) -> Option<usize> {
        let mut state = self.state.lock().expect("unpoisoned");
        match state.left {
            None => Some(wanted),
            Some(0) => {
                state.waiting.push(cx.waker().clone());
                self.reached.notify_one();
                None
            }
            Some(left) => Some(wanted.min(left)),
        }
    }

    fn sent(&self, bytes: usize) {
        let mut state = self.state.lock().expect("unpoisoned");
        if let Some(left) = &mut state.left {
            *left = left.saturating_sub(bytes);
        }
    }
}

pub(crate) struct GatedCarrier {
    inner: MemoryCarrier,
    gate: Arc<Gate>,
}

impl GatedCarrier {
    pub(crate) fn new(inner: MemoryCarrier, gate: &Arc<Gate>) -> Self {
        Self { inner, gate: Arc::clone(gate) }
    }
}

impl Carrier for GatedCarrier {
    fn dial(
        &self,
        addr: SocketAddr,
        alpn: Alpn,
        expect: Option<NodeId>,
    ) -> BoxFuture<'_, io::Result<Connection>> {
        self.inner.dial(addr, alpn, expect)
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let mut connection = self.inner.accept().await?;
            if connection.alpn == Alpn::Content {
                let inner = connection.stream;
                connection.stream = Box::new(Gated { inner, gate: Arc::clone(&self.gate) });
            }
            Ok(connection)
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn close(&self) {
        self.inner.close();
    }
}

struct Gated {
    inner: Box<dyn ddr_net::carrier::Stream>,
    gate: Arc<Gate>,
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(allowed) = self.gate.allow(bytes.len(), cx) else { return Poll::Pending };
        let told = self.gate.told(&bytes[..allowed]);
        let written = Pin::new(&mut self.inner).poll_write(cx, &told);
        if let Poll::Ready(Ok(count)) = &written {
            self.gate.sent(*count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
