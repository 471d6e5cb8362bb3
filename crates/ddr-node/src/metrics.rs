//! Names of the metrics that this crate records, for the exporter and the dashboards.

/// Content bytes that came from peers.
pub const FETCHED_BYTES: &str = "ddr_fetched_bytes_total";
/// Content bytes sent to peers.
pub const SERVED_BYTES: &str = "ddr_served_bytes_total";
/// Fetches that were started.
pub const FETCHES: &str = "ddr_fetches_total";
/// Fetches that failed.
pub const FETCHES_FAILED: &str = "ddr_fetches_failed_total";
/// Times another peer went on in the middle of a blob.
pub const TAKEOVERS: &str = "ddr_takeovers_total";
/// Strikes against peers that gave wrong content.
pub const STRIKES: &str = "ddr_strikes_total";
/// Seconds that lookups of holders took.
pub const LOOKUP_SECONDS: &str = "ddr_lookup_seconds";
/// Seconds that reads of names took.
pub const NAME_READ_SECONDS: &str = "ddr_name_read_seconds";
/// Seconds that writes of names took.
pub const NAME_WRITE_SECONDS: &str = "ddr_name_write_seconds";
/// Reads and writes of names that found too few voters.
pub const NAME_QUORUM_LOST: &str = "ddr_name_quorum_lost_total";
/// Nodes in the routing table.
pub const PEERS: &str = "ddr_peers";

/// Tells the recorder what each name means.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(FETCHED_BYTES, "Content bytes that came from peers");
    describe_counter!(SERVED_BYTES, "Content bytes sent to peers");
    describe_counter!(FETCHES, "Fetches that were started");
    describe_counter!(FETCHES_FAILED, "Fetches that failed");
    describe_counter!(TAKEOVERS, "Times another peer went on in the middle of a blob");
    describe_counter!(STRIKES, "Strikes against peers that gave wrong content");
    describe_histogram!(LOOKUP_SECONDS, "Seconds that lookups of holders took");
    describe_histogram!(NAME_READ_SECONDS, "Seconds that reads of names took");
    describe_histogram!(NAME_WRITE_SECONDS, "Seconds that writes of names took");
    describe_counter!(NAME_QUORUM_LOST, "Reads and writes of names that found too few voters");
    describe_gauge!(PEERS, "Nodes in the routing table");
}
