//! `/api/v1/gc`, `/api/v1/verify`, `/api/v1/pull` and `/api/v1/drain`: POST begins a run, GET shows it, DELETE stops it.

use std::fmt::Display;
use std::str::FromStr;

use ddr_node::{GcRequest, JobBusy, JobKind, JobStatus, PullRequest, VerifyRequest};
use http::{Method, StatusCode};

use super::Admin;
use super::answer::{self, Answer};
use super::routes::parameter;
use crate::{amount, duration};

/// What a path names, if it is one of these.
pub(super) fn kind(path: &str) -> Option<JobKind> {
    match path {
        "/api/v1/gc" => Some(JobKind::Gc),
        "/api/v1/verify" => Some(JobKind::Verify),
        "/api/v1/pull" => Some(JobKind::Pull),
        "/api/v1/drain" => Some(JobKind::Drain),
        _ => None,
    }
}

pub(super) async fn answer(admin: &Admin, kind: JobKind, method: &Method, query: &str) -> Answer {
    match *method {
        Method::GET | Method::HEAD => answer::json(StatusCode::OK, &admin.node.job(kind)),
        Method::POST => match start(admin, kind, query).await {
            Err(reason) => answer::error(StatusCode::BAD_REQUEST, &reason),
            Ok(Err(busy)) => answer::error(StatusCode::CONFLICT, &busy.to_string()),
            Ok(Ok(status)) => answer::json(StatusCode::ACCEPTED, &status),
        },
        Method::DELETE if admin.node.stop_job(kind) => {
            answer::json(StatusCode::ACCEPTED, &admin.node.job(kind))
        }
        Method::DELETE => answer::error(StatusCode::NOT_FOUND, "no run is under way"),
        _ => answer::not_allowed("GET, HEAD, POST, DELETE"),
    }
}

/// The inner result is the node's, the outer error that of the query.
async fn start(
    admin: &Admin,
    kind: JobKind,
    query: &str,
) -> Result<Result<JobStatus, JobBusy>, String> {
    match kind {
        JobKind::Gc => {
            let request = GcRequest {
                grace: match parameter(query, "grace") {
                    Some(text) => duration::span(&text)?,
                    None => admin.gc_grace,
                },
                untagged: flag(query, "untagged")?,
                dry_run: flag(query, "dry-run")?,
            };
            Ok(admin.node.start_gc(request).await)
        }
        JobKind::Verify => {
            let limit = parameter(query, "limit").map(|text| amount::rate(&text)).transpose()?;
            let request = VerifyRequest { fast: flag(query, "fast")?, limit };
            Ok(admin.node.start_verify(request).await)
        }
        JobKind::Pull => Ok(admin.node.start_pull(pull(query)?).await),
        JobKind::Drain => Ok(admin.node.start_drain().await),
    }
}

fn pull(query: &str) -> Result<PullRequest, String> {
    fn read<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }
    let image = parameter(query, "ref").ok_or("say what to pull: /api/v1/pull?ref=IMAGE")?;
    let platform = parameter(query, "platform").as_deref().map(read).transpose()?;
    let nodes = parameter(query, "nodes").as_deref().map(read).transpose()?.unwrap_or_default();
    Ok(PullRequest { image: read(&image)?, platform, nodes })
}

pub(super) fn flag(query: &str, name: &str) -> Result<bool, String> {
    match parameter(query, name).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(format!("{name} is true or false, not {other:?}")),
    }
}
