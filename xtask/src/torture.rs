//! `cargo xtask torture`: kill -9 of the real daemon at random moments, again and again.
//!
//! Workers do what clients do; at a moment that the seed gives the daemon is killed; it is started
//! again on the same directory; then every worker reads everything that it was promised. A promise
//! that is broken ends the run: its data directory and logs are kept and what was lost is printed.
//! Decisions depend on the seed and on what the workers own, the moment within a system call does not:
//! a seed repeats the kind of work, not each interleaving.

mod check;
mod content;
mod daemon;
mod model;
mod names;
mod space;
mod uploads;
mod worker;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::TortureArgs;
use crate::checks::Checks;
use crate::e2e::{self, Random, Setup};
use crate::sandbox;
use crate::tools;
use crate::workspace::{Workspace, ensure_release};

use content::Content;
pub(crate) use content::{digest_of, shown as shown_digest};
use daemon::Daemon;
use space::{Space, blob_file};
use worker::{Counts, Shared, Worker};

/// Clients at the same time.
const WORKERS: usize = 4;

/// Contents that all of them use.
const POOL: usize = 24;

/// Latest moment of a kill after the start of work.
const MAX_WORK: Duration = Duration::from_millis(300);

/// Of ten kills, so many are aimed at commits.
const AIMED_OF_TEN: usize = 4;

/// An aimed kill comes after this many commits have been sent, at most.
const MAX_COMMITS: usize = 16;

/// And so long after that, at most.
const MAX_AFTER_COMMIT: Duration = Duration::from_micros(4_000);

/// Between two looks at the number of commits.
const LOOK: Duration = Duration::from_micros(50);

/// One of so many rounds has a sweep of `ddr gc` or `ddr verify` in it.
const SWEEP_ONE_IN: usize = 4;

/// Kills in the end-to-end run.
const SHORT_RUN: usize = 25;

/// `--long` kills so many times as often.
const LONG: usize = 10;

/// Kills between two lines of progress.
const PROGRESS: usize = 50;

/// Sessions whose name no client has learned cannot be ended by one; each kill may leave that many,
/// one for each worker. Beside them nothing unfinished may remain.
const ORPHANS_PER_KILL: u64 = WORKERS as u64;

/// Builds the daemon as it is shipped and tortures it. True when nothing was lost.
pub(crate) fn run(workspace: &Workspace, args: &TortureArgs) -> Result<bool> {
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        ensure_release(args.daemon.as_deref())?;
        return sandbox::enter(workspace, &e2e::own_arguments(), false);
    };
    let seed = args.seed.map_or_else(e2e::seed_of_clock, Ok)?;
    let kills = if args.long { args.kills * LONG } else { args.kills };
    let built = args.daemon.clone().unwrap_or_else(|| workspace.daemon("release"));
    let daemon = own_copy(&built, dir)?;
    let kept = workspace.target_directory.join(format!("torture-{seed}"));
    let mut torture = Torture::new(&daemon, &dir.join("kills"), seed)?;
    let sweeps = match torture.sweeps.1.join(" and ") {
        none if none.is_empty() => "without gc and verify, which this ddr does not have".to_owned(),
        some => format!("with ddr {some} beside them"),
    };
    println!("seed {seed}, {kills} kills, {WORKERS} clients, {sweeps}");
    match torture.rounds(kills) {
        Ok(()) => {
            torture.report();
            let mut checks = Checks::default();
            damages(&daemon, dir, seed, &mut checks);
            Ok(checks.finish())
        }
        Err(error) => {
            println!("FAILED after {} kills: {error:#}", torture.kills);
            torture.report();
            torture.keep(&kept)?;
            println!("kept: {}\nagain: cargo xtask torture --seed {seed}", kept.display());
            Ok(false)
        }
    }
}

/// Copies the programs, because a build may put others in their place during the run.
fn own_copy(daemon: &Path, dir: &Path) -> Result<PathBuf> {
    let copy = dir.join("ddrd");
    fs::copy(daemon, &copy).with_context(|| format!("cannot copy {}", daemon.display()))?;
    let ddr = daemon.with_file_name("ddr");
    if ddr.exists() {
        fs::copy(&ddr, dir.join("ddr"))?;
    }
    Ok(copy)
}

/// The short run, and the proof that the check can fail.
pub(crate) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    checks.check(&format!("torture: nothing is lost in {SHORT_RUN} kills"), || {
        let mut torture = Torture::new(&setup.daemon, &dir.join("kills"), setup.seed)?;
        torture.rounds(SHORT_RUN)?;
        torture.report();
        Ok(())
    });
    damages(&setup.daemon, dir, setup.seed, checks);
    Ok(())
}

/// Shows that the check can fail.
fn damages(daemon: &Path, dir: &Path, seed: u64, checks: &mut Checks) {
    for (damage, shown) in
        [(Damage::Removed, "removed"), (Damage::Cut, "cut"), (Damage::Flipped, "flipped")]
    {
        checks.check(&format!("torture: a blob file that is {shown} is noticed"), || {
            Torture::new(daemon, &dir.join(shown), seed)?.damaged_round(damage)
        });
    }
}

