//! Development tasks of the workspace: `cargo xtask test | e2e | bench | torture | jepsen | tidy`.
//!
//! This program depends on no crate of DDR. It sees the daemon only as its users do: as a program
//! with flags, three lines of output and three ports. What a task needs and does not find is
//! installed or is a loud failure; nothing is skipped in silence.

mod bench;
mod burn;
mod checks;
mod e2e;
mod jepsen;
mod median;
mod netns;
mod run;
mod sandbox;
mod swarm;
mod test;
mod tidy;
mod tools;
mod torture;
mod wire;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// The command line of `cargo xtask`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Development tasks of the DDR workspace")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs every check: format, lints, tidy, dependencies, unit tests, end-to-end tests
    Test,
    /// Runs real clients against real daemons (needs root)
    E2e(E2eArgs),
    /// Measures; prints medians and ratios
    Bench {
        #[command(subcommand)]
        what: BenchTask,
    },
    /// Kills the daemon at random moments and looks for what it had promised (needs root)
    Torture(TortureArgs),
    /// After every acknowledged push kills a node and removes its disk, and looks for what is lost (needs root)
    Burn(BurnArgs),
    /// Clients, faults, and whether each tag was a register all the time (needs root)
    Jepsen(JepsenArgs),
    /// Checks the rules that no compiler checks: edges between crates, file sizes, purity, paths
    Tidy,
    /// Removes what a run leaves, when the process that started this one has ended
    #[command(hide = true)]
    SweepAfterEnd {
        /// The working directory of the run
        dir: PathBuf,
    },
}

