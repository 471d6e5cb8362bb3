//! A disk that fills up in the middle of a fetch: the data of one node lies on a small file system.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::scenario::explain;
use super::{Random, Setup, http};
use crate::checks::Checks;
use crate::run;
use crate::swarm::{self, Node};
use crate::torture::shown_digest;
use crate::wire::Connection;

/// The file system, before and after it grows.
const SMALL: &str = "size=120m";
const LARGE: &str = "size=400m";
/// More than fits at first.
const LARGE_BYTES: usize = 190 << 20;
/// What both nodes have before.
const OTHER_BYTES: usize = 1 << 20;
/// Of the large blob the second pull may fetch so much at most: the rest has come before.
const FETCHED_AGAIN: f64 = 0.75;
/// Read from a socket at once. Bytes.
const READ_BYTES: usize = 256 * 1024;

const REPOSITORY: &str = "team/full";
/// Content bytes that came from other nodes; strikes against them.
const FETCHED: &str = "ddr_fetched_bytes_total";
const STRIKES: &str = "ddr_strikes_total";
/// What the log says of such a disk.
const NO_SPACE: &str = "no space is left on the disk";

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let a = Node::start_with(&setup.daemon, dir, "a", None, &swarm::one_copy())?;
    let token = a.token_file()?;
    let data = dir.join("b/data");
    fs::create_dir_all(&data)?;
    mount(&["-t", "tmpfs", "-o", SMALL, "tmpfs"], &data)?;
    let b = Node::start_with(&setup.daemon, dir, "b", Some(&token), &swarm::one_copy())?;
    let nodes = [a, b];
    nodes.iter().try_for_each(Node::wait_ready)?;
    let mut random = Random::new(setup.seed);
    let large = Blob::push(&nodes[0], dir, random.bytes(LARGE_BYTES))?;
    let other = Blob::push(&nodes[0], dir, random.bytes(OTHER_BYTES))?;
    ensure!(other.get(&nodes[1])?.is_whole(&other), "no pull of a small blob");

    checks.check("full-disk: the answer ends short, the log says why, nobody is struck", || {
        explain(&nodes, fills_up(dir, &nodes, &large))
    });
    checks.check("full-disk: other content is served by both nodes", || {
        let served = nodes.iter().try_for_each(|node| {
            ensure!(other.get(node)?.is_whole(&other), "not by {}", node.name);
            Ok(())
        });
        explain(&nodes, served)
    });
    checks.check("full-disk: with room again, the next pull goes on with what is there", || {
        mount(&["-o", &format!("remount,{LARGE}")], &data)?;
        explain(&nodes, goes_on(&nodes, &large))
    });
    Ok(())
}

fn fills_up(dir: &Path, nodes: &[Node; 2], large: &Blob) -> Result<()> {
    let [a, b] = nodes;
    let got = large.get(b)?;
    println!("        {} of {LARGE_BYTES} bytes came", got.bytes);
    ensure!(got.error.is_some(), "the answer did not end short: {got:?}");
    ensure!(got.right, "a wrong byte");
    ensure!(got.bytes < LARGE_BYTES, "all bytes came");
    let log = fs::read_to_string(dir.join("b/log"))?;
    let said = log.lines().any(|line| line.contains("a fetch failed") && line.contains(NO_SPACE));
    ensure!(said, "the log does not say why");
    for node in [a, b] {
        ensure!(http::metric(&node.admin, STRIKES)? == 0, "{} struck another", node.name);
    }
    Ok(())
}

fn goes_on(nodes: &[Node; 2], large: &Blob) -> Result<()> {
    let b = &nodes[1];
    let before = http::metric(&b.admin, FETCHED)?;
    let got = large.get(b)?;
    ensure!(got.is_whole(large), "not pulled: {got:?}");
    let fetched = (http::metric(&b.admin, FETCHED)? - before) as f64 / LARGE_BYTES as f64;
    println!("        {fetched:.3} of the blob came with the second pull");
    ensure!(fetched <= FETCHED_AGAIN, "{fetched:.3} of the blob came again");
    Ok(())
}

/// Bytes that were pushed.
#[derive(Debug)]
struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

/// What a client got.
#[derive(Debug)]
struct Got {
    bytes: usize,
    /// Each byte is the one of the blob.
    right: bool,
    /// Why the answer ended early.
    error: Option<String>,
}

impl Blob {
    fn push(node: &Node, dir: &Path, bytes: Vec<u8>) -> Result<Self> {
        let digest = shown_digest(Sha256::new_with_prefix(&bytes));
        let file = dir.join("blob");
        fs::write(&file, &bytes)?;
        http::push_blob(&node.registry, REPOSITORY, &file, &digest)?;
        Ok(Self { bytes, digest })
    }

    /// Pulls it as a client does. An answer that ends short is no error.
    fn get(&self, node: &Node) -> Result<Got> {
        let target = format!("/v2/{REPOSITORY}/blobs/{}", self.digest);
        let mut connection = Connection::open(&node.registry)?;
        connection.send("GET", &target, &[], None)?;
        let head = connection.receive_head()?;
        ensure!(head.status == 200, "{head:?}");
        let mut got = Got { bytes: 0, right: true, error: None };
        let came = connection.receive_body(&head, &mut vec![0; READ_BYTES], |part| {
            got.right &= self.bytes.get(got.bytes..got.bytes + part.len()) == Some(part);
            got.bytes += part.len();
        });
        got.error = came.err().map(|error| error.to_string());
        Ok(got)
    }
}

impl Got {
    fn is_whole(&self, blob: &Blob) -> bool {
        self.right && self.error.is_none() && self.bytes == blob.bytes.len()
    }
}

/// Mounts go with the namespace of the run.
fn mount(args: &[&str], place: &Path) -> Result<()> {
    run::output(Command::new("mount").args(args).arg(place)).context("cannot mount").map(drop)
}
