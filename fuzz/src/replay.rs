//! Replays the seeds of one target, whole and cut short, on stable Rust. The tests of this package,
//! of `ddr-oci`, `ddr-net` and `ddr-containerd` take it in.

use std::fs;
use std::path::Path;

/// Every prefix up to this length is replayed as well, in bytes.
const MAX_CUT_BYTES: usize = 512;

/// A corpus with fewer inputs has been lost.
const MIN_INPUTS: usize = 5;

/// Gives every file in `corpus/name` to `target`, which panics if an invariant breaks.
pub(crate) fn replay(corpus: &Path, name: &str, target: fn(&[u8])) {
    let mut inputs = 0;
    for entry in fs::read_dir(corpus.join(name)).expect("the corpus directory of the target") {
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
    assert!(inputs >= MIN_INPUTS, "only {inputs} inputs for {name}");
}
