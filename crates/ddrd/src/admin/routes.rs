//! Method and path to answer.

use std::fmt::Write;
use std::time::Duration;

use ddr_node::{FindError, Status, TokenError};
use http::{Method, Request, StatusCode};
use hyper::body::Body;
use serde::Serialize;

use super::answer::{self, Answer};
use super::{Admin, beside, doctor, guard, images, jobs, pins};
use crate::config::bandwidth_limit;
use crate::duration;

/// Bytes of a query string.
const MAX_QUERY_BYTES: usize = 2 * 1024;
/// Life of a token when the request names none.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// The answer of `/api/v1/status`: the process around the node's own [`Status`].
#[derive(Serialize)]
struct Report {
    version: &'static str,
    registry: String,
    peer_listen: String,
    admin: String,
    data_dir: String,
    ready: bool,
    #[serde(flatten)]
    node: Status,
}

/// A new token. The only time that it is shown.
#[derive(Serialize)]
struct NewToken {
    token: String,
}

pub(super) async fn answer<B>(admin: &Admin, request: Request<B>) -> Answer
where
    B: Body<Error: std::error::Error + Send + Sync + 'static>,
{
    if let Err(reason) = guard::check(request.headers()) {
        return answer::error(StatusCode::FORBIDDEN, reason);
    }
    let query = request.uri().query().unwrap_or_default();
    if query.len() > MAX_QUERY_BYTES {
        return answer::error(StatusCode::URI_TOO_LONG, "the query is too long");
    }
    if request.uri().path() == "/api/v1/driver/events" {
        return beside::answer(admin, request).await;
    }
    let path = request.uri().path();
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    if let Some(token) = path.strip_prefix("/api/v1/tokens") {
        return tokens(admin, request.method(), token, query).await;
    }
    if let Some(node) = path.strip_prefix("/api/v1/peers/") {
        return gone(admin, request.method(), node).await;
    }
    if path == "/api/v1/limits" {
        return limits(admin, request.method(), query);
    }
    if path == "/api/v1/pins" {
        return pins::answer(admin, request.method(), query).await;
    }
    if path == "/api/v1/images" {
        return images::answer(admin, request.method(), query).await;
    }
    if let Some(kind) = jobs::kind(path) {
        return jobs::answer(admin, kind, request.method(), query).await;
    }
    match path {
        "/"
        | "/healthz"
        | "/readyz"
        | "/metrics"
        | "/api/v1/status"
        | "/api/v1/peers"
        | "/api/v1/history"
        | "/api/v1/find"
        | "/api/v1/swarms"
        | "/api/v1/doctor"
        | "/api/v1/doctor/peers"
            if !read =>
        {
            answer::not_allowed("GET, HEAD")
        }
        "/" => answer::text(StatusCode::OK, page(admin).await),
        "/healthz" => answer::text(StatusCode::OK, "ok\n"),
        "/readyz" if admin.is_ready() => answer::text(StatusCode::OK, "ready\n"),
        "/readyz" => answer::text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        "/metrics" => {
            // Sets the gauges.
            drop(admin.node.status().await);
            answer::prometheus(admin.metrics.render())
        }
        "/api/v1/status" => answer::json(StatusCode::OK, &report(admin, admin.node.status().await)),
        "/api/v1/peers" => answer::json(StatusCode::OK, &admin.node.peers().await),
        "/api/v1/swarms" => answer::json(StatusCode::OK, &admin.node.swarms()),
        "/api/v1/doctor" => answer::json(StatusCode::OK, &doctor::facts(admin).await),
        "/api/v1/doctor/peers" => answer::json(StatusCode::OK, &admin.node.reach().await),
        "/api/v1/history" => images::history(admin, query).await,
        "/api/v1/find" => find(admin, query).await,
        _ => answer::error(StatusCode::NOT_FOUND, "there is nothing here; see /"),
    }
}

fn report(admin: &Admin, node: Status) -> Report {
    Report {
        version: env!("CARGO_PKG_VERSION"),
        registry: admin.registry.to_string(),
        peer_listen: admin.peers.to_string(),
        admin: admin.admin.to_string(),
        data_dir: admin.data_dir.display().to_string(),
        ready: admin.is_ready(),
        node,
    }
}

