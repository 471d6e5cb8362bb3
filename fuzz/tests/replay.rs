//! Replays `corpus/` on stable Rust, so that what the fuzzer once found stays found.

use std::fs;
use std::path::Path;

#[path = "../src/replay.rs"]
mod replay;

#[test]
fn every_target_survives_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in ddr_fuzz::TARGETS {
        replay::replay(&corpus, name, target);
    }
}

#[test]
fn every_directory_has_a_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in fs::read_dir(corpus).expect("the corpus") {
        let name = entry.expect("a directory entry").file_name();
        let known = ddr_fuzz::TARGETS.iter().any(|(target, _)| name == *target);
        assert!(known, "no target for {}", name.display());
    }
}
