//! `cargo xtask bench registry`: one node against nginx and other registries, side by side.
//!
//! Every measure takes its servers in turn within each run, so that what else the machine does falls
//! on all of them alike; medians are compared. Client and servers share the machine, as they do in
//! the goals. What is printed is Markdown for docs/benchmarks.md.

mod bounds;
mod go;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::slice;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use super::client::{self, Content, Push, Read};
use super::goal::Goal;
use super::servers::Server;
use super::settle;
use crate::RegistryArgs;
use crate::e2e;
use crate::sandbox;
use crate::swarm::Node;
use crate::tools::{self, NGINX, REGISTRY, WRK};
use crate::wire::Connection;
use crate::workspace::{Workspace, ensure_release};

use table::{Measure, Sample, Unit};

pub(super) const DDRD: &str = "ddrd";
const NGINX_NAME: &str = "nginx";
const DEBIAN: &str = "docker-registry";
const DISTRIBUTION: &str = "distribution v3";
const SHA256: &str = "SHA-256, one core";
const DISK: &str = "write + fdatasync";

const MIB: usize = 1 << 20;
const REPOSITORY: &str = "bench/image";
const TAG: &str = "1.0";

/// Readers at once in the second measure of reads.
const STREAMS: usize = 4;

/// Connections that push small blobs at once.
const PUSHERS: usize = 2;

/// Goals, see the issue and docs/benchmarks.md: times nginx, times docker-registry, and so on.
const GET_TIMES_NGINX: f64 = 0.9;
const GET_TIMES_DEBIAN: f64 = 2.0;
const PUSH_TIMES_DEBIAN: f64 = 1.5;
const PUSH_TIMES_BOUND: f64 = 0.8;
const SMALL_TIMES_DEBIAN: f64 = 3.0;
const SMALL_A_SECOND: f64 = 300.0;
const MANIFEST_TIMES_DEBIAN: f64 = 2.0;
const MANIFEST_A_SECOND: f64 = 30_000.0;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A large blob, by one and by four readers
    Get,
    /// A large blob pushed, and what bounds that
    Push,
    /// Blobs of 1 MiB pushed over two connections
    Small,
    /// Manifests by digest and by tag, and `/v2/`
    Manifest,
}

/// Measures. True when every goal that was measured is reached.
pub(crate) fn run(workspace: &Workspace, args: &RegistryArgs) -> Result<bool> {
    let Some(inside) = &args.inside else {
        tools::require_root()?;
        tools::ensure_servers()?;
        ensure_release(None)?;
        return sandbox::enter(workspace, &e2e::own_arguments(), false);
    };
    ensure!(args.runs > 0 && args.size_mib > 0 && args.blobs >= PUSHERS, "nothing to measure");
    let seed = args.seed.map_or_else(e2e::seed_of_clock, Ok)?;
    let dir = match &args.dir {
        Some(dir) => dir.join(format!("ddr-bench-{}", std::process::id())),
        None => inside.join("registry"),
    };
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let result = Bench::start(workspace, args, &dir, seed).and_then(|mut bench| bench.measure());
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    result
}

/// One server that is measured.
#[derive(Debug)]
struct Target {
    name: &'static str,
    process: Process,
    /// Where a registry of the distribution project keeps its data.
    data: Option<PathBuf>,
}

#[derive(Debug)]
enum Process {
    Ddrd(Node),
    Other(Server),
}

impl Target {
    fn address(&self) -> &str {
        match &self.process {
            Process::Ddrd(node) => &node.registry,
            Process::Other(server) => &server.address,
        }
    }

    fn cpu_s(&self) -> Result<f64> {
        match &self.process {
            Process::Ddrd(node) => node.cpu_s(),
            Process::Other(server) => server.cpu_s(),
        }
    }

    /// Runs `work` and takes its time and the processor time of the server.
    fn timed(&self, amount: f64, work: impl FnOnce() -> Result<()>) -> Result<Sample> {
        let before_s = self.cpu_s()?;
        let start = Instant::now();
        work().with_context(|| self.name)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Sample { amount, seconds, cpu_s: Some(self.cpu_s()? - before_s) })
    }

    /// Takes a blob from the disk again, so that a long run needs no more space than a short one.
    fn forget(&self, digest: &str) -> Result<()> {
        let Some(data) = &self.data else {
            return client::delete(self.address(), REPOSITORY, digest);
        };
        let hex = digest.split_once(':').context("a digest")?.1;
        let blobs = data.join("docker/registry/v2/blobs/sha256");
        fs::remove_dir_all(blobs.join(&hex[..2]).join(hex))
            .with_context(|| format!("{} keeps no {digest}", self.name))
    }
}

/// Everything that runs during the measurement.
#[derive(Debug)]
struct Bench {
    args: RegistryArgs,
    dir: PathBuf,
    seed: u64,
    registries: Vec<Target>,
    nginx: Target,
    /// For the legend.
    notes: Vec<String>,
    goals: Vec<Goal>,
}