/// What is done to a blob file to see whether the check notices.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Removed,
    Cut,
    Flipped,
}

/// When the daemon is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    After(Duration),
    /// So long after this many commits were sent.
    Commit(usize, Duration),
}

/// One run.
#[derive(Debug)]
struct Torture {
    program: PathBuf,
    dir: PathBuf,
    seed: u64,
    kills: usize,
    random: Random,
    shared: Shared,
    workers: Vec<Worker>,
    /// From the start of the process to its first answer, milliseconds, one for each start.
    ready_ms: Vec<f64>,
    /// `ddr`, and which of its commands run during the work.
    sweeps: (PathBuf, Vec<&'static str>),
    space: Space,
    started: Instant,
}

impl Torture {
    fn new(program: &Path, dir: &Path, seed: u64) -> Result<Self> {
        ensure!(program.exists(), "{} is missing", program.display());
        fs::create_dir_all(dir)?;
        let mut random = Random::new(seed);
        let shared = Shared {
            pool: (0..POOL).map(|_| Content::draw(&mut random)).collect(),
            workers: WORKERS,
            killed: AtomicBool::new(false),
            commits: AtomicUsize::new(0),
        };
        Ok(Self {
            program: program.to_path_buf(),
            dir: dir.to_path_buf(),
            seed,
            kills: 0,
            random,
            shared,
            workers: (0..WORKERS).map(Worker::new).collect(),
            ready_ms: Vec::new(),
            sweeps: daemon::sweeps(program),
            space: Space::default(),
            started: Instant::now(),
        })
    }

    /// Kills and checks so many times; at the end everything is looked at, also what was deleted
    /// long ago, and the daemon must stop when it is told to.
    fn rounds(&mut self, kills: usize) -> Result<()> {
        let mut daemon = self.start()?;
        for round in 1..=kills {
            self.work_and_kill(daemon)?;
            self.look_at_space()?;
            daemon = self.start()?;
            self.check(&daemon, round == kills)?;
            if round % PROGRESS == 0 {
                self.progress();
            }
        }
        daemon.stop()
    }

    /// One round with a damaged file: it must come out.
    fn damaged_round(&mut self, damage: Damage) -> Result<()> {
        let mut daemon = self.start()?;
        // A kill may come before the first commit.
        while self.whole_blob().is_none() {
            self.work_and_kill(daemon)?;
            daemon = self.start()?;
            self.check(&daemon, false)?;
        }
        drop(daemon);
        let digest = self.whole_blob().context("a blob")?;
        let file = blob_file(&self.data(), &digest).context("a digest")?;
        match damage {
            Damage::Removed => fs::remove_file(&file)?,
            Damage::Cut => fs::write(&file, &fs::read(&file)?[1..])?,
            Damage::Flipped => {
                let mut bytes = fs::read(&file)?;
                bytes[0] ^= 1;
                fs::write(&file, bytes)?;
            }
        }
        let daemon = self.start()?;
        match self.check(&daemon, true) {
            Err(error) if error.to_string().contains(&digest) => Ok(()),
            Err(error) => Err(error.context("another failure than the expected one")),
            Ok(()) => bail!("{digest} was damaged and the check saw nothing"),
        }
    }

