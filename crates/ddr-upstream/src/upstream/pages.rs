//! What comes after a page of a list (RFC 8288; distribution-spec, "Listing Tags", "Listing Referrers").
//!
//! Decides which `Link` is followed: one of the registry's own, for a page that nobody else could give.

use http::header::LINK;
use reqwest::{Response, Url};

use crate::exchange::Exchange;
use crate::wire;

/// Most pages of one list that are read.
pub(super) const MAX_PAGES: usize = 1000;
/// Longest target of a link, in bytes.
const MAX_TARGET_BYTES: usize = 8 * 1024;

/// Where the next page is; `None`: this is the last.
pub(super) fn next(exchange: &Exchange, answer: &Response) -> Option<Url> {
    let next = answer.url().join(target(wire::text(answer.headers(), LINK)?)?).ok()?;
    exchange.wire.reach.is_origin(&next).then_some(next)
}

/// The target of the first link to a next page.
fn target(links: &str) -> Option<&str> {
    let mut rest = links;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        // The parameters of this link end where the target of another begins.
        let (parameters, _) = after.split_once('<').unwrap_or((after, ""));
        if target.len() <= MAX_TARGET_BYTES && parameters.split([';', ',']).any(is_next) {
            return Some(target);
        }
        rest = after;
    }
}

fn is_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let value = value.trim().trim_matches('"');
    name.trim().eq_ignore_ascii_case("rel")
        && value.split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_all_spellings() {
        for links in [
            r#"</v2/a/tags/list?last=b&n=2>; rel="next""#,
            "</v2/a/tags/list?last=b&n=2>;rel=next",
            r#"</first>; rel="first", </v2/a/tags/list?last=b&n=2>; title="a"; REL="up Next""#,
        ] {
            assert_eq!(target(links), Some("/v2/a/tags/list?last=b&n=2"), "{links}");
        }
        let long = format!("<{}>; rel=next", "x".repeat(MAX_TARGET_BYTES + 1));
        for links in ["", "<", "<a", "a>; rel=next", "<a>", "<a>; rel=prev", "<a>; rel", &long] {
            assert_eq!(target(links), None, "{links}");
        }
    }
}
