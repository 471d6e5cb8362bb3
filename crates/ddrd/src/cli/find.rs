//! `ddr find`.

use clap::Args;
use serde::Deserialize;

use super::admin::{AdminClient, encode};
use super::out::{self, or_dash, short, size};
use super::{CliError, peers::joined};

/// Find who holds an image or a digest
#[derive(Args, Debug)]
pub(super) struct Find {
    /// An image such as team/app:1.0 or a digest such as sha256:...
    #[arg(value_name = "REF|DIGEST")]
    target: String,
}

#[derive(Deserialize)]
struct Report {
    digest: Option<String>,
    size: Option<u64>,
    local: bool,
    holders: Vec<Holder>,
    took_ms: u64,
}

#[derive(Deserialize)]
struct Holder {
    node_id: String,
    addresses: Vec<String>,
    zone: String,
    complete: bool,
}

pub(super) async fn run(admin: &AdminClient, find: Find) -> Result<(), CliError> {
    let value = admin.get(&format!("/api/v1/find?q={}", encode(&find.target))).await?;
    let report: Report = admin.view(value.clone())?;
    if admin.json {
        out::json(&value);
    } else if report.digest.is_some() {
        out::text(&render(&report));
    }
    if report.local || !report.holders.is_empty() {
        return Ok(());
    }
    Err(CliError::NotFound(find.target))
}

fn render(report: &Report) -> String {
    let mut rows = Vec::new();
    if report.local {
        rows.push(["this node".into(), "-".into(), "-".into(), "complete".into()]);
    }
    rows.extend(report.holders.iter().map(|holder| {
        let state = if holder.complete { "complete" } else { "downloading" };
        [short(&holder.node_id), joined(&holder.addresses), or_dash(&holder.zone), state.to_owned()]
    }));
    let mut text = out::facts(&[
        ("digest", or_dash(report.digest.as_deref().unwrap_or_default())),
        ("size", report.size.map_or_else(|| "-".to_owned(), size)),
        ("took", format!("{} ms", report.took_ms)),
    ]);
    text.push('\n');
    text.push_str(&out::table(["HOLDER", "ADDRESS", "ZONE", "STATE"], &rows));
    text
}
