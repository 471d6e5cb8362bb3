//! `cargo xtask bench pull`: docker pulls one large image from a node that has none of it, and
//! from Debian's docker-registry, in turn. Medians and their ratio are printed.
//!
//! Every pull from the swarm is from a new node that has joined for it, so that only A has the
//! content. The bytes are the same: the image is pushed once and copied to docker-registry.

mod client;
mod connections;
mod copies;
mod goal;
mod guest;
mod mirror;
mod overlay;
pub(crate) mod registry;
mod servers;
pub(crate) mod swarm;
mod tags;

pub(crate) use connections::connections;
pub(crate) use copies::copies;
pub(crate) use mirror::mirror;
pub(crate) use overlay::overlay;
pub(crate) use tags::tags;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use servers::Server;
pub(crate) use servers::free_address;

use crate::PullArgs;
use crate::e2e::{self, Dockerd, LARGE_LAYERS};
use crate::median::median;
use crate::run;
use crate::sandbox;
use crate::swarm::{Memory, Node};
use crate::tools::{self, REGISTRY, SKOPEO};
use crate::workspace::{Workspace, ensure_release};

const IMAGE: &str = "bench/image:1.0";

/// Between two looks at a daemon's memory.
const SAMPLE: Duration = Duration::from_millis(50);

/// The goal: a pull through the swarm takes at most so many times the other.
const GOAL: f64 = 1.3;

/// Builds the daemon as it is shipped and measures. True when the goal is reached.
pub(crate) fn pull(workspace: &Workspace, args: &PullArgs) -> Result<bool> {
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        tools::ensure_clients()?;
        ensure_release(None)?;
        return sandbox::enter(workspace, &e2e::own_arguments(), false);
    };
    let (runs, size_mib) = if args.long { (7, 4096) } else { (args.runs, args.size_mib) };
    ensure!(runs > 0 && size_mib >= LARGE_LAYERS, "nothing to measure");
    sandbox::mask()?;
    let bench = Bench::prepare(workspace, dir, size_mib)?;
    let mut swarm = Vec::new();
    let mut registry = Vec::new();
    for number in 1..=runs {
        swarm.push(bench.swarm_pull(number)?);
        registry.push(bench.registry_pull(number)?);
    }
    Ok(report(&swarm, &registry, size_mib))
}

/// Everything that runs during the measurement.
#[derive(Debug)]
struct Bench {
    dir: PathBuf,
    daemon: PathBuf,
    docker: Dockerd,
    a: Node,
    registry: Server,
}

impl Bench {
    fn prepare(workspace: &Workspace, dir: &Path, size_mib: u64) -> Result<Self> {
        let daemon = workspace.daemon("release");
        let docker = Dockerd::start(&dir.join("dockerd"), &sandbox::cgroup_parent(dir))?;
        let a = Node::start_with(&daemon, dir, "a", None, &crate::swarm::one_copy())?;
        a.wait_ready()?;
        let registry = Server::registry(Path::new(REGISTRY), &dir.join("docker-registry"))?;
        let source = dir.join("image");
        e2e::large_image(&source, size_mib)?;
        let reference = format!("{}/{IMAGE}", a.registry);
        docker.build(&source, &reference)?;
        let start = Instant::now();
        run::output(docker.command().args(["push", &reference]))?;
        println!("docker push to A: {:.1} s", start.elapsed().as_secs_f64());
        forget(&docker)?;
        let mut copy = run::client(SKOPEO);
        copy.args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false"]);
        copy.arg(format!("docker://{reference}"));
        run::output(copy.arg(format!("docker://{}/{IMAGE}", registry.address)))?;
        fs::remove_dir_all(&source)?;
        Ok(Self { dir: dir.to_path_buf(), daemon, docker, a, registry })
    }

    /// A pull from a node that has just joined and has nothing. Seconds.
    fn swarm_pull(&self, number: usize) -> Result<f64> {
        let name = format!("b{number}");
        let b = Node::start(&self.daemon, &self.dir, &name, Some(&self.a.token_file()?))?;
        b.wait_ready()?;
        let idle = (self.a.memory_kib()?, b.memory_kib()?);
        let cpu = (self.a.cpu_s()?, b.cpu_s()?);
        let reference = format!("{}/{IMAGE}", b.registry);
        let (seconds, peak) = with_samples(&self.a, &b, || self.timed_pull(&reference))
            .with_context(|| format!("{}\n{}", self.a.log(), b.log()))?;
        let cpu = (self.a.cpu_s()? - cpu.0, b.cpu_s()? - cpu.1);
        println!("run {number}: through the swarm {seconds:.2} s");
        println!("       processor time: A {:.2} s, B {:.2} s", cpu.0, cpu.1);
        println!("       memory of A: {} idle, {} at most", shown(idle.0), shown(peak.0));
        println!("       memory of B: {} idle, {} at most", shown(idle.1), shown(peak.1));
        drop(b);
        fs::remove_dir_all(self.dir.join(name))?;
        Ok(seconds)
    }

    /// The same pull from docker-registry. Seconds.
    fn registry_pull(&self, number: usize) -> Result<f64> {
        let seconds = self.timed_pull(&format!("{}/{IMAGE}", self.registry.address))?;
        println!("run {number}: from docker-registry {seconds:.2} s");
        Ok(seconds)
    }

    fn timed_pull(&self, reference: &str) -> Result<f64> {
        settle()?;
        let start = Instant::now();
        let said = run::output(self.docker.command().args(["pull", reference]))?;
        let seconds = start.elapsed().as_secs_f64();
        ensure!(!said.contains("Already exists"), "a layer was there already:\n{said}");
        forget(&self.docker)?;
        Ok(seconds)
    }
}

fn forget(docker: &Dockerd) -> Result<()> {
    run::output(docker.command().args(["image", "prune", "--all", "--force"]))?;
    Ok(())
}

/// What was written before must not be written during a measurement.
fn settle() -> Result<()> {
    run::output(&mut Command::new("sync")).map(drop)
}

/// Runs `work` and gives the most memory that A and B had meanwhile.
fn with_samples(
    a: &Node,
    b: &Node,
    work: impl FnOnce() -> Result<f64>,
) -> Result<(f64, (Memory, Memory))> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| -> Result<(Memory, Memory)> {
            let mut peak = (a.memory_kib()?, b.memory_kib()?);
            while !done.load(Ordering::Relaxed) {
                thread::sleep(SAMPLE);
                peak = (peak.0.max(a.memory_kib()?), peak.1.max(b.memory_kib()?));
            }
            Ok(peak)
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let peak = sampler.join().map_err(|_| anyhow::anyhow!("the sampler panicked"))?;
        Ok((result?, peak?))
    })
}

fn report(swarm: &[f64], registry: &[f64], size_mib: u64) -> bool {
    let (ours, theirs) = (median(swarm.iter().copied()), median(registry.iter().copied()));
    let rate = |seconds: f64| size_mib as f64 / seconds;
    println!("median of {} pulls of {size_mib} MiB in {LARGE_LAYERS} layers:", swarm.len());
    println!("  through the swarm     {ours:.2} s  {:.0} MiB/s", rate(ours));
    println!("  from docker-registry  {theirs:.2} s  {:.0} MiB/s", rate(theirs));
    println!("  ratio {:.2} (goal: at most {GOAL})", ours / theirs);
    ours / theirs <= GOAL
}

fn shown(memory: Memory) -> String {
    let mib = |kib: u64| kib as f64 / 1024.0;
    format!("{:.1} MiB ({:.1} anonymous)", mib(memory.resident), mib(memory.anonymous))
}
