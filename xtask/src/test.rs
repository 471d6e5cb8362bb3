//! `cargo xtask test`: everything that must hold before a change is accepted, in one command.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::checks::{Checks, FAILURE, parse_summary, parse_test_result};
use crate::run;
use crate::tidy;
use crate::tools::{self, GoTool};
use crate::workspace::{Workspace, cargo};

/// Where the advisories of the Rust ecosystem are kept.
const ADVISORIES: &str = "https://github.com/rustsec/advisory-db";

/// A reachable server answers `git ls-remote` sooner. Seconds.
const REACHABLE_S: &str = "20";

/// A part that counts its own checks.
type Part = fn(&mut Checks) -> Result<()>;

/// What needs a build.
const PARTS: [(&str, Part); 2] = [("unit tests", unit_tests), ("end-to-end tests", end_to_end)];

/// Runs every step, also after a failure, so that one run shows all that is wrong.
pub(crate) fn run(workspace: &Workspace) -> Result<bool> {
    let start = Instant::now();
    let mut checks = Checks::default();
    step("tools");
    checks.check("tools", || {
        tools::require_root()?;
        tools::ensure_clients()?;
        tools::ensure_cargo_deny(workspace)?;
        tools::ensure_go_tools(&workspace.target_directory, GoTool::ALL)
    });
    step("format");
    checks.check("format", || run::visible(cargo().args(["fmt", "--all", "--check"])));
    step("lints");
    checks.check("lints", || {
        let mut clippy = cargo();
        clippy.args(["clippy", "--workspace", "--all-targets", "--locked", "--quiet"]);
        run::visible(clippy.args(["--", "-D", "warnings"]))
    });
    step("tidy");
    checks.check("tidy", || {
        ensure!(tidy::run(workspace)?, "tidy found problems, see above");
        Ok(())
    });
    dependencies(&mut checks);
    step("build");
    let built = checks.check("build", || {
        run::visible(cargo().args(["build", "--workspace", "--all-targets", "--locked"]))
    });
    if built {
        for (name, run) in PARTS {
            step(name);
            if let Err(error) = run(&mut checks) {
                println!("FAILED  {name}\n{error:#}");
                checks.failed(name);
            }
        }
    } else {
        println!("unit tests and end-to-end tests did not run: nothing was built");
        PARTS.iter().for_each(|(name, _)| checks.failed(name));
    }
    println!("whole run: {:.0} s", start.elapsed().as_secs_f64());
    Ok(checks.finish())
}

fn step(name: &str) {
    println!("== {name}");
}

/// Licences, sources, duplicate versions; advisories when their database can be reached.
fn dependencies(checks: &mut Checks) {
    step("dependencies");
    checks.check("dependencies", || {
        let deny = ["deny", "--all-features", "--locked", "check", "bans", "licenses", "sources"];
        run::visible(cargo().args(deny))
    });
    let mut probe = Command::new("timeout");
    probe.args([REACHABLE_S, "git", "ls-remote", ADVISORIES, "HEAD"]);
    match run::output(probe.env("GIT_TERMINAL_PROMPT", "0")) {
        Ok(_) => {
            checks.check("advisories", || {
                run::visible(cargo().args(["deny", "--all-features", "check", "advisories"]))
            });
        }
        Err(error) => {
            println!("{error:#}");
            println!("*** ADVISORIES WERE NOT CHECKED: {ADVISORIES} cannot be reached ***");
        }
    }
}

/// The Rust test runner, counted by the lines it prints.
fn unit_tests(checks: &mut Checks) -> Result<()> {
    let mut counts = (0, 0);
    let mut failures = Vec::new();
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    let good = run::each_line(&mut tests, |line| {
        if let Some((passed, failed)) = parse_test_result(line) {
            counts = (counts.0 + passed, counts.1 + failed);
        }
        failures.extend(line.strip_suffix(" ... FAILED").map(str::to_owned));
    })?;
    checks.add(counts.0, counts.1, failures);
    if !good && counts.1 == 0 {
        checks.failed("unit tests: a test program did not end well");
    }
    if good && counts.0 == 0 {
        checks.failed("unit tests: none ran");
    }
    Ok(())
}

/// This program again, counted by its last line.
fn end_to_end(checks: &mut Checks) -> Result<()> {
    let mut counts = None;
    let mut failures = Vec::new();
    // Not by its path: the build may have put a new program there.
    let mut e2e = Command::new("/proc/self/exe");
    let good = run::each_line(e2e.arg("e2e"), |line| {
        counts = parse_summary(line).or(counts);
        failures.extend(line.strip_prefix(FAILURE).map(str::to_owned));
    })?;
    match counts {
        Some((passed, failed)) => checks.add(passed, failed, failures),
        None => checks.failed("end-to-end tests: they did not come to their end"),
    }
    if !good && counts.is_none_or(|(_, failed)| failed == 0) {
        checks.failed("end-to-end tests: they ended with an error");
    }
    Ok(())
}
