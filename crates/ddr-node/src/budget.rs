//! Memory for bytes on their way: one budget for everything that is read or received.
//!
//! Decides that memory is taken only after its bytes were granted, in the order of asking, and how
//! large a piece one of many readers may take. It must never grant more than its total.

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
/// Part of the budget that readers share among them when they choose the size of their pieces;
/// the rest is for those who took theirs when there were fewer.
const SHARED_PART: usize = 4;
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
    free: Arc<Semaphore>,
    readers: AtomicUsize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Budget {
    /// A budget of `total` bytes, at least [`MAX_PIECE_BYTES`].
    #[must_use]
    pub fn new(total: usize) -> Self {
        let total = total.clamp(MAX_PIECE_BYTES, u32::MAX as usize);
        let free = Arc::new(Semaphore::new(total));
        let (readers, spare) = (AtomicUsize::new(0), Mutex::default());
        Self { inner: Arc::new(Inner { total, free, readers, spare }) }
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

    /// `bytes` of the budget (at most all of it), after everyone who asked before.
    pub async fn take(&self, bytes: usize) -> Granted {
        let free = Arc::clone(&self.inner.free);
        let permit = free.acquire_many_owned(self.permits(bytes)).await;
        Granted { _permit: permit.expect("the budget is never closed") }
    }

    /// `bytes` of the budget, if they are there at once and nobody waits.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Granted> {
        let free = Arc::clone(&self.inner.free);
        let permit = free.try_acquire_many_owned(self.permits(bytes)).ok()?;
        Some(Granted { _permit: permit })
    }

    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.inner.total)).unwrap_or(u32::MAX)
    }

    /// Counts one more reader, until the answer is dropped.
    pub(crate) fn reader(&self) -> Reader {
        self.inner.readers.fetch_add(1, Ordering::Relaxed);
        Reader { budget: self.clone() }
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
    _permit: OwnedSemaphorePermit,
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
}

impl Reader {
    /// A buffer of at most `left` bytes; waits for its turn.
    pub(crate) async fn buffer(&self, left: u64) -> Buffer {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(self.budget.piece_bytes());
        let granted = self.budget.take(len).await;
        let spare = if len == MAX_PIECE_BYTES { self.budget.spare().pop() } else { None };
        let bytes = spare.unwrap_or_else(|| vec![0; len]);
        Buffer { bytes, len, budget: self.budget.clone(), _granted: granted }
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
        let budget = Budget::new(MAX_PIECE_BYTES);
        let all = budget.take(usize::MAX).await;
        assert_eq!(budget.free(), 0);
        let mut large = Box::pin(budget.take(MAX_PIECE_BYTES - 1));
        let mut small = Box::pin(budget.take(1));
        assert!(polled(&mut large).is_pending());
        assert!(polled(&mut small).is_pending());
        assert!(budget.try_take(1).is_none());
        drop(all);
        assert!(polled(&mut large).is_ready());
        assert!(polled(&mut small).is_ready());
        drop((large, small));
        assert_eq!(budget.free(), budget.total());
    }

    #[tokio::test]
    async fn bytes_give_their_grant_back_with_their_last_part() {
        let budget = Budget::new(MAX_PIECE_BYTES);
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
