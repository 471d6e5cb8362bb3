//! Real clients against real daemons.
//!
//! Each suite starts a swarm of its own on loopback and a client as a user has it, and looks only
//! at what the client and the registry answer. All of it runs inside [`crate::sandbox`].

mod archive;
mod artifact;
mod buildah;
mod conformance;
mod containerd;
mod cosign;
mod crane;
mod debian;
mod docker;
mod dockers;
mod full_disk;
mod go_client;
mod helm;
mod http;
mod images;
mod layout;
mod mdns;
mod mirror;
mod oras;
mod podman;
mod random;
mod readme;
mod regctl;
mod scenario;
mod skopeo;
mod splitter;
pub(crate) mod swarm64;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::E2eArgs;
use crate::burn;
use crate::checks::Checks;
use crate::jepsen;
use crate::run;
use crate::sandbox;
use crate::swarm::{self, Node};
use crate::tools::{self, GoTool};
use crate::torture;
use crate::workspace::{Workspace, cargo};

pub(crate) use docker::Dockerd;
pub(crate) use images::{LARGE_LAYERS, large as large_image};
pub(crate) use random::Random;

/// The suites, by the client they use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// docker with a daemon of its own: build, push, pull, run
    Docker,
    /// five docker daemons on shaped links pull one image at once; copies that the source gives
    Dockers,
    /// ctr with a hosts.toml: import, push, pull, run
    Containerd,
    /// podman on runc: push, pull, run
    Podman,
    /// buildah: build, push, pull, run; an index of three platforms
    Buildah,
    /// skopeo: copy images and whole indexes, list tags
    Skopeo,
    /// crane: push, pull, list, copy with mounts, delete
    Crane,
    /// oras: files as artifacts, referrers, single blobs, copy, delete
    Oras,
    /// regctl: copy, blobs in chunks, artifacts, tags, delete
    Regctl,
    /// cosign: sign and verify images and attestations, without any service
    Cosign,
    /// helm: package a chart, push, show, pull
    Helm,
    /// curl: an artifact with a subject, and its referrers
    Artifact,
    /// ddr import and export against the files of skopeo, docker and podman; ddr pin
    Archive,
    /// cargo and ddr: the first commands of the README
    Readme,
    /// OCI conformance program at levels 1.1 and dev: a lone node; writes to A, reads from B
    Conformance,
    /// two daemons on a LAN of network namespaces, which find each other by multicast DNS
    Mdns,
    /// containerd, podman, docker, skopeo: images of other registries, which are asked once and may die
    Mirror,
    /// plain sockets: the disk of a node fills up in the middle of a fetch, and grows
    FullDisk,
    /// curl and 64 daemons: random pulls, the time of a 404, a third killed at once
    Swarm64,
    /// kill -9 of a node at random moments, every promise checked after each restart
    Torture,
    /// skopeo, and a node that burns down after every push: no image is lost
    Burn,
    /// five daemons that die, pause and are cut off: is each tag a register all the time?
    Jepsen,
}

impl Suite {
    /// The program that has to be built before the suite runs.
    fn go_tool(self) -> Option<GoTool> {
        match self {
            Self::Crane => Some(GoTool::CRANE),
            Self::Oras => Some(GoTool::ORAS),
            Self::Regctl => Some(GoTool::REGCTL),
            Self::Cosign => Some(GoTool::COSIGN),
            Self::Helm => Some(GoTool::HELM),
            Self::Conformance => Some(GoTool::CONFORMANCE),
            _ => None,
        }
    }
}

/// The suites of this run, in their order.
fn chosen(args: &E2eArgs) -> impl Iterator<Item = Suite> {
    let all = Suite::value_variants().iter().copied();
    let only_mirror = args.mirror && args.only.is_empty();
    all.filter(move |suite| match only_mirror {
        true => *suite == Suite::Mirror,
        false => args.only.is_empty() || args.only.contains(suite),
    })
}

/// What every suite is given.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The daemon's program file.
    pub(crate) daemon: PathBuf,
    /// Directory of this run; removed afterwards.
    pub(crate) dir: PathBuf,
    /// Cargo's target directory; what is put there stays.
    pub(crate) target: PathBuf,
    /// Control group under which containers run.
    pub(crate) cgroup: String,
    /// Image sources, made once.
    pub(crate) images: images::Images,
    /// Seed of every random choice.
    pub(crate) seed: u64,
    /// Ten times the work in the suite with 64 daemons, larger content in others.
    pub(crate) long: bool,
    /// A zot binary, which is in no package.
    pub(crate) zot: Option<PathBuf>,
}

