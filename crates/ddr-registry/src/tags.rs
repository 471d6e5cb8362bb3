//! `GET /v2/<name>/tags/list` (end-8a, end-8b).

use ddr_oci::reference::RepositoryName;
use http::StatusCode;
use serde_json::json;

use crate::error::ApiError;
use crate::page::{self, Page};
use crate::respond::{self, Reply};
use crate::router::Call;
use crate::warning;

/// Tags in byte order after `last`, at most `n`. An unknown repository is 404.
pub(crate) async fn list(
    call: &Call,
    name: &RepositoryName,
    n: Option<u64>,
    last: Option<&str>,
) -> Result<Reply, ApiError> {
    let page = Page::new(n, call.shared.limits.page);
    let tags = call.shared.node.tags(name, last, page.read()).await?;
    let listed = tags.ok_or_else(|| ApiError::name_unknown(name))?;
    let mut tags = listed.tags;
    let next = page.cut(&mut tags, &format!("/v2/{name}/tags/list"));
    let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
    let mut reply = respond::json(StatusCode::OK, &json!({ "name": name.as_str(), "tags": tags }));
    if listed.is_stale {
        warning::add_stale(&mut reply);
    }
    Ok(page::linked(reply, next))
}
