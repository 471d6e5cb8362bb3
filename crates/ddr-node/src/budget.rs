//! Memory for bytes on their way: one budget for everything that is read or received.
//!
//! Decides that memory is taken only after its bytes were granted, in the order of asking, and how
//! large a piece one of many readers may take. Neither those who read nor those who receive can take
//! all of it: clients that do not take their bytes must not keep uploads out, nor slow senders
//! downloads. It must never grant more than its total.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes in all unless said otherwise.
pub const BUFFER_BYTES: usize = 160 * 1024 * 1024;
/// Largest piece of one reader.
pub const MAX_PIECE_BYTES: usize = 256 * 1024;
/// Smallest piece of one reader, however many there are: the largest TLS record (RFC 8446, 5.1).
pub const MIN_PIECE_BYTES: usize = 16 * 1024;
/// Pieces of one reader that may be out at once: one that its client takes and the next one. A
/// client that takes nothing holds no more.
pub const PIECES_PER_READER: usize = 2;
/// Part of the budget that readers share among them when they choose the size of their pieces;
/// the rest is for those who took theirs when there were fewer.
const SHARED_PART: usize = 4;
/// Part of the budget, one in so many, that readers leave to those who receive, and these to them.
const LEFT_PART: usize = 4;
/// Buffers of [`MAX_PIECE_BYTES`] that are kept for the next reader.
const MAX_SPARE: usize = 8;

