//! Tests of `ddr-oci` from outside: the specification's tables, properties, and the fuzz corpora.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod corpus;
mod endpoints;
mod properties;
#[path = "../../../../fuzz/src/ranges.rs"]
mod ranges;
#[path = "../../../../fuzz/src/replay.rs"]
mod replay;
mod rules;
#[path = "../../../../fuzz/src/oci.rs"]
mod targets;
