//! `ddr peers`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use http::Method;
use serde::Deserialize;

use super::CliError;
use super::admin::{AdminClient, encode};
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
    struck_for: Option<String>,
    avoided: bool,
    refused: bool,
    avoided_until_ms: Option<u64>,
}

/// List the nodes that this one knows
#[derive(Args, Debug)]
pub(super) struct Peers {
    /// Say that a node is gone for good, by its ID of 64 digits (see --json): names are decided without it
    /// at once, and its copies are made again
    #[arg(long, value_name = "NODE")]
    gone: Option<String>,
}

pub(super) async fn run(admin: &AdminClient, peers: Peers) -> Result<(), CliError> {
    if let Some(node) = peers.gone {
        let value = admin.ask(Method::DELETE, &format!("/api/v1/peers/{}", encode(&node))).await?;
        if admin.json {
            out::json(&value);
        } else {
            out::text(&format!("{node} does not count any more\n"));
        }
        return Ok(());
    }
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
    let state = state(peer, SystemTime::now());
    [
        short(&peer.node_id),
        joined(&peer.addresses),
        or_dash(&peer.zone),
        format!("{} ago", duration::short(Duration::from_millis(peer.last_answer_ms))),
        size(peer.bytes),
        state,
    ]
}

/// How this node stands to the peer: for how long it is left alone, and why.
fn state(peer: &Peer, now: SystemTime) -> String {
    let strikes = match peer.strikes {
        0 => return "good".to_owned(),
        1 => "1 strike".to_owned(),
        more => format!("{more} strikes"),
    };
    let why = peer.struck_for.as_deref().unwrap_or_default();
    let until = UNIX_EPOCH + Duration::from_millis(peer.avoided_until_ms.unwrap_or_default());
    let left = duration::short(until.duration_since(now).unwrap_or_default());
    match (peer.refused, peer.avoided) {
        (true, _) => format!("refused for {left}, {strikes}: {why}"),
        (false, true) => format!("avoided for {left}, {strikes}: {why}"),
        (false, false) => format!("{strikes}, the last for: {why}"),
    }
}

/// Addresses in one cell.
pub(super) fn joined(addresses: &[String]) -> String {
    or_dash(&addresses.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_says_for_how_long_and_why() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let peer = |strikes, refused, avoided| Peer {
            node_id: "n".into(),
            addresses: Vec::new(),
            zone: String::new(),
            last_answer_ms: 0,
            bytes: 0,
            strikes,
            struck_for: Some("it lied".into()),
            avoided,
            refused,
            avoided_until_ms: Some(1_025_000),
        };
        assert_eq!(state(&peer(0, false, false), now), "good");
        assert_eq!(state(&peer(1, true, true), now), "refused for 25s, 1 strike: it lied");
        assert_eq!(state(&peer(2, false, true), now), "avoided for 25s, 2 strikes: it lied");
        let later = now + Duration::from_secs(60);
        assert_eq!(state(&peer(2, false, false), later), "2 strikes, the last for: it lied");
    }
}
