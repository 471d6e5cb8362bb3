//! What a request asks of the copy that its client has already: `If-None-Match`, `If-Range`.
//!
//! Decides that the entity tag of content is its digest, in quotes: content by digest never
//! changes, and a tag that moves to other content changes its entity tag. Must never look at
//! dates: nothing here has one (RFC 9110, section 13).

use ddr_oci::digest::Digest;
use ddr_oci::range::{RangeOutcome, byte_range};
use http::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{Method, StatusCode};

use crate::respond::{self, DOCKER_CONTENT_DIGEST, Reply};

/// The entity tag of the content with this digest.
pub(crate) fn entity_tag(digest: &Digest) -> HeaderValue {
    respond::value(&quoted(digest))
}

fn quoted(digest: &Digest) -> String {
    format!("\"{digest}\"")
}

/// True when the client has the content already (RFC 9110, section 13.1.2).
pub(crate) fn has_it(headers: &HeaderMap, digest: &Digest) -> bool {
    let own = quoted(digest);
    let fields = headers.get_all(IF_NONE_MATCH).iter().filter_map(|field| field.to_str().ok());
    fields
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == own)
}

/// The answer to a client that has it.
pub(crate) fn not_modified(digest: &Digest) -> Reply {
    let mut reply = respond::empty(StatusCode::NOT_MODIFIED);
    reply.headers_mut().insert(ETAG, entity_tag(digest));
    reply.headers_mut().insert(DOCKER_CONTENT_DIGEST, respond::value(&digest.to_string()));
    reply
}

/// What part is asked for. A range means something for GET only (section 14.2), and only if the
/// client's `If-Range` names this content (section 13.1.5).
pub(crate) fn range(
    method: &Method,
    headers: &HeaderMap,
    digest: &Digest,
    size: u64,
) -> RangeOutcome {
    let same = headers.get(IF_RANGE).is_none_or(|tag| tag.as_bytes() == quoted(digest).as_bytes());
    if *method != Method::GET || !same {
        return RangeOutcome::Whole;
    }
    byte_range(only(headers, RANGE), size)
}

/// Several fields, or one that is no text, ask for nothing that can be served in part.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next()?;
    if fields.next().is_some() { None } else { field.to_str().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn the_client_has_what_it_names() {
        let digest = Digest::sha256(b"x");
        let (own, other) = (quoted(&digest), quoted(&Digest::sha256(b"y")));
        for yes in [own.clone(), format!("W/{own}"), format!("{other}, {own}"), "*".into()] {
            assert!(has_it(&with(IF_NONE_MATCH, &yes), &digest), "{yes}");
        }
        for no in [other, digest.to_string(), String::new(), "\"".into(), "\"*\"".into()] {
            assert!(!has_it(&with(IF_NONE_MATCH, &no), &digest), "{no}");
        }
        assert!(!has_it(&HeaderMap::new(), &digest));
    }

    #[test]
    fn a_range_of_other_content_is_not_served() {
        let digest = Digest::sha256(b"x");
        let asked = |if_range: Option<&str>| {
            let mut headers = with(RANGE, "bytes=2-3");
            headers.extend(if_range.map(|tag| (IF_RANGE, tag.parse().unwrap())));
            range(&Method::GET, &headers, &digest, 10)
        };
        let part = RangeOutcome::Part { start: 2, end: 4 };
        assert_eq!(asked(None), part);
        assert_eq!(asked(Some(&quoted(&digest))), part);
        // A weak tag does not do for a range, and there are no dates.
        let weak = format!("W/{}", quoted(&digest));
        for other in [weak.as_str(), "\"sha256:0\"", "Sat, 29 Oct 1994 19:43:31 GMT", ""] {
            assert_eq!(asked(Some(other)), RangeOutcome::Whole, "{other}");
        }
        let headers = with(RANGE, "bytes=2-3");
        assert_eq!(range(&Method::HEAD, &headers, &digest, 10), RangeOutcome::Whole);
    }
}
