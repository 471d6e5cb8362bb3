//! Two daemons on a LAN of their own: nothing but multicast DNS leads from one to the other.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Setup;
use super::scenario::explain;
use crate::checks::Checks;
use crate::netns::{Host, Lan};
use crate::run;
use crate::swarm::Node;

/// Addresses of the two machines, and those that they have later.
const FIRST: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
const LATER: [&str; 2] = ["10.77.0.11", "10.77.0.12"];
const NAMES: [&str; 2] = ["ddr-a", "ddr-b"];
/// From the start of the daemons to the meeting.
const MEETING_LIMIT: Duration = Duration::from_secs(60);
/// From the meeting to the address book on the disk.
const BOOK_LIMIT: Duration = Duration::from_secs(120);

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    let lan = Lan::new()?;
    let [a, b] = NAMES.map(|name| lan.plug_in(name));
    let hosts = [a?, b?];
    let a = start(setup, dir, &hosts[0], 0, FIRST, None)?;
    let token = a.token_file()?;
    let b = start(setup, dir, &hosts[1], 1, FIRST, Some(&token))?;
    let mut nodes = [a, b];
    checks.check("mdns: B joins A by a token", || {
        let met = meet(setup, &hosts, &nodes);
        explain(&nodes, met)
    });
    checks.check("mdns: moved and without their books, they meet by the LAN alone", || {
        move_all(setup, dir, &hosts, &mut nodes)?;
        let met = meet(setup, &hosts, &nodes).and_then(|()| found_by_lan(setup, &hosts, &nodes));
        explain(&nodes, met)
    });
    Ok(())
}

/// Gives machine `number` its address of `addresses` and no other, and starts its daemon.
fn start(
    setup: &Setup,
    dir: &Path,
    host: &Host,
    number: usize,
    addresses: [&str; 2],
    join: Option<&Path>,
) -> Result<Node> {
    let address = addresses[number];
    host.set_address(&format!("{address}/24"))?;
    let peers = format!("{address}:5001");
    host.enter(|| Node::start_at(&setup.daemon, dir, NAMES[number], &peers, join, &[]))
}

/// Every address that one knows of the other is wrong from now on.
fn move_all(setup: &Setup, dir: &Path, hosts: &[Host; 2], nodes: &mut [Node; 2]) -> Result<()> {
    for node in nodes.iter_mut() {
        let book = dir.join(&node.name).join("data/peers.json");
        let what = format!("{} writes its book", node.name);
        run::wait_for(&what, BOOK_LIMIT, || Ok(book.exists().then_some(())))?;
        // It has no time to say goodbye.
        node.kill()?;
        fs::remove_file(book)?;
    }
    for (number, node) in nodes.iter_mut().enumerate() {
        *node = start(setup, dir, &hosts[number], number, LATER, None)?;
    }
    Ok(())
}

/// Waits until each is ready and knows the other.
fn meet(setup: &Setup, hosts: &[Host; 2], nodes: &[Node; 2]) -> Result<()> {
    for (host, node) in hosts.iter().zip(nodes) {
        run::wait_for(&format!("{} meets the other", node.name), MEETING_LIMIT, || {
            let status = status(setup, host, node)?;
            Ok((status["ready"] == true && status["peers"] == 1).then_some(()))
        })?;
    }
    Ok(())
}

fn found_by_lan(setup: &Setup, hosts: &[Host; 2], nodes: &[Node; 2]) -> Result<()> {
    let mut answered = 0;
    for (host, node) in hosts.iter().zip(nodes) {
        let status = status(setup, host, node)?;
        for source in status["bootstrap"].as_array().context("no sources in the status")? {
            let count = source["answered"].as_u64().context("no count")?;
            let by_lan = source["source"] == "mdns";
            ensure!(by_lan || count == 0, "{}: found by {source}", node.name);
            answered += count;
        }
    }
    ensure!(answered > 0, "nobody answered at an address from the LAN");
    Ok(())
}

fn status(setup: &Setup, host: &Host, node: &Node) -> Result<Value> {
    let mut command = run::client(setup.daemon.with_file_name("ddr"));
    command.args(["--admin", &node.admin, "--json", "status"]);
    let said = host.enter(|| run::output(&mut command))?;
    serde_json::from_str(&said).context("the status is no JSON")
}
