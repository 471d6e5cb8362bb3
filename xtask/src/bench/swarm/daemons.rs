//! The daemons of a scenario, one on each machine of a [`Lab`], and what befalls them.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::client::{self, Content};
use super::pull::{Client, Running};
use super::scenario::Fault;
use crate::netns::{Lab, SentBytes};
use crate::run;
use crate::swarm::{self, Node};
use crate::wire::Connection;

/// From the push to the moment when another node finds what was pushed.
const FIND_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at what the source has sent.
const LOOK: Duration = Duration::from_millis(2);

/// All daemons; the first is the source.
#[derive(Debug)]
pub(super) struct Daemons(Vec<Node>);

impl Daemons {
    /// Starts them and waits until all are ready.
    pub(super) fn start(lab: &Lab, daemon: &Path, dir: &Path) -> Result<Self> {
        swarm::start_in(lab, daemon, dir).map(Self)
    }

    /// What node `number` keeps, if `dir` is that of all.
    pub(super) fn data(dir: &Path, number: usize) -> PathBuf {
        dir.join(swarm::name(number)).join("data")
    }

    /// Pushes an image to the source; returns when the first of the others finds its layers.
    pub(super) fn push(
        &self,
        lab: &Lab,
        repository: &str,
        tag: &str,
        layers: &[Content],
    ) -> Result<()> {
        let source = &self.0[0];
        lab.source()
            .enter(|| client::push_image(&source.registry, repository, tag, layers))
            .with_context(|| source.log())?;
        self.wait_found(lab, layers, 1)
    }

    /// Waits until the first node that pulls finds so many holders of each blob.
    pub(super) fn wait_found(&self, lab: &Lab, blobs: &[Content], holders: usize) -> Result<()> {
        let (host, node) = (&lab.pullers()[0], &self.0[1]);
        let found = || {
            blobs.iter().try_for_each(|blob| {
                run::wait_for(&format!("{} finds {}", node.name, blob.digest), FIND_LIMIT, || {
                    Ok((count_holders(node, &blob.digest)? >= holders).then_some(()))
                })
            })
        };
        host.enter(found).with_context(|| node.log())
    }

    /// One client for each node that pulls.
    pub(super) fn clients<'a>(&self, lab: &'a Lab, delays: &[Duration]) -> Vec<Client<'a>> {
        let pullers = lab.pullers().iter().zip(&self.0[1..]).zip(delays);
        pullers
            .map(|((host, node), delay)| Client {
                host,
                address: node.registry.clone(),
                delay: *delay,
            })
            .collect()
    }

    /// Lets the fault happen at its time, unless the clients have ended before; how many it killed.
    pub(super) fn suffer(
        &mut self,
        fault: &Fault,
        running: &Running,
        sent: &mut SentBytes,
    ) -> Result<usize> {
        let before = sent.read()?;
        let (mut is_due, dying): (Box<dyn FnMut() -> Result<bool>>, Vec<usize>) = match fault {
            Fault::None => return Ok(0),
            Fault::Source { after_bytes } => {
                (Box::new(|| Ok(sent.read()? - before >= *after_bytes)), vec![0])
            }
            Fault::Pullers { which, after } => (
                Box::new(|| Ok(running.elapsed() >= *after)),
                which.iter().map(|puller| puller + 1).collect(),
            ),
        };
        while !is_due()? {
            if running.is_over() {
                return Ok(0);
            }
            thread::sleep(LOOK);
        }
        eprintln!("  killed after {:.1} s: {}", running.elapsed().as_secs_f64(), dying.len());
        dying.iter().try_for_each(|number| self.0[*number].kill())?;
        Ok(dying.len())
    }

    /// Processor time of each node but the source; `None` for one that was killed. Seconds.
    pub(super) fn cpu_s(&self) -> Vec<Option<f64>> {
        self.0[1..].iter().map(|node| node.cpu_s().ok()).collect()
    }

    /// The most resident memory that a living node but the source ever had. KiB.
    pub(super) fn peak_kib(&self) -> Result<u64> {
        let memory = self.0[1..].iter().filter_map(|node| node.memory_kib().ok());
        memory.map(|memory| memory.peak).max().context("all were killed")
    }
}

/// How many holders a lookup names.
fn count_holders(node: &Node, digest: &str) -> Result<usize> {
    let answer =
        Connection::open(&node.admin)?.ask("GET", &format!("/api/v1/find?q={digest}"), None)?;
    let report: serde_json::Value = serde_json::from_slice(&answer.body)?;
    Ok(report["holders"].as_array().map_or(0, Vec::len))
}
