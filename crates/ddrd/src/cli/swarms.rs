//! The section of `ddr status` about blobs on their way here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::out::{self, short, size};
use crate::duration;

/// Peers that are named of one blob; `--json` has more.
const MAX_SOURCES: usize = 5;

/// One blob on its way.
#[derive(Deserialize)]
pub(super) struct Swarm {
    digest: String,
    repositories: Vec<String>,
    size: Option<u64>,
    bytes_here: u64,
    pieces_here: usize,
    pieces: usize,
    settled: bool,
    bytes_per_second: u64,
    neighbours: usize,
    sources: Vec<Source>,
    readers: usize,
    since_ms: u64,
}

#[derive(Deserialize)]
struct Source {
    node_id: String,
    bytes: u64,
    strikes: u32,
    struck_for: Option<String>,
}

/// A table of the blobs, each with those who gave of it below; nothing if there are none.
pub(super) fn render(swarms: &[Swarm], now: SystemTime) -> String {
    if swarms.is_empty() {
        return String::new();
    }
    let head = ["BLOB", "REPOSITORY", "HERE", "PIECES", "RATE", "NEIGHBOURS", "READERS", "FOR"];
    let rows: Vec<_> = swarms.iter().map(|swarm| row(swarm, now)).collect();
    let mut text = format!("\nswarms\n{}", out::table(head, &rows));
    for swarm in swarms {
        let sources = swarm.sources.iter().take(MAX_SOURCES);
        sources.for_each(|source| text.push_str(&given(&swarm.digest, source)));
    }
    text
}

fn row(swarm: &Swarm, now: SystemTime) -> [String; 8] {
    let since = UNIX_EPOCH + Duration::from_millis(swarm.since_ms);
    let whole = swarm.size.map_or_else(|| "?".to_owned(), size);
    let pieces = match (swarm.pieces, swarm.settled) {
        (0, _) => "-".to_owned(),
        (pieces, true) => format!("{} of {pieces}", swarm.pieces_here),
        (pieces, false) => format!("{} of {pieces}, chain not settled", swarm.pieces_here),
    };
    [
        short(&swarm.digest),
        swarm.repositories.join(","),
        format!("{} of {whole}", size(swarm.bytes_here)),
        pieces,
        format!("{}/s", size(swarm.bytes_per_second)),
        swarm.neighbours.to_string(),
        swarm.readers.to_string(),
        duration::short(now.duration_since(since).unwrap_or_default()),
    ]
}

fn given(digest: &str, source: &Source) -> String {
    let struck = match (&source.struck_for, source.strikes) {
        (Some(why), 1..) => format!("; struck: {why}"),
        _ => String::new(),
    };
    let (blob, node) = (short(digest), short(&source.node_id));
    format!("{blob}  {} from {node}{struck}\n", size(source.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_has_a_row_and_its_sources_below() {
        let swarm: Swarm = serde_json::from_value(serde_json::json!({
            "digest": "sha256:0123456789abcdef", "repositories": ["team/app"], "size": 2048,
            "bytes_here": 1024, "pieces_here": 3, "pieces": 9, "settled": true,
            "bytes_per_second": 512, "neighbours": 2, "readers": 1, "since_ms": 1_000,
            "sources": [
                { "node_id": "aaaa", "bytes": 1000, "strikes": 0, "struck_for": null },
                { "node_id": "bbbb", "bytes": 24, "strikes": 1, "struck_for": "it lied" },
            ],
        }))
        .unwrap();
        let text = render(&[swarm], UNIX_EPOCH + Duration::from_secs(4));
        for words in [
            "0123456789ab  team/app    1.0 KiB of 2.0 KiB  3 of 9  512 B/s  2           1        3s",
            "0123456789ab  1000 B from aaaa\n",
            "0123456789ab  24 B from bbbb; struck: it lied\n",
        ] {
            assert!(text.contains(words), "{words:?} in {text}");
        }
        assert_eq!(render(&[], UNIX_EPOCH), "");
    }
}
