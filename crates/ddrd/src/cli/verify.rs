//! `ddr verify`.

use clap::Args;
use serde_json::Value;

use super::admin::{AdminClient, encode};
use super::job::{self, Status, number};
use super::{CliError, out};

/// Lines of one kind that are shown; `--json` has more.
const MAX_SHOWN: usize = 20;

/// Check everything that is stored, and repair it from other nodes
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// Check sizes, chains and tables, but do not read the blobs
    #[arg(long)]
    fast: bool,

    /// Bytes read in a second, such as 50MiB [default: as many as possible]
    #[arg(long, value_name = "RATE", value_parser = crate::amount::rate)]
    limit: Option<u64>,

    /// Stop the run that is under way
    #[arg(long, conflicts_with_all = ["fast", "limit"])]
    stop: bool,
}

pub(super) async fn run(admin: &AdminClient, verify: Verify) -> Result<(), CliError> {
    if verify.stop {
        return job::stop(admin, "verify").await;
    }
    let mut query = format!("fast={}", verify.fast);
    if let Some(limit) = verify.limit {
        query.push_str(&format!("&limit={}", encode(&limit.to_string())));
    }
    let (value, status) = job::watch(admin, "verify", &query).await?;
    if admin.json {
        out::json(&value);
    } else {
        out::text(&render(&status));
    }
    if status.damage {
        let count = status.report.get("not_repaired").and_then(Value::as_array).map_or(0, Vec::len);
        let unreadable = number(&status.report, "unreadable");
        return Err(CliError::Damage(format!(
            "{count} damaged or missing, and no other node that was found has them: push them \
             again; {unreadable} whose files cannot be opened: see the log of the daemon"
        )));
    }
    Ok(())
}

fn render(status: &Status) -> String {
    let of = |name: &str| number(&status.report, name).to_string();
    let sum = |count: &str, bytes: &str| {
        format!("{} ({})", of(count), out::size(number(&status.report, bytes)))
    };
    let mut text = out::facts(&[
        ("state", status.state.clone()),
        ("read", out::size(number(&status.report, "bytes"))),
        ("blobs", of("blobs")),
        ("manifests", of("manifests")),
        ("damaged", of("corrupt")),
        ("unreadable", of("unreadable")),
        ("repaired", of("repaired")),
        ("chains written again", of("chains_repaired")),
        ("index rows put right", of("rows_repaired")),
        (
            "links without content",
            format!(
                "{}, {} of them nowhere",
                of("links_without_content"),
                of("dangling_everywhere")
            ),
        ),
        ("blobs without a link", sum("orphans", "orphan_bytes")),
        ("unknown files", of("unknown_files")),
        ("in quarantine", sum("quarantined_files", "quarantined_bytes")),
    ]);
    let lists = [
        ("not repaired", "not_repaired"),
        ("unreadable", "unreadable_digests"),
        ("unknown file", "unknown"),
    ];
    for (name, key) in lists {
        let list = status.report.get(key).and_then(Value::as_array);
        for one in list.into_iter().flatten().take(MAX_SHOWN) {
            text.push_str(&format!("{name}  {}\n", one.as_str().unwrap_or_default()));
        }
    }
    text
}
