//! What must hold of every decoder, whatever bytes it is given.
//!
//! One function per target takes any bytes and panics if an invariant breaks. Three programs call
//! them: the fuzz targets beside this file (nightly, `cargo fuzz run TARGET`), the replay of
//! `corpus/` in `tests/replay.rs` (stable), and the replays in the tests of `ddr-oci`,
//! `ddr-net`, `ddr-containerd` and `ddr-upstream`, which take in `oci.rs`, `ranges.rs`, `peer.rs`,
//! `pieces.rs`, `containerd.rs` and `events.rs` by their paths.

mod containerd;
mod events;
mod oci;
mod peer;
mod pieces;
mod ranges;

/// Takes any bytes; panics if an invariant breaks.
pub type Target = fn(&[u8]);

/// Every target by name, which is also the name of its corpus directory.
pub const TARGETS: [(&str, Target); 17] = [
    ("digest", oci::digest),
    ("reference", oci::reference),
    ("route", oci::route),
    ("range", ranges::range),
    ("content_range", ranges::chunk_place),
    ("multipart", ranges::multipart),
    ("manifest", oci::manifest),
    ("piece_chain", oci::piece_chain),
    ("wire", peer::wire),
    ("swarm_post", pieces::swarm_post),
    ("have_map", pieces::have_map),
    ("signed_chain", pieces::signed_chain),
    ("name_record", peer::name_record),
    ("join_token", peer::join_token),
    ("dns", peer::dns),
    ("containerd", containerd::containerd),
    ("events", events::events),
];

/// Runs the target called `name` on `data`.
///
/// # Panics
/// If an invariant breaks, or if there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, target) = found.expect("the target is in the list");
    target(data);
}