/// Runs the suites. True when every check passed.
pub(crate) fn run(workspace: &Workspace, args: &E2eArgs) -> Result<bool> {
    match &args.inside {
        Some(dir) => inside(workspace, args, dir),
        None => {
            if let Some(file) = &args.zot {
                ensure!(file.is_file(), "{} is no file", file.display());
            }
            tools::require_root()?;
            tools::ensure_clients()?;
            let wanted: Vec<GoTool> = chosen(args).filter_map(Suite::go_tool).collect();
            tools::ensure_go_tools(&workspace.target_directory, &wanted)?;
            run::visible(cargo().args(["build", "--workspace", "--locked"]))?;
            sandbox::enter(workspace, &own_arguments(), args.keep)
        }
    }
}

/// The command line of this process, without the program's name.
pub(crate) fn own_arguments() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

fn inside(workspace: &Workspace, args: &E2eArgs, dir: &Path) -> Result<bool> {
    let seed = args.seed.map_or_else(seed_of_clock, Ok)?;
    println!("seed {seed}");
    let daemon = workspace.daemon("debug");
    ensure!(daemon.exists(), "{} is missing: the build did not make it", daemon.display());
    let rootfs = debian::prepare(&workspace.cache())?;
    sandbox::mask()?;
    let context = Setup {
        daemon,
        dir: dir.to_path_buf(),
        target: workspace.target_directory.clone(),
        cgroup: sandbox::cgroup_parent(dir),
        images: images::prepare(dir, rootfs)?,
        seed,
        long: args.long,
        zot: args.zot.clone(),
    };
    let mut checks = Checks::default();
    for suite in chosen(args) {
        run_suite(&context, suite, &mut checks);
    }
    Ok(checks.finish())
}

/// One suite; a failure before its first check is a failed check as well.
fn run_suite(context: &Setup, suite: Suite, checks: &mut Checks) {
    let name = suite.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned());
    println!("-- {name}");
    let dir = context.dir.join(&name);
    let result =
        fs::create_dir_all(&dir).context("cannot create directory").and_then(|()| match suite {
            Suite::Docker => docker::suite(context, &dir, checks),
            Suite::Dockers => dockers::suite(context, &dir, checks),
            Suite::Containerd => containerd::suite(context, &dir, checks),
            Suite::Podman => podman::suite(context, &dir, checks),
            Suite::Buildah => buildah::suite(context, &dir, checks),
            Suite::Skopeo => skopeo::suite(context, &dir, checks),
            Suite::Crane => crane::suite(context, &dir, checks),
            Suite::Oras => oras::suite(context, &dir, checks),
            Suite::Regctl => regctl::suite(context, &dir, checks),
            Suite::Cosign => cosign::suite(context, &dir, checks),
            Suite::Helm => helm::suite(context, &dir, checks),
            Suite::Artifact => artifact::suite(context, &dir, checks),
            Suite::Archive => archive::suite(context, &dir, checks),
            Suite::Readme => readme::suite(context, &dir, checks),
            Suite::Conformance => conformance::suite(context, &dir, checks),
            Suite::Mdns => mdns::suite(context, &dir, checks),
            Suite::Mirror => mirror::suite(context, &dir, checks),
            Suite::FullDisk => full_disk::suite(context, &dir, checks),
            Suite::Swarm64 => swarm64::suite(context, &dir, checks),
            Suite::Torture => torture::suite(context, &dir, checks),
            Suite::Burn => burn::suite(context, &dir, checks),
            Suite::Jepsen => jepsen::suite(context, &dir, checks),
        });
    if let Err(error) = result {
        println!("FAILED  {name}\n{error:#}");
        checks.failed(&name);
    }
}

/// Three nodes: A, which the others join, B and C.
pub(crate) fn three_nodes(context: &Setup, dir: &Path) -> Result<[Node; 3]> {
    let names = ["a", "b", "c"].map(str::to_owned);
    let nodes = swarm::start(&context.daemon, dir, &names)?;
    nodes.try_into().map_err(|_| anyhow::anyhow!("a swarm of three has three nodes"))
}

/// A seed that differs from run to run.
pub(crate) fn seed_of_clock() -> Result<u64> {
    Ok(u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()))
}
