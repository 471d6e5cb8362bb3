//! The client port as clients see it: raw HTTP against a real node on a real socket.
//!
//! Each module is a chapter of the distribution specification or an attack. Nothing sleeps; what
//! takes time is waited for with a deadline.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod bad_input;
mod blobs;
mod client;
mod faults;
mod hostile_uploads;
mod hosts;
mod http2;
mod limits;
mod lists;
mod manifests;
mod metrics;
mod node;
mod parts;
mod ping;
mod ranges;
mod referrers;
mod server;
mod shapes;
mod shutdown;
mod spec;
mod streams;
mod upload_chunks;
mod uploads;
