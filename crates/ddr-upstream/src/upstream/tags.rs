//! Lists of tags.
//!
//! Decides nothing about their order. A list is read whole or not at all.

use ddr_oci::{RepositoryName, Tag};
use http::Method;
use serde::Deserialize;

use crate::api::UpstreamError;
use crate::exchange::{Ask, Exchange, judge};
use crate::scope::Scope;
use crate::wire;

/// Longest page, in bytes: many registries know no pages and send all tags at once.
const MAX_TAGS_BYTES: usize = 8 * 1024 * 1024;

#[derive(Deserialize)]
struct Page {
    /// Some say `null` for none.
    tags: Option<Vec<String>>,
}

pub(super) async fn tags(
    exchange: &Exchange,
    repository: &RepositoryName,
    n: Option<usize>,
    last: Option<&str>,
) -> Result<Option<Vec<Tag>>, UpstreamError> {
    let mut url = exchange.url(repository, "tags/list");
    if let Some(n) = n {
        url.query_pairs_mut().append_pair("n", &n.to_string());
    }
    if let Some(last) = last {
        url.query_pairs_mut().append_pair("last", last);
    }
    let mut ask = Ask::new(Method::GET, Scope::Pull(repository.clone()), url);
    ask.accept = ddr_oci::media_type::JSON;
    let Some(answer) = judge(exchange.ask(&ask).await?).await? else { return Ok(None) };
    let host = wire::host(&answer);
    let body = wire::read(answer, MAX_TAGS_BYTES).await?;
    let page: Page = serde_json::from_slice(&body)
        .map_err(|_| UpstreamError::Failed(format!("{host} sends no list of tags")))?;
    let tags = page.tags.unwrap_or_default();
    Ok(Some(tags.iter().filter_map(|tag| tag.parse().ok()).collect()))
}
