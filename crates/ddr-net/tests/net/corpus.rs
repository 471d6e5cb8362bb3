//! Replays the seeds of the fuzz targets for peer input, whole and cut short, on stable Rust.

use std::path::Path;

use crate::{pieces, replay, targets};

fn replay(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    replay::replay(&corpus, name, target);
}

#[test]
fn wire() {
    replay("wire", targets::wire);
}

#[test]
fn swarm_post() {
    replay("swarm_post", pieces::swarm_post);
}

#[test]
fn have_map() {
    replay("have_map", pieces::have_map);
}

#[test]
fn signed_chain() {
    replay("signed_chain", pieces::signed_chain);
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
