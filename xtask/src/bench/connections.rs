//! `cargo xtask bench connections`: what many clients cost one daemon.
//!
//! First so many connections that have asked once and rest, then so many blobs read at once by fast
//! and slow readers. Meanwhile one client asks `GET /v2/` again and again; its waits are printed.
//! Clients are spread over several loopback addresses, because one address has only so many ports.

mod idle;
mod load;
mod probe;

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::guest;
use crate::ConnectionsArgs;
use crate::e2e::{self, Random};
use crate::run;
use crate::sandbox;
use crate::swarm::Node;
use crate::tools;
use crate::workspace::{Workspace, ensure_release};
use idle::Tls;
use load::Load;
use probe::Probe;

/// Waves in which the connections come; between two, the ones before go to rest.
const WAVES: usize = 5;
/// Blobs that are read, and the size of each.
const BLOBS: u64 = 4;
const BLOB_MIB: u64 = 64;
/// How long the daemon may take to give back what connections at rest do not need.
const SETTLE: Duration = Duration::from_secs(4);
/// How long one stream, and all of them, are measured.
const ONE: Duration = Duration::from_secs(5);
const ALL: Duration = Duration::from_secs(20);
/// Goals: bytes of resident memory.
const GOAL_IDLE_PLAIN: f64 = 1.6e9 / 100_000.0;
const GOAL_IDLE_TLS: f64 = 2.5e9 / 100_000.0;
const GOAL_STREAMS_KIB: u64 = 512 * 1024;

/// Builds the daemon as it is shipped and measures. True when the goals are reached.
pub(crate) fn connections(workspace: &Workspace, args: &ConnectionsArgs) -> Result<bool> {
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        ensure_release(None)?;
        let own = e2e::own_arguments();
        return match args.guest {
            true => guest::enter(workspace, &own),
            false => sandbox::enter(workspace, &own, false),
        };
    };
    let allowed = raise_descriptors((args.idle * 2).max(args.streams * 6) as u64);
    let fit = |wanted: usize, of_100: usize| {
        let most = allowed / 100 * of_100;
        if wanted > most {
            println!(
                "THIS MACHINE ALLOWS {allowed} OPEN FILES A PROCESS: {most} IN PLACE OF {wanted}"
            );
        }
        wanted.min(most)
    };
    // The daemon sets some aside, and a quarter of the rest for the files of blobs.
    let (idle, streams) = (fit(args.idle, 55), fit(args.streams, 19));
    let args = &ConnectionsArgs { idle, streams, ..args.clone() };
    let daemon = workspace.daemon("release");
    let idle = args.idle == 0 || measure_idle(&daemon, dir, args)?;
    let streams = args.streams == 0 || measure_streams(&daemon, dir, args)?;
    Ok(idle && streams)
}

/// Raises the limit of open files, which the daemon inherits, as far as this machine lets it; what
/// holds from now on.
fn raise_descriptors(wanted: u64) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.unwrap_or(wanted);
    let raise = |most: &u64| {
        let raised = Rlimit { current: Some(*most), maximum: Some(*most) };
        setrlimit(Resource::Nofile, raised).is_ok()
    };
    let now = [wanted.max(hard), hard].into_iter().find(raise);
    let now = now.or(limit.current).unwrap_or(wanted);
    usize::try_from(now).unwrap_or(usize::MAX)
}

/// A daemon, and what speaks to it.
fn start(daemon: &Path, dir: &Path, name: &str, tls: bool) -> Result<(Node, Option<Tls>)> {
    let tls = if tls { Some(Tls::make(dir)?) } else { None };
    let flags = tls.as_ref().map(Tls::flags).unwrap_or_default();
    let node = Node::start_with(daemon, dir, name, None, &flags)?;
    node.wait_ready()?;
    Ok((node, tls))
}

fn measure_idle(daemon: &Path, dir: &Path, args: &ConnectionsArgs) -> Result<bool> {
    let (node, tls) = start(daemon, dir, "idle", args.tls)?;
    let address: SocketAddr = node.registry.parse()?;
    let kind = if args.tls { "TLS" } else { "plain" };
    let before = node.memory_kib()?;
    let probe = Probe::start(address, tls.clone())?;
    let began = Instant::now();
    let mut open = Vec::with_capacity(args.idle);
    let mut peak = before;
    for wave in 1..=WAVES {
        let numbers = open.len()..args.idle * wave / WAVES;
        open.extend(idle::open(address, numbers, tls.as_ref()).with_context(|| node.log())?);
        peak = peak.max(node.memory_kib()?);
        std::thread::sleep(SETTLE);
    }
    let opening_s = began.elapsed().as_secs_f64();
    let waits = probe.end()?;
    println!("{} {kind} connections, each asked GET /v2/ once, in {opening_s:.1} s", open.len());
    println!("  GET /v2/ meanwhile: {waits}");
    let probe = Probe::start(address, tls)?;
    std::thread::sleep(ONE);
    let waits = probe.end()?;
    let after = node.memory_kib()?;
    println!("  GET /v2/ while they rest: {waits}");
    let bytes = |kib: u64| kib as f64 * 1024.0;
    let each = (bytes(after.resident) - bytes(before.resident)) / open.len() as f64;
    println!(
        "  resident: {:.0} MB before, {:.0} MB at most, {:.0} MB at rest: {each:.0} bytes each",
        bytes(before.resident) / 1e6,
        bytes(peak.resident) / 1e6,
        bytes(after.resident) / 1e6,
    );
    let closed = idle::closed(&open)?;
    ensure!(closed == 0, "{closed} of them were closed\n{}", node.log());
    let goal = if args.tls { GOAL_IDLE_TLS } else { GOAL_IDLE_PLAIN };
    let worst = bytes(peak.resident.max(after.resident)) / open.len() as f64;
    println!("  {worst:.0} bytes of the whole process for each, at its highest (goal: {goal:.0})");
    Ok(worst <= goal)
}

