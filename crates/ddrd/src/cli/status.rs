//! `ddr status`.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::admin::AdminClient;
use super::out::{self, or_dash, size};
use super::swarms::{self, Swarm};
use super::{CliError, peers::joined};
use crate::duration;

#[derive(Deserialize)]
struct View {
    version: String,
    registry: String,
    peer_listen: String,
    data_dir: String,
    ready: bool,
    node_id: String,
    swarm_id: String,
    zone: String,
    advertise: Vec<String>,
    uptime_ms: u64,
    peers: usize,
    struck: usize,
    swarm_size: u64,
    bootstrap: Vec<Source>,
    blobs: usize,
    blob_bytes: u64,
    manifests: usize,
    names: usize,
    provider_records: usize,
    fetches_running: usize,
    #[serde(default)]
    swarms: Vec<Swarm>,
    traffic: Traffic,
}

#[derive(Deserialize)]
struct Source {
    source: String,
    found: usize,
    answered: u64,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Traffic {
    fetched_bytes: u64,
    served_bytes: u64,
    fetches: u64,
    fetches_failed: u64,
    takeovers: u64,
}

pub(super) async fn run(admin: &AdminClient) -> Result<(), CliError> {
    let value = admin.get("/api/v1/status").await?;
    if admin.json {
        out::json(&value);
    } else {
        out::text(&render(&admin.view(value)?));
    }
    Ok(())
}

fn render(view: &View) -> String {
    let traffic = &view.traffic;
    let state = if view.ready { "ready" } else { "not ready" };
    let facts = out::facts(&[
        (
            "state",
            format!("{state}, up {}", duration::short(Duration::from_millis(view.uptime_ms))),
        ),
        ("version", view.version.clone()),
        ("node", view.node_id.clone()),
        ("swarm", view.swarm_id.clone()),
        ("zone", or_dash(&view.zone)),
        ("registry", format!("http://{}", view.registry)),
        ("peer port", format!("{}, advertised as {}", view.peer_listen, joined(&view.advertise))),
        ("data", view.data_dir.clone()),
        ("peers", peers(view)),
        ("bootstrap", view.bootstrap.iter().map(source).collect::<Vec<_>>().join("; ")),
        ("blobs", format!("{} ({})", view.blobs, size(view.blob_bytes))),
        ("manifests", view.manifests.to_string()),
        (
            "kept for others",
            format!("{} names, {} provider records", view.names, view.provider_records),
        ),
        (
            "from peers",
            format!(
                "{} in {} downloads ({} running, {} failed, {} went on with another peer)",
                size(traffic.fetched_bytes),
                traffic.fetches,
                view.fetches_running,
                traffic.fetches_failed,
                traffic.takeovers
            ),
        ),
        ("to peers", size(traffic.served_bytes)),
    ]);
    facts + &swarms::render(&view.swarms, SystemTime::now())
}

fn peers(view: &View) -> String {
    let known = format!("{} known, about {} nodes in the swarm", view.peers, view.swarm_size);
    match view.struck {
        0 => known,
        struck => format!("{known}, {struck} struck (see ddr peers)"),
    }
}

/// One source of other nodes: addresses at the last look, and how often a node answered.
fn source(source: &Source) -> String {
    let Source { source, found, answered, error } = source;
    match error {
        Some(error) => format!("{source}: {}", error.replace('\n', " ")),
        None => format!("{source}: {found} found, {answered} answered"),
    }
}
