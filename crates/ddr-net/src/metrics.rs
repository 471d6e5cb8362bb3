//! Names of the metrics that this crate records: what messages between nodes cost, and who is connected.
//!
//! Of messages bodies are counted, not what HTTP/2, TLS and TCP add, nor content.

/// Messages that this node answered or had answered.
pub const MESSAGES: &str = "ddr_messages_total";
/// Bytes of requests that this node sent and of answers that it gave.
pub const SENT_BYTES: &str = "ddr_message_sent_bytes_total";
/// Bytes of requests that came and of answers that this node got.
pub const RECEIVED_BYTES: &str = "ddr_message_received_bytes_total";

/// Connections of peers to this node now.
pub const CONNECTIONS: &str = "ddr_peer_connections";
/// Connections of peers that were refused, by the `limit` that they were over.
pub const CONNECTIONS_REFUSED: &str = "ddr_peer_connections_refused_total";

/// Tells the recorder what each name means.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_counter!(MESSAGES, "Messages between nodes, asked here and answered here");
    describe_counter!(SENT_BYTES, "Bytes of messages to other nodes, without HTTP and TLS");
    describe_counter!(RECEIVED_BYTES, "Bytes of messages from other nodes, without HTTP and TLS");
    describe_gauge!(CONNECTIONS, "Connections of peers to this node");
    describe_counter!(CONNECTIONS_REFUSED, "Connections of peers that were refused");
}

/// One message and its answer have passed.
pub(crate) fn exchanged(sent: usize, received: usize) {
    metrics::counter!(MESSAGES).increment(1);
    metrics::counter!(SENT_BYTES).increment(sent as u64);
    metrics::counter!(RECEIVED_BYTES).increment(received as u64);
}

/// So many connections of peers there are now.
pub(crate) fn connections(now: usize) {
    metrics::gauge!(CONNECTIONS).set(now as f64);
}

/// A connection is over `limit`: `all`, `node` or `joiners`.
pub(crate) fn connection_refused(limit: &'static str) {
    metrics::counter!(CONNECTIONS_REFUSED, "limit" => limit).increment(1);
}
