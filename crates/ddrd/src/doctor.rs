//! `ddr doctor`: from facts about a node to findings, and what to do about each.
//!
//! Decides what is good, doubtful or wrong, in words. Pure: facts come in as values, from the admin API and
//! from what the command saw itself. It must never say that something is well that nobody looked at: that is
//! [`State::Skip`].

pub mod facts;
pub mod local;
pub mod ports;
pub mod swarm;
pub mod trip;

use serde::Serialize;

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Well.
    Ok,
    /// It works, and something will go wrong or is not as it should be.
    Warn,
    /// It does not work.
    Fail,
    /// Nobody looked: there is nothing to look at, or it cannot be seen from here.
    Skip,
}

/// What one check found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// The check, as scripts know it.
    pub check: &'static str,
    /// How it ended.
    pub state: State,
    /// What was found, with figures.
    pub found: String,
    /// What to do. Always there for what is not well.
    pub advice: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), advice: None }
    }

    pub(crate) fn skip(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Skip, found: found.into(), advice: None }
    }

    pub(crate) fn warn(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (found, advice) = (found.into(), Some(advice.into()));
        Self { check, state: State::Warn, found, advice }
    }

    pub(crate) fn fail(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { state: State::Fail, ..Self::warn(check, found, advice) }
    }

    /// The same with something that may be done about it.
    pub(crate) fn hint(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// The line that a person sees, and below it what to do.
    #[must_use]
    pub fn line(&self) -> String {
        let state = match self.state {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "FAIL",
            State::Skip => "skip",
        };
        let line = format!("{state:<4}  {:<16}  {}\n", self.check, one_line(&self.found));
        match &self.advice {
            Some(advice) => format!("{line}      {:<16}  -> {}\n", "", one_line(advice)),
            None => line,
        }
    }
}

/// How many checks ended how.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Summary {
    /// Well.
    pub ok: usize,
    /// Doubtful.
    pub warn: usize,
    /// Wrong.
    pub fail: usize,
    /// Not looked at.
    pub skip: usize,
}

impl Summary {
    /// Counts.
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        let count = |state| findings.iter().filter(|finding| finding.state == state).count();
        Self {
            ok: count(State::Ok),
            warn: count(State::Warn),
            fail: count(State::Fail),
            skip: count(State::Skip),
        }
    }

    /// The last line.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { ok, warn, fail, skip } = self;
        format!("{ok} ok, {warn} warn, {fail} FAIL, {skip} skip\n")
    }
}

/// What a library says may have several lines.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A number of milliseconds, as a person says it.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min", ms / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_what_to_do_another() {
        assert_eq!(Finding::ok("disk", "room").line(), "ok    disk              room\n");
        let both = Finding::fail("disk", "full\n now", "buy\none").line();
        let want = "FAIL  disk              full now\n                        -> buy one\n";
        assert_eq!(both, want);
    }

    #[test]
    fn findings_are_counted() {
        let findings = [
            Finding::ok("a", ""),
            Finding::warn("b", "", ""),
            Finding::fail("c", "", ""),
            Finding::skip("d", ""),
            Finding::skip("e", ""),
        ];
        assert_eq!(Summary::of(&findings).line(), "1 ok, 1 warn, 1 FAIL, 2 skip\n");
    }

    #[test]
    fn spans_are_short() {
        assert_eq!([3, 1_250, 60_000, 150_000].map(span), ["3 ms", "1.2 s", "60.0 s", "2 min"]);
    }
}
