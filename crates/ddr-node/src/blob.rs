//! A blob to read from: on this disk, or arriving.
//!
//! Decides how bytes go from the disk to a client: one producer task per stream, chunks of
//! [`CHUNK_BYTES`], at most [`CHUNKS_AHEAD`] ahead of the client. It must never hand out a byte of
//! an arriving blob that its fetch still holds back.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use ddr_store::BlobReader;
use futures_core::Stream;
use tokio::sync::mpsc;

use crate::pull::Arriving;

/// Bytes read from disk at once.
const CHUNK_BYTES: u64 = 256 * 1024;
/// Chunks that wait for a slow client, besides the one in the producer's hand.
const CHUNKS_AHEAD: usize = 2;

/// A blob of known size. Cheap to clone. Streams of one blob are independent.
#[derive(Clone, Debug)]
pub struct Blob {
    size: u64,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Stored(BlobReader),
    Arriving(Arriving),
}

impl Blob {
    pub(crate) fn stored(reader: BlobReader) -> Self {
        Self { size: reader.size(), source: Source::Stored(reader) }
    }

    pub(crate) fn arriving(size: u64, arriving: Arriving) -> Self {
        Self { size, source: Source::Arriving(arriving) }
    }

    /// Size of the whole blob in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of `range`, cut to the blob. An error item is the last one: the blob could not
    /// be completed, and what was sent is not proven.
    pub fn stream(&self, range: Range<u64>) -> BlobStream {
        let range = range.start.min(self.size)..range.end.min(self.size);
        let (tell, chunks) = mpsc::channel(CHUNKS_AHEAD);
        if !range.is_empty() {
            tokio::spawn(produce(self.source.clone(), range, tell));
        }
        BlobStream { chunks }
    }
}

/// The bytes of a blob in order. Ends after the range, or with one error.
#[derive(Debug)]
pub struct BlobStream {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
}

impl Stream for BlobStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.poll_recv(cx)
    }
}

async fn produce(mut source: Source, range: Range<u64>, tell: mpsc::Sender<io::Result<Bytes>>) {
    let mut at = range.start;
    while at < range.end {
        let chunk = tokio::select! {
            () = tell.closed() => return,
            chunk = source.chunk(at, &range) => chunk,
        };
        let failed = chunk.is_err();
        if let Ok(bytes) = &chunk {
            at += bytes.len() as u64;
        }
        if tell.send(chunk).await.is_err() || failed {
            return;
        }
    }
}

impl Source {
    /// The next bytes of `range` from `at`, at least one. Waits for an arriving blob.
    async fn chunk(&mut self, at: u64, range: &Range<u64>) -> io::Result<Bytes> {
        match self {
            Self::Stored(reader) => {
                let reader = reader.clone();
                read(at, range.end, move |at, buffer| reader.read_at(at, buffer)).await
            }
            Self::Arriving(arriving) => {
                let (reader, visible) = arriving.wait_beyond(at, range).await?;
                let end = range.end.min(visible);
                read(at, end, move |at, buffer| reader.read_at(at, buffer)).await
            }
        }
    }
}

async fn read(
    at: u64,
    end: u64,
    read_at: impl Fn(u64, &mut [u8]) -> io::Result<usize> + Send + 'static,
) -> io::Result<Bytes> {
    let len = usize::try_from((end - at).min(CHUNK_BYTES)).unwrap_or(CHUNK_BYTES as usize);
    let work = move || {
        let mut buffer = vec![0_u8; len];
        let count = read_at(at, &mut buffer)?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stored file is short"));
        }
        buffer.truncate(count);
        Ok(Bytes::from(buffer))
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