impl Bench {
    fn start(workspace: &Workspace, args: &RegistryArgs, dir: &Path, seed: u64) -> Result<Self> {
        let program = workspace.daemon("release");
        let node = Node::start(&program, dir, "ddrd", None)?;
        node.wait_ready()?;
        let mut registries = vec![Target { name: DDRD, process: Process::Ddrd(node), data: None }];
        let mut add = |name, program: &Path, place: &str| -> Result<()> {
            let dir = dir.join(place);
            let server = Server::registry(program, &dir)?;
            let data = Some(dir.join("data"));
            registries.push(Target { name, process: Process::Other(server), data });
            Ok(())
        };
        add(DEBIAN, Path::new(REGISTRY), "docker-registry")?;
        let mut notes = vec![
            format!("ddrd: {}", client::version(&program.to_string_lossy(), "--version")),
            format!("nginx: {}", client::version(NGINX, "-v")),
            format!("docker-registry: {}", client::version(REGISTRY, "--version")),
            format!("wrk: {}", client::version(WRK, "-v")),
        ];
        match go::distribution(workspace) {
            Ok(program) => {
                add(DISTRIBUTION, &program, "distribution")?;
                notes.push(format!("distribution v3: {}", go::DISTRIBUTION));
            }
            Err(error) => notes.push(format!("distribution v3 was not measured: {error:#}")),
        }
        notes.push(go::ZOT.to_owned());
        let nginx = Server::nginx(&dir.join("nginx"))?;
        let nginx = Target { name: NGINX_NAME, process: Process::Other(nginx), data: None };
        let (args, dir) = (args.clone(), dir.to_path_buf());
        Ok(Self { args, dir, seed, registries, nginx, notes, goals: Vec::new() })
    }

    fn measure(&mut self) -> Result<bool> {
        self.legend()?;
        for part in Part::value_variants() {
            if !self.args.only.is_empty() && !self.args.only.contains(part) {
                continue;
            }
            match part {
                Part::Get => self.reads()?,
                Part::Push => self.pushes()?,
                Part::Small => self.small_pushes()?,
                Part::Manifest => self.manifests()?,
            }
        }
        println!("### Goals\n\n| at least | measured | goal | |\n|---|---|---|---|");
        self.goals.iter().for_each(|goal| println!("{goal}"));
        let missed = self.goals.iter().filter(|goal| !goal.reached()).count();
        println!("\n{} goals, {missed} missed", self.goals.len());
        Ok(missed == 0)
    }

    fn legend(&self) -> Result<()> {
        let own: Vec<String> =
            e2e::own_arguments().iter().map(|a| a.to_string_lossy().into_owned()).collect();
        let shown = own.iter().position(|a| a == "--inside").unwrap_or(own.len());
        println!("`cargo xtask {}`, seed {}\n", own[..shown].join(" "), self.seed);
        println!("- machine: {}", bounds::machine()?);
        self.notes.iter().for_each(|note| println!("- {note}"));
        println!(
            "- before 201 ddrd syncs the file, its directory and its index; docker-registry syncs the \
             bytes of an upload and its link, each twice, and distribution v3 once and the link's \
             directory too; neither syncs the directory that names the blob, so a power cut may \
             still take it"
        );
        println!(
            "- one reader with a buffer of 1 MiB throws the bytes away; the page cache holds them; \
             client and server share the processors; CPU is that of the server\n"
        );
        Ok(())
    }

