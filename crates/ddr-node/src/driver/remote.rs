//! A blob of another place as a file that is read at any offset.
//!
//! Decides how much is asked for at once: [`WINDOW_BYTES`], of which reads that follow one another take their part; a
//! read elsewhere begins anew. Reads block, on threads that may. Must never be written to.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ddr_store::disk::DiskFile;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::ReadRange;

/// Bytes that are asked for at once.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// Longest wait for the next bytes.
const READ_TIME: Duration = Duration::from_secs(30);

/// Bytes in order.
pub(crate) type Bodies = BoxStream<'static, io::Result<Bytes>>;

/// See the module comment.
#[derive(Debug)]
pub(super) struct Remote<P> {
    place: P,
    size: u64,
    runtime: Handle,
    window: Mutex<Option<Window>>,
}

/// What was asked for and not read yet.
struct Window {
    at: u64,
    rest: Bytes,
    bodies: Bodies,
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Window {
    /// The next bytes, at most `limit`; none at the end of the window.
    async fn next(&mut self, limit: usize) -> io::Result<Bytes> {
        while self.rest.is_empty() {
            match self.bodies.next().await {
                Some(bytes) => self.rest = bytes?,
                None => return Ok(Bytes::new()),
            }
        }
        let bytes = self.rest.split_to(limit.min(self.rest.len()));
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

impl<P: ReadRange> Remote<P> {
    pub(super) fn new(place: P, size: u64, runtime: Handle) -> Self {
        Self { place, size, runtime, window: Mutex::new(None) }
    }

    /// The bytes from `range.start` on, as many as came at once.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let limit = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        // Not put back after an error: the next read begins anew.
        let kept = self.window.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut window) = kept.filter(|window| window.at == range.start) {
            let bytes = window.next(limit).await?;
            if !bytes.is_empty() {
                self.keep(window);
                return Ok(bytes);
            }
        }
        let end = self.size.min(range.start + WINDOW_BYTES.max(range.end - range.start));
        let bodies = self.place.read(range.start..end).await?;
        let mut window = Window { at: range.start, rest: Bytes::new(), bodies };
        let bytes = window.next(limit).await?;
        self.keep(window);
        Ok(bytes)
    }

    fn keep(&self, window: Window) {
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = Some(window);
    }
}

impl<P: ReadRange> DiskFile for Remote<P> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.size.min(offset.saturating_add(buffer.len() as u64));
        self.runtime.block_on(async {
            let (mut at, mut done) = (offset, 0);
            while at < end {
                let read = timeout(READ_TIME, self.read(at..end)).await;
                let bytes = read.map_err(|_| io::ErrorKind::TimedOut)??;
                if bytes.is_empty() {
                    break;
                }
                buffer[done..done + bytes.len()].copy_from_slice(&bytes);
                (at, done) = (at + bytes.len() as u64, done + bytes.len());
            }
            Ok(done)
        })
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_core::future::BoxFuture;
    use std::sync::Arc;

    /// Gives what it has in parts of seven bytes, and notes what it was asked for.
    #[derive(Debug, Default)]
    struct Parts {
        content: Vec<u8>,
        asked: Mutex<Vec<Range<u64>>>,
    }

    impl ReadRange for Arc<Parts> {
        fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bodies>> {
            self.asked.lock().unwrap().push(range.clone());
            let part = self.content[range.start as usize..range.end as usize].to_vec();
            let parts: Vec<_> =
                part.chunks(7).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
            Box::pin(async move { Ok(futures_util::stream::iter(parts).boxed()) })
        }
    }

    fn read(file: &dyn DiskFile, offset: u64, limit: usize) -> Vec<u8> {
        let mut buffer = vec![0; limit];
        let count = file.read_at(offset, &mut buffer).unwrap();
        buffer.truncate(count);
        buffer
    }

    #[test]
    fn reads_that_follow_one_another_ask_once_and_others_anew() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let content: Vec<u8> = (0..100).collect();
        let parts = Arc::new(Parts { content: content.clone(), ..Parts::default() });
        let file = Remote::new(Arc::clone(&parts), 100, runtime.handle().clone());
        let mut all = Vec::new();
        while all.len() < 100 {
            let some = read(&file, all.len() as u64, 10);
            assert_eq!(some.len(), 10);
            all.extend(some);
        }
        assert_eq!(all, content);
        assert!(read(&file, 100, 10).is_empty());
        assert_eq!(*parts.asked.lock().unwrap(), vec![0..100_u64]);
        assert_eq!(read(&file, 50, 3), content[50..53]);
        assert_eq!(read(&file, 53, 100), content[53..]);
        assert_eq!(*parts.asked.lock().unwrap(), [0..100, 50..100]);
    }

    #[test]
    fn a_place_that_ends_short_ends_the_read() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        #[derive(Debug)]
        struct Short;
        impl ReadRange for Short {
            fn read(&self, _: Range<u64>) -> BoxFuture<'_, io::Result<Bodies>> {
                Box::pin(async { Ok(futures_util::stream::empty().boxed()) })
            }
        }
        let file = Remote::new(Short, 100, runtime.handle().clone());
        assert!(read(&file, 0, 10).is_empty());
    }
}
