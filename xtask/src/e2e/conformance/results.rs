//! Reading what the conformance program reports.
//!
//! It counts single tests at the end of its output only; `results.yaml` holds the configuration
//! that was used and one verdict per API and per kind of data. Both are looked at: a count of zero
//! failures says nothing when the configuration switched the tests off.

use std::collections::BTreeMap;
use std::fmt;

/// Stands above the counts in the program's output.
const HEADING: &str = "OCI Conformance Result:";

/// How the program writes a verdict that nobody has to look at.
const GOOD: &str = "Pass";

/// Parts of `results.yaml` in which every leaf is a verdict.
const VERDICTS: &[&str] = &["apis", "data"];

/// How many tests ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) pass: u64,
    pub(super) fail: u64,
    pub(super) skip: u64,
    pub(super) error: u64,
    pub(super) disabled: u64,
}

/// How much of a reason is shown. Characters.
const MAX_REASON: usize = 300;

/// A longer run of hexadecimal digits is (part of) a digest.
const MIN_DIGEST: usize = 32;

impl Counts {
    /// Reads the lines `  Pass..........:  1017` below the heading. `None` unless all five are
    /// there and their sum is the total that the program gives.
    pub(super) fn parse(output: &str) -> Option<Self> {
        let (_, block) = output.rsplit_once(HEADING)?;
        let value = |name: &str| {
            let line = block.lines().map(str::trim).find(|l| name_of(l) == Some(name))?;
            line.rsplit(':').next()?.trim().parse::<u64>().ok()
        };
        let counts = Self {
            pass: value("Pass")?,
            fail: value("FAIL")?,
            skip: value("Skip")?,
            error: value("Error")?,
            disabled: value("Disabled")?,
        };
        (counts.total() == value("Total")?).then_some(counts)
    }

    fn total(self) -> u64 {
        self.pass + self.fail + self.skip + self.error + self.disabled
    }

    /// What keeps these counts from being a success.
    pub(super) fn problems(self, min_passed: u64) -> Vec<String> {
        let bad = [
            ("failed", self.fail),
            ("were skipped", self.skip),
            ("ended with an error", self.error),
            ("were disabled", self.disabled),
        ];
        let mut problems: Vec<String> = bad
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{count} tests {what}"))
            .collect();
        if self.pass < min_passed {
            problems.push(format!("only {} tests passed, at least {min_passed} must", self.pass));
        }
        problems
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pass, fail, skip, error, disabled } = self;
        write!(f, "{pass} pass, {fail} fail, {skip} skip, {error} error, {disabled} disabled")
    }
}

/// What stands before the dots of a line like `Pass....:  1`.
fn name_of(line: &str) -> Option<&str> {
    line.split_once("..").map(|(name, _)| name)
}

/// What went wrong, the most frequent first: how often, where for the first time, and why.
///
/// The program prints its tests as a tree, and below each leaf that did not pass the reasons as
/// `- reason`. Tests of one kind fail in the same way for many kinds of content.
pub(super) fn faults(output: &str) -> Vec<String> {
    let mut kinds: BTreeMap<(&str, &str, String), (u64, &str)> = BTreeMap::new();
    let mut leaf: Option<(&str, &str)> = None;
    for line in output.lines().map(str::trim) {
        if let Some(reason) = line.strip_prefix("- ") {
            if let Some((name, verdict)) = leaf.take() {
                let kind = name.rsplit('/').next().unwrap_or(name);
                let key = (kind, verdict, without_digests(reason));
                kinds.entry(key).or_insert((0, name)).0 += 1;
            }
        } else if let Some(found) = line.rsplit_once(": ") {
            leaf = Some(found).filter(|(_, verdict)| *verdict != GOOD);
        }
    }
    let mut faults: Vec<_> = kinds.into_iter().collect();
    faults.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    let shown = |((_, verdict, reason), (count, name)): ((_, _, String), _)| {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        format!("{count} x {verdict}: {reason} (first in {name})")
    };
    faults.into_iter().map(shown).collect()
}

