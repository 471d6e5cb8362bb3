//! Replays the seeds of the fuzz targets for peer input, whole and cut short, on stable Rust.

use std::fs;
use std::path::Path;

use crate::targets;

/// Every prefix up to this length is replayed as well, in bytes.
const MAX_CUT_BYTES: usize = 512;

fn replay(name: &str, target: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut inputs = 0;
    for entry in fs::read_dir(&dir).expect("the corpus directory of the target") {
        let path = entry.expect("a directory entry").path();
        let data = fs::read(&path).expect("a readable corpus file");
        // Shown only when the target panics.
        println!("{}", path.display());
        target(&data);
        for cut in 0..data.len().min(MAX_CUT_BYTES) {
            target(&data[..cut]);
        }
        inputs += 1;
    }
    assert!(inputs >= 5, "only {inputs} inputs for {name}");
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
