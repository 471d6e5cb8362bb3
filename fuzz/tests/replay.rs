//! Replays `corpus/` on stable Rust, so that what the fuzzer once found stays found.

use std::fs;
use std::path::Path;

#[test]
fn every_target_survives_its_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in ddr_fuzz::TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).expect("the corpus directory of the target") {
            let path = entry.expect("a directory entry").path();
            let data = fs::read(&path).expect("a readable corpus file");
            println!("{}", path.display());
            target(&data);
            for cut in 0..data.len().min(512) {
                target(&data[..cut]);
            }
            inputs += 1;
        }
        assert!(inputs > 0, "no corpus for {name}");
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
