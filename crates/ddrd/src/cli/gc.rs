//! `ddr gc`.

use clap::Args;

use super::admin::{AdminClient, encode};
use super::job::{self, Status, number};
use super::{CliError, out};

/// Collect what no manifest needs any more
#[derive(Args, Debug)]
pub(super) struct Gc {
    /// How long content stays after its last use, such as 24h [default: that of the daemon]
    #[arg(long, value_name = "TIME", value_parser = crate::duration::span_text)]
    grace: Option<String>,

    /// Also remove manifests that no tag reaches: of the manifests on this node, by the tags that it
    /// lists or keeps for the swarm. In a swarm what the node keeps for others stays; delete that by its
    /// digest
    #[arg(long)]
    untagged: bool,

    /// Only say what would go
    #[arg(long)]
    dry_run: bool,

    /// Stop the run that is under way
    #[arg(long, conflicts_with_all = ["grace", "untagged", "dry_run"])]
    stop: bool,
}

pub(super) async fn run(admin: &AdminClient, gc: Gc) -> Result<(), CliError> {
    if gc.stop {
        return job::stop(admin, "gc").await;
    }
    let mut query = format!("untagged={}&dry-run={}", gc.untagged, gc.dry_run);
    if let Some(grace) = &gc.grace {
        query.push_str(&format!("&grace={}", encode(grace)));
    }
    let (value, status) = job::watch(admin, "gc", &query).await?;
    if admin.json {
        out::json(&value);
    } else {
        out::text(&render(&status, gc.dry_run));
    }
    Ok(())
}

fn render(status: &Status, dry_run: bool) -> String {
    let of = |name: &str| number(&status.report, name);
    let looked =
        |removed: &str, looked: &str| format!("{} of {} looked at", of(removed), of(looked));
    let freed = if dry_run { "would be freed" } else { "freed" };
    let mut facts = vec![
        ("state", status.state.clone()),
        (freed, out::size(of("bytes_freed"))),
        ("blobs", of("blobs_removed").to_string()),
        ("links", looked("links_removed", "links_looked_at")),
    ];
    if of("manifests_looked_at") > 0 {
        let manifests = looked("manifests_removed", "manifests_looked_at");
        facts.push(("manifests", format!("{manifests}; of this node, by the tags it keeps")));
    }
    facts.push(("kept by grace", of("kept_by_grace").to_string()));
    facts.push(("kept by leases", of("kept_by_lease").to_string()));
    out::facts(&facts)
}
