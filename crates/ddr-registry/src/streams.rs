//! Who may send a blob now.
//!
//! Decides how many blobs are sent at once, who waits and for how long, and who sends next. A blob
//! stream has a *place* from before its file is opened until its last byte is sent; whoever finds
//! none waits in a queue of bounded length for a bounded time, first come first served. A stream
//! that can send takes a *turn* for one write; there are few, so that a request which is no blob
//! never waits behind more than these. Small requests need neither.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;
use crate::limits::{Limits, MAX_WARMING, TURNS_PER_WORKER};
use crate::metrics;

/// See the module comment.
#[derive(Debug)]
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    queue: Semaphore,
    wait: Duration,
    /// Writes of file content that may run at once.
    pub(crate) turns: Arc<Semaphore>,
    /// Reads from the disk into the system's memory, ahead of such a write.
    pub(crate) warming: Arc<Semaphore>,
}

/// A stream's place; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Streams {
    /// Within a runtime, whose threads take the turns.
    pub(crate) fn new(limits: &Limits) -> Self {
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        Self {
            places: Arc::new(Semaphore::new(limits.blob_streams)),
            queue: Semaphore::new(limits.blob_queue),
            wait: limits.blob_queue_wait,
            turns: Arc::new(Semaphore::new(TURNS_PER_WORKER * workers)),
            warming: Arc::new(Semaphore::new(MAX_WARMING)),
        }
    }

    /// True when no turn is free, so that somebody may wait for one.
    pub(crate) fn is_turn_wanted(&self) -> bool {
        self.turns.available_permits() == 0
    }

    /// A place, at once or after those who came before.
    pub(crate) async fn place(&self) -> Result<Place, ApiError> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place(permit));
        }
        let Ok(_queued) = self.queue.try_acquire() else {
            metrics::stream_refused();
            return Err(ApiError::too_many_streams());
        };
        let place = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(self.wait, place).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            _ => {
                metrics::stream_refused();
                Err(ApiError::too_many_streams())
            }
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
    async fn whoever_came_first_is_served_first() {
        let limits = Limits { blob_streams: 1, blob_queue: 2, ..Limits::default() };
        let streams = Streams::new(&limits);
        let first = streams.place().await.unwrap();
        let mut second = Box::pin(streams.place());
        let mut third = Box::pin(streams.place());
        assert!(polled(&mut second).is_pending());
        assert!(polled(&mut third).is_pending());
        assert!(streams.place().await.is_err(), "the queue is full");
        drop(first);
        assert!(polled(&mut third).is_pending(), "it came later");
        let Poll::Ready(Ok(second)) = polled(&mut second) else { panic!("it was next") };
        // One who gives up leaves the queue.
        drop(third);
        let mut fourth = Box::pin(streams.place());
        assert!(polled(&mut fourth).is_pending());
        drop(second);
        assert!(matches!(polled(&mut fourth), Poll::Ready(Ok(_))));
    }
}
