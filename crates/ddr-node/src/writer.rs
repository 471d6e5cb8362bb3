//! Bytes to disk in order, hashed beside the write, while the next ones arrive.
//!
//! One batch of up to [`BATCH_BYTES`] is written in one blocking task and hashed in another while
//! the next one gathers; then the giver waits. So a transfer holds at most two batches in memory,
//! and network, disk and hash work at the same time. A batch counts when both are done.

use bytes::Bytes;
use ddr_store::{Hashing, UploadError};
use tokio::task::JoinHandle;

/// Bytes that gather while a write runs. One more piece may come on top.
pub(crate) const BATCH_BYTES: usize = 1024 * 1024;

/// Smallest batch that is hashed beside its write, bytes; for less a second task costs more than
/// it saves.
const MIN_BESIDE_BYTES: usize = 128 * 1024;

/// Where bytes go: an upload session or a fetch.
pub(crate) trait Sink: Send + 'static {
    /// Appends, without hashing. Blocks.
    fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError>;
    /// Hashes what [`Sink::write`] writes, on any thread.
    fn hashing(&self) -> Option<Hashing>;
    /// Bytes in it.
    fn offset(&self) -> u64;
}

/// See the module comment. After an error it takes nothing more.
pub(crate) struct Writer<S> {
    sink: Option<S>,
    write: Option<JoinHandle<(S, Result<(), UploadError>)>>,
    /// Hashes the batch that is being written, or has just been.
    hash: Option<JoinHandle<()>>,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    written: u64,
    accepted: u64,
}

impl<S: Sink> Writer<S> {
    pub(crate) fn new(sink: S) -> Self {
        let offset = sink.offset();
        Self {
            sink: Some(sink),
            write: None,
            hash: None,
            batch: Vec::new(),
            batch_bytes: 0,
            written: offset,
            accepted: offset,
        }
    }

    /// Bytes taken so far, written or not.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Bytes that are in the sink.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The sink, while no write runs.
    pub(crate) fn sink(&self) -> Option<&S> {
        self.sink.as_ref()
    }

    /// The sink, while no write runs.
    pub(crate) fn sink_mut(&mut self) -> Option<&mut S> {
        self.sink.as_mut()
    }

    /// Does something with the sink where it may block, after [`Self::flush`].
    pub(crate) async fn job(
        &mut self,
        work: impl FnOnce(&mut S) -> Result<(), UploadError> + Send + 'static,
    ) -> Result<(), UploadError> {
        let mut sink = self.sink.take().ok_or_else(stopped)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut sink);
            (sink, result)
        });
        let (sink, result) = done.await.map_err(|error| UploadError::Io(error.into()))?;
        self.sink = Some(sink);
        result
    }

    /// True while a write runs; [`Self::settle`] waits for it.
    pub(crate) fn is_writing(&self) -> bool {
        self.write.is_some()
    }

    /// Takes the next bytes. Waits only when a batch is full and the one before is not written.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> Result<(), UploadError> {
        if self.batch_bytes >= BATCH_BYTES {
            self.settle().await?;
        }
        self.accepted += bytes.len() as u64;
        self.batch_bytes += bytes.len();
        self.batch.push(bytes);
        self.start()
    }

    /// Waits for the write that runs, if any, and starts the next. Safe to cancel.
    pub(crate) async fn settle(&mut self) -> Result<(), UploadError> {
        if let Some(hash) = &mut self.hash {
            // If it panicked, the store reads what was not hashed from the file.
            let hashed = hash.await;
            self.hash = None;
            if let Err(error) = hashed {
                tracing::error!(%error, "hashing broke off");
            }
        }
        if let Some(write) = &mut self.write {
            let ended = write.await;
            self.write = None;
            // A write that failed leaves a hash that is ahead; the store hashes again then.
            let (sink, result) = ended.map_err(|error| UploadError::Io(error.into()))?;
            self.written = sink.offset();
            self.sink = Some(sink);
            if result.is_err() {
                self.batch.clear();
                self.batch_bytes = 0;
                self.accepted = self.written;
            }
            result?;
        }
        self.start()
    }

    /// Waits until everything taken is in the sink.
    pub(crate) async fn flush(&mut self) -> Result<u64, UploadError> {
        while self.is_writing() || self.batch_bytes > 0 {
            self.settle().await?;
        }
        Ok(self.written)
    }

    /// The sink, everything written.
    pub(crate) async fn finish(mut self) -> Result<S, UploadError> {
        self.flush().await?;
        self.sink.take().ok_or_else(stopped)
    }

    fn start(&mut self) -> Result<(), UploadError> {
        if self.batch.is_empty() || self.write.is_some() {
            return Ok(());
        }
        let mut sink = self.sink.take().ok_or_else(stopped)?;
        let batch = std::mem::take(&mut self.batch);
        let beside = self.batch_bytes >= MIN_BESIDE_BYTES;
        self.batch_bytes = 0;
        let (offset, hashing) = (sink.offset(), sink.hashing());
        if let Some(hashing) = hashing.clone().filter(|_| beside) {
            let batch = batch.clone();
            self.hash = Some(tokio::task::spawn_blocking(move || hash(&hashing, offset, &batch)));
        }
        self.write = Some(tokio::task::spawn_blocking(move || {
            let result = batch.iter().try_for_each(|bytes| sink.write(bytes));
            if let Some(hashing) = hashing.filter(|_| !beside && result.is_ok()) {
                hash(&hashing, offset, &batch);
            }
            (sink, result)
        }));
        Ok(())
    }
}

