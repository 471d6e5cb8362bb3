//! The request body: gathered into pieces of a bounded size, with a bounded wait.
//!
//! Decides how many bytes are held at once: [`CHUNK_BYTES`] and one frame. The next frame is read
//! only after the piece was taken, so a slow disk slows the client down. It must never hold a body
//! of a size that the client chose.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::limits::{CHUNK_BYTES, MAX_DISCARD_BYTES};
use crate::metrics;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The body is longer than what the request may carry, in bytes.
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    /// No byte came for this long.
    #[error("no byte of the body came for {0:?}")]
    Stalled(Duration),
    /// The client went away or broke the framing.
    #[error("the body broke off: {0}")]
    Broken(#[from] hyper::Error),
}

/// One request's body.
pub(crate) struct RequestBody {
    incoming: Incoming,
    gathered: BytesMut,
    ended: bool,
    failed: Option<BodyError>,
    progress_timeout: Duration,
    /// The client waits for `100 Continue`, which goes out with the first read.
    held_back: bool,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, progress_timeout: Duration, held_back: bool) -> Self {
        let ended = incoming.is_end_stream();
        let gathered = BytesMut::new();
        Self { incoming, gathered, ended, failed: None, progress_timeout, held_back }
    }

    /// Bytes still to come by `Content-Length`; `None` when the body is streamed.
    pub(crate) fn remaining_len(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// The next piece, at most [`CHUNK_BYTES`]; `None` at the end. What came before a failure is
    /// given out before the failure is.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        while !self.ended && self.gathered.len() < CHUNK_BYTES {
            match self.frame().await {
                Ok(Some(bytes)) => {
                    self.make_room();
                    self.gathered.extend_from_slice(&bytes);
                }
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
        let len = self.gathered.len().min(CHUNK_BYTES);
        Ok(Some(self.gathered.split_to(len).freeze()))
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

    /// Takes the buffer for a whole piece at once, or for as much as the client promised.
    fn make_room(&mut self) {
        if self.gathered.is_empty() {
            let left = self.remaining_len().unwrap_or(CHUNK_BYTES as u64);
            let left = usize::try_from(left).unwrap_or(CHUNK_BYTES);
            self.gathered.reserve(left.min(CHUNK_BYTES));
        }
    }
}
