//! What the client port counts.
//!
//! Decides names and labels. Labels come from fixed sets (route, status), never from a request.

use std::time::Instant;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::connection::Running;

const REQUESTS: &str = "ddr_registry_requests_total";
const SECONDS: &str = "ddr_registry_request_seconds";
const IN_FLIGHT: &str = "ddr_registry_requests_in_flight";
const CONNECTIONS: &str = "ddr_registry_connections";
const REFUSED: &str = "ddr_registry_connections_refused_total";
const STREAMS_REFUSED: &str = "ddr_registry_blob_streams_refused_total";
const RECEIVED: &str = "ddr_registry_received_bytes_total";
const SENT: &str = "ddr_registry_sent_bytes_total";
const BROKEN_OFF: &str = "ddr_registry_responses_broken_off_total";

/// Registers the help texts with the recorder. Call once, after the recorder is installed.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests on the client port, by route and status.");
    describe_histogram!(SECONDS, "Seconds until the response's headers were ready, by route.");
    describe_gauge!(IN_FLIGHT, "Requests whose response has not ended.");
    describe_gauge!(CONNECTIONS, "Open connections on the client port.");
    describe_counter!(REFUSED, "Connections above the limit.");
    describe_counter!(STREAMS_REFUSED, "Blob requests above the limit, after their wait.");
    describe_counter!(RECEIVED, "Bytes of request bodies.");
    describe_counter!(SENT, "Bytes of response bodies.");
    describe_counter!(BROKEN_OFF, "Responses that ended short because their content failed.");
}

/// A request that has not ended; dropping it ends it.
#[derive(Debug)]
pub(crate) struct InFlight {
    /// The same, for the connection's own clock.
    _running: Running,
}

impl InFlight {
    pub(crate) fn begin(running: Running) -> Self {
        gauge!(IN_FLIGHT).increment(1.0);
        Self { _running: running }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1.0);
    }
}

/// An open connection; dropping it closes it for the count.
#[derive(Debug)]
pub(crate) struct OpenConnection(());

impl OpenConnection {
    pub(crate) fn begin() -> Self {
        gauge!(CONNECTIONS).increment(1.0);
        Self(())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!(CONNECTIONS).decrement(1.0);
    }
}

pub(crate) fn answered(route: &'static str, status: http::StatusCode, started: Instant) {
    counter!(REQUESTS, "route" => route, "status" => status.as_str().to_owned()).increment(1);
    histogram!(SECONDS, "route" => route).record(started.elapsed().as_secs_f64());
}

pub(crate) fn refused() {
    counter!(REFUSED).increment(1);
}

pub(crate) fn stream_refused() {
    counter!(STREAMS_REFUSED).increment(1);
}

pub(crate) fn received(bytes: usize) {
    counter!(RECEIVED).increment(bytes as u64);
}

pub(crate) fn sent(bytes: usize) {
    counter!(SENT).increment(bytes as u64);
}

pub(crate) fn broken_off() {
    counter!(BROKEN_OFF).increment(1);
}
