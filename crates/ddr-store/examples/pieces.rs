//! How fast verified pieces are written, against a plain hash and write of the same bytes:
//! `cargo run --release -p ddr-store --example pieces [MIB] [DIRECTORY]`.
//!
//! Pieces of 1 MiB (a blob between 1 and 2 GiB has such) come in a scattered order. Nothing is
//! synced but where it is said; a directory in memory (`/dev/shm`) takes the disk out of it.
//! Medians of several rounds in turn. The time of the processor, in seconds for a gigabyte, says
//! more than the rate where others use the machine too.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement may end by a panic")]

use ddr_oci::piece_chain::{ChainHasher, PieceChain};
use ddr_oci::{Algorithm, Digest, Hasher};
use ddr_store::disk::{Disk, OpenMode, RealDisk};
use ddr_store::{PartialBlob, Store, StoreConfig};
use std::path::Path;
use std::time::Instant;

const MIB: usize = 1 << 20;
/// Rounds of each measurement.
const ROUNDS: usize = 3;
/// Different pieces that the content is made of.
const DISTINCT: usize = 61;
/// How often the alternative to hashing again would sync, bytes.
const SYNC_EVERY_MIB: usize = 16;

struct Content {
    bytes: Vec<u8>,
    pieces: usize,
    digest: Digest,
    chain: PieceChain,
}

impl Content {
    fn new(algorithm: Algorithm, pieces: usize) -> Self {
        let mut state = 1_u64;
        let words = (0..DISTINCT * MIB / 8).flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state ^ (state >> 29)).to_le_bytes()
        });
        let bytes: Vec<u8> = words.collect();
        let mut hasher = ChainHasher::new(algorithm);
        (0..pieces).for_each(|index| hasher.update(&bytes[index % DISTINCT * MIB..][..MIB]));
        let (digest, chain) = hasher.finish();
        assert_eq!((chain.pieces(), chain.piece_len()), (pieces, MIB as u64));
        Self { bytes, pieces, digest, chain }
    }

    fn piece(&self, index: usize) -> &[u8] {
        &self.bytes[index % DISTINCT * MIB..][..MIB]
    }

    /// The pieces of one of so many threads, scattered over the blob.
    fn order(&self, thread: usize, threads: usize) -> impl Iterator<Item = usize> + '_ {
        let step = (self.pieces * 5 / 8..).find(|step| gcd(*step, self.pieces) == 1).unwrap();
        (thread..self.pieces).step_by(threads).map(move |turn| turn * step % self.pieces)
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What one pass over all bytes took.
#[derive(Clone, Copy)]
struct Taken {
    mb_per_s: f64,
    cpu_s_per_gb: f64,
}

/// Seconds of processor time that this process has used, to a hundredth (proc(5)).
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let times = after_name.split_whitespace().skip(11).take(2);
    times.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// What `each` does with all bytes, a part on each thread.
fn rate(content: &Content, threads: usize, each: impl Fn(usize) + Sync) -> Taken {
    let (begun, cpu) = (Instant::now(), cpu_s());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let each = &each;
            scope.spawn(move || each(thread));
        }
    });
    let mb = (content.pieces * MIB) as f64 / 1e6;
    let mb_per_s = mb / begun.elapsed().as_secs_f64();
    Taken { mb_per_s, cpu_s_per_gb: (cpu_s() - cpu) / mb * 1e3 }
}

/// Each thread hashes its part and writes it to a file of its own, in order.
fn plain(content: &Content, root: &Path, threads: usize, sync: bool) -> Taken {
    let rate = rate(content, threads, |thread| {
        let path = root.join(format!("plain-{thread}"));
        let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
        let mut hasher = Hasher::new(content.digest.algorithm());
        for (turn, index) in (thread..content.pieces).step_by(threads).enumerate() {
            hasher.update(content.piece(index));
            file.write_at((turn * MIB) as u64, content.piece(index)).unwrap();
            if sync && turn % SYNC_EVERY_MIB == SYNC_EVERY_MIB - 1 {
                file.sync().unwrap();
            }
        }
        std::hint::black_box(hasher.finish());
    });
    (0..threads).for_each(|thread| RealDisk.remove(&root.join(format!("plain-{thread}"))).unwrap());
    rate
}

fn pieces(content: &Content, store: &Store, threads: usize) -> (Taken, PartialBlob) {
    let partial = store.begin_partial(&content.digest, content.chain.clone()).unwrap();
    let rate = rate(content, threads, |thread| {
        for index in content.order(thread, threads) {
            partial.write_piece(index, content.piece(index)).unwrap();
        }
    });
    assert!(partial.reader().is_complete());
    (rate, partial)
}

/// Lets go, takes up and looks at all that is claimed.
fn resume(content: &Content, store: &Store, partial: PartialBlob, threads: usize) -> Taken {
    drop(partial);
    let partial = store.resume_partial(&content.digest).unwrap().expect("it is there");
    let rate = rate(content, threads, |_| while partial.check_next().unwrap().is_some() {});
    assert!(partial.reader().is_complete());
    partial.discard();
    rate
}

/// The median of each figure.
fn median(rounds: &[Taken]) -> Taken {
    let of = |figure: fn(&Taken) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Taken { mb_per_s: of(|taken| taken.mb_per_s), cpu_s_per_gb: of(|taken| taken.cpu_s_per_gb) }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mib = arguments.next().map_or(1280, |mib| mib.parse().expect("mebibytes"));
    let root = arguments.next().unwrap_or_else(|| std::env::temp_dir().display().to_string());
    let dir = tempfile::tempdir_in(root).unwrap();
    let store = Store::open(StoreConfig::new(dir.path().join("store"))).unwrap();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let content = Content::new(algorithm, mib);
        let mut rows = [const { Vec::new() }; 7];
        for _ in 0..ROUNDS {
            rows[0].push(plain(&content, dir.path(), 1, false));
            for threads in [1, 2] {
                let (rate, partial) = pieces(&content, &store, threads);
                rows[threads].push(rate);
                rows[threads + 2].push(resume(&content, &store, partial, threads));
            }
            rows[5].push(plain(&content, dir.path(), 2, false));
            rows[6].push(plain(&content, dir.path(), 1, true));
        }
        println!("{algorithm}, {mib} MiB in pieces of 1 MiB, median of {ROUNDS} rounds");
        let names = [
            "plain hash and write, one thread",
            "write_piece, one thread",
            "write_piece, two threads",
            "check_next after a restart, one thread",
            "check_next after a restart, two threads",
            "plain hash and write, two threads",
            "plain, synced every 16 MiB, one thread",
        ];
        let rows = rows.map(|rounds| median(&rounds));
        for (name, Taken { mb_per_s, cpu_s_per_gb }) in names.iter().zip(rows) {
            let (rate, cpu) = (mb_per_s / rows[0].mb_per_s, cpu_s_per_gb / rows[0].cpu_s_per_gb);
            println!(
                "  {name:40} {mb_per_s:6.0} MB/s x {rate:.2}   {cpu_s_per_gb:.2} s/GB x {cpu:.2}"
            );
        }
    }
}