/// What the end-to-end run is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct E2eArgs {
    /// Run only this suite (may be given more than once)
    #[arg(long, value_name = "NAME")]
    only: Vec<e2e::Suite>,
    /// Only the suite of mirrored registries
    #[arg(long, conflicts_with = "only")]
    mirror: bool,
    /// A zot binary of yours with its extensions sync and events; without it what needs zot is not run, and that is said
    #[arg(long, value_name = "FILE")]
    zot: Option<PathBuf>,
    /// Ten times the pulls in the suite with 64 daemons, larger content in the suites that say so
    #[arg(long)]
    long: bool,
    /// Seed of every random choice; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the working directory in place, with all logs
    #[arg(long)]
    keep: bool,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the torture run is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct TortureArgs {
    /// How often the daemon is killed
    #[arg(long, default_value_t = 1000)]
    kills: usize,
    /// Seed of every decision; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Ten times as many kills
    #[arg(long)]
    long: bool,
    /// Torture this program instead of building the release; `ddr` is looked for beside it
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the burning of nodes is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct BurnArgs {
    /// Images that are pushed, and nodes that are lost
    #[arg(long, default_value_t = 1000)]
    rounds: usize,
    /// Nodes at any time
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// Seed of every random choice; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Burn this program instead of building the release
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the check of tags is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct JepsenArgs {
    /// Daemons at the start
    #[arg(long, default_value_t = 5)]
    nodes: usize,
    /// How long the clients work in each run
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Tags, in two repositories
    #[arg(long, default_value_t = 3)]
    tags: usize,
    /// Clients, spread over the daemons; one more for each daemon that joins
    #[arg(long, default_value_t = 10)]
    workers: usize,
    /// Faults: some of none, kill, pause, partition, clock, join, leave, disk-full, wipe, with commas;
    /// each: every one alone, then all; without this all at once
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    nemesis: Vec<String>,
    /// Runs of each
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Ten runs of each fault alone, and of all
    #[arg(long)]
    long: bool,
    /// Seed of all operations and faults; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the working directory in place, with all logs
    #[arg(long)]
    keep: bool,
    /// Check this program instead of building the release
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Judge a history that was kept instead
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum BenchTask {
    /// docker pull of a large image: from a node that must fetch it, against docker-registry
    Pull(PullArgs),
    /// One node against nginx and other registries: reads, pushes, manifests (needs root)
    Registry(RegistryArgs),
    /// Many clients of one daemon: memory at rest, many blobs at once, waits meanwhile (needs root)
    Connections(ConnectionsArgs),
    /// A swarm of processes: lookups at rest and while nodes die and come back (needs root)
    Overlay(OverlayArgs),
    /// Pushes with a second copy against a lone node, and what a lost node costs (needs root)
    Copies(CopiesArgs),
    /// Reads and writes of tags in a swarm of processes, beside docker-registry (needs root)
    Tags(TagsArgs),
    /// Nodes in front of docker-registry behind a narrow link: cold, warm, absent (needs root)
    Mirror(MirrorArgs),
    /// Many nodes pull one blob at once over shaped links, while some of them die (needs root)
    Swarm(SwarmArgs),
}

/// What the benchmark of one node is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct RegistryArgs {
    /// Runs of each measure, the servers in turn; the medians are compared
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Size of the large blob, MiB; held in memory
    #[arg(long, default_value_t = 1024)]
    size_mib: usize,
    /// Blobs of 1 MiB in one run
    #[arg(long, default_value_t = 200)]
    blobs: usize,
    /// Length of one run of manifest reads, seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measure only this (may be given more than once)
    #[arg(long, value_name = "NAME")]
    only: Vec<bench::registry::Part>,
    /// Where the servers keep their data; without it below the target directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Seed of all contents; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the benchmark of many clients is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectionsArgs {
    /// Connections that ask once and rest; 0 leaves this part out
    #[arg(long, default_value_t = 100_000)]
    idle: usize,
    /// Blobs read at once; 0 leaves this part out
    #[arg(long, default_value_t = 10_000)]
    streams: usize,
    /// Over TLS; the readers of blobs then take nothing
    #[arg(long)]
    tls: bool,
    /// In a User-Mode Linux guest, which may open more files than this machine allows; only the
    /// memory it prints means something
    #[arg(long)]
    guest: bool,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the benchmark of copies is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct CopiesArgs {
    /// Pushes of each kind
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// MiB of the image
    #[arg(long, default_value_t = 1024)]
    size_mib: usize,
    /// Measure this program instead of building the release
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Seed of every random choice; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the benchmark of mirrored registries is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct MirrorArgs {
    /// Daemons
    #[arg(long, default_value_t = 12)]
    nodes: usize,
    /// Mbit/s of the registry's link
    #[arg(long, default_value_t = 200)]
    uplink: u64,
    /// Mbit/s of the nodes' links [default: ten times the uplink]
    #[arg(long)]
    link: Option<u64>,
    /// MiB of the blob
    #[arg(long, default_value_t = 1024)]
    blob: usize,
    /// Reads of a warm blob, of each kind
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Measure this program instead of building the release
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Seed of every random choice; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the benchmark of tags is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct TagsArgs {
    /// Daemons
    #[arg(long, default_value_t = 12)]
    nodes: usize,
    /// Reads
    #[arg(long, default_value_t = 4000)]
    reads: usize,
    /// Writes
    #[arg(long, default_value_t = 2000)]
    writes: usize,
    /// Measure this program instead of building the release
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Seed of every random choice; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the benchmark of a swarm is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct OverlayArgs {
    /// Daemons
    #[arg(long, default_value_t = 64)]
    nodes: usize,
    /// Lookups in each part
    #[arg(long, default_value_t = 2_000)]
    lookups: usize,
    /// How long nodes die and come back, seconds; 0 leaves this part out
    #[arg(long, default_value_t = 60)]
    churn_s: u64,
    /// Five minutes of it
    #[arg(long)]
    long: bool,
    /// Measure this program instead of building the release
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Seed of every random choice; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the benchmark of pulls over shaped links is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct SwarmArgs {
    /// Daemons that pull; one more is the source
    #[arg(long, default_value_t = 12)]
    nodes: usize,
    /// Rate of each node's link in each direction, Mbit/s
    #[arg(long, value_name = "MBIT", default_value_t = 100)]
    link: u64,
    /// Size of the blob, MiB; held in memory, and on the disk once for each node
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    blob: usize,
    /// Copies of the blob that the source has sent when it is killed
    #[arg(long, value_name = "COPIES", default_value_t = 1.1)]
    dies_after: f64,
    /// Measure only this (may be given more than once); without it everything
    #[arg(long, value_name = "NAME")]
    scenario: Vec<bench::swarm::Scenario>,
    /// Print JSON in place of tables
    #[arg(long)]
    json: bool,
    /// Measure this program instead of building the release
    #[arg(long, value_name = "FILE")]
    daemon: Option<PathBuf>,
    /// Seed of the bytes and of who dies or is slow; without it the clock gives one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// What the pull benchmark is asked to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct PullArgs {
    /// Pulls of each kind; the medians are compared
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Size of the image, MiB, in four layers of incompressible bytes
    #[arg(long, default_value_t = 1024)]
    size_mib: u64,
    /// Seven runs of a 4 GiB image
    #[arg(long)]
    long: bool,
    /// The working directory; set when this program starts itself inside its namespaces
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ready = if is_inside() { sandbox::end_with_the_pipe() } else { Ok(()) };
    match ready.and_then(|()| dispatch(cli.task)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether this program was started by itself, inside its namespaces.
fn is_inside() -> bool {
    std::env::args_os().any(|argument| argument == "--inside")
}

/// True when everything that was checked is as it should be.
fn dispatch(task: Task) -> Result<bool> {
    let workspace = workspace::Workspace::find()?;
    match task {
        Task::Test => test::run(&workspace),
        Task::E2e(args) => e2e::run(&workspace, &args),
        Task::Bench { what: BenchTask::Pull(args) } => bench::pull(&workspace, &args),
        Task::Bench { what: BenchTask::Registry(args) } => bench::registry::run(&workspace, &args),
        Task::Bench { what: BenchTask::Connections(args) } => bench::connections(&workspace, &args),
        Task::Bench { what: BenchTask::Overlay(args) } => bench::overlay(&workspace, &args),
        Task::Bench { what: BenchTask::Mirror(args) } => bench::mirror(&workspace, &args),
        Task::Bench { what: BenchTask::Copies(args) } => bench::copies(&workspace, &args),
        Task::Bench { what: BenchTask::Tags(args) } => bench::tags(&workspace, &args),
        Task::Bench { what: BenchTask::Swarm(args) } => bench::swarm::swarm(&workspace, &args),
        Task::Torture(args) => torture::run(&workspace, &args),
        Task::Burn(args) => burn::run(&workspace, &args),
        Task::Jepsen(args) => jepsen::run(&workspace, &args),
        Task::Tidy => tidy::run(&workspace),
        Task::SweepAfterEnd { dir } => sandbox::sweep_after_end(&dir).map(|()| true),
    }
}

/// Names of all tasks, as a user types them: what the README may speak of.
pub(crate) fn task_names() -> Vec<String> {
    use clap::CommandFactory;
    Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect()
}
