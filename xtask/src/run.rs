//! Running other programs: each with a deadline, each failure with what the program said.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A client program that takes longer than this hangs. Seconds.
const CLIENT_DEADLINE_S: u32 = 300;

/// Between two looks at a condition that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// How much of a failed program's output goes into the error. Bytes.
const MAX_QUOTED: usize = 3000;

/// A command that is killed when it has not ended after [`CLIENT_DEADLINE_S`].
pub(crate) fn client(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.arg("--kill-after=5").arg(CLIENT_DEADLINE_S.to_string()).arg(program.as_ref());
    command
}

/// Runs to the end in silence; standard output on success, everything said on failure.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    Ok(both_outputs(command)?.0)
}

/// As [`output`]; standard output and standard error.
pub(crate) fn both_outputs(command: &mut Command) -> Result<(String, String)> {
    both_outputs_of(command, Stdio::null())
}

/// As [`both_outputs`], with a standard input.
pub(crate) fn both_outputs_of(command: &mut Command, input: Stdio) -> Result<(String, String)> {
    let out = command
        .stdin(input)
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    if !out.status.success() {
        let said = format!("{stdout}{stderr}");
        bail!("{} ended with {}:\n{}", shown(command), out.status, tail(said.trim(), MAX_QUOTED));
    }
    Ok((stdout, stderr))
}

/// Runs to the end with the terminal as output.
pub(crate) fn visible(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs to the end; each line of standard output is shown at once and handed to `line`.
/// False when the program failed.
pub(crate) fn each_line(command: &mut Command, mut line: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let stdout = child.stdout.take().context("the child has no standard output")?;
    for read in BufReader::new(stdout).lines() {
        let read = read?;
        println!("{read}");
        std::io::stdout().flush()?;
        line(&read);
    }
    Ok(child.wait()?.success())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// The last `max` bytes of a text, cut at a line.
pub(crate) fn tail(text: &str, max: usize) -> &str {
    let Some(mut start) = text.len().checked_sub(max).filter(|s| *s > 0) else { return text };
    while !text.is_char_boundary(start) {
        start += 1;
    }
    match text[start..].find('\n') {
        Some(end_of_line) => &text[start + end_of_line + 1..],
        None => &text[start..],
    }
}

/// Looks until `ready` gives a value, at most `limit`; an error of `ready` ends it at once.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_what_the_program_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let error = output(&mut command).unwrap_err().to_string();
        assert!(error.contains("out") && error.contains("err") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_tail_starts_at_a_line() {
        assert_eq!(tail("one\ntwo\nthree", 8), "three");
        assert_eq!(tail("short", 80), "short");
    }

    #[test]
    fn lines_arrive_one_by_one() {
        let mut seen = Vec::new();
        let mut command = Command::new("printf");
        command.arg("a\\nb\\n");
        assert!(each_line(&mut command, |l| seen.push(l.to_owned())).unwrap());
        assert_eq!(seen, ["a", "b"]);
    }
}
