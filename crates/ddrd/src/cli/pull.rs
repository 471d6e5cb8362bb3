//! `ddr pull`.

mod progress;

use clap::Args;
use ddr_node::PullNodes;
use ddr_oci::{ImageReference, Platform};
use serde::Deserialize;
use serde_json::Value;

use super::admin::{AdminClient, encode};
use super::job;
use super::out::{self, or_dash, short, size};
use super::{CliError, peers::joined};
use progress::Progress;

const EXAMPLES: &str = "\
Examples:
  ddr pull team/app:1.0                        all of the image on this node's disk
  ddr pull team/app:1.0 --platform linux/arm64
  ddr pull team/app:1.0 --nodes all            here, and on every node that this one knows
  ddr pull team/app:1.0 --nodes zone=rack-2    here, and on those in that zone
  ddr pull team/app:1.0 --nodes 3              here, and on three chosen at random

Ctrl-C ends the waiting only: the daemon goes on. What is here stays, and a later pull goes on from there.
Exit status: 0 all is there, 1 something is not, 2 wrong usage.";

/// Bring an image to the disk of this node, and of others, before anybody runs it
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Pull {
    /// An image such as team/app:1.0 or team/app@sha256:...
    #[arg(value_name = "REF", required_unless_present = "stop")]
    image: Option<ImageReference>,

    /// Other nodes that are to have it too: a number, all, or zone=NAME
    #[arg(long, value_name = "N|all|zone=Z")]
    nodes: Option<PullNodes>,

    /// Of an index only the images for this platform [default: all]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,

    /// Stop the run that is under way; what was asked of other nodes goes on there
    #[arg(long, conflicts_with_all = ["image", "nodes", "platform"])]
    stop: bool,
}

/// What a run says about the image.
#[derive(Default, Deserialize)]
struct Report {
    #[serde(default)]
    digest: String,
    #[serde(default)]
    parts: Vec<Part>,
    #[serde(default)]
    nodes: Vec<Node>,
}

/// A manifest or a blob of it, on this node.
#[derive(Deserialize)]
struct Part {
    kind: String,
    digest: String,
    size: u64,
    bytes: u64,
    state: String,
    error: String,
}

/// Another node.
#[derive(Deserialize)]
struct Node {
    node_id: String,
    addresses: Vec<String>,
    zone: String,
    state: String,
    parts_done: u32,
    parts: u32,
    bytes_done: u64,
    bytes: u64,
    error: String,
}

pub(super) async fn run(admin: &AdminClient, pull: Pull) -> Result<(), CliError> {
    let Some(image) = pull.image.as_ref().filter(|_| !pull.stop) else {
        return job::stop(admin, "pull").await;
    };
    let mut query = format!("ref={}", encode(&image.to_string()));
    if let Some(nodes) = &pull.nodes {
        query.push_str(&format!("&nodes={}", encode(&nodes.to_string())));
    }
    if let Some(platform) = &pull.platform {
        query.push_str(&format!("&platform={}", encode(&platform.to_string())));
    }
    let (value, state, report) = watch(admin, &query).await?;
    if admin.json {
        out::json(&value);
    } else {
        out::text(&render(&state, &report));
    }
    complete(&state, &report)
}

/// Brings all of an image here, and shows only the progress.
pub(super) async fn bring(admin: &AdminClient, image: &ImageReference) -> Result<(), CliError> {
    let (_, state, report) = watch(admin, &format!("ref={}", encode(&image.to_string()))).await?;
    complete(&state, &report)
}

async fn watch(admin: &AdminClient, query: &str) -> Result<(Value, String, Report), CliError> {
    let mut progress = Progress::new(admin.json);
    let shown = |status: &job::Status| progress.show(&read(status));
    let (value, status) = job::watch_with(admin, "pull", query, shown).await?;
    drop(progress);
    let report = read(&status);
    Ok((value, status.state, report))
}

