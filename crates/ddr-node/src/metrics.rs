//! Names of the metrics that this crate records, for the exporter and the dashboards.

/// Content bytes that came from peers.
pub const FETCHED_BYTES: &str = "ddr_fetched_bytes_total";
/// Content bytes that came from peers of another zone.
pub const CROSS_ZONE_BYTES: &str = "ddr_cross_zone_bytes_total";
/// Content bytes sent to peers.
pub const SERVED_BYTES: &str = "ddr_served_bytes_total";
/// Fetches that were started.
pub const FETCHES: &str = "ddr_fetches_total";
/// Fetches that failed.
pub const FETCHES_FAILED: &str = "ddr_fetches_failed_total";
/// Times another peer went on in the middle of a blob.
pub const TAKEOVERS: &str = "ddr_takeovers_total";
/// Pieces of blobs that came and passed their check.
pub const PIECES_RECEIVED: &str = "ddr_pieces_received_total";
/// Pieces that came and were wrong.
pub const PIECES_WRONG: &str = "ddr_pieces_wrong_total";
/// Pieces that were sent to peers to their last byte.
pub const PIECES_SERVED: &str = "ddr_pieces_served_total";
/// Requests of peers for content that were answered with "busy".
pub const BUSY_ANSWERS: &str = "ddr_busy_answers_total";
/// Bytes that came from mirrored registries.
pub const UPSTREAM_BYTES: &str = "ddr_upstream_bytes_total";
/// Requests to mirrored registries, by `result`: `ok`, `limited`, `denied`, `failed`.
pub const UPSTREAM_REQUESTS: &str = "ddr_upstream_requests_total";
/// Strikes against peers, by `reason`.
pub const STRIKES: &str = "ddr_strikes_total";
/// Seconds that lookups of holders took.
pub const LOOKUP_SECONDS: &str = "ddr_lookup_seconds";
/// Seconds that reads of names took.
pub const NAME_READ_SECONDS: &str = "ddr_name_read_seconds";
/// Seconds that writes of names took.
pub const NAME_WRITE_SECONDS: &str = "ddr_name_write_seconds";
/// Reads and writes of names that found too few voters.
pub const NAME_QUORUM_LOST: &str = "ddr_name_quorum_lost_total";
/// Collections of garbage.
pub const GC_RUNS: &str = "ddr_gc_runs_total";
/// Blobs that they removed.
pub const GC_BLOBS: &str = "ddr_gc_removed_blobs_total";
/// Bytes of these.
pub const GC_BYTES: &str = "ddr_gc_freed_bytes_total";
/// Bytes read to verify the store.
pub const VERIFIED_BYTES: &str = "ddr_verified_bytes_total";
/// Blobs and manifests that were found damaged.
pub const CORRUPT: &str = "ddr_corrupt_total";
/// Blobs and manifests that came back from peers.
pub const REPAIRED: &str = "ddr_repaired_total";
/// Blobs and manifests that were lost and did not come back, as of the last verification.
pub const LOST: &str = "ddr_lost";
/// Bytes of manifests and blobs that this node keeps for its swarm.
pub const COPIES_KEPT_BYTES: &str = "ddr_copies_kept_bytes";
/// Of these manifests and blobs, those with fewer copies than there shall be.
pub const COPIES_MISSING: &str = "ddr_copies_missing";
/// Bytes of the copies that are missing.
pub const COPIES_MISSING_BYTES: &str = "ddr_copies_missing_bytes";
/// Manifests and blobs of which this node has the only copy.
pub const COPIES_SOLE: &str = "ddr_copies_sole";
/// Copies that this node had made on others in the place of lost ones.
pub const COPIES_MENDED: &str = "ddr_copies_mended_total";
/// Bytes of these.
pub const COPIES_MENDED_BYTES: &str = "ddr_copies_mended_bytes_total";
/// Blobs that made room for others.
pub const EVICTED_BLOBS: &str = "ddr_cache_evicted_blobs_total";
/// Bytes of these.
pub const EVICTED_BYTES: &str = "ddr_cache_evicted_bytes_total";
/// Bytes by which the store is over its mark with nothing left that may go.
pub const CACHE_OVER_BYTES: &str = "ddr_cache_over_bytes";
/// Nodes in the routing table.
pub const PEERS: &str = "ddr_peers";

/// Tells the recorder what each name means.
pub fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!(FETCHED_BYTES, "Content bytes that came from peers");
    describe_counter!(CROSS_ZONE_BYTES, "Content bytes that came from peers of another zone");
    describe_counter!(SERVED_BYTES, "Content bytes sent to peers");
    describe_counter!(FETCHES, "Fetches that were started");
    describe_counter!(FETCHES_FAILED, "Fetches that failed");
    describe_counter!(TAKEOVERS, "Times another peer went on in the middle of a blob");
    describe_counter!(PIECES_RECEIVED, "Pieces of blobs that came from peers and were right");
    describe_counter!(PIECES_WRONG, "Pieces of blobs that came from peers and were wrong");
    describe_counter!(PIECES_SERVED, "Pieces of blobs sent to peers");
    describe_counter!(BUSY_ANSWERS, "Requests of peers for content that were answered with busy");
    describe_counter!(STRIKES, "Strikes against peers that gave wrong content or broke the rules");
    describe_histogram!(LOOKUP_SECONDS, "Seconds that lookups of holders took");
    describe_histogram!(NAME_READ_SECONDS, "Seconds that reads of names took");
    describe_histogram!(NAME_WRITE_SECONDS, "Seconds that writes of names took");
    describe_counter!(NAME_QUORUM_LOST, "Reads and writes of names that found too few voters");
    describe_counter!(GC_RUNS, "Collections of garbage");
    describe_counter!(GC_BLOBS, "Blobs that the collection of garbage removed");
    describe_counter!(GC_BYTES, "Bytes of blobs that the collection of garbage removed");
    describe_counter!(VERIFIED_BYTES, "Bytes read to verify the store");
    describe_counter!(CORRUPT, "Blobs and manifests that were found damaged");
    describe_counter!(REPAIRED, "Lost blobs and manifests that came back from peers");
    describe_gauge!(LOST, "Lost blobs and manifests, as of the last verification");
    describe_gauge!(COPIES_KEPT_BYTES, "Bytes that this node keeps for its swarm");
    describe_gauge!(
        COPIES_MISSING,
        "Manifests and blobs kept here with fewer copies than there shall be"
    );
    describe_gauge!(COPIES_MISSING_BYTES, "Bytes of the copies that are missing of these");
    describe_gauge!(COPIES_SOLE, "Manifests and blobs of which this node has the only copy");
    describe_counter!(COPIES_MENDED, "Copies made on other nodes in the place of lost ones");
    describe_counter!(COPIES_MENDED_BYTES, "Bytes of these");
    describe_counter!(EVICTED_BLOBS, "Blobs that made room for others");
    describe_counter!(EVICTED_BYTES, "Bytes of these");
    describe_gauge!(
        CACHE_OVER_BYTES,
        "Bytes by which the store is over its mark with nothing left that may go"
    );
    describe_gauge!(PEERS, "Nodes in the routing table");
    ddr_net::metrics::describe();
}
