//! `ddr pull` as a person sees it: on a terminal of the test's own, with the keys that are pressed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::daemon::{Daemon, Guard, clean, until, wait};
use super::http::get;
use super::image::{bytes, push};

/// What Ctrl-C types.
const CTRL_C: &[u8] = b"\x03";

/// What a program has written so far.
#[derive(Clone)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    /// Reads to the end in a thread of its own.
    fn of(mut source: impl Read + Send + 'static) -> Self {
        let screen = Self(Arc::default());
        let into = screen.clone();
        thread::spawn(move || {
            let mut some = [0; 4096];
            // A terminal whose other end nobody has any more ends with an error.
            while let Ok(count @ 1..) = source.read(&mut some) {
                into.0.lock().unwrap().extend_from_slice(&some[..count]);
            }
        });
        screen
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Waits until all of this was written.
    fn shows(&self, words: &[&str]) {
        until(&format!("{words:?} on the screen"), || {
            let text = self.text();
            words.iter().all(|word| text.contains(word))
        });
    }
}

/// A program on a terminal of its own.
struct Terminal {
    keys: File,
    screen: Screen,
    child: Guard,
}

impl Terminal {
    /// Starts `ddr` with the terminal as its input, both outputs and the source of its signals.
    fn ddr(admin: SocketAddr, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = File::from(open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
        let mut command = clean("setsid");
        command.args(["--ctty", env!("CARGO_BIN_EXE_ddr"), "--admin", &admin.to_string()]);
        command.args(args);
        let child = on(command, slave);
        let keys = File::from(master);
        let screen = Screen::of(keys.try_clone().unwrap());
        Self { keys, screen, child }
    }

    fn press(&mut self, key: &[u8]) {
        self.keys.write_all(key).unwrap();
    }

    /// Waits for the end of the program: its exit status, `None` after a signal.
    fn ended(&mut self) -> Option<i32> {
        wait(self.child.0.as_mut().unwrap()).code()
    }
}

/// Starts a command whose standard streams are one file, of which this process keeps nothing.
fn on(mut command: Command, file: File) -> Guard {
    command.stdin(file.try_clone().unwrap()).stdout(file.try_clone().unwrap()).stderr(file);
    Guard(Some(command.spawn().unwrap()))
}

/// A node with an image of one layer, and one that may load so slowly that a pull of it is never over
/// before its test.
fn slow_pair(dir: &tempfile::TempDir) -> [Daemon; 2] {
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let join = format!("@{}", a.token_file().display());
    let b = Daemon::start(&dir.path().join("b"), &["--join", &join, "--download-limit", "64KiB"]);
    for node in [&a, &b] {
        until("they know each other", || node.status()["peers"] == 1);
    }
    push(a.registry, "team/app", "1.0", &[&bytes(7, 16 << 20)]);
    [a, b]
}

#[test]
fn bars_are_drawn_and_ctrl_c_ends_the_waiting_only() {
    let dir = tempfile::tempdir().unwrap();
    let [_a, b] = slow_pair(&dir);
    let mut terminal = Terminal::ddr(b.admin, &["pull", "team/app:1.0"]);
    terminal.screen.shows(&["blob ", "[", "/16.00 MiB", "\x1b["]);
    terminal.press(CTRL_C);
    assert_eq!(terminal.ended(), Some(1), "{}", terminal.screen.text());
    terminal.screen.shows(&["ddr: the run goes on in the daemon; stop it with: ddr pull --stop"]);
    assert_eq!(get(b.admin, "/api/v1/pull").json()["state"], "running", "it goes on");

    let mut stop = Terminal::ddr(b.admin, &["pull", "--stop"]);
    assert_eq!(stop.ended(), Some(0), "{}", stop.screen.text());
    until("it stops", || get(b.admin, "/api/v1/pull").json()["state"] == "stopped");
}

#[test]
fn elsewhere_lines_are_plain_and_sigint_does_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let [_a, b] = slow_pair(&dir);
    let mut command = clean(env!("CARGO_BIN_EXE_ddr"));
    command.args(["--admin", &b.admin.to_string(), "pull", "team/app:1.0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Guard(Some(command.spawn().unwrap()));
    let child = child.0.as_mut().unwrap();
    let screen = Screen::of(child.stderr.take().unwrap());
    screen.shows(&["pull: blob ", " running, 16.0 MiB\n"]);
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
    assert_eq!(wait(child).code(), Some(1), "{}", screen.text());
    screen.shows(&["\nddr: the run goes on in the daemon; stop it with: ddr pull --stop\n"]);
    let told = screen.text();
    assert!(!told.contains(['\r', '\x1b']), "no control characters: {told:?}");
}

#[test]
fn on_a_terminal_the_exit_status_is_0_1_or_2_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    push(a.registry, "team/app", "1.0", &[&bytes(8, 100)]);
    let cases =
        [("team/app:1.0", 0, "2 of 2"), ("team/app:9", 1, "ddr: "), ("NOT A REF", 2, "--help")];
    for (image, status, words) in cases {
        let mut terminal = Terminal::ddr(a.admin, &["pull", image]);
        assert_eq!(terminal.ended(), Some(status), "{image}: {}", terminal.screen.text());
        terminal.screen.shows(&[words]);
    }
}
