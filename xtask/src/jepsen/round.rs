//! One run: a swarm, clients, faults, then rest, last reads and a verdict.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::check::{self, Value, Verdict};
use super::client::{self, Client};
use super::history::{self, Operation, Recorder};
use super::machines::{Machine, Site};
use super::plan::{self, Fault, How, Nemesis};
use crate::e2e::Random;
use crate::netns::Lan;
use crate::run;

/// From the end of the faults to the moment when all nodes say the same of all tags and lists.
const AGREEMENT_LIMIT: Duration = Duration::from_secs(90);
/// Between two looks at all nodes.
const LOOK: Duration = Duration::from_millis(500);
/// Process number of the last reads on machine 0.
const LAST_READS: usize = 1000;

/// What a run is made of.
#[derive(Debug, Clone)]
pub(super) struct Setting<'a> {
    pub(super) daemon: &'a Path,
    pub(super) faketime: Option<&'a Path>,
    pub(super) kinds: &'a [Nemesis],
    pub(super) nodes: usize,
    pub(super) tags: usize,
    pub(super) workers: usize,
    pub(super) length: Duration,
    pub(super) seed: u64,
}

/// What came of a run.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) history: Vec<Operation>,
    /// Beginnings and ends of faults, one a line.
    pub(super) faults: Vec<String>,
    /// What must not have happened.
    pub(super) anomalies: Vec<String>,
    /// Tags whose history was too hard.
    pub(super) undecided: usize,
    /// From the last fault to agreement, if it was reached.
    pub(super) agreed_after: Option<Duration>,
}

/// One run in `dir`; what is to be kept goes to `kept`.
pub(super) fn run(setting: &Setting<'_>, dir: &Path, kept: &Path) -> Result<Outcome> {
    fs::create_dir_all(dir)?;
    fs::create_dir_all(kept)?;
    let lan = Lan::new()?;
    let site = Site { lan, daemon: setting.daemon, dir, faketime: setting.faketime };
    let mut random = Random::new(setting.seed);
    let faults = plan::faults(setting.kinds, setting.nodes, setting.length, &mut random);
    let joins = faults.iter().filter(|fault| fault.nemesis == Nemesis::Join).count();
    let machines = (0..setting.nodes + joins).map(|number| site.machine(number));
    let mut swarm = Swarm {
        machines: machines.collect::<Result<_>>()?,
        recorder: Recorder::new(),
        outcome: Outcome::default(),
    };
    swarm.start(setting.nodes)?;
    swarm.recorder = Recorder::new();
    swarm.work(setting, &faults, &mut random)?;
    swarm.come_to_rest(setting.tags);
    swarm.judge(setting.tags);
    swarm.look_at_logs()?;
    let mut outcome = swarm.outcome;
    outcome.history = swarm.recorder.history();
    history::keep(&outcome.history, &kept.join("history.jsonl"))?;
    let mut log = File::create(kept.join("faults"))?;
    outcome.faults.iter().try_for_each(|line| writeln!(log, "{line}"))?;
    if !outcome.anomalies.is_empty() || outcome.undecided > 0 {
        fs::write(kept.join("anomalies"), outcome.anomalies.join("\n\n"))?;
        for machine in &swarm.machines {
            let log = kept.join(format!("log-{}", machine.number));
            fs::copy(machine.log(), log).ok();
        }
    }
    Ok(outcome)
}

struct Swarm {
    machines: Vec<Machine>,
    recorder: Recorder,
    outcome: Outcome,
}

impl Swarm {
    fn start(&mut self, nodes: usize) -> Result<()> {
        self.machines[0].start(None)?;
        let token = self.machines[0].token()?;
        for machine in &mut self.machines[1..nodes] {
            machine.start(Some(&token))?;
        }
        self.machines[..nodes].iter().try_for_each(Machine::wait_ready)
    }