fn measure_streams(daemon: &Path, dir: &Path, args: &ConnectionsArgs) -> Result<bool> {
    let (node, tls) = start(daemon, dir, "streams", args.tls)?;
    let address: SocketAddr = node.registry.parse()?;
    let targets = push_blobs(&node, dir, args.tls)?;
    if let Some(tls) = tls {
        return stalled(&node, address, &tls, &targets, args.streams);
    }
    let idle = node.memory_kib()?.resident;
    let mut load = Load::open(address, 1, 0, &targets)?;
    let one = load.run(ONE, || Ok(()))?;
    drop(load);
    let cpu_s = node.cpu_s()?;
    let mut load = Load::open(address, args.streams, args.streams / 5, &targets)?;
    let probe = Probe::start(address, None)?;
    let mut peak = 0;
    let all = load.run(ALL, || {
        peak = peak.max(node.memory_kib()?.resident);
        Ok(())
    });
    let all = all.with_context(|| node.log())?;
    let waits = probe.end()?;
    let cpu_s = node.cpu_s()? - cpu_s;
    println!(
        "{} blob streams, every fifth reader slow, {BLOBS} blobs of {BLOB_MIB} MiB",
        args.streams
    );
    println!("  one stream {:.0} MB/s, all together {:.0} MB/s", one.mb_s(), all.mb_s());
    println!("  {} streams got bytes, {} were told 503", all.fed, all.refused);
    println!("  processor time of the daemon: {:.2} s for 1 GB", cpu_s / all.gb());
    println!("  GET /v2/ meanwhile: {waits}");
    println!("  resident: {} MiB idle, {} MiB at most (goal: 512)", idle / 1024, peak / 1024);
    ensure!(all.refused == 0, "some were refused\n{}", node.log());
    Ok(peak <= GOAL_STREAMS_KIB)
}

/// Over TLS the content passes through the daemon's memory: the worst is when nobody reads.
fn stalled(
    node: &Node,
    address: SocketAddr,
    tls: &Tls,
    targets: &[String],
    count: usize,
) -> Result<bool> {
    let idle = node.memory_kib()?.resident;
    let open = idle::ask(address, count, tls, targets)?;
    let probe = Probe::start(address, Some(tls.clone()))?;
    std::thread::sleep(ONE);
    let waits = probe.end()?;
    let peak = node.memory_kib()?.resident;
    println!("{} blob streams over TLS whose readers take nothing", open.len());
    println!("  GET /v2/ meanwhile: {waits}");
    println!("  resident: {} MiB idle, {} MiB now (goal: 512)", idle / 1024, peak / 1024);
    Ok(peak <= GOAL_STREAMS_KIB)
}

/// Pushes the blobs and answers their paths.
fn push_blobs(node: &Node, dir: &Path, tls: bool) -> Result<Vec<String>> {
    let file = dir.join("blob");
    let mut targets = Vec::new();
    for seed in 0..BLOBS {
        let mut random = Random::new(seed);
        let mut out = File::create(&file)?;
        for _ in 0..BLOB_MIB {
            out.write_all(&random.bytes(1 << 20))?;
        }
        let sum = run::output(Command::new("sha256sum").arg(&file))?;
        let Some(digest) = sum.split_whitespace().next() else { bail!("no digest in {sum:?}") };
        let scheme = if tls { "https" } else { "http" };
        let to = format!("/v2/bench/blobs/uploads/?digest=sha256:{digest}");
        let mut curl = run::client("/usr/bin/curl");
        curl.args(["--noproxy", "*", "--silent", "--fail", "--insecure", "--data-binary"]);
        curl.arg(format!("@{}", file.display())).arg(format!("{scheme}://{}{to}", node.registry));
        run::output(&mut curl)?;
        targets.push(format!("/v2/bench/blobs/sha256:{digest}"));
    }
    fs::remove_file(&file)?;
    Ok(targets)
}