fn complete(state: &str, report: &Report) -> Result<(), CliError> {
    match failures(report) {
        Some(failures) => Err(CliError::Incomplete(failures)),
        None if state == "stopped" => {
            Err(CliError::Incomplete("the run was stopped before its end".into()))
        }
        None => Ok(()),
    }
}

/// The report of a run as far as it has one.
fn read(status: &job::Status) -> Report {
    serde_json::from_value(status.report.clone()).unwrap_or_default()
}

fn render(state: &str, report: &Report) -> String {
    let count = |of: &str| {
        let parts = report.parts.iter().filter(|part| part.kind == of);
        let done = parts.clone().filter(|part| part.state == "done").count();
        format!("{done} of {}", parts.count())
    };
    let bytes = report.parts.iter().map(|part| part.bytes).sum();
    let mut text = out::facts(&[
        ("state", state.to_owned()),
        ("digest", or_dash(&report.digest)),
        ("manifests", count("manifest")),
        ("blobs", count("blob")),
        ("here", size(bytes)),
    ]);
    if !report.nodes.is_empty() {
        let rows: Vec<_> = report.nodes.iter().map(row).collect();
        text.push('\n');
        text.push_str(&out::table(["NODE", "ADDRESS", "ZONE", "PARTS", "HERE", "STATE"], &rows));
    }
    text
}

fn row(node: &Node) -> [String; 6] {
    let state = match node.error.as_str() {
        "" => node.state.clone(),
        why => format!("{}: {why}", node.state),
    };
    [
        short(&node.node_id),
        joined(&node.addresses),
        or_dash(&node.zone),
        format!("{} of {}", node.parts_done, node.parts),
        size(node.bytes_done),
        state,
    ]
}

/// What did not come, in one line.
fn failures(report: &Report) -> Option<String> {
    let parts = report.parts.iter().filter(|part| part.state == "failed");
    let here = parts.map(|part| format!("{} {}: {}", part.kind, part.digest, part.error));
    let nodes = report.nodes.iter().filter(|node| node.state == "failed");
    let there = nodes.map(|node| {
        let (id, addresses) = (short(&node.node_id), joined(&node.addresses));
        format!("node {id} at {addresses}: {}", node.error)
    });
    let all: Vec<String> = here.chain(there).collect();
    let more = all.len().saturating_sub(MAX_NAMED);
    let named = all.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
    match (all.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(named),
        (false, more) => Some(format!("{named}; and {more} more, see: ddr pull --json")),
    }
}

/// Failures that the last line names.
const MAX_NAMED: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn report(part: &str, node: &str) -> Report {
        let why = |state: &str| if state == "failed" { "gone" } else { "" };
        serde_json::from_value(serde_json::json!({
            "digest": "sha256:ab",
            "parts": [
                { "kind": "manifest", "digest": "sha256:ab", "size": 9, "bytes": 9, "state": "done", "error": "" },
                { "kind": "blob", "digest": "sha256:cd", "size": 9, "bytes": 4, "state": part, "error": why(part) },
            ],
            "nodes": [{
                "node_id": "0123456789abcdef", "addresses": ["10.0.0.2:5001"], "zone": "", "state": node,
                "parts_done": 1, "parts": 2, "bytes_done": 9, "bytes": 18, "error": why(node),
            }],
        }))
        .unwrap()
    }

    #[test]
    fn what_failed_is_named() {
        assert_eq!(failures(&report("done", "done")), None);
        let both = "blob sha256:cd: gone; node 0123456789ab at 10.0.0.2:5001: gone";
        assert_eq!(failures(&report("failed", "failed")).as_deref(), Some(both));
        let mut many = report("failed", "done");
        let again = (0..20).flat_map(|_| report("failed", "done").parts);
        many.parts.extend(again);
        assert!(failures(&many).is_some_and(|text| text.contains("and 11 more")));
    }

    #[test]
    fn the_end_shows_parts_and_nodes() {
        let text = render("done", &report("failed", "failed"));
        for words in ["blobs      0 of 1", "manifests  1 of 1", "1 of 2  9 B   failed: gone"] {
            assert!(text.contains(words), "{words:?} in {text}");
        }
    }
}
