//! `GET /v2/_catalog`: the repositories. Not in the specification any more, expected by tools.

use http::StatusCode;
use serde_json::json;

use crate::error::ApiError;
use crate::page::{self, Page};
use crate::respond::{self, Reply};
use crate::router::Call;

/// Repositories in byte order after `last`, at most `n`.
pub(crate) async fn list(
    call: &Call,
    n: Option<u64>,
    last: Option<&str>,
) -> Result<Reply, ApiError> {
    let page = Page::new(n, call.shared.limits.page);
    let mut names = call.shared.node.repositories(last, page.read()).await?;
    let next = page.cut(&mut names, "/v2/_catalog");
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let reply = respond::json(StatusCode::OK, &json!({ "repositories": names }));
    Ok(page::linked(reply, next))
}
