//! `GET /v2/<name>/referrers/<digest>` (end-12a, end-12b).
//!
//! A registry that has this API never answers 404 here: an unknown subject has an empty list.
//! Decides the order, by digest, and what fits in one answer; the rest is behind `Link`.

use std::collections::BTreeMap;

use bytes::Bytes;
use ddr_node::{ListedBy, Referrers};
use ddr_oci::Descriptor;
use ddr_oci::digest::Digest;
use ddr_oci::media_type::OCI_INDEX;
use ddr_oci::reference::RepositoryName;
use http::StatusCode;
use http::header::{HeaderName, HeaderValue};

use crate::error::ApiError;
use crate::fallback;
use crate::limits::MAX_REFERRERS_BYTES;
use crate::page;
use crate::respond::{self, Reply};
use crate::router::Call;
use crate::warning;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Which of the referrers are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Only those of this type.
    pub(crate) artifact_type: Option<&'a str>,
    /// At most so many.
    pub(crate) n: Option<u64>,
    /// Those after this one.
    pub(crate) last: Option<&'a Digest>,
}

/// The manifests whose subject is `digest`, as an image index.
pub(crate) async fn list(
    call: &Call,
    name: &RepositoryName,
    digest: &Digest,
    asked: Asked<'_>,
) -> Result<Reply, ApiError> {
    let node = &call.shared.node;
    let Referrers { descriptors, by } = node.referrers(name, digest).await?;
    let mut all: BTreeMap<Digest, Descriptor> =
        descriptors.into_iter().map(|descriptor| (descriptor.digest, descriptor)).collect();
    // A registry that answers this question knows its tag itself.
    let whole = match by {
        ListedBy::Registry => fallback::Folded::Whole,
        ListedBy::Swarm | ListedBy::Memory(_) => {
            fallback::fold(node, name, digest, &mut all).await?
        }
    };
    let is_stale = match by {
        ListedBy::Memory(error) if all.is_empty() => return Err(error.into()),
        ListedBy::Memory(_) => true,
        ListedBy::Swarm | ListedBy::Registry => false,
    };

    let wanted = |kind: Option<&str>| asked.artifact_type.is_none_or(|want| kind == Some(want));
    all.retain(|digest, descriptor| {
        asked.last.is_none_or(|last| digest > last) && wanted(descriptor.artifact_type.as_deref())
    });
    let limit = call.shared.limits.page;
    let most = asked.n.map_or(limit, |n| usize::try_from(n).unwrap_or(limit).min(limit));
    let left = all.len();
    let descriptors = first_page(all.into_values(), most);
    let last = descriptors.last().filter(|_| descriptors.len() < left);
    let next = last.map(|last| link(name, digest, asked, &last.digest));

    let index = ddr_oci::referrers::index(&descriptors);
    let media_type = HeaderValue::from_static(OCI_INDEX);
    let mut reply = respond::bytes(StatusCode::OK, media_type, Bytes::from(index));
    if asked.artifact_type.is_some() {
        let filtered = HeaderValue::from_static("artifactType");
        reply.headers_mut().insert(OCI_FILTERS_APPLIED, filtered);
    }
    if let fallback::Folded::Partly = whole {
        warning::add(&mut reply, "the referrers tag could not be read as a whole");
    }
    if is_stale {
        warning::add_stale(&mut reply);
    }
    Ok(page::linked(reply, next))
}

/// As many of `all` as there is room for in one answer; one in any case where one is wanted.
fn first_page(all: impl Iterator<Item = Descriptor>, most: usize) -> Vec<Descriptor> {
    let mut bytes = 0;
    let mut page = Vec::new();
    for descriptor in all.take(most) {
        bytes += descriptor.to_json().len() + 1;
        if bytes > MAX_REFERRERS_BYTES && !page.is_empty() {
            break;
        }
        page.push(descriptor);
    }
    page
}

/// The link to what comes after `last`.
fn link(name: &RepositoryName, digest: &Digest, asked: Asked<'_>, last: &Digest) -> HeaderValue {
    let n = asked.n.map(|n| format!("n={n}&")).unwrap_or_default();
    let kind = asked.artifact_type.map(|kind| format!("&artifactType={}", encoded(kind)));
    let kind = kind.unwrap_or_default();
    respond::value(&format!("</v2/{name}/referrers/{digest}?{n}last={last}{kind}>; rel=\"next\""))
}

/// Percent-encodes all but what RFC 3986, section 2.3, leaves as it is.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_repeats_what_was_asked() {
        let (subject, last) = (Digest::sha256(b"s"), Digest::sha256(b"l"));
        let name = "a/b".parse().unwrap();
        let asked = Asked { artifact_type: Some("text/a+b; c=\"é\""), n: Some(3), last: None };
        assert_eq!(
            link(&name, &subject, asked, &last),
            format!(
                "</v2/a/b/referrers/{subject}?n=3&last={last}\
                 &artifactType=text%2Fa%2Bb%3B%20c%3D%22%C3%A9%22>; rel=\"next\""
            )
        );
    }

    #[test]
    fn a_page_has_room_for_a_manifest_of_annotations() {
        let descriptor = |bytes: usize| {
            let mut descriptor = Descriptor::new(OCI_INDEX, Digest::sha256(b"x"), 1);
            descriptor.annotations.insert("k".into(), "v".repeat(bytes));
            descriptor
        };
        let count = |sizes: &[usize], most| {
            first_page(sizes.iter().map(|bytes| descriptor(*bytes)), most).len()
        };
        assert_eq!(count(&[10, 10, 10], 2), 2);
        assert_eq!(count(&[10, 10, 10], 0), 0);
        assert_eq!(count(&[2_000_000, 2_000_000, 2_000_000], 9), 2);
        assert_eq!(count(&[5_000_000, 10], 9), 1);
        assert_eq!(count(&[10, 5_000_000, 10], 9), 1);
    }
}
