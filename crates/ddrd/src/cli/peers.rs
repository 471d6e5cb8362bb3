//! `ddr peers`.

use std::time::Duration;

use serde::Deserialize;

use super::CliError;
use super::admin::AdminClient;
use super::out::{self, or_dash, short, size};
use crate::duration;

#[derive(Deserialize)]
struct Peer {
    node_id: String,
    addresses: Vec<String>,
    zone: String,
    last_answer_ms: u64,
    bytes: u64,
    strikes: u32,
    avoided: bool,
}

pub(super) async fn run(admin: &AdminClient) -> Result<(), CliError> {
    let value = admin.get("/api/v1/peers").await?;
    if admin.json {
        out::json(&value);
        return Ok(());
    }
    let peers: Vec<Peer> = admin.view(value)?;
    if peers.is_empty() {
        out::text("no other node is known yet; let one join: ddr token create\n");
        return Ok(());
    }
    let rows: Vec<_> = peers.iter().map(row).collect();
    out::text(&out::table(["NODE", "ADDRESS", "ZONE", "ANSWERED", "RECEIVED", "STATE"], &rows));
    Ok(())
}

fn row(peer: &Peer) -> [String; 6] {
    let state = match (peer.avoided, peer.strikes) {
        (true, strikes) => format!("avoided, {strikes} strikes"),
        (false, 0) => "good".to_owned(),
        (false, strikes) => format!("{strikes} strikes"),
    };
    [
        short(&peer.node_id),
        joined(&peer.addresses),
        or_dash(&peer.zone),
        format!("{} ago", duration::short(Duration::from_millis(peer.last_answer_ms))),
        size(peer.bytes),
        state,
    ]
}

/// Addresses in one cell.
pub(super) fn joined(addresses: &[String]) -> String {
    or_dash(&addresses.join(","))
}
