//! The request body: gathered into pieces of a bounded size, with a bounded wait.
//!
//! Decides how many bytes are held at once: [`CHUNK_BYTES`] and one frame. The next frame is read
//! only after the piece was taken, so a slow disk slows the client down. It must never hold a body
//! of a size that the client chose.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use ddr_node::budget::{Budget, Granted};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::limits::{CHUNK_BYTES, Limits, MAX_DISCARD_BYTES, SMALL_CHUNK_BYTES};
use crate::metrics;

/// Pieces begin at a multiple of this in memory, bytes.
const PAGE_BYTES: usize = 4096;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The body is longer than what the request may carry, in bytes.
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    /// No byte came for this long.
    #[error("no byte of the body came for {0:?}")]
    Stalled(Duration),
    /// No memory to receive with was free for this long.
    #[error("this node receives more than it has memory for; none was free for {0:?}")]
    NoMemory(Duration),
    /// The client went away or broke the framing.
    #[error("the body broke off: {0}")]
    Broken(#[from] hyper::Error),
}

/// One request's body.
pub(crate) struct RequestBody {
    incoming: Incoming,
    gathered: BytesMut,
    /// What did not fit of the last frame.
    rest: Bytes,
    ended: bool,
    failed: Option<BodyError>,
    progress_timeout: Duration,
    buffers: Budget,
    buffer_wait: Duration,
    /// The client waits for `100 Continue`, which goes out with the first read.
    held_back: bool,
}

impl RequestBody {
    pub(crate) fn new(
        incoming: Incoming,
        limits: &Limits,
        buffers: Budget,
        held_back: bool,
    ) -> Self {
        let ended = incoming.is_end_stream();
        Self {
            incoming,
            gathered: BytesMut::new(),
            rest: Bytes::new(),
            ended,
            failed: None,
            progress_timeout: limits.body_progress_timeout,
            buffers,
            buffer_wait: limits.buffer_wait,
            held_back,
        }
    }

    /// Bytes still to come by `Content-Length`; `None` when the body is streamed.
    pub(crate) fn remaining_len(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// The next piece, at most [`CHUNK_BYTES`], in memory that the budget has granted before a byte
    /// of it was read; `None` at the end. What came before a failure is given out before the
    /// failure is.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.ended && self.rest.is_empty() {
            return self.failed.take().map_or(Ok(None), Err);
        }
        let (granted, wanted) = self.grant().await?;
        while !self.ended && self.gathered.len() < wanted {
            if !self.rest.is_empty() {
                self.gather(wanted);
                continue;
            }
            match self.frame().await {
                Ok(Some(bytes)) => self.rest = bytes,
                Ok(None) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    self.failed = Some(error);
                }
            }
        }
        if self.gathered.is_empty() {
            return self.failed.take().map_or(Ok(None), Err);
        }
        Ok(Some(granted.with(std::mem::take(&mut self.gathered).freeze())))
    }

    /// Memory for the next piece, and how many bytes that is: a whole piece, or what the client
    /// promised, or little when others need theirs.
    async fn grant(&self) -> Result<(Granted, usize), BodyError> {
        let left = self
            .remaining_len()
            .map_or(CHUNK_BYTES as u64, |len| len.saturating_add(self.rest.len() as u64));
        let whole = usize::try_from(left).unwrap_or(CHUNK_BYTES).clamp(1, CHUNK_BYTES);
        if self.buffers.free() > self.buffers.total() / 2
            && let Some(granted) = self.buffers.try_take(whole)
        {
            return Ok((granted, whole));
        }
        let little = whole.min(SMALL_CHUNK_BYTES);
        match tokio::time::timeout(self.buffer_wait, self.buffers.take(little)).await {
            Ok(granted) => Ok((granted, little)),
            Err(_) => Err(BodyError::NoMemory(self.buffer_wait)),
        }
    }

    /// The whole body, when it has at most `limit` bytes.
    pub(crate) async fn collect(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        let too_large = || BodyError::TooLarge(limit as u64);
        if self.remaining_len().is_some_and(|len| len > limit as u64) {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        while let Some(piece) = self.chunk().await? {
            if whole.len() + piece.len() > limit {
                return Err(too_large());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Reads and forgets what is left, up to [`MAX_DISCARD_BYTES`], so that a client that is still
    /// sending gets to see the answer. A client that waits to be asked is not asked.
    pub(crate) async fn discard(&mut self) {
        self.gathered = BytesMut::new();
        self.rest = Bytes::new();
        let mut left = MAX_DISCARD_BYTES;
        if self.held_back || self.remaining_len().is_some_and(|len| len > left) {
            return;
        }
        while !self.ended {
            let Ok(Some(bytes)) = self.frame().await else { return };
            match left.checked_sub(bytes.len() as u64) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.held_back = false;
        loop {
            let next = tokio::time::timeout(self.progress_timeout, self.incoming.frame());
            let frame = match next.await {
                Err(_) => return Err(BodyError::Stalled(self.progress_timeout)),
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame?,
            };
            // Trailers are read over: no request of this API has any.
            if let Ok(bytes) = frame.into_data() {
                metrics::received(bytes.len());
                return Ok(Some(bytes));
            }
        }
    }

    /// Moves what fits of the last frame into the piece of `wanted` bytes. The piece begins at a
    /// page, so that the store can write it past the page cache.
    fn gather(&mut self, wanted: usize) {
        if self.gathered.is_empty() {
            self.gathered = BytesMut::with_capacity(wanted + PAGE_BYTES);
            let unaligned = self.gathered.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
            self.gathered.resize(unaligned, 0);
            self.gathered.advance(unaligned);
        }
        let fits = self.rest.len().min(wanted - self.gathered.len());
        self.gathered.extend_from_slice(&self.rest.split_to(fits));
    }
}
