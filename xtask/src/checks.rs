//! Counting what passed and what did not, in one form for every task.

use std::time::Instant;

use anyhow::Result;

/// Stands before the name of what failed, at the end of a run.
pub(crate) const FAILURE: &str = "failed: ";

/// Counts of passed and failed checks, and what failed.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    passed: u64,
    failed: u64,
    failures: Vec<String>,
}

impl Checks {
    /// Runs one check, prints its name, its time and, if it fails, why.
    pub(crate) fn check(&mut self, name: &str, run: impl FnOnce() -> Result<()>) -> bool {
        let start = Instant::now();
        let result = run();
        let seconds = start.elapsed().as_secs_f64();
        match &result {
            Ok(()) => {
                self.passed += 1;
                println!("ok      {name} ({seconds:.1} s)");
            }
            Err(error) => {
                println!("FAILED  {name} ({seconds:.1} s)\n{error:#}");
                self.failed(name);
            }
        }
        result.is_ok()
    }

    /// Counts a failure whose reason has been printed.
    pub(crate) fn failed(&mut self, name: &str) {
        self.failed += 1;
        self.failures.push(name.to_owned());
    }

    /// Adds the counts of a part that counted for itself, and what it said of its failures.
    pub(crate) fn add(&mut self, passed: u64, failed: u64, failures: Vec<String>) {
        self.passed += passed;
        self.failed += failed;
        self.failures.extend(failures);
    }

    /// True while nothing has failed.
    pub(crate) fn clean(&self) -> bool {
        self.failed == 0
    }

    /// Prints what failed and, as the last line, `N passed, N failed`.
    pub(crate) fn finish(&self) -> bool {
        for name in &self.failures {
            println!("{FAILURE}{name}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        self.clean()
    }
}

/// Reads `N passed, N failed`, the last line of a run.
pub(crate) fn parse_summary(line: &str) -> Option<(u64, u64)> {
    let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.parse().ok()?))
}

/// Reads `test result: ok. 3 passed; 0 failed; …`, a line of the Rust test runner.
pub(crate) fn parse_test_result(line: &str) -> Option<(u64, u64)> {
    let rest = line.trim_start().strip_prefix("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let mut parts = counts.split("; ");
    let passed = parts.next()?.strip_suffix(" passed")?.parse().ok()?;
    let failed = parts.next()?.strip_suffix(" failed")?.parse().ok()?;
    Some((passed, failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read() {
        assert_eq!(parse_summary("12 passed, 1 failed"), Some((12, 1)));
        assert_eq!(parse_summary("12 passed"), None);
        let line = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured";
        assert_eq!(parse_test_result(line), Some((3, 2)));
        assert_eq!(parse_test_result("test a ... ok"), None);
    }

    #[test]
    fn a_failed_check_is_counted_and_named() {
        let mut checks = Checks::default();
        assert!(checks.check("good", || Ok(())));
        assert!(!checks.check("bad", || anyhow::bail!("reason")));
        assert_eq!((checks.passed, checks.failed), (1, 1));
        assert_eq!(checks.failures, ["bad"]);
        assert!(!checks.finish());
    }
}
