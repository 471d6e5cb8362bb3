//! A run in the daemon, watched: a bar on a terminal, plain lines elsewhere, JSON at the end.

use std::io::IsTerminal;
use std::time::Duration;

use http::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

use super::CliError;
use super::admin::AdminClient;
use super::out;

/// How often the daemon is asked, at first and at most.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);
/// Plain lines are printed each time this part of the whole has passed.
const STEP_PERCENT: u64 = 25;

/// What the admin API says about a run.
#[derive(Deserialize)]
pub(super) struct Status {
    id: u64,
    pub(super) state: String,
    phase: String,
    done: u64,
    total: u64,
    pub(super) damage: bool,
    error: String,
    pub(super) report: Value,
}

/// Asks the run to end.
pub(super) async fn stop(admin: &AdminClient, name: &'static str) -> Result<(), CliError> {
    let value = admin.ask(Method::DELETE, &format!("/api/v1/{name}")).await?;
    if admin.json {
        out::json(&value);
    } else {
        out::text("stopping\n");
    }
    Ok(())
}

/// Begins a run and watches it to its end; the last answer.
pub(super) async fn watch(
    admin: &AdminClient,
    name: &'static str,
    query: &str,
) -> Result<(Value, Status), CliError> {
    let (progress, mut percent) = (Progress::new(name, admin.json), 0);
    watch_with(admin, name, query, |status| percent = progress.show(status, percent)).await
}

/// The same, with another way to show how the run stands.
pub(super) async fn watch_with(
    admin: &AdminClient,
    name: &'static str,
    query: &str,
    show: impl FnMut(&Status),
) -> Result<(Value, Status), CliError> {
    let begun = admin.ask(Method::POST, &format!("/api/v1/{name}?{query}")).await?;
    let id = admin.view::<Status>(begun)?.id;
    tokio::select! {
        ended = follow(admin, name, id, show) => ended,
        _ = tokio::signal::ctrl_c() => Err(CliError::GoesOn(name)),
    }
}

async fn follow(
    admin: &AdminClient,
    name: &'static str,
    id: u64,
    mut show: impl FnMut(&Status),
) -> Result<(Value, Status), CliError> {
    let mut look = FIRST_LOOK;
    loop {
        let value = admin.get(&format!("/api/v1/{name}")).await?;
        let status: Status = admin.view(value.clone())?;
        if status.id != id {
            let other = format!("another run of {name} has begun since; see: ddr {name} --json");
            return Err(CliError::Refused(other));
        }
        show(&status);
        match status.state.as_str() {
            "running" => {}
            "failed" => return Err(CliError::Refused(status.error)),
            _ => return Ok((value, status)),
        }
        tokio::time::sleep(look).await;
        look = (look * 2).min(LAST_LOOK);
    }
}

/// Where progress is shown: nowhere with `--json`.
enum Progress {
    Bar(ProgressBar),
    Lines(&'static str),
    Nowhere,
}

impl Progress {
    fn new(name: &'static str, json: bool) -> Self {
        if json {
            return Self::Nowhere;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Lines(name);
        }
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg} [{wide_bar}] {pos}/{len}") {
            bar.set_style(style.progress_chars("=> "));
        }
        Self::Bar(bar)
    }

    /// Shows how a run stands; the last percentage that has its line.
    fn show(&self, status: &Status, percent: u64) -> u64 {
        match self {
            Self::Bar(bar) => {
                bar.set_length(status.total.max(1));
                bar.set_position(status.done);
                bar.set_message(status.phase.clone());
                percent
            }
            Self::Lines(name) => {
                let now = status.done * 100 / status.total.max(1) / STEP_PERCENT * STEP_PERCENT;
                if now > percent {
                    eprintln!("{name}: {now} %, {}", status.phase);
                }
                now.max(percent)
            }
            Self::Nowhere => percent,
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// The number of that name in a report.
pub(super) fn number(report: &Value, name: &str) -> u64 {
    report.get(name).and_then(Value::as_u64).unwrap_or_default()
}
