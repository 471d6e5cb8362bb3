//! A blob to read from: on this disk, or arriving.
//!
//! Decides how bytes go from the disk to a client: pieces of a buffer that the [`Budget`] grants,
//! read at once when the system has them in memory, else on a thread that may wait for the disk;
//! the next piece is read when the client has taken the last one. It must never hand out a byte of
//! an arriving blob that its fetch still holds back.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use ddr_store::{BlobReader, PartialReader};
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::budget::{Budget, Buffer, Reader};
use crate::pull::{Arriving, FETCH_FAILED};
use crate::{ReadError, blocking};

/// A blob of known size. Cheap to clone. Streams of one blob are independent.
#[derive(Clone, Debug)]
pub struct Blob {
    size: u64,
    source: Source,
    buffers: Budget,
}

#[derive(Clone, Debug)]
enum Source {
    Stored(BlobReader),
    /// The pieces that are here, for peers.
    Partial(PartialReader),
    Arriving(Arriving),
}

impl Blob {
    pub(crate) fn stored(reader: BlobReader, buffers: Budget) -> Self {
        Self { size: reader.size(), source: Source::Stored(reader), buffers }
    }

    pub(crate) fn partial(reader: PartialReader, buffers: Budget) -> Self {
        Self { size: reader.size(), source: Source::Partial(reader), buffers }
    }

    pub(crate) fn arriving(size: u64, arriving: Arriving, buffers: Budget) -> Self {
        Self { size, source: Source::Arriving(arriving), buffers }
    }

    /// Size of the whole blob in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The reader of a blob that is whole on this disk; `None` for one that arrives, and for a
    /// disk whose files the system does not know.
    pub fn stored_file(&self) -> Option<&BlobReader> {
        match &self.source {
            Source::Stored(reader) => reader.file().and(Some(reader)),
            Source::Partial(_) | Source::Arriving(_) => None,
        }
    }

    /// Waits until the first bytes of `range` may be read; at once for what is on this disk.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`]: the fetch failed before that.
    pub async fn wait_for(&self, range: Range<u64>) -> Result<(), ReadError> {
        let Source::Arriving(arriving) = &self.source else { return Ok(()) };
        if range.start >= range.end {
            return Ok(());
        }
        let first = arriving.clone().wait_beyond(range.start, &range).await;
        // Why is in the log: it may name addresses.
        first.map(drop).map_err(|_| ReadError::Unavailable(FETCH_FAILED.into()))
    }

    /// The bytes of `range`, cut to the blob. An error item is the last one: the blob could not
    /// be completed, and what was sent is not proven.
    pub fn stream(&self, range: Range<u64>) -> BlobStream {
        let range = range.start.min(self.size)..range.end.min(self.size);
        let at = range.start;
        let reading =
            Reading { source: self.source.clone(), range, at, pieces: self.buffers.reader() };
        BlobStream { pieces: stream::unfold(reading, Reading::step).boxed() }
    }
}

/// The bytes of a blob in order. Ends after the range, or with one error.
pub struct BlobStream {
    pieces: BoxStream<'static, io::Result<Bytes>>,
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream").finish_non_exhaustive()
    }
}

impl Stream for BlobStream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.as_mut().poll_next(cx)
    }
}

/// One stream's place in the blob.
struct Reading {
    source: Source,
    range: Range<u64>,
    at: u64,
    pieces: Reader,
}

impl Reading {
    async fn step(mut self) -> Option<(io::Result<Bytes>, Self)> {
        if self.at >= self.range.end {
            return None;
        }
        let piece = self.piece().await;
        self.at = match &piece {
            Ok(bytes) => self.at + bytes.len() as u64,
            Err(_) => self.range.end,
        };
        Some((piece, self))
    }

    /// The next bytes, at least one. Waits for an arriving blob, then for a buffer.
    async fn piece(&mut self) -> io::Result<Bytes> {
        let (at, end) = (self.at, self.range.end);
        match &mut self.source {
            Source::Stored(reader) => {
                let mut buffer = self.pieces.buffer(end - at).await;
                // Never waits, so it may be done here: a hop to another thread costs more.
                if let Some(count) = reader.read_cached(at, buffer.space())? {
                    return filled(buffer, count);
                }
                let reader = reader.clone();
                read(buffer, move |buffer| reader.read_at(at, buffer)).await
            }
            Source::Partial(reader) => {
                let (buffer, reader) = (self.pieces.buffer(end - at).await, reader.clone());
                read(buffer, move |buffer| reader.read_at(at, buffer)).await
            }
            Source::Arriving(arriving) => loop {
                let (reader, visible) = arriving.wait_beyond(at, &self.range).await?;
                let mut buffer = self.pieces.buffer(end.min(visible) - at).await;
                let work = move || {
                    let count = reader.read_at(at, buffer.space())?;
                    Ok((count > 0).then(|| buffer.filled(count)))
                };
                // Nothing: the piece was taken back a moment ago.
                match blocking(work).await? {
                    Ok(None) => {}
                    Ok(Some(bytes)) => return Ok(bytes),
                    Err(error) => return Err(error),
                }
            },
        }
    }
}

async fn read(
    mut buffer: Buffer,
    read: impl FnOnce(&mut [u8]) -> io::Result<usize> + Send + 'static,
) -> io::Result<Bytes> {
    let work = move || {
        let count = read(buffer.space())?;
        filled(buffer, count)
    };
    blocking(work).await?
}

fn filled(buffer: Buffer, count: usize) -> io::Result<Bytes> {
    if count == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stored file is short"));
    }
    Ok(buffer.filled(count))
}
