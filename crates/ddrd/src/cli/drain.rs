//! `ddr drain`.

use clap::Args;

use super::admin::AdminClient;
use super::job::{self, Status, number};
use super::{CliError, out};

/// Hand over what this node keeps for the swarm, before it is retired
#[derive(Args, Debug)]
pub(super) struct Drain {
    /// Stop handing over; the node takes new duties again. So does a restart
    #[arg(long)]
    stop: bool,
}

pub(super) async fn run(admin: &AdminClient, drain: Drain) -> Result<(), CliError> {
    if drain.stop {
        return job::stop(admin, "drain").await;
    }
    let (value, status) = job::watch(admin, "drain", "").await?;
    if admin.json {
        out::json(&value);
    } else {
        out::text(&render(&status));
    }
    match number(&status.report, "left") {
        0 => Ok(()),
        left => Err(CliError::Incomplete(format!(
            "{left} manifests and blobs could not be handed over: no other node took them; see: ddr status"
        ))),
    }
}

fn render(status: &Status) -> String {
    let of = |name: &str| number(&status.report, name);
    let handed = format!("{} manifests and blobs, {}", of("parts"), out::size(of("bytes")));
    out::facts(&[
        ("state", status.state.clone()),
        ("handed over", handed),
        ("looked at", out::size(of("looked_at"))),
        ("not taken", of("left").to_string()),
    ])
}