    /// Lets clients work while the faults come and go.
    fn work(&mut self, setting: &Setting<'_>, faults: &[Fault], random: &mut Random) -> Result<()> {
        let stop = AtomicBool::new(false);
        // The clients need the machines' networks, the faults the machines: networks are entered first.
        let joined = self.machines.len() - setting.nodes;
        let places = (0..setting.workers).map(|worker| worker % setting.nodes);
        let places = places.chain((0..joined).map(|spare| setting.nodes + spare));
        let mut clients = Vec::new();
        for (process, node) in places.enumerate() {
            let random = Random::new(random.next());
            let network = self.machines[node].host.network()?;
            clients.push((process, node, network, random));
        }
        let Self { machines, recorder, outcome } = self;
        let recorder: &Recorder = recorder;
        let stopping = &stop;
        thread::scope(|scope| {
            let threads: Vec<_> = clients
                .into_iter()
                .map(|(process, node, network, mut random)| {
                    scope.spawn(move || {
                        network.enter_here()?;
                        let mut client = Client::new(process, node, setting.tags, recorder);
                        client.work(&mut random, stopping);
                        Ok::<_, anyhow::Error>(())
                    })
                })
                .collect();
            let mut storm = Storm { machines, recorder, outcome };
            storm.pass(faults, setting.length);
            stop.store(true, Ordering::Relaxed);
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?)
        })
    }

    /// Waits until all nodes are ready and say the same.
    fn come_to_rest(&mut self, tags: usize) {
        let start = Instant::now();
        for machine in &mut self.machines {
            let ready = machine.check_alive().and_then(|()| machine.wait_ready());
            if let Err(error) = ready {
                self.outcome.anomalies.push(format!("after the faults: {error:#}"));
            }
        }
        if !self.outcome.anomalies.is_empty() {
            return;
        }
        let mut last = anyhow!("nobody was asked");
        while start.elapsed() < AGREEMENT_LIMIT {
            match self.agreed(tags) {
                Ok(()) => {
                    self.outcome.agreed_after = Some(start.elapsed());
                    return;
                }
                Err(error) => last = error,
            }
            thread::sleep(LOOK);
        }
        let what = format!("no agreement within {} s: {last:#}", AGREEMENT_LIMIT.as_secs());
        self.outcome.anomalies.push(what);
    }

    /// Succeeds when one look at all nodes shows one value for each tag, and lists that fit.
    fn agreed(&mut self, tags: usize) -> Result<()> {
        let mut seen: Vec<BTreeSet<Value>> = vec![BTreeSet::new(); tags];
        for machine in &self.machines {
            let values = machine.host.enter(|| {
                let mut client = self.last_client(machine, tags);
                Ok((0..tags).map(|tag| client.read(tag, "GET")).collect::<Vec<_>>())
            })?;
            for (tag, value) in values.into_iter().enumerate() {
                let value = value.with_context(|| {
                    format!("machine {} says nothing of {}", machine.number, client::name(tag))
                })?;
                seen[tag].insert(value);
            }
        }
        for (tag, values) in seen.iter().enumerate() {
            ensure!(values.len() == 1, "{} is {values:?}", client::name(tag));
        }
        for machine in &self.machines {
            machine.host.enter(|| {
                let mut client = self.last_client(machine, tags);
                for number in 0..client::REPOSITORIES {
                    let repository = client::repository(number);
                    let there = (0..tags).filter(|tag| client::repository(*tag) == repository);
                    let there = there.filter(|tag| !seen[*tag].contains(&None));
                    let mut expected: Vec<String> = there.map(client::name).collect();
                    expected.sort_unstable();
                    let listed = client.listed(&repository).context("no list")?;
                    let node = machine.number;
                    ensure!(
                        listed == expected,
                        "machine {node} lists {listed:?}, not {expected:?}"
                    );
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn last_client(&self, machine: &Machine, tags: usize) -> Client<'_> {
        Client::new(LAST_READS + machine.number, machine.number, tags, &self.recorder)
    }

    /// Whether each tag was a register.
    fn judge(&mut self, tags: usize) {
        let history = self.recorder.history();
        for tag in 0..tags {
            let (ops, places) = history::of_tag(&history, tag);
            match check::check(&ops) {
                Verdict::Linearizable => {}
                Verdict::Undecided => self.outcome.undecided += 1,
                Verdict::Broken(_) => {
                    let part = check::shrink(&ops).into_iter().map(|op| &history[places[op]]);
                    let part: Vec<String> = part.map(Operation::shown).collect();
                    let name = client::name(tag);
                    let what = format!("{name}: no order explains\n{}", part.join("\n"));
                    self.outcome.anomalies.push(what);
                }
            }
        }
        for kind in [history::Kind::Read, history::Kind::Write] {
            let ok = |operation: &&Operation| {
                operation.kind == kind && operation.outcome == history::Outcome::Ok
            };
            if history.iter().find(ok).is_none() {
                self.outcome.anomalies.push(format!("not one {kind:?} was answered"));
            }
        }
    }

    fn look_at_logs(&mut self) -> Result<()> {
        for machine in &self.machines {
            let log = fs::read(machine.log()).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                let what = format!("machine {}: {line}", machine.number);
                self.outcome.anomalies.push(what);
            }
        }
        Ok(())
    }
}

/// The faults of a run as they happen.
struct Storm<'a> {
    machines: &'a mut Vec<Machine>,
    recorder: &'a Recorder,
    outcome: &'a mut Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    End,
    Begin,
}

impl Storm<'_> {
    /// Begins and ends each fault at its time; at the end all is well again.
    fn pass(&mut self, faults: &[Fault], length: Duration) {
        let start = Instant::now();
        let begins = faults.iter().map(|fault| (fault.from, Edge::Begin, fault));
        let ends = faults.iter().map(|fault| (fault.to, Edge::End, fault));
        let mut edges: Vec<_> = begins.chain(ends).collect();
        // The sort keeps the beginning of a fault that has no length before its end.
        edges.sort_by_key(|(at, edge, fault)| (*at, *edge, fault.from));
        edges.retain(|(_, edge, fault)| *edge == Edge::Begin || fault.nemesis != Nemesis::Join);
        for (at, edge, fault) in edges {
            thread::sleep(at.saturating_sub(start.elapsed()));
            self.check_alive();
            let result = match edge {
                Edge::Begin => self.begin(fault),
                Edge::End => self.end(fault),
            };
            let at_ms = self.recorder.now_ns() as f64 / 1e6;
            let line = format!("{at_ms:10.3} ms  {edge:?} {fault:?}");
            self.outcome.faults.push(line);
            if let Err(error) = result {
                self.outcome.anomalies.push(format!("{edge:?} {fault:?}: {error:#}"));
            }
        }
        thread::sleep(length.saturating_sub(start.elapsed()));
        self.check_alive();
    }

    fn check_alive(&mut self) {
        for machine in self.machines.iter_mut() {
            if let Err(error) = machine.check_alive() {
                self.outcome.anomalies.push(format!("{error:#}"));
            }
        }
    }

    fn begin(&mut self, fault: &Fault) -> Result<()> {
        if let How::Cut(pairs) = &fault.how {
            let mut there = pairs.iter().filter(|(from, _)| *from < self.machines.len());
            return there.try_for_each(|(from, to)| self.machines[*from].cut(*to));
        }
        fault.victims.iter().try_for_each(|victim| self.strike(*victim, fault))
    }

    fn strike(&mut self, victim: usize, fault: &Fault) -> Result<()> {
        let machine = &mut self.machines[victim];
        match (fault.nemesis, &fault.how) {
            (Nemesis::Kill, _) => machine.kill(),
            (Nemesis::Pause, _) => machine.signal("STOP"),
            (Nemesis::Clock, How::Jump(ahead_s, over_restart)) => {
                machine.set_clock(*ahead_s)?;
                if !over_restart {
                    return Ok(());
                }
                machine.kill()?;
                machine.start(None)
            }
            (Nemesis::Join, _) => self.start(victim),
            (Nemesis::Leave, how) => {
                machine.stop()?;
                if *how == How::Replaced { machine.empty() } else { Ok(()) }
            }
            (Nemesis::DiskFull, _) => machine.fill(),
            (Nemesis::Wipe, _) => {
                machine.kill()?;
                machine.empty()
            }
            (Nemesis::None | Nemesis::Partition | Nemesis::Clock, _) => Ok(()),
        }
    }

    fn end(&mut self, fault: &Fault) -> Result<()> {
        if let How::Cut(pairs) = &fault.how {
            let mut there = pairs.iter().filter(|(from, _)| *from < self.machines.len());
            return there.try_for_each(|(from, to)| self.machines[*from].mend(*to));
        }
        fault.victims.iter().try_for_each(|victim| self.relieve(*victim, fault))
    }

    fn relieve(&mut self, victim: usize, fault: &Fault) -> Result<()> {
        let machine = &mut self.machines[victim];
        match fault.nemesis {
            Nemesis::Kill | Nemesis::Leave | Nemesis::Wipe => self.start(victim),
            Nemesis::Pause => machine.signal("CONT"),
            Nemesis::DiskFull => machine.make_room(),
            Nemesis::Clock => {
                machine.set_clock(0)?;
                machine.kill()?;
                machine.start(None)
            }
            Nemesis::None | Nemesis::Partition | Nemesis::Join => Ok(()),
        }
    }

    /// Starts the daemon of a machine; a new one has the token of another that runs.
    fn start(&mut self, number: usize) -> Result<()> {
        let other =
            self.machines.iter().find(|machine| machine.number != number && machine.node.is_some());
        let token: Option<PathBuf> = other.map(Machine::token).transpose()?;
        self.machines[number].start(token.as_deref())
    }
}

/// Where the library that moves clocks is, as Debian installs it.
pub(super) fn faketime() -> Result<PathBuf> {
    let found = run::output(
        std::process::Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]),
    )?;
    Ok(PathBuf::from(found.lines().next().context("libfaketime is not installed")?))
}