/// A number of bytes that may be held at once. Cheap to clone; all clones are the same budget.
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    total: usize,
    /// What one of the two kinds may hold, in bytes.
    share: usize,
    free: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    receiving: Arc<Semaphore>,
    readers: AtomicUsize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Budget {
    /// A budget of `total` bytes, at least two pieces of [`MAX_PIECE_BYTES`].
    #[must_use]
    pub fn new(total: usize) -> Self {
        let total = total.clamp(2 * MAX_PIECE_BYTES, u32::MAX as usize);
        let share = total - total / LEFT_PART;
        let [free, reading, receiving] =
            [total, share, share].map(|bytes| Arc::new(Semaphore::new(bytes)));
        let (readers, spare) = (AtomicUsize::new(0), Mutex::default());
        let inner = Inner { total, share, free, reading, receiving, readers, spare };
        Self { inner: Arc::new(inner) }
    }

    /// Bytes that nobody holds.
    #[must_use]
    pub fn free(&self) -> usize {
        self.inner.free.available_permits()
    }

    /// Bytes in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.inner.total
    }

    /// `bytes` to receive with (at most the share of those who receive), after everyone who asked
    /// before.
    pub async fn take(&self, bytes: usize) -> Granted {
        self.grant(&self.inner.receiving, bytes).await
    }

    /// `bytes` to receive with, if they are there at once and nobody waits.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Granted> {
        let bytes = self.permits(bytes);
        let share = Arc::clone(&self.inner.receiving).try_acquire_many_owned(bytes).ok()?;
        let whole = Arc::clone(&self.inner.free).try_acquire_many_owned(bytes).ok()?;
        Some(Granted { _permits: [share, whole] })
    }

    /// First of the share, then of the whole, so that one kind queues up behind itself alone.
    async fn grant(&self, share: &Arc<Semaphore>, bytes: usize) -> Granted {
        let bytes = self.permits(bytes);
        let acquire = async |from: &Arc<Semaphore>| {
            let permit = Arc::clone(from).acquire_many_owned(bytes).await;
            permit.expect("the budget is never closed")
        };
        let share = acquire(share).await;
        Granted { _permits: [share, acquire(&self.inner.free).await] }
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.inner.share)).unwrap_or(u32::MAX)
    }

    /// Counts one more reader, until the answer is dropped.
    pub(crate) fn reader(&self) -> Reader {
        self.inner.readers.fetch_add(1, Ordering::Relaxed);
        Reader { budget: self.clone(), pieces: Arc::new(Semaphore::new(PIECES_PER_READER)) }
    }

    /// What one of the readers takes at once, in bytes.
    fn piece_bytes(&self) -> usize {
        let readers = self.inner.readers.load(Ordering::Relaxed).max(1);
        (self.inner.total / SHARED_PART / readers).clamp(MIN_PIECE_BYTES, MAX_PIECE_BYTES)
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.inner.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that were granted; dropping it gives them back.
#[derive(Debug)]
pub struct Granted {
    _permits: [OwnedSemaphorePermit; 2],
}

impl Granted {
    /// `bytes` that give the grant back when the last part of them is dropped.
    #[must_use]
    pub fn with(self, bytes: Bytes) -> Bytes {
        struct Owner(Bytes, #[expect(dead_code, reason = "held for its drop")] Granted);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Bytes::from_owner(Owner(bytes, self))
    }
}

/// One who reads pieces one after the other.
#[derive(Debug)]
pub(crate) struct Reader {
    budget: Budget,
    /// The pieces that are not out.
    pieces: Arc<Semaphore>,
}

impl Reader {
    /// A buffer of at most `left` bytes; waits until an earlier one is taken when there are
    /// [`PIECES_PER_READER`], then for its turn.
    pub(crate) async fn buffer(&self, left: u64) -> Buffer {
        let piece = Arc::clone(&self.pieces).acquire_owned().await;
        let piece = piece.expect("the pieces are never closed");
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(self.budget.piece_bytes());
        let granted = self.budget.grant(&self.budget.inner.reading, len).await;
        let spare = if len == MAX_PIECE_BYTES { self.budget.spare().pop() } else { None };
        let bytes = spare.unwrap_or_else(|| vec![0; len]);
        Buffer { bytes, len, budget: self.budget.clone(), _granted: granted, _piece: piece }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.budget.inner.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Memory within the budget; a large one goes to the next reader when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    len: usize,
    budget: Budget,
    _granted: Granted,
    _piece: OwnedSemaphorePermit,
}

impl Buffer {
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The first `len` bytes, without a copy.
    pub(crate) fn filled(mut self, len: usize) -> Bytes {
        self.len = len.min(self.bytes.len());
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() != MAX_PIECE_BYTES {
            return;
        }
        let mut spare = self.budget.spare();
        if spare.len() < MAX_SPARE {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn polled<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn whoever_asked_first_is_served_first() {
        let budget = Budget::new(0);
        let share = budget.take(usize::MAX).await;
        assert_eq!(budget.free(), budget.total() / LEFT_PART);
        let mut large = Box::pin(budget.take(MAX_PIECE_BYTES - 1));
        let mut small = Box::pin(budget.take(1));
        assert!(polled(&mut large).is_pending());
        assert!(polled(&mut small).is_pending());
        assert!(budget.try_take(1).is_none());
        drop(share);
        assert!(polled(&mut large).is_ready());
        assert!(polled(&mut small).is_ready());
        drop((large, small));
        assert_eq!(budget.free(), budget.total());
    }

    #[tokio::test]
    async fn bytes_give_their_grant_back_with_their_last_part() {
        let budget = Budget::new(0);
        let granted = budget.take(5).await;
        let mut bytes = granted.with(Bytes::from_static(b"12345"));
        let part = bytes.split_to(2);
        drop(bytes);
        assert_eq!(budget.free(), budget.total() - 5);
        assert_eq!(part, "12");
        drop(part);
        assert_eq!(budget.free(), budget.total());
    }

    #[tokio::test]
    async fn readers_and_receivers_leave_each_other_a_part() {
        let budget = Budget::new(4 * MAX_PIECE_BYTES);
        let received = budget.take(usize::MAX).await;
        let reader = budget.reader();
        let read = reader.buffer(u64::MAX).await;
        assert_eq!(budget.free(), 0, "the rest was for a reader");
        drop(received);
        let crowd: Vec<Reader> = (0..8).map(|_| budget.reader()).collect();
        let mut held = vec![read];
        for reader in crowd.iter().cycle() {
            match polled(&mut Box::pin(reader.buffer(u64::MAX))) {
                Poll::Ready(buffer) => held.push(buffer),
                Poll::Pending => break,
            }
        }
        assert!(budget.try_take(MAX_PIECE_BYTES / 2).is_some(), "{} are left", budget.free());
        assert!(!held.is_empty());
    }

    #[tokio::test]
    async fn a_reader_whose_pieces_are_not_taken_gets_no_more() {
        let budget = Budget::new(BUFFER_BYTES);
        let reader = budget.reader();
        let first = reader.buffer(u64::MAX).await.filled(usize::MAX);
        let second = reader.buffer(u64::MAX).await.filled(usize::MAX);
        let mut third = Box::pin(reader.buffer(u64::MAX));
        assert!(polled(&mut third).is_pending());
        assert!(polled(&mut Box::pin(budget.reader().buffer(1))).is_ready(), "another may read");
        drop(first);
        assert!(polled(&mut third).is_ready());
        drop(second);
    }

    #[tokio::test]
    async fn many_readers_take_small_pieces_and_few_take_large_ones() {
        let budget = Budget::new(BUFFER_BYTES);
        let first = budget.reader();
        let buffer = first.buffer(u64::MAX).await;
        assert_eq!(buffer.filled(usize::MAX).len(), MAX_PIECE_BYTES);
        assert_eq!(budget.spare().len(), 1, "kept for the next one");
        let crowd: Vec<Reader> = (0..10_000).map(|_| budget.reader()).collect();
        assert_eq!(first.buffer(u64::MAX).await.filled(usize::MAX).len(), MIN_PIECE_BYTES);
        assert_eq!(first.buffer(3).await.filled(2), [0, 0][..]);
        drop(crowd);
        let again = first.buffer(u64::MAX).await;
        assert!(budget.spare().is_empty());
        drop(again);
        assert_eq!((budget.free(), budget.spare().len()), (budget.total(), 1));
    }
}
