//! Sixty-four daemons on one machine: everything is found from everywhere, a no is quick, and the
//! sudden end of a third of them loses nothing but what only they had.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::random::Random;
use super::scenario::explain;
use super::{Setup, http};
use crate::checks::Checks;
use crate::swarm::{self, Node};

const NODES: usize = 64;
const BLOBS_PER_NODE: usize = 3;
const PULLS: usize = 200;
const ABSENT: usize = 60;
pub(crate) const REPOSITORY: &str = "swarm/blobs";

/// Sizes of blobs: from one byte to 2 MiB, most of them small.
const MAX_BLOB_BITS: usize = 21;

/// A no for something that nobody has: 95 of 100 must be as quick as this. Milliseconds.
const ABSENT_LIMIT_MS: f64 = 100.0;

/// Resident memory of a node that does nothing. KiB.
const IDLE_LIMIT_KIB: u64 = 40 * 1024;

/// One blob and who holds it.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) holder: usize,
}

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    println!("        seed {}", setup.seed);
    let mut random = Random::new(setup.seed);
    let start = Instant::now();
    let names: Vec<String> = (0..NODES).map(|n| format!("n{n}")).collect();
    let mut nodes = swarm::start(&setup.daemon, dir, &names)?;
    println!("        {NODES} nodes ready after {:.1} s", start.elapsed().as_secs_f64());
    checks.check("swarm64: an idle node is small", || idle_memory(&nodes));
    let blobs = push_all(&nodes, dir, MAX_BLOB_BITS, &mut random)?;
    let pulls = if setup.long { PULLS * 10 } else { PULLS };
    checks.check(&format!("swarm64: {pulls} pulls at random nodes"), || {
        let wanted: Vec<(usize, &Blob)> =
            (0..pulls).map(|_| (random.below(NODES), &blobs[random.below(blobs.len())])).collect();
        explain(&nodes[..1], pull_all(&nodes, &wanted, dir))
    });
    for what in ["blobs", "manifests"] {
        checks.check(&format!("swarm64: a quick no for {what} that nobody has"), || {
            absent(&nodes, what, &mut random)
        });
    }
    let dead = random.distinct(NODES / 3, NODES);
    for index in &dead {
        nodes[*index].kill()?;
    }
    let alive: Vec<usize> = (0..NODES).filter(|n| !dead.contains(n)).collect();
    let name = format!("swarm64: {} killed, every blob with a living holder is found", dead.len());
    checks.check(&name, || {
        let wanted: Vec<(usize, &Blob)> = blobs
            .iter()
            .filter(|b| alive.contains(&b.holder))
            .map(|b| (alive[random.below(alive.len())], b))
            .collect();
        explain(&nodes[alive[0]..=alive[0]], pull_all(&nodes, &wanted, dir))
    });
    checks.check("swarm64: the others end well when they are told to", || {
        alive.iter().try_for_each(|n| nodes[*n].stop())
    });
    Ok(())
}

fn idle_memory(nodes: &[Node]) -> Result<()> {
    let memory: Vec<swarm::Memory> = nodes.iter().map(Node::memory_kib).collect::<Result<_>>()?;
    let mut resident: Vec<u64> = memory.iter().map(|m| m.resident).collect();
    resident.sort_unstable();
    let (median, max) = (resident[resident.len() / 2], resident[resident.len() - 1]);
    let anonymous = memory.iter().map(|m| m.anonymous).max().unwrap_or_default();
    println!(
        "        idle: {median} KiB median, {max} KiB most resident, {anonymous} KiB anonymous"
    );
    ensure!(max <= IDLE_LIMIT_KIB, "more than {IDLE_LIMIT_KIB} KiB");
    Ok(())
}

/// Gives each node blobs that no other has, of one byte to two to the power of `most_bits`.
pub(crate) fn push_all(
    nodes: &[Node],
    dir: &Path,
    most_bits: usize,
    random: &mut Random,
) -> Result<Vec<Blob>> {
    let start = Instant::now();
    let files = dir.join("blobs");
    fs::create_dir_all(&files)?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for index in 0..nodes.len() * BLOBS_PER_NODE {
        let most = 1 << random.below(most_bits + 1);
        let path = files.join(index.to_string());
        // The number makes two blobs of one byte different.
        let mut bytes = (index as u64).to_le_bytes().to_vec();
        let more = random.below(most);
        bytes.extend(random.bytes(more));
        fs::write(&path, bytes)?;
        paths.push(path);
    }
    let digests = http::digests(&paths)?;
    let mut blobs = Vec::new();
    for (index, (path, digest)) in paths.iter().zip(digests).enumerate() {
        let holder = index % nodes.len();
        http::push_blob(&nodes[holder].registry, REPOSITORY, path, &digest)
            .with_context(|| nodes[holder].log())?;
        blobs.push(Blob { digest, holder });
    }
    println!("        {} blobs pushed in {:.1} s", blobs.len(), start.elapsed().as_secs_f64());
    Ok(blobs)
}

/// Pulls each blob at its node, counts failures, compares what arrived with its digest.
fn pull_all(nodes: &[Node], wanted: &[(usize, &Blob)], dir: &Path) -> Result<()> {
    let out = dir.join("pulled");
    fs::create_dir_all(&out)?;
    let mut files = Vec::new();
    let mut times = Vec::new();
    let mut failures = Vec::new();
    for (index, (node, blob)) in wanted.iter().enumerate() {
        let file = out.join(index.to_string());
        let url = format!("http://{}/v2/{REPOSITORY}/blobs/{}", nodes[*node].registry, blob.digest);
        match http::download(&url, &file) {
            Ok(answer) if answer.status == 200 => {
                times.push(answer.time_ms);
                files.push((file, *blob));
            }
            Ok(answer) => failures.push(format!("{url}: status {}", answer.status)),
            Err(error) => failures.push(format!("{url}: {error:#}")),
        }
    }
    let paths: Vec<&Path> = files.iter().map(|(file, _)| file.as_path()).collect();
    for (digest, (file, blob)) in http::digests(&paths)?.iter().zip(&files) {
        if *digest != blob.digest {
            failures.push(format!("{}: {} arrived as {digest}", file.display(), blob.digest));
        }
    }
    fs::remove_dir_all(&out)?;
    println!("        {} pulls, {}", wanted.len(), shown(&mut times));
    let some = failures.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    ensure!(failures.is_empty(), "{} of {} failed:\n{some}", failures.len(), wanted.len());
    Ok(())
}

/// Asks for digests that nobody has.
fn absent(nodes: &[Node], what: &str, random: &mut Random) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..ABSENT {
        let node = &nodes[random.below(nodes.len())];
        let hex: String = (0..4).map(|_| format!("{:016x}", random.next())).collect();
        let url = format!("http://{}/v2/{REPOSITORY}/{what}/sha256:{hex}", node.registry);
        times.push(http::request(&url, &["--output", "/dev/null"])?.expect(404)?.time_ms);
    }
    println!("        {ABSENT} times 404, {}", shown(&mut times));
    let slow = times[times.len() * 95 / 100];
    ensure!(slow <= ABSENT_LIMIT_MS, "one in twenty took {slow:.1} ms or longer");
    Ok(())
}

/// Sorts; gives median and maximum.
fn shown(times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    match times.last() {
        Some(max) => format!("{:.1} ms median, {max:.1} ms longest", times[times.len() / 2]),
        None => "no times".to_owned(),
    }
}
