//! The `Warning` header: what went well but deserves a word (distribution-spec, "Warnings").
//!
//! Decides its grammar, `299 - "text"`, and its length; and `110` for what may be outdated
//! (RFC 7234, section 5.5.1).

use http::header::{HeaderName, HeaderValue, WARNING};

use crate::respond::{self, Reply};

/// Bytes of all warnings of one response together; the specification's limit.
pub(crate) const MAX_WARNING_BYTES: usize = 4096;

/// The name, for those who look for it.
const NAME: HeaderName = WARNING;

/// Adds a warning, cut to what there is room for; drops it where there is none.
pub(crate) fn add(reply: &mut Reply, text: &str) {
    let taken: usize = reply.headers().get_all(NAME).iter().map(HeaderValue::len).sum();
    let around = "299 - \"\"".len();
    let Some(room) = MAX_WARNING_BYTES.checked_sub(taken + around).filter(|room| *room > 0) else {
        return;
    };
    // What a quoted string cannot hold as it is has no place in these texts.
    let plain = |c: &char| c.is_ascii_graphic() && !matches!(c, '"' | '\\') || *c == ' ';
    let text: String = text.chars().filter(plain).take(room).collect();
    reply.headers_mut().append(NAME, respond::value(&format!("299 - \"{text}\"")));
}

/// Says that the answer may be outdated.
pub(crate) fn add_stale(reply: &mut Reply) {
    reply.headers_mut().append(NAME, HeaderValue::from_static("110 - \"Response is Stale\""));
}

/// `intro` and as many of `items` as a warning has room for.
pub(crate) fn list<T: std::fmt::Display>(intro: &str, items: &[T]) -> String {
    let mut text = intro.to_owned();
    for (place, item) in items.iter().enumerate() {
        let item = format!("{}{item}", if place == 0 { ": " } else { ", " });
        if text.len() + item.len() + ", ...".len() > MAX_WARNING_BYTES - "299 - \"\"".len() {
            text.push_str(", ...");
            break;
        }
        text.push_str(&item);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_that_of_the_specification() {
        let mut reply = respond::empty(http::StatusCode::OK);
        add(&mut reply, "2 \"blobs\"\r\n are\\ gone");
        assert_eq!(reply.headers()[NAME], "299 - \"2 blobs are gone\"");
    }

    #[test]
    fn all_warnings_together_keep_the_limit() {
        let mut reply = respond::empty(http::StatusCode::OK);
        for _ in 0..5 {
            add(&mut reply, &"x".repeat(1500));
        }
        let lens: Vec<usize> = reply.headers().get_all(NAME).iter().map(HeaderValue::len).collect();
        assert_eq!(lens, [1508, 1508, MAX_WARNING_BYTES - 2 * 1508]);
    }

    #[test]
    fn a_list_is_cut_between_items() {
        let items = vec!["sha256:0123456789"; 1000];
        let text = list("1000 blobs", &items);
        assert!(text.starts_with("1000 blobs: sha256:0123456789, sha256:0"));
        assert!(text.ends_with(":0123456789, ..."), "{text}");
        let mut reply = respond::empty(http::StatusCode::OK);
        add(&mut reply, &text);
        assert!(reply.headers()[NAME].len() <= MAX_WARNING_BYTES);
        assert_eq!(list("2 blobs", &["a", "b"]), "2 blobs: a, b");
    }
}
