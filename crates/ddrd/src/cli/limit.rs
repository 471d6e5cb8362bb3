//! `ddr limit`.

use clap::Args;
use http::Method;
use serde::Deserialize;

use super::admin::{AdminClient, encode};
use super::{CliError, out};
use crate::config::bandwidth_limit;

/// Show or change how fast content goes from and to other nodes, until the daemon ends
///
/// For good: upload-limit and download-limit in the configuration of ddrd. Clients of this machine
/// are never limited.
#[derive(Args, Debug)]
pub(super) struct Limit {
    /// Bytes a second that go to other nodes at most, such as 20MiB; 0 for no limit
    #[arg(long, value_name = "RATE", value_parser = checked)]
    upload: Option<String>,

    /// Bytes a second that come from other nodes at most
    #[arg(long, value_name = "RATE", value_parser = checked)]
    download: Option<String>,
}

#[derive(Deserialize)]
struct Limits {
    upload: Option<u64>,
    download: Option<u64>,
}

fn checked(text: &str) -> Result<String, String> {
    bandwidth_limit(text).map(|_| text.to_owned())
}

pub(super) async fn run(admin: &AdminClient, limit: Limit) -> Result<(), CliError> {
    let given = [("upload", limit.upload), ("download", limit.download)];
    let given = given.into_iter().filter_map(|(name, rate)| Some((name, rate?)));
    let query: Vec<String> =
        given.map(|(name, rate)| format!("{name}={}", encode(&rate))).collect();
    let value = match query.is_empty() {
        true => admin.get("/api/v1/limits").await?,
        false => admin.ask(Method::PUT, &format!("/api/v1/limits?{}", query.join("&"))).await?,
    };
    if admin.json {
        out::json(&value);
        return Ok(());
    }
    let limits: Limits = admin.view(value)?;
    let words = |rate: Option<u64>| match rate {
        Some(rate) => format!("{}/s", out::size(rate)),
        None => "no limit".to_owned(),
    };
    out::text(&out::facts(&[
        ("upload", words(limits.upload)),
        ("download", words(limits.download)),
    ]));
    Ok(())
}
