//! Content of many namespaces as one list.

use std::collections::BTreeMap;

use ddr_oci::Digest;

use crate::content::Content;

/// Most entries of a [`Listing`]; the rest, in containerd's order, is left out and counted.
pub const MAX_CONTENT: usize = 100_000;

/// What is in the content store.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    /// Each digest once, in their order, at most [`MAX_CONTENT`].
    pub contents: Vec<Content>,
    /// Entries beyond that, each counted in every namespace that has it.
    pub left_out: usize,
}

/// Entries of all namespaces by digest.
#[derive(Default)]
pub(crate) struct Collected {
    contents: BTreeMap<Digest, Content>,
    left_out: usize,
}

impl Collected {
    pub(crate) fn add(&mut self, content: Content) {
        if let Some(known) = self.contents.get_mut(&content.digest) {
            known.join(content);
        } else if self.contents.len() < MAX_CONTENT {
            self.contents.insert(content.digest, content);
        } else {
            self.left_out += 1;
        }
    }

    pub(crate) fn listing(self) -> Listing {
        let Self { contents, left_out } = self;
        if left_out > 0 {
            tracing::warn!(left_out, "containerd has more content than is read");
        }
        Listing { contents: contents.into_values().collect(), left_out }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(number: usize, namespace: &str) -> Content {
        Content {
            digest: Digest::sha256(&number.to_be_bytes()),
            size: 1,
            namespace: namespace.to_owned(),
            sources: Vec::new(),
            has_children: false,
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_counted() {
        let mut collected = Collected::default();
        (0..MAX_CONTENT + 3).for_each(|number| collected.add(content(number, "a")));
        // Known: no entry more.
        collected.add(content(0, "b"));
        let listing = collected.listing();
        assert_eq!((listing.contents.len(), listing.left_out), (MAX_CONTENT, 3));
        assert!(listing.contents.is_sorted_by_key(|content| content.digest));
    }
}
