//! One page of a list of names: how long it is and how the client gets the next.
//!
//! Decides the bound of a page and the `Link` header (spec.md, "Listing Tags"; RFC 8288).

use http::header::{HeaderValue, LINK};

use crate::respond::{self, Reply};

/// What the client asked for, held to the limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Page {
    size: usize,
}

impl Page {
    /// `n` as the client gave it; `limit` when it gave none or too much.
    pub(crate) fn new(n: Option<u64>, limit: usize) -> Self {
        let asked = n.map_or(limit, |n| usize::try_from(n).unwrap_or(usize::MAX));
        Self { size: asked.min(limit) }
    }

    /// How many names to read: one more than the page holds tells whether there is another page.
    pub(crate) const fn read(self) -> usize {
        self.size + 1
    }

    /// Cuts `names` to the page. `Some`: the `Link` to the next page of the list at `path`. An
    /// empty page has no next: it could not move on.
    pub(crate) fn cut<T: ToString>(self, names: &mut Vec<T>, path: &str) -> Option<HeaderValue> {
        let more = names.len() > self.size;
        names.truncate(self.size);
        let last = names.last().filter(|_| more)?.to_string();
        // The grammars of names and tags need no escaping in a query.
        Some(respond::value(&format!("<{path}?n={}&last={last}>; rel=\"next\"", self.size)))
    }
}

/// Adds the link, when there is one.
pub(crate) fn linked(mut reply: Reply, next: Option<HeaderValue>) -> Reply {
    if let Some(next) = next {
        reply.headers_mut().insert(LINK, next);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_links_to_the_next_only_when_there_is_one() {
        let page = Page::new(Some(2), 10);
        let mut names = vec!["a", "b", "c"];
        let link = page.cut(&mut names, "/v2/x/tags/list").expect("there is a third name");
        assert_eq!(link, "</v2/x/tags/list?n=2&last=b>; rel=\"next\"");
        assert_eq!(names, ["a", "b"]);
        assert_eq!(page.cut(&mut names, "/v2/x/tags/list"), None);
    }

    #[test]
    fn no_count_above_the_limit_is_read() {
        assert_eq!(Page::new(None, 3).read(), 4);
        assert_eq!(Page::new(Some(u64::MAX), 3).read(), 4);
    }

    #[test]
    fn a_page_of_nothing_has_no_next() {
        let mut names = vec!["a"];
        assert_eq!(Page::new(Some(0), 10).cut(&mut names, "/v2/_catalog"), None);
        assert!(names.is_empty());
    }
}
