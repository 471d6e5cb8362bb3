//! A `ddrd` process for a test.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The longest that a test waits for anything; the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of a log that a failed test shows.
const SHOWN_LINES: usize = 40;

/// A running daemon; dropping it kills the process.
pub(crate) struct Daemon {
    pub(crate) registry: SocketAddr,
    pub(crate) peers: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// The fourth line on standard output.
    pub(crate) join_line: String,
    pub(crate) data: PathBuf,
    pub(crate) child: Child,
    log: PathBuf,
    _stdout: BufReader<ChildStdout>,
}

/// `ddrd` without any setting of the person who runs the tests.
pub(crate) fn command() -> Command {
    clean(env!("CARGO_BIN_EXE_ddrd"))
}

/// A program without any `DDR_*` variable.
pub(crate) fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("DDR_") {
            command.env_remove(key);
        }
    }
    command
}

/// `ddrd` on free loopback ports with its data in `data`.
pub(crate) fn local(data: &Path) -> Command {
    local_at(data, "127.0.0.1:0")
}

/// As [`local`], with its peer port at `peers`.
pub(crate) fn local_at(data: &Path, peers: &str) -> Command {
    let mut command = command();
    command.args(["--registry-listen", "127.0.0.1:0", "--peer-listen", peers]);
    command.args(["--admin-listen", "127.0.0.1:0", "--data-dir"]).arg(data);
    // Unless a test says otherwise, content stays where it was pushed and pulled.
    command.env("DDR_COPIES", "1").env("DDR_DURABILITY", "local");
    command
}

impl Daemon {
    /// Starts a node in `data` with more arguments.
    pub(crate) fn start(data: &Path, args: &[&str]) -> Self {
        let mut command = local(data);
        command.args(args);
        Self::spawn(command, data)
    }

    /// Starts a node that was killed again, with the peer port that it had.
    pub(crate) fn again(data: &Path, peers: SocketAddr) -> Self {
        Self::spawn(local_at(data, &peers.to_string()), data)
    }

    /// Starts a node in `data` that joins the swarm of `self`.
    pub(crate) fn joined(&self, data: &Path) -> Self {
        Self::start(data, &["--join", &format!("@{}", self.token_file().display())])
    }

    /// Starts `command`, which serves `data`, and waits for the four lines.
    pub(crate) fn spawn(mut command: Command, data: &Path) -> Self {
        let log = data.with_extension("log");
        let stderr = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut guard = Guard(Some(command.spawn().unwrap()));
        let stdout = guard.0.as_mut().and_then(|child| child.stdout.take()).unwrap();
        let (lines, reader) = first_lines(stdout, &log);
        let address = |line: usize, prefix: &str| -> SocketAddr {
            let text = lines[line].strip_prefix(prefix);
            text.unwrap_or_else(|| panic!("{prefix} in {lines:?}")).parse().unwrap()
        };
        Self {
            registry: address(0, "registry http://"),
            peers: address(1, "peers "),
            admin: address(2, "admin http://"),
            join_line: lines[3].clone(),
            data: data.to_owned(),
            child: guard.0.take().unwrap(),
            log,
            _stdout: reader,
        }
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.data.join("join-token")
    }

    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.token_file()).unwrap().trim().to_owned()
    }

    /// Everything on standard error so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL, and waits until the process is gone.
    pub(crate) fn kill(mut self) -> PathBuf {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.data.clone()
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait(&mut self.child)
    }

    /// The JSON of `/api/v1/status`.
    pub(crate) fn status(&self) -> serde_json::Value {
        crate::http::get(self.admin, "/api/v1/status").json()
    }

    /// Memory of the process as its metrics tell it.
    pub(crate) fn resident_bytes(&self) -> f64 {
        let metrics = crate::http::get(self.admin, "/metrics").text();
        let line = metrics.lines().find(|line| line.starts_with("process_resident_memory_bytes "));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(SHOWN_LINES);
            eprintln!("--- end of the log of {}", self.data.display());
            log.lines().skip(from).for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Kills a child that nobody has taken over.
pub(crate) struct Guard(pub(crate) Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn first_lines(stdout: ChildStdout, log: &Path) -> (Vec<String>, BufReader<ChildStdout>) {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let lines: Vec<String> = reader.by_ref().lines().take(4).map_while(Result::ok).collect();
        let _ = sender.send((lines, reader));
    });
    let (lines, reader) = receiver.recv_timeout(PATIENCE).expect("ddrd prints where it serves");
    assert_eq!(lines.len(), 4, "{lines:?}\n{}", std::fs::read_to_string(log).unwrap());
    (lines, reader)
}

/// Waits for a process to end.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Runs a command that is expected to end by itself.
pub(crate) fn finish(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut guard = Guard(Some(command.spawn().unwrap()));
    wait(guard.0.as_mut().unwrap());
    guard.0.take().unwrap().wait_with_output().unwrap()
}

/// Runs a command that is expected to fail with `status` and one line that begins with `ddrd: `
/// and contains `words`.
pub(crate) fn refused(command: Command, status: i32, words: &str) {
    let output = finish(command);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(output.stdout.is_empty(), "nothing serves, so nothing is printed");
    assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
    assert!(stderr.starts_with("ddrd: ") && stderr.contains(words), "{words:?} in {stderr}");
}

/// Asks again until `done`, less and less often, at most [`PATIENCE`].
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(5);
    while !done() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
