//! What refers to a manifest (distribution-spec, "Listing Referrers").
//!
//! Decides how many pages are read, and that a registry which does not know the question has said nothing.

use ddr_oci::{Descriptor, Digest, Manifest, ManifestKind, RepositoryName, media_type};
use http::{Method, StatusCode};

use super::pages;
use crate::api::UpstreamError;
use crate::exchange::{Ask, Exchange, judge};
use crate::scope::Scope;
use crate::wire::{self, discard};

/// Longest page, in bytes: the most that a manifest may have.
const MAX_PAGE_BYTES: usize = ddr_oci::MAX_MANIFEST_BYTES;
/// Bytes of all pages together after which no more are read.
const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

pub(super) async fn referrers(
    exchange: &Exchange,
    repository: &RepositoryName,
    subject: &Digest,
    max: usize,
) -> Result<Option<Vec<Descriptor>>, UpstreamError> {
    let mut url = exchange.url(repository, &format!("referrers/{subject}"));
    let (mut all, mut bytes) = (Vec::new(), 0);
    for _ in 0..pages::MAX_PAGES {
        let mut ask = Ask::new(Method::GET, Scope::Pull(repository.clone()), url);
        ask.accept = media_type::OCI_INDEX;
        let answer = exchange.ask(&ask).await?;
        if is_unknown(answer.status()) {
            discard(answer).await;
            return Ok(None);
        }
        let Some(answer) = judge(answer).await? else { return Ok(None) };
        let (host, next) = (wire::host(&answer), pages::next(exchange, &answer));
        let body = wire::read(answer, MAX_PAGE_BYTES).await?;
        let page = Manifest::parse(Some(media_type::OCI_INDEX), &body)
            .ok()
            .filter(|index| index.kind == ManifestKind::Index)
            .ok_or_else(|| UpstreamError::Failed(format!("{host} sends no list of referrers")))?;
        let has_news = !page.manifests.is_empty();
        bytes += body.len();
        all.extend(page.manifests);
        let goes_on = has_news && all.len() <= max && bytes <= MAX_LIST_BYTES;
        let Some(next) = next.filter(|_| goes_on) else { break };
        url = next;
    }
    if all.len() > max {
        tracing::warn!(%repository, %subject, "of more than {max} referrers at the registry the first are known");
        all.truncate(max);
    }
    Ok(Some(all))
}

/// How registries from before that question answer it; 404 is among [`judge`]'s.
fn is_unknown(status: StatusCode) -> bool {
    use StatusCode as S;
    matches!(
        status,
        S::BAD_REQUEST | S::METHOD_NOT_ALLOWED | S::NOT_ACCEPTABLE | S::NOT_IMPLEMENTED
    )
}