    /// A blob that was promised and has a byte that can be damaged.
    fn whole_blob(&self) -> Option<String> {
        self.workers.iter().find_map(|worker| {
            let has_bytes = |digest: &str| worker.contents.get(digest).is_some_and(|c| c.len > 0);
            let mut present = worker.model.present();
            let blob = |(key, digest): &(&model::Key, &str)| {
                matches!(key, model::Key::Blob { .. }) && has_bytes(digest)
            };
            present.find(blob).map(|(_, digest)| digest.to_owned())
        })
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn start(&mut self) -> Result<Daemon> {
        let (daemon, ready) = Daemon::start(&self.program, &self.dir)?;
        self.ready_ms.push(ready.as_secs_f64() * 1000.0);
        Ok(daemon)
    }

    fn work_and_kill(&mut self, mut daemon: Daemon) -> Result<()> {
        self.kills += 1;
        self.shared.killed.store(false, Ordering::SeqCst);
        self.shared.commits.store(0, Ordering::SeqCst);
        let moment = self.next_moment();
        let seeds: Vec<u64> = self.workers.iter().map(|_| self.random.next()).collect();
        let sweep = self.next_sweep(&daemon)?;
        let (shared, workers) = (&self.shared, &mut self.workers);
        let host = daemon.registry.clone();
        thread::scope(|scope| {
            for (worker, seed) in workers.iter_mut().zip(seeds) {
                let host = &host;
                scope.spawn(move || worker.work(host, seed, shared));
            }
            wait_until(moment, shared);
            shared.killed.store(true, Ordering::SeqCst);
            daemon.kill()
        })?;
        if let Some(mut sweep) = sweep {
            // Without its daemon it ends, and with an error if it was in the middle.
            sweep.wait()?;
        }
        self.judge()
    }

    /// In one of so many rounds, `ddr gc` or `ddr verify` runs while the clients work.
    fn next_sweep(&mut self, daemon: &Daemon) -> Result<Option<Child>> {
        let drawn = self.random.below(SWEEP_ONE_IN);
        let (ddr, commands) = &self.sweeps;
        if drawn > 0 || commands.is_empty() {
            return Ok(None);
        }
        let command = commands[self.random.below(commands.len())];
        daemon.sweep(ddr, command).map(Some)
    }

    fn next_moment(&mut self) -> Moment {
        let below = |random: &mut Random, limit: Duration| {
            let micros = usize::try_from(limit.as_micros()).unwrap_or(usize::MAX);
            Duration::from_micros(random.below(micros) as u64)
        };
        if self.random.below(10) < AIMED_OF_TEN {
            let commits = 1 + self.random.below(MAX_COMMITS);
            Moment::Commit(commits, below(&mut self.random, MAX_AFTER_COMMIT))
        } else {
            Moment::After(below(&mut self.random, MAX_WORK))
        }
    }

    fn check(&mut self, daemon: &Daemon, all: bool) -> Result<()> {
        let seeds: Vec<u64> = self.workers.iter().map(|_| self.random.next()).collect();
        let (shared, workers) = (&self.shared, &mut self.workers);
        thread::scope(|scope| {
            for (worker, seed) in workers.iter_mut().zip(seeds) {
                let host = &daemon.registry;
                scope.spawn(move || worker.check(host, seed, shared, all));
            }
        });
        self.judge()
    }

    /// An error that tells everything that is wrong.
    fn judge(&self) -> Result<()> {
        let wrong: Vec<&str> =
            self.workers.iter().flat_map(|w| &w.wrong).map(String::as_str).collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    /// Nothing is in quarantine, and what nobody finished is bounded by the number of kills.
    fn look_at_space(&mut self) -> Result<()> {
        self.space = Space::of(&self.data())?;
        let known: usize = self.workers.iter().map(|w| w.sessions.len()).sum();
        let limit = known as u64 + ORPHANS_PER_KILL * self.kills as u64;
        let Space { upload_sessions, quarantine, fetches, .. } = self.space;
        ensure!(fetches == 0, "{fetches} bytes of downloads on a lone node");
        ensure!(quarantine == 0, "{quarantine} bytes in quarantine: a kill damages nothing");
        ensure!(upload_sessions <= limit, "{upload_sessions} upload sessions, at most {limit}");
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.workers.iter().fold(Counts::default(), |sum, w| sum.plus(w.counts))
    }

    fn progress(&self) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "{} kills in {:.0} s: promised {:.1} MiB; on disk blobs {:.1}, uploads {:.1} ({} \
             sessions), index {:.1} MiB",
            self.kills,
            self.started.elapsed().as_secs_f64(),
            mib(space::promised(&self.workers)),
            mib(self.space.blobs),
            mib(self.space.uploads),
            self.space.upload_sessions,
            mib(self.space.index),
        );
    }

    fn report(&mut self) {
        self.progress();
        let counts = self.counts();
        self.ready_ms.sort_by(f64::total_cmp);
        let at = |share: f64| self.ready_ms[((self.ready_ms.len() - 1) as f64 * share) as usize];
        println!(
            "{} acknowledged changes, {} refused for the moment, {} cut off by a kill, {} reads",
            counts.answered, counts.refused, counts.open_at_kill, counts.reads
        );
        println!(
            "upload sessions after a kill: {} resumed, {} cancelled, {} gone with a commit \
             in flight, {} gone without, {} shorter than confirmed",
            counts.sessions_resumed,
            counts.sessions_cancelled,
            counts.sessions_gone,
            counts.sessions_lost,
            counts.sessions_shorter
        );
        if !self.ready_ms.is_empty() {
            println!("start to first answer: {:.0} ms median, {:.0} ms longest", at(0.5), at(1.0));
        }
        let wrong: usize = self.workers.iter().map(|w| w.wrong.len()).sum();
        println!("seed {}: {} kills, {wrong} broken promises", self.seed, self.kills);
    }

    /// Moves everything out of the directory of the run.
    fn keep(&self, place: &Path) -> Result<()> {
        if place.exists() {
            fs::remove_dir_all(place)?;
        }
        fs::rename(&self.dir, place).with_context(|| format!("cannot keep {}", place.display()))
    }
}

fn wait_until(moment: Moment, shared: &Shared) {
    match moment {
        Moment::After(pause) => thread::sleep(pause),
        Moment::Commit(count, pause) => {
            let start = Instant::now();
            while shared.commits.load(Ordering::SeqCst) < count && start.elapsed() < MAX_WORK {
                thread::sleep(LOOK);
            }
            thread::sleep(pause);
        }
    }
}
