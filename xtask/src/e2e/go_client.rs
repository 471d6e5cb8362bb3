//! What the clients written in Go share: a home of their own, and no way out of this machine.
//!
//! Go programs send everything that does not go to loopback to the proxy of the environment. Here
//! that is a listener that answers nobody and remembers who came.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::Setup;
use crate::run;
use crate::tools::GoTool;

/// The first line of a request that should not have been sent. Bytes.
const MAX_LINE: u64 = 1 << 10;

/// How long a caller may take to say what it wants.
const LINE_LIMIT: Duration = Duration::from_secs(5);

/// More calls are not remembered: one is a failure already.
const MAX_CALLS: usize = 100;

/// One of the client programs.
#[derive(Debug)]
pub(super) struct GoClient {
    program: PathBuf,
    home: PathBuf,
    environment: Vec<(&'static str, String)>,
    outside: Outside,
}

impl GoClient {
    /// The program keeps everything below `dir`.
    pub(super) fn new(setup: &Setup, tool: GoTool, dir: &Path) -> Result<Self> {
        let home = dir.join("home");
        fs::create_dir_all(&home)?;
        Ok(Self {
            program: tool.program(&setup.target),
            home,
            environment: Vec::new(),
            outside: Outside::start()?,
        })
    }

    /// The same client with one more variable in its environment.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// The program with nothing of the user's environment or configuration.
    pub(super) fn command(&self) -> Command {
        let mut command = run::client(&self.program);
        command.env_clear().current_dir(&self.home).env("HOME", &self.home);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.env("TMPDIR", &self.home).env("DOCKER_CONFIG", self.home.join("docker"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY"] {
            command.env(name, format!("http://{}", self.outside.address));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it; what it printed.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        run::output(self.command().args(args))
    }

    /// Runs it; what it printed and what it reported.
    pub(super) fn run_loud(&self, args: &[&str]) -> Result<(String, String)> {
        run::both_outputs(self.command().args(args))
    }

    /// Runs it; it must fail and say why.
    pub(super) fn refused(&self, args: &[&str], why: &str) -> Result<()> {
        match self.run(args) {
            Ok(said) => bail!("{} should have failed, it said {said}", args.join(" ")),
            Err(error) => {
                let said = format!("{error:#}");
                ensure!(said.contains(why), "it failed, but not with {why:?}: {said}");
                Ok(())
            }
        }
    }

    /// Fails when the program has called anything that is not on this machine.
    pub(super) fn stayed_at_home(&self) -> Result<()> {
        let calls = self.outside.calls.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(calls.is_empty(), "calls to the outside: {calls:?}");
        Ok(())
    }

    /// Where relative names of files begin.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }
}

/// Lines, sorted, as a set of names.
pub(super) fn lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    lines.sort_unstable();
    lines
}

/// A proxy that leads nowhere. It ends with the process.
#[derive(Debug)]
struct Outside {
    address: String,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Outside {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        thread::spawn(move || {
            for caller in listener.incoming().flatten() {
                let call = first_line(&caller);
                let mut calls = seen.lock().unwrap_or_else(PoisonError::into_inner);
                if calls.len() < MAX_CALLS {
                    calls.push(call);
                }
            }
        });
        Ok(Self { address, calls })
    }
}

/// What a caller asks for, as far as it says so.
fn first_line(caller: &TcpStream) -> String {
    let mut line = String::new();
    let limited = caller.set_read_timeout(Some(LINE_LIMIT));
    match limited.and_then(|()| BufReader::new(caller.take(MAX_LINE)).read_line(&mut line)) {
        Ok(_) => line.trim_end().to_owned(),
        Err(error) => format!("a call that cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_to_the_outside_is_remembered() {
        let outside = Outside::start().unwrap();
        let proxy = format!("http://{}", outside.address);
        let mut curl = run::client("/usr/bin/curl");
        curl.args(["--silent", "--noproxy", "", "--proxy", &proxy, "http://a.example/x"]);
        run::output(&mut curl).unwrap_err();
        let calls = run::wait_for("the call", Duration::from_secs(10), || {
            let calls = outside.calls.lock().unwrap().clone();
            Ok((!calls.is_empty()).then_some(calls))
        });
        assert_eq!(calls.unwrap(), ["GET http://a.example/x HTTP/1.1"]);
    }

    #[test]
    fn names_are_sorted() {
        assert_eq!(lines("b\n\n a \n"), ["a", "b"]);
    }
}
