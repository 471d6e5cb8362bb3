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
    copies: Copies,
    cache: Cache,
    #[serde(default)]
    driver: Option<Driver>,
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
struct Copies {
    wanted: usize,
    durability: String,
    parts: usize,
    bytes: u64,
    short_parts: usize,
    short_bytes: u64,
    sole_parts: usize,
    waiting_images: usize,
    mended_in_s: Option<u64>,
    lost_nodes: usize,
    leaving: bool,
}

#[derive(Deserialize)]
struct Cache {
    disk_bytes: u64,
    disk_free_bytes: u64,
    size: Option<u64>,
    high: u8,
    low: u8,
    over_bytes: u64,
    over_because: Option<String>,
    evicted_blobs: u64,
    evicted_bytes: u64,
}

#[derive(Deserialize)]
struct Driver {
    driver: String,
    is_looking: bool,
    blobs: usize,
    bytes: u64,
    repositories: usize,
    images: usize,
    left: usize,
    looked_s_ago: Option<u64>,
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
        ("copies", copies(&view.copies)),
        ("disk", disk(&view.cache)),
        ("beside", view.driver.as_ref().map_or_else(|| "nothing".into(), beside)),
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

/// What is kept for the swarm, and what is missing.
fn copies(copies: &Copies) -> String {
    let Copies { wanted, durability, parts, bytes, .. } = copies;
    let mut text = format!(
        "{parts} parts kept here ({}), {wanted} copies, pushes wait for {durability}",
        size(*bytes)
    );
    if copies.short_parts > 0 {
        let (short, bytes) = (copies.short_parts, size(copies.short_bytes));
        text += &format!("; {short} have too few ({bytes} to copy)");
    }
    if copies.waiting_images > 0 {
        let takes = copies
            .mended_in_s
            .map(|s| format!(", about {}", duration::short(Duration::from_secs(s))));
        text += &format!(
            "; parts of {} images are copied from here{}",
            copies.waiting_images,
            takes.unwrap_or_default()
        );
    }
    if copies.sole_parts > 0 {
        text += &format!("; {} only here", copies.sole_parts);
    }
    if copies.lost_nodes > 0 {
        text += &format!("; {} nodes lost", copies.lost_nodes);
    }
    if copies.leaving {
        text += "; draining, takes no new ones";
    }
    text
}

/// How full it is, and what makes room.
/// What lies beside the store.
fn beside(driver: &Driver) -> String {
    let mut text = format!(
        "{}: {} images in {} repositories, {} blobs ({})",
        driver.driver,
        driver.images,
        driver.repositories,
        driver.blobs,
        size(driver.bytes)
    );
    if driver.left > 0 {
        text += &format!("; {} images are not there whole, or deleted here", driver.left);
    }
    match driver.looked_s_ago {
        _ if driver.is_looking => text += "; looks at it now",
        Some(seconds) => {
            text += &format!("; looked at {} ago", duration::short(Duration::from_secs(seconds)));
        }
        None => text += "; not looked at yet",
    }
    if let Some(error) = &driver.error {
        text += &format!("; the last look failed: {error}");
    }
    text
}

fn disk(cache: &Cache) -> String {
    if cache.disk_bytes == 0 {
        return "not looked at yet".into();
    }
    let mut text = format!("{} free of {}", size(cache.disk_free_bytes), size(cache.disk_bytes));
    if let Some(limit) = cache.size {
        text += &format!(", blobs at most {}", size(limit));
    }
    text += &format!("; pulled content makes room from {} % to {} %", cache.high, cache.low);
    if cache.evicted_blobs > 0 {
        let (blobs, bytes) = (cache.evicted_blobs, size(cache.evicted_bytes));
        text += &format!(", {blobs} blobs ({bytes}) have");
    }
    if let Some(because) = &cache.over_because {
        let over = size(cache.over_bytes);
        text += &format!("; {over} OVER THE MARK, {because}: give it room or add nodes");
    }
    text
}

/// One source of other nodes: addresses at the last look, and how often a node answered.
fn source(source: &Source) -> String {
    let Source { source, found, answered, error } = source;
    match error {
        Some(error) => format!("{source}: {}", error.replace('\n', " ")),
        None => format!("{source}: {found} found, {answered} answered"),
    }
}
