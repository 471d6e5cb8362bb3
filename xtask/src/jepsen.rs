//! `cargo xtask jepsen`: are tags registers, whatever happens to the swarm?
//!
//! Real daemons on machines of their own ([`crate::netns`]); clients that write, delete and read a few
//! tags at the same time; faults. Every operation is recorded, and the history of each tag must be one
//! of a register in which each operation has its effect at one moment while it runs
//! (linearizability). After the faults all nodes must say the same, in reads and in lists.

mod check;
mod client;
mod history;
mod machines;
mod plan;
mod report;
mod round;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::JepsenArgs;
use crate::checks::Checks;
use crate::e2e::{self, Setup};
use crate::sandbox;
use crate::tools;
use crate::workspace::{Workspace, ensure_release};
use check::Verdict;
use plan::{Nemesis, SPARES};
use report::Row;
use round::Setting;

/// What `--long` runs of each kind of fault.
const LONG: usize = 10;
/// Machines: what one network of 24 bits holds.
const MAX_NODES: usize = 200;
/// Length of the run within the end-to-end tests.
const SUITE_LENGTH: Duration = Duration::from_secs(20);
const SUITE_TAGS: usize = 3;
const SUITE_WORKERS: usize = 10;

/// Kinds of faults that come in the same runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mix {
    name: String,
    kinds: Vec<Nemesis>,
}

/// Runs what was asked for. True when nothing was wrong.
pub(crate) fn run(workspace: &Workspace, args: &JepsenArgs) -> Result<bool> {
    if let Some(file) = &args.check {
        return check_file(file);
    }
    let mixes = mixes(&args.nemesis, args.long)?;
    let moves_clocks = mixes.iter().any(|mix| mix.kinds.contains(&Nemesis::Clock));
    let Some(dir) = &args.inside else {
        tools::require_root()?;
        tools::ensure_machines(moves_clocks)?;
        ensure_release(args.daemon.as_deref())?;
        return sandbox::enter(workspace, &e2e::own_arguments(), args.keep);
    };
    ensure!((3..=MAX_NODES - SPARES).contains(&args.nodes), "3 to {} nodes", MAX_NODES - SPARES);
    ensure!(
        args.tags > 0 && args.workers > 0 && args.seconds > 0,
        "some tags, workers and seconds"
    );
    sandbox::mask()?;
    let seed = args.seed.map_or_else(e2e::seed_of_clock, Ok)?;
    let kept = workspace.target_directory.join(format!("jepsen/{seed}"));
    let daemon = dir.join("ddrd");
    let built = args.daemon.clone().unwrap_or_else(|| workspace.daemon("release"));
    fs::copy(&built, &daemon).with_context(|| format!("cannot copy {}", built.display()))?;
    let faketime = if moves_clocks { Some(round::faketime()?) } else { None };
    println!("seed {seed}; histories: {}", kept.display());
    let runs = if args.long { args.runs.max(LONG) } else { args.runs };
    let mut rows = Vec::new();
    for mix in &mixes {
        let mut row = Row::new(mix.name.clone());
        for number in 0..runs {
            let seed = seed.wrapping_add(number as u64);
            let faketime = faketime.as_deref().filter(|_| mix.kinds.contains(&Nemesis::Clock));
            let setting = Setting {
                daemon: &daemon,
                faketime,
                kinds: &mix.kinds,
                nodes: args.nodes,
                tags: args.tags,
                workers: args.workers,
                length: Duration::from_secs(args.seconds),
                seed,
            };
            let place = format!("{}-{seed}", mix.name);
            let outcome = round::run(&setting, &dir.join(&place), &kept.join(&place))?;
            println!("{}", told(&mix.name, seed, &outcome));
            row.add(&outcome);
        }
        rows.push(row);
    }
    Ok(report::table(&mut rows))
}

/// One line about a run, and what was wrong with it.
fn told(name: &str, seed: u64, outcome: &round::Outcome) -> String {
    let operations = outcome.history.len();
    let verdict = if outcome.anomalies.is_empty() && outcome.undecided == 0 {
        "linearizable".to_owned()
    } else {
        format!("WRONG, {} tags undecided\n{}", outcome.undecided, outcome.anomalies.join("\n"))
    };
    format!("{name}, seed {seed}: {operations} operations, {verdict}")
}

/// The mixes that a user names: kinds with commas between them, `all`, `each`.
fn mixes(named: &[String], long: bool) -> Result<Vec<Mix>> {
    let kinds = Nemesis::value_variants();
    let single = |kind: &Nemesis| Mix { name: name_of(*kind), kinds: vec![*kind] };
    let all = Mix { name: "all".to_owned(), kinds: kinds.to_vec() };
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    match named.as_slice() {
        [] if long => Ok(kinds.iter().map(single).chain([all]).collect()),
        [] | ["all"] => Ok(vec![all]),
        ["each"] => Ok(kinds.iter().map(single).chain([all]).collect()),
        some => {
            let of = |name: &&str| match Nemesis::from_str(name, true) {
                Ok(kind) => Ok(kind),
                Err(_) => {
                    let known: Vec<String> = kinds.iter().map(|kind| name_of(*kind)).collect();
                    bail!("{name} is none of all, each, {}", known.join(", "))
                }
            };
            let kinds = some.iter().map(of).collect::<Result<Vec<Nemesis>>>()?;
            Ok(vec![Mix { name: some.join("+"), kinds }])
        }
    }
}

fn name_of(kind: Nemesis) -> String {
    kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Judges a history that was kept.
fn check_file(file: &Path) -> Result<bool> {
    let history = history::load(&fs::read_to_string(file)?)?;
    let tags = history.iter().map(|operation| operation.tag + 1).max().unwrap_or(0);
    let mut good = true;
    for tag in 0..tags {
        let (ops, places) = history::of_tag(&history, tag);
        let verdict = check::check(&ops);
        good &= verdict == Verdict::Linearizable;
        println!("{}: {} operations, {verdict:?}", client::name(tag), ops.len());
        for op in check::shrink(&ops) {
            println!("{}", history[places[op]].shown());
        }
    }
    Ok(good)
}

/// The short run of the end-to-end tests: kills, pauses and partitions at once.
pub(crate) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let kept: PathBuf = setup.target.join(format!("jepsen/{}", setup.seed));
    let setting = Setting {
        daemon: &setup.daemon,
        faketime: None,
        kinds: &[Nemesis::Kill, Nemesis::Pause, Nemesis::Partition],
        nodes: 5,
        tags: SUITE_TAGS,
        workers: SUITE_WORKERS,
        length: SUITE_LENGTH,
        seed: setup.seed,
    };
    checks.check("jepsen: tags are registers while nodes die, pause and are cut off", || {
        let outcome = round::run(&setting, &dir.join("run"), &kept)?;
        println!("{}", told("kill+pause+partition", setup.seed, &outcome));
        ensure!(
            outcome.anomalies.is_empty() && outcome.undecided == 0,
            "history: {}",
            kept.display()
        );
        Ok(())
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_alone_together_and_all() {
        let names = |names: &[&str], long| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            mixes(&names, long)
                .map(|mixes| mixes.into_iter().map(|mix| mix.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[], false).unwrap(), ["all"]);
        assert_eq!(names(&["kill", "disk-full"], false).unwrap(), ["kill+disk-full"]);
        assert_eq!(names(&["each"], false).unwrap(), names(&[], true).unwrap());
        assert_eq!(names(&["each"], false).unwrap().len(), Nemesis::value_variants().len() + 1);
        assert!(names(&["flood"], false).is_err());
    }
}
