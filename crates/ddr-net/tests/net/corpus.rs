//! Replays the seeds of the fuzz targets for peer input, whole and cut short, on stable Rust.

use std::path::Path;

use crate::{replay, targets};

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    replay::replay(&corpus, name, target);
}

#[test]
fn wire() {
    replay("wire", targets::wire);
}

#[test]
fn name_record() {
    replay("name_record", targets::name_record);
}

#[test]
fn join_token() {
    replay("join_token", targets::join_token);
}

#[test]
fn dns() {
    replay("dns", targets::dns);
}
