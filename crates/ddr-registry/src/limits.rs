//! Every bound of the client port, by name.
//!
//! Decides nothing else. A wait, a size or a count that a client can influence must stand here.

use std::time::Duration;

use ddr_oci::UpstreamHost;

/// Connections served at the same time, where the system has descriptors for them. At rest each
/// costs the memory of one small task and its socket.
pub const MAX_CONNECTIONS: usize = 200_000;
/// Blobs sent at the same time, where the system has descriptors for them (each has a file open).
pub const MAX_BLOB_STREAMS: usize = 16_384;
/// Requests for blobs that wait for a place among these; more are answered with 503.
pub const MAX_BLOB_QUEUE: usize = 16_384;
/// Descriptors that are neither for clients nor for the blobs they read: peers, downloads, uploads,
/// the index, the logs. Of a small limit it is a quarter.
pub const RESERVED_DESCRIPTORS: usize = 4096;
/// Writes of file content that may run at once, of all connections, for each thread that serves. A
/// request that is no blob waits behind at most so many of them.
pub const TURNS_PER_WORKER: usize = 2;
/// Bytes of one such write.
pub const TURN_BYTES: usize = 256 * 1024;
/// Bytes that one connection sends before others run in between, whoever waits.
pub const YIELD_BYTES: usize = 1024 * 1024;
/// Bytes of one connection that the system may hold beside those that are on their way to the
/// client (`TCP_NOTSENT_LOWAT`): enough for the next turn, and no more for a client that takes none.
pub const UNSENT_BYTES: u32 = 512 * 1024;
/// Reads from the disk ahead of such writes, at once; they leave threads for other disk work.
pub const MAX_WARMING: usize = 16;
/// Bytes of one such read.
pub const WARM_BYTES: u64 = 1024 * 1024;
/// A client that waits is alive when it took so many bytes within
/// [`Limits::write_progress_timeout`]: about 1 KiB/s.
pub const MIN_PROGRESS_BYTES: usize = 64 * 1024;
/// Connections above the limit that are told so (503) at the same time; more are closed at once.
pub const MAX_REFUSALS: usize = 64;
/// Bytes of one request's header fields together; more is answered with 431.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Requests at the same time on one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 128;
/// Most bytes of one HTTP/1.1 connection's read and write buffers, each, while it is busy; they
/// grow with what arrives. The header limit above is checked on its own.
pub const WIRE_BUFFER_BYTES: usize = 256 * 1024;
/// Bytes of responses that one HTTP/2 stream holds beside the piece that waits for the client.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Flow-control window of one HTTP/2 stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Flow-control window of one HTTP/2 connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Request body bytes gathered before they are handed to the store.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// The same when memory is short.
pub const SMALL_CHUNK_BYTES: usize = 64 * 1024;
/// Rest of a refused request's body that is read and thrown away, so that the client sees the
/// answer rather than a reset; a longer rest ends the connection.
pub const MAX_DISCARD_BYTES: u64 = 8 * 1024 * 1024;
/// Names in one page of a tag list or of the catalog, whatever `n` asks.
pub const MAX_PAGE: usize = 10_000;
/// Seconds in `Retry-After` when the node cannot answer for the moment.
pub const RETRY_AFTER_S: u64 = 2;

/// Manifests that are received and stored at once; more wait for their turn. Bounds what they
/// take in memory, [`ddr_oci::manifest::MAX_MANIFEST_BYTES`] each.
pub const MAX_MANIFEST_PUTS: usize = 32;
/// Bytes of descriptors in one page of referrers; one that is larger stands alone. The
/// specification wants the whole no larger than a manifest.
pub const MAX_REFERRERS_BYTES: usize = 4 * 1024 * 1024 - 1024;
/// Entries of a referrers tag that are looked at; what the rest says is not in the answer.
pub const MAX_FALLBACK_ENTRIES: usize = 1024;
/// Bytes of manifests that are read for them; past this no more are looked at.
pub const MAX_FALLBACK_BYTES: usize = 64 * 1024 * 1024;
/// Such entries that are read at once.
pub const MAX_FALLBACK_READS: usize = 8;

/// How long to wait for whom, and how many to serve. [`Limits::default`] is for production; tests
/// shorten the waits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at the same time; default [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// Blobs sent at the same time; default [`MAX_BLOB_STREAMS`].
    pub blob_streams: usize,
    /// Requests that wait to be among them; default [`MAX_BLOB_QUEUE`].
    pub blob_queue: usize,
    /// Longest such wait, then 503.
    pub blob_queue_wait: Duration,
    /// Wait for a complete request header from its first byte on, and for a TLS handshake.
    pub header_read_timeout: Duration,
    /// Longest rest of a connection without any request, in either protocol version, from its
    /// opening on. Longer than the 90 s after which docker, containerd and podman (Go's HTTP
    /// client) close it themselves, so that none sends a request into a closing connection.
    pub idle_timeout: Duration,
    /// Rest of an HTTP/1.1 connection after which its buffers are given back until its next byte.
    pub rest: Duration,
    /// Longest wait for memory to receive a piece of a request body, then 503.
    pub buffer_wait: Duration,
    /// Longest pause between two pieces of a request body.
    pub body_progress_timeout: Duration,
    /// Longest time in which the client takes no byte of a response that is ready.
    pub write_progress_timeout: Duration,
    /// How long running requests may go on after shutdown was asked.
    pub drain_timeout: Duration,
    /// Names in one page; default [`MAX_PAGE`].
    pub page: usize,
    /// Names, in lower case, by which clients may call this registry, beside addresses,
    /// `localhost` and names that nobody else can own; default none.
    pub hosts: Vec<String>,
    /// The registry that is asked for what nobody pushed under a name without one.
    pub bare: Option<UpstreamHost>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            blob_streams: MAX_BLOB_STREAMS,
            blob_queue: MAX_BLOB_QUEUE,
            blob_queue_wait: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(180),
            rest: Duration::from_secs(2),
            buffer_wait: Duration::from_secs(20),
            body_progress_timeout: Duration::from_secs(30),
            write_progress_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(15),
            page: MAX_PAGE,
            hosts: Vec::new(),
            bare: None,
        }
    }
}

impl Limits {
    /// The defaults, within what `descriptors` open files allow: some are set aside for everything
    /// else, a quarter of the rest is for the files of blobs, the others for connections.
    #[must_use]
    pub fn within(descriptors: usize) -> Self {
        let usable = descriptors - RESERVED_DESCRIPTORS.min(descriptors / 4);
        let blob_streams = MAX_BLOB_STREAMS.min(usable / 4).max(1);
        let connections = MAX_CONNECTIONS.min(usable - blob_streams).max(1);
        Self { connections, blob_streams, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_blobs_never_take_all_descriptors() {
        for descriptors in [16, 1024, 4096, 20_000, 65_536, 300_000, 1 << 20, usize::MAX] {
            let limits = Limits::within(descriptors);
            let taken =
                limits.connections + limits.blob_streams + MAX_REFUSALS.min(descriptors / 16);
            assert!(
                taken <= descriptors - descriptors.min(RESERVED_DESCRIPTORS) / 8,
                "{descriptors}"
            );
            assert!(limits.connections >= descriptors.min(MAX_CONNECTIONS) / 2, "{descriptors}");
        }
        assert_eq!(Limits::within(1 << 20).connections, MAX_CONNECTIONS);
    }
}
