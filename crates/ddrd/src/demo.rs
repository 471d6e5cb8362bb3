//! `ddr demo`: three nodes on this machine, one push, one pull, proof of who served what.
//!
//! Decides the story that a newcomer sees. Whatever happens (success, failure, Ctrl-C) the nodes
//! are stopped and the directory is removed before [`run`] returns.

mod image;
mod layer;
mod nodes;
mod report;
mod transfer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::ClientError;
use crate::client::registry::RegistryError;
use crate::progress::{Progress, Show};
use image::Image;
use nodes::Nodes;

/// The repository that the demo pushes to.
const REPOSITORY: &str = "ddr/demo";
/// The tag that the demo pushes.
const TAG: &str = "1";

/// Why the demo did not pass.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The daemon's program is not beside this one.
    #[error("{} is missing: install ddrd beside ddr (cargo build makes both)", .0.display())]
    NoDaemon(PathBuf),
    /// A node did not start.
    #[error("node {name} did not start: {reason}")]
    Start {
        /// Its letter.
        name: char,
        /// The last line of its log, or what was waited for.
        reason: String,
    },
    /// A file could not be made or read.
    #[error("{what}: {source}: check the free space in the temporary directory (TMPDIR)")]
    File {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A request failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A registry did not take or give something.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What came back is not what was pushed.
    #[error("{0}")]
    Wrong(String),
    /// Somebody pressed Ctrl-C.
    #[error("stopped before the end; the nodes are stopped and their directory is removed")]
    Interrupted,
}

/// Runs the demo. With `keep` the nodes stay after the pull until a signal comes.
///
/// # Errors
///
/// The first thing that went wrong; everything is cleaned up then, too.
pub async fn run(keep: bool) -> Result<(), DemoError> {
    let mut stop = Stop::new()?;
    let daemon = daemon_path()?;
    let dir =
        tempfile::Builder::new().prefix("ddr-demo-").tempdir().map_err(file("a directory"))?;
    let mut nodes = Nodes::new(daemon, dir.path());
    let told = tokio::select! {
        told = story(&mut nodes, dir.path(), keep) => told,
        () = stop.wait() => Err(DemoError::Interrupted),
    };
    if keep && told.is_ok() {
        stop.wait().await;
        println!();
    }
    // A second signal ends the wait for the nodes: dropping them kills them.
    tokio::select! {
        () = nodes.stop() => {}
        () = stop.wait() => {}
    }
    drop(nodes);
    let removed = dir.close().map_err(file("the directory could not be removed"));
    told?;
    removed?;
    println!("demo passed");
    Ok(())
}

async fn story(nodes: &mut Nodes<'_>, dir: &Path, keep: bool) -> Result<(), DemoError> {
    println!("three nodes in {}", dir.display());
    nodes.start().await?;
    for node in nodes.all() {
        println!(
            "  {}  registry {}  peers {}  admin {}",
            node.name, node.registry, node.peers, node.admin
        );
    }
    let [first, .., last] = nodes.all() else {
        return Err(DemoError::Wrong("three nodes were started, but they are not there".into()));
    };

    let started = Instant::now();
    let image = Image::build(dir.to_owned()).await.map_err(file("building the image"))?;
    println!("image {REPOSITORY}:{TAG} built in {:.1} s", started.elapsed().as_secs_f64());
    for blob in image.blobs() {
        println!("  {}  {:>9}  {}", blob.digest.short(), crate::cli::size(blob.size), blob.what);
    }

    let total = image.blobs().map(|blob| blob.size).sum();
    let push = Arc::new(Progress::new(format!("push to {}", first.name), total, Show::Stdout));
    transfer::push(first.registry, &image, &push).await?;
    push.done();

    let pull = Progress::new(format!("pull from {}", last.name), total, Show::Stdout);
    transfer::pull(last.registry, &image, &pull).await?;
    pull.done();

    report::show(nodes.all(), total).await?;
    if keep {
        invite(last.registry);
    }
    Ok(())
}

fn invite(registry: std::net::SocketAddr) {
    println!("\nthe nodes run until Ctrl-C; try:");
    println!("  docker run --rm {registry}/{REPOSITORY}:{TAG}");
    println!("  curl http://{registry}/v2/{REPOSITORY}/tags/list");
}

/// `ddrd` in the directory of this program.
fn daemon_path() -> Result<PathBuf, DemoError> {
    let own = std::env::current_exe().map_err(file("the path of this program"))?;
    let daemon = own.with_file_name("ddrd");
    if daemon.is_file() { Ok(daemon) } else { Err(DemoError::NoDaemon(daemon)) }
}

fn file(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::File { what, source }
}

/// The signals that end the demo.
struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    fn new() -> Result<Self, DemoError> {
        let on = |kind| signal(kind).map_err(file("signals"));
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(on);
        Ok(Self { signals: [interrupt?, terminate?, hangup?] })
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
