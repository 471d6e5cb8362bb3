//! The machines of one run: each a network namespace with a small disk of its own and one daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::client::REGISTRY;
use crate::netns::{Host, Lan};
use crate::run;
use crate::swarm::{Listening, Node};

/// Room on the disk of a machine.
const DISK: &str = "size=128m,mode=0700";
/// Where each daemon listens on its own machine.
const ADMIN: &str = "127.0.0.1:5002";
const PEER_PORT: u16 = 5001;
/// From the start of a daemon to that of its readiness, and to its token.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Tries to make a disk as small as what is on it, while the daemon writes.
const SHRINKS: usize = 50;

/// See the module comment.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) number: usize,
    pub(super) host: Host,
    /// Of all machines of the run.
    dir: PathBuf,
    program: PathBuf,
    clock: Option<PathBuf>,
    /// The daemon, unless it was stopped.
    pub(super) node: Option<Node>,
}

/// Makes machines.
#[derive(Debug)]
pub(super) struct Site<'a> {
    pub(super) lan: Lan,
    pub(super) daemon: &'a Path,
    pub(super) dir: &'a Path,
    /// The library that moves a daemon's clock, if any is moved.
    pub(super) faketime: Option<&'a Path>,
}

/// The address of machine `number`.
fn address(number: usize) -> String {
    format!("10.79.0.{}", number + 1)
}

impl Site<'_> {
    /// A machine with an empty disk.
    pub(super) fn machine(&self, number: usize) -> Result<Machine> {
        let host = self.lan.plug_in(&format!("ddr-{number}"))?;
        host.set_address(&format!("{}/24", address(number)))?;
        let mut machine = Machine {
            number,
            host,
            dir: self.dir.to_path_buf(),
            program: self.daemon.to_path_buf(),
            clock: None,
            node: None,
        };
        fs::create_dir_all(machine.data())?;
        machine.mount()?;
        if let Some(library) = self.faketime {
            machine.wrap(library, self.daemon)?;
        }
        Ok(machine)
    }
}

impl Machine {
    fn name(&self) -> String {
        format!("n{}", self.number)
    }

    fn home(&self) -> PathBuf {
        self.dir.join(self.name())
    }

    fn data(&self) -> PathBuf {
        self.home().join("data")
    }

    /// What the daemon wrote on standard error, all runs of it.
    pub(super) fn log(&self) -> PathBuf {
        self.home().join("log")
    }

    fn mount(&self) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(self.data());
        run::output(&mut mount).map(drop)
    }

    /// The daemon is started by a script that puts a library between it and the wall clock.
    fn wrap(&mut self, library: &Path, daemon: &Path) -> Result<()> {
        let (script, clock) = (self.home().join("ddrd"), self.home().join("clock"));
        fs::write(&clock, "+0")?;
        let text = format!(
            "#!/bin/sh\nLD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_CACHE_DURATION=1 \
             FAKETIME_DONT_FAKE_MONOTONIC=1 exec {} \"$@\"\n",
            library.display(),
            clock.display(),
            daemon.display()
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        (self.program, self.clock) = (script, Some(clock));
        Ok(())
    }

    /// Starts the daemon; with an empty disk and a token it joins.
    pub(super) fn start(&mut self, token: Option<&Path>) -> Result<()> {
        let is_new = !self.data().join("member.pem").exists();
        let at = Listening {
            registry: REGISTRY.to_owned(),
            peers: format!("{}:{PEER_PORT}", address(self.number)),
            admin: ADMIN.to_owned(),
        };
        let token = token.filter(|_| is_new);
        // Nodes are to meet by what they were told, not by multicast that no partition cuts. What is
        // looked at is tags: a write shall not wait for copies of its content.
        let mut flags = vec!["--mdns=false".to_owned()];
        flags.extend(crate::swarm::one_copy());
        let (program, dir, name) = (&self.program, &self.dir, self.name());
        let node = self.host.enter(|| Node::spawn(program, dir, &name, at, token, &flags))?;
        self.node = Some(node);
        Ok(())
    }

    /// A token of this machine's daemon, once there is one.
    pub(super) fn token(&self) -> Result<PathBuf> {
        let file = self.data().join("join-token");
        run::wait_for("a join token", READY_LIMIT, || {
            Ok(fs::read_to_string(&file).is_ok_and(|token| !token.trim().is_empty()).then_some(()))
        })?;
        Ok(file)
    }

    pub(super) fn wait_ready(&self) -> Result<()> {
        let node = self.node.as_ref().context("no daemon")?;
        self.host.enter(|| node.wait_ready())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.node.take().context("no daemon")?.kill()
    }

    /// SIGTERM, to a good end.
    pub(super) fn stop(&mut self) -> Result<()> {
        let mut node = self.node.take().context("no daemon")?;
        node.wait_listening()?;
        node.stop()
    }

    pub(super) fn signal(&self, name: &str) -> Result<()> {
        self.node.as_ref().context("no daemon")?.signal(name)
    }

    /// An error if the daemon has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<()> {
        let Some(node) = &mut self.node else { return Ok(()) };
        if let Some(status) = node.ended()? {
            let log = node.log();
            self.node = None;
            bail!("the daemon of machine {} ended by itself with {status}\n{log}", self.number);
        }
        Ok(())
    }

    /// Takes all that is on the disk away.
    pub(super) fn empty(&self) -> Result<()> {
        run::output(Command::new("umount").arg("--lazy").arg(self.data()))?;
        self.mount()
    }

    /// Leaves no room on the disk.
    pub(super) fn fill(&self) -> Result<()> {
        for _ in 0..SHRINKS {
            let disk = rustix::fs::statvfs(self.data())?;
            let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
            if self.remount(&format!("size={used}")).is_ok() {
                return Ok(());
            }
        }
        bail!("the disk of machine {} cannot be filled", self.number)
    }

    pub(super) fn make_room(&self) -> Result<()> {
        self.remount(DISK)
    }

    fn remount(&self, options: &str) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{options}")]).arg(self.data());
        run::output(&mut mount).map(drop)
    }

    /// The daemon's wall clock is so many seconds ahead from now on.
    pub(super) fn set_clock(&self, ahead_s: i64) -> Result<()> {
        let clock = self.clock.as_ref().context("the clock of this machine cannot be moved")?;
        // In one step: the library may read at any time.
        let new = clock.with_extension("new");
        fs::write(&new, format!("{ahead_s:+}"))?;
        Ok(fs::rename(new, clock)?)
    }

    /// What this machine sends to that one is lost, or arrives again.
    pub(super) fn cut(&self, to: usize) -> Result<()> {
        self.host.cut(&address(to))
    }

    pub(super) fn mend(&self, to: usize) -> Result<()> {
        self.host.mend(&address(to))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.node = None;
        // What is left after a failure goes with the sandbox.
        let _ = run::output(Command::new("umount").arg("--lazy").arg(self.data()));
    }
}