pub(super) fn result<T: Serialize, E: std::fmt::Display>(result: Result<T, E>) -> Answer {
    match result {
        Ok(value) => answer::json(StatusCode::OK, &value),
        Err(error) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn find(admin: &Admin, query: &str) -> Answer {
    let Some(target) = parameter(query, "q") else {
        return answer::error(StatusCode::BAD_REQUEST, "say what to find: /api/v1/find?q=TARGET");
    };
    match admin.node.find(&target).await {
        Ok(report) => answer::json(StatusCode::OK, &report),
        Err(error @ FindError::BadTarget(_)) => {
            answer::error(StatusCode::BAD_REQUEST, &error.to_string())
        }
        Err(error) => answer::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// `/api/v1/limits`: what is not named in the query stays.
fn limits(admin: &Admin, method: &Method, query: &str) -> Answer {
    let mut limits = admin.node.bandwidth();
    match *method {
        Method::GET | Method::HEAD => return answer::json(StatusCode::OK, &limits),
        Method::PUT => {}
        _ => return answer::not_allowed("GET, HEAD, PUT"),
    }
    for (name, limit) in [("upload", &mut limits.upload), ("download", &mut limits.download)] {
        match parameter(query, name).map(|text| bandwidth_limit(&text)) {
            None => {}
            Some(Ok(new)) => *limit = new,
            Some(Err(reason)) => return answer::error(StatusCode::BAD_REQUEST, &reason),
        }
    }
    admin.node.set_bandwidth(limits);
    answer::json(StatusCode::OK, &limits)
}

/// `/api/v1/tokens` and `/api/v1/tokens/ID`; `rest` is what follows `tokens`.
async fn tokens(admin: &Admin, method: &Method, rest: &str, query: &str) -> Answer {
    match (method, rest) {
        (&Method::GET | &Method::HEAD, "") => result(admin.node.tokens().await),
        (&Method::POST, "") => create_token(admin, query).await,
        (_, "") => answer::not_allowed("GET, HEAD, POST"),
        (&Method::DELETE, id) if id.starts_with('/') => revoke_token(admin, &id[1..]).await,
        (_, id) if id.starts_with('/') => answer::not_allowed("DELETE"),
        _ => answer::error(StatusCode::NOT_FOUND, "there is nothing here; see /"),
    }
}

/// `DELETE /api/v1/peers/NODE`: it is gone for good.
async fn gone(admin: &Admin, method: &Method, node: &str) -> Answer {
    if *method != Method::DELETE {
        return answer::not_allowed("DELETE");
    }
    let Ok(id) = node.parse() else {
        let reason = "a node ID has 64 hexadecimal digits; see: ddr peers --json";
        return answer::error(StatusCode::BAD_REQUEST, reason);
    };
    match admin.node.declare_gone(id).await {
        true => answer::json(StatusCode::OK, &serde_json::json!({ "gone": node })),
        false => {
            answer::error(StatusCode::CONFLICT, "that is this node; retire it with: ddr drain")
        }
    }
}

async fn create_token(admin: &Admin, query: &str) -> Answer {
    let ttl = match parameter(query, "ttl").map(|text| duration::ttl(&text)) {
        None => DEFAULT_TTL,
        Some(Ok(ttl)) => ttl,
        Some(Err(reason)) => return answer::error(StatusCode::BAD_REQUEST, &reason),
    };
    match admin.node.create_token(ttl).await {
        Ok(token) => answer::json(StatusCode::CREATED, &NewToken { token }),
        Err(error) => token_error(&error),
    }
}

async fn revoke_token(admin: &Admin, id: &str) -> Answer {
    match admin.node.revoke_token(id).await {
        Ok(true) => answer::json(StatusCode::OK, &serde_json::json!({ "revoked": id })),
        Ok(false) => answer::error(StatusCode::NOT_FOUND, "no token has this id"),
        Err(error) => token_error(&error),
    }
}

fn token_error(error: &TokenError) -> Answer {
    let status = match error {
        TokenError::BadId => StatusCode::BAD_REQUEST,
        TokenError::TooMany => StatusCode::CONFLICT,
        TokenError::Create(_) | TokenError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    answer::error(status, &error.to_string())
}

/// The page for a person who opens the admin address: what runs here and where to look.
async fn page(admin: &Admin) -> String {
    let status = admin.node.status().await;
    let mut page = format!("ddrd {}\n\n", env!("CARGO_PKG_VERSION"));
    let lines = [
        ("node", status.node_id.clone()),
        ("swarm", status.swarm_id.clone()),
        ("registry", format!("http://{}", admin.registry)),
        ("peers", status.peers.to_string()),
        ("blobs", status.blobs.to_string()),
        ("manifests", status.manifests.to_string()),
    ];
    for (name, value) in lines {
        let _ = writeln!(page, "{name:<10} {value}");
    }
    page.push_str(
        "\n/healthz  /readyz  /metrics\n/api/v1/status  /api/v1/peers  /api/v1/images  /api/v1/swarms\n\
         /api/v1/find?q=REF|DIGEST  /api/v1/tokens  /api/v1/gc  /api/v1/verify  /api/v1/pull\n\
         /api/v1/limits  /api/v1/pins  /api/v1/history?ref=REF\n\
         /api/v1/doctor  /api/v1/doctor/peers\n",
    );
    page
}

/// The first value of `name` in a query string, percent-decoded.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
    percent_decode(value)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(parameter("a=1&q=team%2fapp%3A1.0", "q").as_deref(), Some("team/app:1.0"));
        assert_eq!(parameter("q=sha256:ab", "q").as_deref(), Some("sha256:ab"));
        for query in ["", "q", "x=1", "q=%", "q=%4", "q=%zz", "q=%ff"] {
            assert_eq!(parameter(query, "q"), None, "{query}");
        }
    }
}