    fn next_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(1);
        self.seed
    }

    fn size(&self) -> usize {
        self.args.size_mib * MIB
    }

    fn reads(&mut self) -> Result<()> {
        let content = Content::new(self.next_seed(), self.size());
        let (digest, len) = (content.digest.clone(), content.bytes.len() as u64);
        for target in &self.registries {
            let mut connection = Connection::open(target.address())?;
            client::push(&mut connection, REPOSITORY, &content, Push::Whole)?;
        }
        fs::write(self.dir.join("nginx/files/blob"), &content.bytes)?;
        drop(content);
        let blob = format!("/v2/{REPOSITORY}/blobs/{digest}");
        let mut targets: Vec<(&Target, &str)> =
            self.registries.iter().map(|t| (t, blob.as_str())).collect();
        targets.insert(1, (&self.nginx, "/blob"));
        for (target, path) in &targets {
            // The bytes are the right ones, and from now on they are in the page cache.
            client::get(target.address(), path, len, 1, Read::Hashed(&digest))
                .context(target.name)?;
        }
        let readers = [(1, Read::Copied), (STREAMS, Read::Copied), (1, Read::Left)];
        for (streams, how) in readers {
            let many = match how {
                Read::Left => "one stream, left in the kernel".into(),
                _ if streams == 1 => "one stream".into(),
                _ => format!("{streams} streams"),
            };
            let title = format!("GET of {} MiB, {many}", self.args.size_mib);
            let mut measure = Measure::new(title, Unit::Bytes);
            for _ in 0..self.args.runs {
                for (target, path) in &targets {
                    let amount = len as f64 * streams as f64;
                    let work = || client::get(target.address(), path, len, streams, how);
                    measure.add(target.name, target.timed(amount, work)?);
                }
            }
            println!("{measure}");
            // No client is without cost: that table tells of the servers alone.
            if !matches!(how, Read::Left) {
                self.goals.extend(measure.goal(DDRD, NGINX_NAME, GET_TIMES_NGINX));
                self.goals.extend(measure.goal(DDRD, DEBIAN, GET_TIMES_DEBIAN));
            }
        }
        self.registries.iter().try_for_each(|target| target.forget(&digest))
    }

    fn pushes(&mut self) -> Result<()> {
        let len = self.size();
        let titles = ["POST and PUT", "POST, PATCH without a length, PUT"];
        let mut measures = titles.map(|how| {
            let title = format!("Durable push of {} MiB: {how}", self.args.size_mib);
            Measure::new(title, Unit::Bytes)
        });
        let mut limits = Measure::new("What bounds a push", Unit::Bytes);
        for _ in 0..self.args.runs {
            for (measure, how) in measures.iter_mut().zip([Push::Whole, Push::Streamed]) {
                for index in 0..self.registries.len() {
                    let content = Content::new(self.next_seed(), len);
                    let sample = self.one_push(&self.registries[index], &content, how)?;
                    measure.add(self.registries[index].name, sample);
                }
            }
            let content = Content::new(self.next_seed(), len);
            limits.add(SHA256, bounds::sha256(&content.bytes));
            settle()?;
            limits.add(DISK, bounds::disk(&self.dir.join("bound"), &content.bytes)?);
        }
        let slower = [SHA256, DISK].iter().filter_map(|name| limits.rate(name));
        let slower = slower.fold(f64::INFINITY, f64::min);
        for (measure, how) in measures.iter().zip(titles) {
            println!("{measure}");
            self.goals.extend(measure.goal(DDRD, DEBIAN, PUSH_TIMES_DEBIAN));
            let value = measure.rate(DDRD).context("ddrd was measured")? / slower;
            let what = format!("{how}: times the slower of SHA-256 and disk");
            self.goals.push(Goal::at_least(what, value, PUSH_TIMES_BOUND));
        }
        println!("{limits}");
        Ok(())
    }

    fn one_push(&self, target: &Target, content: &Content, how: Push) -> Result<Sample> {
        settle()?;
        let len = content.bytes.len();
        let mut connection = Connection::open(target.address())?;
        let work = || client::push(&mut connection, REPOSITORY, content, how);
        let sample = target.timed(len as f64, work)?;
        let size = client::size_of(target.address(), REPOSITORY, &content.digest)?;
        ensure!(size == Some(len as u64), "{}: {size:?} bytes after a push", target.name);
        target.forget(&content.digest)?;
        Ok(sample)
    }

    fn small_pushes(&mut self) -> Result<()> {
        let count = self.args.blobs;
        let title = format!("Durable pushes of 1 MiB, {count} over {PUSHERS} connections");
        let mut measure = Measure::new(title, Unit::Requests);
        for _ in 0..self.args.runs {
            for index in 0..self.registries.len() {
                let contents: Vec<Content> =
                    (0..count).map(|_| Content::new(self.next_seed(), MIB)).collect();
                let target = &self.registries[index];
                settle()?;
                let address = target.address();
                let work = || client::push_many(address, REPOSITORY, &contents, PUSHERS);
                measure.add(target.name, target.timed(count as f64, work)?);
                contents.iter().try_for_each(|content| target.forget(&content.digest))?;
            }
        }
        println!("{measure}");
        self.goals.extend(measure.goal(DDRD, DEBIAN, SMALL_TIMES_DEBIAN));
        self.goals.extend(measure.goal_rate(DDRD, SMALL_A_SECOND));
        Ok(())
    }

    fn manifests(&mut self) -> Result<()> {
        let layer = Content::new(self.next_seed(), 4096);
        let mut digest = String::new();
        for target in &self.registries {
            digest = client::push_image(target.address(), REPOSITORY, TAG, slice::from_ref(&layer))
                .with_context(|| target.name)?;
        }
        let by_digest = format!("/v2/{REPOSITORY}/manifests/{digest}");
        let by_tag = format!("/v2/{REPOSITORY}/manifests/{TAG}");
        let kinds = [
            ("GET of a manifest by digest", by_digest.as_str(), true),
            ("GET of a manifest by tag", by_tag.as_str(), true),
            ("GET of /v2/", "/v2/", false),
        ];
        for (title, path, has_goal) in kinds {
            let mut measure = Measure::new(format!("{title}, 32 connections"), Unit::Requests);
            for _ in 0..self.args.runs {
                for target in &self.registries {
                    let before_s = target.cpu_s()?;
                    let (amount, seconds) = client::wrk(target.address(), path, self.args.seconds)?;
                    let cpu_s = Some(target.cpu_s()? - before_s);
                    measure.add(target.name, Sample { amount, seconds, cpu_s });
                }
            }
            println!("{measure}");
            if has_goal {
                self.goals.extend(measure.goal(DDRD, DEBIAN, MANIFEST_TIMES_DEBIAN));
                self.goals.extend(measure.goal_rate(DDRD, MANIFEST_A_SECOND));
            }
        }
        Ok(())
    }
}
