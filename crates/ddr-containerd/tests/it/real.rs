//! A containerd of the test's own. It needs no rights beyond those of the test.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use ddr_containerd::{Containerd, Settings};
use tempfile::TempDir;

/// From start to the line that says so.
const START_LIMIT: Duration = Duration::from_secs(60);
const STARTED: &str = "containerd successfully booted";
const MISSING: &str = "these tests need containerd and ctr: apt-get install containerd";

/// Longest wait for something that containerd tells.
const TELL_LIMIT: Duration = Duration::from_secs(60);

/// What a test waits for comes in time.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TELL_LIMIT, future).await.expect("in time")
}

pub(crate) struct Real {
    dir: TempDir,
    child: Child,
}

impl Real {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("config.toml"), config(dir.path())).expect("a file");
        let child = start(dir.path());
        Self { dir, child }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("sock")
    }

    /// Ends it, as a crash would.
    pub(crate) fn stop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
    }

    /// After [`Real::stop`]: with the same content, at the same socket.
    pub(crate) fn start_again(&mut self) {
        self.child = start(self.dir.path());
    }

    pub(crate) async fn connect(&self, namespaces: &[&str]) -> Containerd {
        let namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
        let settings = Settings { socket: self.socket(), namespaces };
        Containerd::connect(settings).await.expect("a connection")
    }

    /// `ctr` in a namespace.
    pub(crate) fn ctr(&self, namespace: &str, arguments: &[&str]) {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.socket()).args(["--namespace", namespace]).args(arguments);
        let Output { status, stdout, stderr } = ctr.output().expect(MISSING);
        let said = [stdout, stderr].concat();
        assert!(status.success(), "ctr {arguments:?}: {}", String::from_utf8_lossy(&said));
    }

    pub(crate) fn import(&self, namespace: &str, archive: &Path) {
        let archive = archive.to_str().expect("a plain path");
        self.ctr(namespace, &["images", "import", "--no-unpack", archive]);
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // Fails only when it has ended, which is what is wanted.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn config(dir: &Path) -> String {
    let metadata = dir.metadata().expect("a directory");
    let owner = format!("uid = {}\ngid = {}", metadata.uid(), metadata.gid());
    let path = |name: &str| dir.join(name);
    format!(
        "version = 2\nroot = {:?}\nstate = {:?}\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = {:?}\n{owner}\n[ttrpc]\naddress = {:?}\n{owner}\n",
        path("root"),
        path("state"),
        path("sock"),
        path("ttrpc"),
    )
}

/// Waits until it says that it has started. What it says is read on until it ends.
fn start(dir: &Path) -> Child {
    let mut child = Command::new("containerd")
        .arg("--config")
        .arg(dir.join("config.toml"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect(MISSING);
    let log = BufReader::new(child.stderr.take().expect("a pipe"));
    let (started, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let mut said = Vec::new();
        for line in log.lines().map_while(Result::ok) {
            if line.contains(STARTED) {
                started.send(Ok(())).ok();
            }
            said.push(line);
        }
        started.send(Err(said.join("\n"))).ok();
    });
    let outcome = wait.recv_timeout(START_LIMIT).expect("containerd starts in time");
    if let Err(said) = outcome {
        child.kill().ok();
        child.wait().ok();
        panic!("containerd ended: {said}");
    }
    child
}