/// The same text for every digest in it.
fn without_digests(text: &str) -> String {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.find(|c| !is_hex(c)).unwrap_or(rest.len());
        let after = rest[run..].find(is_hex).map_or(rest.len(), |next| run + next);
        out.push_str(if run > MIN_DIGEST { "…" } else { &rest[..run] });
        out.push_str(&rest[run..after]);
        rest = &rest[after..];
    }
    out
}

/// `results.yaml`, flattened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// Path of each leaf, `config.apis.blobs.delete`, and its value.
    leaves: Vec<(String, String)>,
}

impl Verdicts {
    /// Reads block mappings of plain scalars, which is all that the program writes.
    pub(super) fn parse(yaml: &str) -> Self {
        let mut above: Vec<(usize, &str)> = Vec::new();
        let mut leaves = Vec::new();
        for line in yaml.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let indent = key.len() - key.trim_start().len();
            above.retain(|(outer, _)| *outer < indent);
            above.push((indent, key.trim()));
            if !value.trim().is_empty() {
                let path: Vec<&str> = above.iter().map(|(_, key)| *key).collect();
                leaves.push((path.join("."), value.trim().to_owned()));
            }
        }
        Self { leaves }
    }

    /// What keeps the report from being a success: a switch that is off or missing, a verdict that
    /// is not good, no verdict at all.
    pub(super) fn problems(&self, switches: usize) -> Vec<String> {
        let mut problems = Vec::new();
        let mut on = 0;
        for (path, value) in self.below("config.apis.").chain(self.below("config.data.")) {
            match value {
                "true" => on += 1,
                _ => problems.push(format!("{path} is {value}: everything must be switched on")),
            }
        }
        if on != switches {
            problems.push(format!("{on} switches are on, {switches} were set"));
        }
        for part in VERDICTS {
            let mut verdicts = self.below(&format!("{part}.")).peekable();
            if verdicts.peek().is_none() {
                problems.push(format!("results.yaml has no verdicts about {part}"));
            }
            let bad = verdicts.filter(|(_, verdict)| *verdict != GOOD);
            problems.extend(bad.map(|(path, verdict)| format!("{path}: {verdict}")));
        }
        problems
    }

    fn below<'a>(&'a self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let prefix = prefix.to_owned();
        let leaves = self.leaves.iter().map(|(path, value)| (path.as_str(), value.as_str()));
        leaves.filter(move |(path, _)| path.starts_with(&prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD_END: &str = "Test results\nOCI Conformance Test: Pass\n\nOCI Conformance Result: Pass\n  \
        Disabled......................:          0\n  Skip..........................:          0\n  \
        Pass..........................:       1026\n  FAIL..........................:          0\n  \
        Error.........................:          0\n  Total.........................:       1026\n\n\
        API conformance:\n  Tag listing...................:       Pass\n";

    const GOOD_YAML: &str = "config:\n  registry: 127.0.0.1:1\n  apis:\n    ping: true\n    blobs:\n      \
        atomic: true\n  data:\n    sparse: true\n  version: dev\napis:\n  Blob get: Pass\n  Ping: Pass\n\
        data:\n  Image: Pass\n";

    #[test]
    fn a_good_report_has_no_problems() {
        let counts = Counts::parse(GOOD_END).unwrap();
        assert_eq!(counts.pass, 1026);
        assert_eq!(counts.problems(950), Vec::<String>::new());
        assert_eq!(Verdicts::parse(GOOD_YAML).problems(3), Vec::<String>::new());
        assert_eq!(counts.to_string(), "1026 pass, 0 fail, 0 skip, 0 error, 0 disabled");
    }

    #[test]
    fn every_other_ending_than_a_pass_is_a_problem() {
        let bad = [
            ("Skip", "were skipped"),
            ("FAIL", "failed"),
            ("Error", "error"),
            ("Disabled", "disabled"),
        ];
        for (word, says) in bad {
            let line =
                GOOD_END.lines().find(|l| l.trim().starts_with(&format!("{word}.."))).unwrap();
            let end =
                GOOD_END.replace(line, &line.replace('0', "2")).replace("1026\n\n", "1028\n\n");
            let problems = Counts::parse(&end).unwrap().problems(950);
            assert!(problems.len() == 1 && problems[0].contains(says), "{word}: {problems:?}");
        }
        let few = Counts { pass: 949, ..Counts::default() };
        assert!(few.problems(950)[0].contains("only 949"));
    }

    /// The end of the output and parts of `results.yaml` of a run that found seven faults.
    #[test]
    fn a_failing_run_is_one() {
        let end = "OCI Conformance Test: FAIL\n\nOCI Conformance Result: FAIL\n  \
            Disabled......................:          0\n  Skip..........................:          2\n  \
            Pass..........................:       1017\n  FAIL..........................:          7\n  \
            Error.........................:          0\n  Total.........................:       1026\n\n\
            API conformance:\n  Tag listing...................:       FAIL\n  \
            Blob anonymous mount..........:       Skip\n";
        let problems = Counts::parse(end).unwrap().problems(950);
        assert_eq!(problems, ["7 tests failed", "2 tests were skipped"]);
        let yaml = "config:\n  apis:\n    blobs:\n      mountAnonymous: true\n  data:\n    \
            sparse: true\n  roData:\n    tags: []\napis:\n  Blob anonymous mount: Skip\n  \
            Tag listing: FAIL\ndata:\n  Image: Pass\n  Sparse Manifests: FAIL\n";
        assert_eq!(
            Verdicts::parse(yaml).problems(2),
            [
                "apis.Blob anonymous mount: Skip",
                "apis.Tag listing: FAIL",
                "data.Sparse Manifests: FAIL"
            ]
        );
    }

    #[test]
    fn counts_that_are_not_all_there_are_none() {
        assert_eq!(Counts::parse("failed to load config: unsupported config version 2"), None);
        assert_eq!(Counts::parse(&GOOD_END.replace("Skip..", "Other..")), None);
        assert_eq!(
            Counts::parse(&GOOD_END.replace("Total.........................:       1026", "")),
            None
        );
        assert_eq!(Counts::parse(&GOOD_END.replace("1026\n\n", "1027\n\n")), None);
    }

    #[test]
    fn a_verdict_that_is_no_pass_is_named() {
        for word in ["FAIL", "Skip", "Error", "Disabled"] {
            let yaml = GOOD_YAML.replace("Blob get: Pass", &format!("Blob get: {word}"));
            assert_eq!(Verdicts::parse(&yaml).problems(3), [format!("apis.Blob get: {word}")]);
        }
    }

    #[test]
    fn a_switch_that_is_off_or_missing_is_a_problem() {
        let off = GOOD_YAML.replace("sparse: true", "sparse: false");
        let problems = Verdicts::parse(&off).problems(3);
        assert!(problems[0].starts_with("config.data.sparse is false"), "{problems:?}");
        let missing = GOOD_YAML.replace("      atomic: true\n", "");
        assert_eq!(Verdicts::parse(&missing).problems(3), ["2 switches are on, 3 were set"]);
    }

    #[test]
    fn an_empty_report_is_a_problem() {
        let problems = Verdicts::parse("").problems(31);
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn faults_are_counted_by_kind() {
        let hex = "0a".repeat(32);
        let output = format!(
            "T: FAIL\n  T/a: FAIL\n    T/a/delete: FAIL\n     - got sha256:{hex} back\nmore: x\n  \
             T/b: FAIL\n    T/b/delete: FAIL\n     - got sha256:{} back\n  T/ok: Pass\n  \
             T/mount: Skip\n   - fell back\n",
            hex.replace('a', "b")
        );
        assert_eq!(
            faults(&output),
            [
                "2 x FAIL: got sha256:… back (first in T/a/delete)",
                "1 x Skip: fell back (first in T/mount)"
            ]
        );
    }
}
