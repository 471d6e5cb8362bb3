//! What clients asked and heard, as it is recorded, kept and judged.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::check::{Action, Op, Value};

/// What a read says that saw a digest which no client has pushed.
const NEVER_WRITTEN: u64 = u64::MAX;

/// One operation on one tag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Operation {
    /// The client; it does one operation after the other.
    pub(super) process: usize,
    /// The machine whose daemon it asked.
    pub(super) node: usize,
    pub(super) tag: usize,
    pub(super) kind: Kind,
    /// The number of the write that wrote or is to write what the tag says; none for a tag that is
    /// or is to be deleted, and for a read without a result.
    pub(super) value: Value,
    /// Nanoseconds since the start of the run, by a clock that never goes back.
    pub(super) invoke_ns: u64,
    pub(super) return_ns: u64,
    pub(super) outcome: Outcome,
    /// The status and, of an error, its text.
    pub(super) said: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Read,
    Write,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It was answered.
    Ok,
    /// It has certainly not happened.
    Fail,
    /// It may have happened, or may still.
    Info,
}

impl Operation {
    /// Milliseconds.
    pub(super) fn took_ms(&self) -> f64 {
        (self.return_ns - self.invoke_ns) as f64 / 1e6
    }

    /// What the checker is to explain, if anything.
    fn op(&self) -> Option<Op> {
        let action = match self.kind {
            Kind::Read => Action::Read,
            Kind::Write | Kind::Delete => Action::Write,
        };
        let return_ns = match (self.outcome, action) {
            (Outcome::Ok, _) => Some(self.return_ns),
            (Outcome::Info, Action::Write) => None,
            (Outcome::Info, Action::Read) | (Outcome::Fail, _) => return None,
        };
        Some(Op { action, value: self.value, invoke_ns: self.invoke_ns, return_ns })
    }

    /// One line for a person.
    pub(super) fn shown(&self) -> String {
        let value = match self.value {
            _ if self.kind == Kind::Read && self.outcome != Outcome::Ok => "?".to_owned(),
            None => "nothing".to_owned(),
            Some(NEVER_WRITTEN) => "never written".to_owned(),
            Some(number) => number.to_string(),
        };
        let (from, to) = (self.invoke_ns as f64 / 1e6, self.return_ns as f64 / 1e6);
        format!(
            "{from:10.3} to {to:10.3} ms  node {}  client {:2}  {:6} {value:8} {:4}  {}",
            self.node,
            self.process,
            format!("{:?}", self.kind).to_lowercase(),
            format!("{:?}", self.outcome).to_lowercase(),
            self.said
        )
    }
}

/// What the clients of one run share: the clock, the numbers of the writes, the history.
#[derive(Debug)]
pub(super) struct Recorder {
    start: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    history: Vec<Operation>,
    /// Digest of a manifest to the number of its write.
    written: HashMap<String, u64>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), state: Mutex::default() }
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Says which digest the next write has; answers its number.
    pub(super) fn writes(&self, manifest: impl Fn(u64) -> (Vec<u8>, String)) -> (u64, Vec<u8>) {
        let mut state = self.locked();
        let number = state.written.len() as u64 + 1;
        let (bytes, digest) = manifest(number);
        state.written.insert(digest, number);
        (number, bytes)
    }

    /// Which write a digest is of.
    pub(super) fn number_of(&self, digest: &str) -> u64 {
        self.locked().written.get(digest).copied().unwrap_or(NEVER_WRITTEN)
    }

    pub(super) fn record(&self, operation: Operation) {
        self.locked().history.push(operation);
    }

    /// Everything until now, in the order of their beginnings.
    pub(super) fn history(&self) -> Vec<Operation> {
        let mut history = self.locked().history.clone();
        history.sort_by_key(|operation| operation.invoke_ns);
        history
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the checker is to explain of one tag, and where each stands in the history.
pub(super) fn of_tag(history: &[Operation], tag: usize) -> (Vec<Op>, Vec<usize>) {
    let of_tag = history.iter().enumerate().filter(|(_, operation)| operation.tag == tag);
    of_tag.filter_map(|(index, operation)| Some((operation.op()?, index))).unzip()
}

/// Writes one JSON object for each operation, one a line.
pub(super) fn keep(history: &[Operation], file: &Path) -> Result<()> {
    let mut out =
        BufWriter::new(File::create(file).with_context(|| format!("{}", file.display()))?);
    for operation in history {
        serde_json::to_writer(&mut out, operation)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Reads what [`keep`] wrote.
pub(super) fn load(text: &str) -> Result<Vec<Operation>> {
    text.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(kind: Kind, outcome: Outcome) -> Operation {
        let said = "201".to_owned();
        let (invoke_ns, return_ns) = (1_000_000, 3_500_000);
        Operation {
            process: 1,
            node: 2,
            tag: 0,
            kind,
            value: Some(4),
            invoke_ns,
            return_ns,
            outcome,
            said,
        }
    }

    #[test]
    fn what_has_not_happened_is_not_judged() {
        let ends = |kind, outcome| operation(kind, outcome).op().map(|op| op.return_ns);
        assert_eq!(ends(Kind::Write, Outcome::Ok), Some(Some(3_500_000)));
        assert_eq!(ends(Kind::Delete, Outcome::Info), Some(None));
        assert_eq!(ends(Kind::Write, Outcome::Fail), None);
        assert_eq!(ends(Kind::Read, Outcome::Info), None);
    }

    #[test]
    fn a_kept_history_is_the_same() {
        let dir = std::env::temp_dir().join(format!("ddr-jepsen-{}", std::process::id()));
        let history =
            vec![operation(Kind::Read, Outcome::Ok), operation(Kind::Delete, Outcome::Info)];
        keep(&history, &dir).unwrap();
        let text = std::fs::read_to_string(&dir).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(load(&text).unwrap(), history);
    }

    #[test]
    fn a_digest_that_nobody_pushed_is_no_write() {
        let recorder = Recorder::new();
        let (number, bytes) = recorder.writes(|number| (vec![7], format!("sha256:{number}")));
        assert_eq!((number, bytes), (1, vec![7]));
        assert_eq!(recorder.number_of("sha256:1"), 1);
        assert_eq!(recorder.number_of("sha256:2"), NEVER_WRITTEN);
    }
}