fn hash(hashing: &Hashing, mut offset: u64, batch: &[Bytes]) {
    for bytes in batch {
        hashing.update(offset, bytes);
        offset += bytes.len() as u64;
    }
}

fn stopped() -> UploadError {
    UploadError::Io(std::io::Error::other("a write was stopped"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Gated {
        gate: mpsc::Receiver<()>,
        bytes: Vec<u8>,
        fail_at: Option<u64>,
    }

    impl Sink for Gated {
        fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
            self.gate.recv().ok();
            if self.fail_at.is_some_and(|at| self.offset() + bytes.len() as u64 > at) {
                return Err(UploadError::NoSpace);
            }
            self.bytes.extend_from_slice(bytes);
            Ok(())
        }
        fn hashing(&self) -> Option<Hashing> {
            None
        }
        fn offset(&self) -> u64 {
            self.bytes.len() as u64
        }
    }

    #[tokio::test]
    async fn keeps_order_and_pushes_back() {
        let (open, gate) = mpsc::channel();
        let mut writer = Writer::new(Gated { gate, bytes: Vec::new(), fail_at: None });
        let piece = |byte: u8| Bytes::from(vec![byte; BATCH_BYTES]);
        writer.push(piece(1)).await.expect("taken");
        writer.push(piece(2)).await.expect("gathers");
        let third = tokio::time::timeout(std::time::Duration::ZERO, writer.push(piece(3))).await;
        assert!(third.is_err(), "two batches are in memory: the giver waits");
        assert_eq!(writer.accepted(), 2 * BATCH_BYTES as u64);
        for _ in 0..3 {
            open.send(()).expect("the sink lives");
        }
        writer.push(piece(3)).await.expect("there is room again");
        let sink = writer.finish().await.expect("written");
        assert_eq!(sink.bytes.len(), 3 * BATCH_BYTES);
        assert!(sink.bytes.chunks(BATCH_BYTES).zip(1_u8..).all(|(part, n)| part[0] == n));
    }

    #[tokio::test]
    async fn an_error_shows_and_the_offset_is_the_truth() {
        let (open, gate) = mpsc::channel();
        let mut writer = Writer::new(Gated { gate, bytes: Vec::new(), fail_at: Some(4) });
        drop(open);
        writer.push(Bytes::from_static(b"1234")).await.expect("fits");
        writer.push(Bytes::from_static(b"5")).await.expect("taken");
        assert!(writer.flush().await.is_err());
        assert_eq!((writer.written(), writer.accepted()), (4, 4));
    }
}
