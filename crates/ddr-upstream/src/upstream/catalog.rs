//! Lists of repositories (distribution spec has none; docker's `_catalog`).
//!
//! Decides nothing about their order. A page is read whole or not at all.

use http::Method;
use http::header::LINK;
use serde::Deserialize;

use crate::api::{Page, UpstreamError};
use crate::exchange::{Ask, Exchange, judge};
use crate::scope::Scope;
use crate::wire;

/// Longest page, in bytes: some registries know no pages and send all repositories at once.
const MAX_CATALOG_BYTES: usize = 32 * 1024 * 1024;

#[derive(Deserialize)]
struct Answer {
    /// Some say `null` for none.
    repositories: Option<Vec<String>>,
}

pub(super) async fn catalog(
    exchange: &Exchange,
    last: Option<&str>,
    n: usize,
) -> Result<Page, UpstreamError> {
    let mut url = exchange.wire.reach.endpoint().clone();
    url.set_path("/v2/_catalog");
    url.query_pairs_mut().append_pair("n", &n.to_string());
    if let Some(last) = last {
        url.query_pairs_mut().append_pair("last", last);
    }
    let mut ask = Ask::new(Method::GET, Scope::Catalog, url);
    ask.accept = ddr_oci::media_type::JSON;
    let answer = exchange.ask(&ask).await?;
    let host = wire::host(&answer);
    let Some(answer) = judge(answer).await? else {
        return Err(UpstreamError::Unsupported(format!("{host} lists no repositories")));
    };
    let is_last = answer.headers().get(LINK).is_none();
    let body = wire::read(answer, MAX_CATALOG_BYTES).await?;
    let page: Answer = serde_json::from_slice(&body)
        .map_err(|_| UpstreamError::Failed(format!("{host} sends no list of repositories")))?;
    let names = page.repositories.unwrap_or_default();
    let last = names.last().cloned().filter(|_| !is_last);
    let repositories = names.iter().filter_map(|name| name.parse().ok()).collect();
    Ok(Page { repositories, last })
}
