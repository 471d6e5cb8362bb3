//! Lists of tags.
//!
//! Decides how many pages are read. A page is read whole or not at all.

use std::collections::BTreeSet;

use ddr_oci::{RepositoryName, Tag};
use http::Method;
use serde::Deserialize;

use super::pages;
use crate::api::UpstreamError;
use crate::exchange::{Ask, Exchange, judge};
use crate::scope::Scope;
use crate::wire;

/// Tags asked for in one page.
const PAGE: &str = "1000";
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
    max: usize,
) -> Result<Option<BTreeSet<Tag>>, UpstreamError> {
    let mut url = exchange.url(repository, "tags/list");
    url.query_pairs_mut().append_pair("n", PAGE);
    let mut all = BTreeSet::new();
    for _ in 0..pages::MAX_PAGES {
        let mut ask = Ask::new(Method::GET, Scope::Pull(repository.clone()), url);
        ask.accept = ddr_oci::media_type::JSON;
        let Some(answer) = judge(exchange.ask(&ask).await?).await? else { return Ok(None) };
        let (host, next) = (wire::host(&answer), pages::next(exchange, &answer));
        let body = wire::read(answer, MAX_TAGS_BYTES).await?;
        let page: Page = serde_json::from_slice(&body)
            .map_err(|_| UpstreamError::Failed(format!("{host} sends no list of tags")))?;
        let before = all.len();
        all.extend(page.tags.unwrap_or_default().iter().filter_map(|tag| tag.parse().ok()));
        // A page without news may come again for ever.
        let Some(next) = next.filter(|_| all.len() > before && all.len() <= max) else { break };
        url = next;
    }
    if all.len() > max {
        tracing::warn!(%repository, "of more than {max} tags at the registry the first are known");
        all = all.into_iter().take(max).collect();
    }
    Ok(Some(all))
}
