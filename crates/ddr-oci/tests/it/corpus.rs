//! Replays the seeds of the fuzz targets, whole and cut short, on stable Rust.

use std::path::Path;

use crate::{ranges, replay, targets};

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    replay::replay(&corpus, name, target);
}

#[test]
fn digest() {
    replay("digest", targets::digest);
}

#[test]
fn reference() {
    replay("reference", targets::reference);
}

#[test]
fn route() {
    replay("route", targets::route);
}

#[test]
fn range() {
    replay("range", ranges::range);
}

#[test]
fn content_range() {
    replay("content_range", ranges::chunk_place);
}

#[test]
fn multipart() {
    replay("multipart", ranges::multipart);
}

#[test]
fn manifest() {
    replay("manifest", targets::manifest);
}

#[test]
fn piece_chain() {
    replay("piece_chain", targets::piece_chain);
}
