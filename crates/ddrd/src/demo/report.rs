//! Who served what: the nodes' own figures, and the check that they add up.

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use serde::Deserialize;

use super::nodes::DemoNode;
use super::{DemoError, REPOSITORY};
use crate::cli::{size, table};
use crate::client;

#[derive(Deserialize)]
struct Status {
    node_id: String,
    traffic: Traffic,
    images: Vec<ImageBytes>,
}

#[derive(Deserialize)]
struct Traffic {
    fetched_bytes: u64,
    served_bytes: u64,
}

#[derive(Deserialize)]
struct ImageBytes {
    repository: String,
    sources: Vec<Source>,
}

#[derive(Deserialize)]
struct Source {
    node_id: String,
    bytes: u64,
}

/// Prints the table. The last node must have got at least `image_bytes` from the others.
pub(super) async fn show(nodes: &[DemoNode], image_bytes: u64) -> Result<(), DemoError> {
    let mut statuses = Vec::with_capacity(nodes.len());
    for node in nodes {
        statuses.push(status(node).await?);
    }
    let name = |id: &str| {
        let place = statuses.iter().position(|status| status.node_id == id)?;
        nodes.get(place).map(|node| node.name)
    };
    let mut rows = Vec::new();
    for (node, status) in nodes.iter().zip(&statuses) {
        let images = status.images.iter().filter(|image| image.repository == REPOSITORY);
        let sources = images.flat_map(|image| &image.sources);
        let from: Vec<String> = sources
            .filter_map(|source| {
                Some(format!("{} from {}", size(source.bytes), name(&source.node_id)?))
            })
            .collect();
        let from = if from.is_empty() { "-".to_owned() } else { from.join(", ") };
        rows.push([node.name.to_string(), size(status.traffic.served_bytes), from]);
    }
    println!("\n{}", table(["NODE", "SERVED TO PEERS", "GOT THE IMAGE"], &rows));
    let fetched = statuses.last().map_or(0, |status| status.traffic.fetched_bytes);
    if fetched < image_bytes {
        let text = format!("the last node got {fetched} bytes from peers, not {image_bytes}");
        return Err(DemoError::Wrong(text));
    }
    Ok(())
}

async fn status(node: &DemoNode) -> Result<Status, DemoError> {
    let request = Request::get("/api/v1/status")
        .body(Empty::<Bytes>::new())
        .map_err(|error| DemoError::Wrong(error.to_string()))?;
    let answer = client::send(node.admin, request).await?;
    let body = client::read(node.admin, answer).await?;
    serde_json::from_slice(&body)
        .map_err(|error| DemoError::Wrong(format!("the status of node {}: {error}", node.name)))
}
