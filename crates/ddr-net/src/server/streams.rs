//! The tasks of HTTP/2 streams: one for each message in progress.
//!
//! A stream whose peer gives no window waits for ever, and no write of its connection stalls: the answer
//! would be kept as long as the peer likes. So each has a limit of time, after which it is reset.

use std::time::Duration;

use hyper::rt::Executor;

use crate::carrier::PeerInfo;

/// Runs the streams of one connection.
#[derive(Clone, Copy)]
pub(super) struct Streams {
    pub(super) peer: PeerInfo,
    pub(super) limit: Duration,
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let Self { peer, limit } = *self;
        tokio::spawn(async move {
            if tokio::time::timeout(limit, stream).await.is_err() {
                tracing::debug!(peer = %peer.node.short(), "a message took too long; it is reset");
            }
        });
    }
}
