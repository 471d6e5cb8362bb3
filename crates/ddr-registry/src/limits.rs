//! Every bound of the client port, by name.
//!
//! Decides nothing else. A wait, a size or a count that a client can influence must stand here.

use std::time::Duration;

/// Connections served at the same time. Each costs one task and at most a few buffers of
/// [`READ_BUFFER_BYTES`].
pub const MAX_CONNECTIONS: usize = 4096;
/// Connections above the limit that are told so (503) at the same time; more are closed at once.
pub const MAX_REFUSALS: usize = 64;
/// Bytes of one request's header fields together; more is answered with 431.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Requests at the same time on one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 128;
/// Bytes of one HTTP/1.1 connection's read and write buffers, each. The header limit above is
/// checked on its own; this one is about throughput.
pub const READ_BUFFER_BYTES: usize = 256 * 1024;
/// Flow-control window of one HTTP/2 stream, in bytes.
pub const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Flow-control window of one HTTP/2 connection, in bytes.
pub const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Request body bytes gathered before they are handed to the store.
pub const CHUNK_BYTES: usize = 1024 * 1024;
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
/// Such entries that are read at once.
pub const MAX_FALLBACK_READS: usize = 8;

/// How long to wait for whom, and how many to serve. [`Limits::default`] is for production; tests
/// shorten the waits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at the same time; default [`MAX_CONNECTIONS`].
    pub connections: usize,
    /// Wait for a complete request header. On HTTP/1.1 the pause before the next request counts
    /// too, so this is also how long such a connection may rest.
    pub header_read_timeout: Duration,
    /// Longest rest of a connection without any request, in either protocol version, from its
    /// opening on. Checked once per period, so it ends after one to two of them.
    pub idle_timeout: Duration,
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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            header_read_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            body_progress_timeout: Duration::from_secs(30),
            write_progress_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(15),
            page: MAX_PAGE,
            hosts: Vec::new(),
        }
    }
}
