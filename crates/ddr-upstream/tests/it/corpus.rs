//! Replays the seeds of the fuzz target, whole and cut short, on stable Rust.

use std::path::Path;

use crate::{replay, targets};

#[test]
fn events() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    replay::replay(&corpus, "events", targets::events);
}
