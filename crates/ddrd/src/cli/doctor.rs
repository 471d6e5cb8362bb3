//! `ddr doctor`: looks at a node from the outside in, and says what to do about what it finds.
//!
//! Decides what is looked at and in which order; what it means is decided in `crate::doctor`.

mod look;
mod trip;

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::admin::AdminClient;
use super::{CliError, out};
use crate::config::{DEFAULT_PEERS, DEFAULT_REGISTRY, MIRRORED};
use crate::doctor::facts::{Facts, Reach};
use crate::doctor::ports::AdminAnswer;
use crate::doctor::{Finding, Summary, local, ports, swarm};
use crate::setup::machine::Machine;
use crate::setup::state::standing;
use crate::setup::{Client, Wanted};

const HELP: &str = "\
Examples:
  ddr doctor                             the node on this machine
  ddr doctor --json | jq '.findings[] | select(.state == \"fail\")'
  ddr --admin 127.0.0.1:6002 doctor      a node with another admin port

Checks, from the outside in
  daemon, ready      the admin port answers /healthz and /readyz
  registry port      clients get an answer to GET /v2/
  peer port          the advertised address leads to this node, and is of use to others
  descriptors        open files against their limit
  disk               room, inodes and the right to write in the data directory
  clock              this clock against those of up to 20 peers; tags are stamped by it
  reaches peers      a new connection to each of these
  reached by peers   a new connection from each of these to the advertised address
  docker, containerd, podman, crio
                     whether images of other registries are asked of this node first (ddr setup)
  round trip         a few bytes are pushed here, read by another node, and deleted everywhere
Without a daemon: whether its usual ports are free, and the container runtimes.

Each line is: ok, warn (works, but look), FAIL (does not work) or skip (not looked at), the check, what was found; and
behind -> what to do.

Exit status: 0 nothing failed, 1 something failed, 2 wrong usage.";

/// Check the node on this machine from the outside in, and say what to do about each finding
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct Doctor {
    /// Look for container runtimes below this directory, as for an image of a machine
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// Shows each finding as it comes, or all as JSON at the end.
struct Record {
    json: bool,
    findings: Vec<Finding>,
}

impl Record {
    fn add(&mut self, finding: Finding) {
        if !self.json {
            out::text(&finding.line());
        }
        self.findings.push(finding);
    }

    fn end(self) -> Result<(), CliError> {
        let summary = Summary::of(&self.findings);
        match self.json {
            true => out::json(&json!({ "findings": self.findings, "summary": summary })),
            false => out::text(&format!("\n{}", summary.line())),
        }
        if summary.fail > 0 { Err(CliError::Unwell(summary.fail)) } else { Ok(()) }
    }
}

pub(super) async fn run(admin: &AdminClient, doctor: Doctor) -> Result<(), CliError> {
    if !doctor.root.is_dir() {
        let what = format!("--root {} is no directory", doctor.root.display());
        return Err(CliError::Usage(what));
    }
    let machine = Machine::below(doctor.root);
    let mut record = Record { json: admin.json, findings: Vec::new() };
    let answer = look::admin(admin).await;
    for finding in ports::daemon(admin.address(), &answer) {
        record.add(finding);
    }
    let AdminAnswer::Daemon { ready, .. } = answer else {
        free_ports(&mut record);
        clients(&machine, DEFAULT_REGISTRY, &mut record);
        return record.end();
    };
    match look::facts(admin).await {
        Ok(facts) => node(admin, &facts, ready, &machine, &mut record).await,
        Err(why) => {
            let ill = AdminAnswer::Ill(why);
            ports::daemon(admin.address(), &ill).into_iter().for_each(|one| record.add(one));
            clients(&machine, DEFAULT_REGISTRY, &mut record);
        }
    }
    record.end()
}

/// All checks of a node that runs.
async fn node(
    admin: &AdminClient,
    facts: &Facts,
    ready: bool,
    machine: &Machine,
    record: &mut Record,
) {
    record.add(ports::registry(&facts.registry, &look::registry(&facts.registry).await));
    record.add(ports::peer_port(&facts.peer_port, look::around(admin, &facts.peer_port).await));
    record.add(local::descriptors(&facts.descriptors));
    record.add(local::disk(&facts.disk));
    let reach = match look::reach(admin).await {
        Ok(reach) => reach,
        Err(why) => {
            record.add(Finding::warn("reaches peers", why, "again; then: journalctl -u ddrd"));
            Reach::default()
        }
    };
    record.add(swarm::clock(&reach, facts.clock.machine_ahead_ms));
    record.add(swarm::outward(&reach));
    record.add(swarm::inward(&reach));
    clients(machine, look::dialled(facts.registry.address), record);
    let trip = trip::run(admin, &facts.registry, ready, &reach).await;
    record.add(crate::doctor::trip::judge(trip.as_ref().map_err(|why| *why)));
}

/// The ports that a daemon would listen on, unless it is told otherwise.
fn free_ports(record: &mut Record) {
    for (check, address, flag) in [
        ("registry port", DEFAULT_REGISTRY, "--registry-listen 127.0.0.1:PORT"),
        ("peer port", DEFAULT_PEERS, "--peer-listen ADDR:PORT"),
    ] {
        let taken = std::net::TcpListener::bind(address).err().map(|error| error.to_string());
        record.add(ports::free(check, address, flag, taken.as_deref()));
    }
}

/// The container runtimes of this machine.
fn clients(machine: &Machine, registry: std::net::SocketAddr, record: &mut Record) {
    let mirrors = MIRRORED.iter().filter_map(|host| host.parse().ok()).collect();
    let wanted = Wanted { registry, mirrors, docker: None };
    for client in [Client::Docker, Client::Containerd, Client::Podman, Client::Crio] {
        let seen = standing(client, machine, &wanted).map_err(|error| error.to_string());
        let seen = seen.as_ref().map_err(String::as_str);
        record.add(local::client(client, seen, &registry.to_string()));
    }
}
