//! Patterns of repositories, such as `team/**`, and of tags, such as `v*` or `team/app:release-*`.
//!
//! Decides what a pattern is and what it matches. A pattern of tags without a colon is about tags of
//! every repository; one with a colon names the repository before it. All are matched whole:
//!
//! - `*` stands for any number of characters but `/`, none included;
//! - `**` stands for any number of characters, `/` included;
//! - `?` stands for one character but `/`;
//! - everything else stands for itself, in upper or lower case as it is written.
//!
//! Deliberately absent: classes, braces and negation. A list of patterns says what one cannot.

use std::fmt;
use std::str::FromStr;

use crate::reference::{RepositoryName, Tag};

/// Longest pattern in bytes.
pub const MAX_PATTERN_BYTES: usize = 400;
/// Most patterns in one list.
pub const MAX_PATTERNS: usize = 64;

/// A pattern of repositories; see the module comment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RepositoryPattern(String);

/// A pattern of tags; see the module comment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TagPattern {
    /// `None`: every repository.
    repository: Option<RepositoryPattern>,
    tag: String,
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// Longer than [`MAX_PATTERN_BYTES`].
    #[error("a pattern has at most {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// The part for the tag is empty, or has characters that no tag has.
    #[error("the pattern of a tag has letters, digits, '.', '_', '-', '*' and '?'")]
    Tag,
    /// The part for the repository is empty, or has characters that no repository name has.
    #[error(
        "the pattern of a repository has small letters, digits, '.', '_', '-', '/', '*' and '?'"
    )]
    Repository,
}

impl TagPattern {
    /// Whether the pattern matches `tag` in `repository`.
    #[must_use]
    pub fn matches(&self, repository: &RepositoryName, tag: &Tag) -> bool {
        self.repository.as_ref().is_none_or(|pattern| pattern.matches(repository))
            && glob(self.tag.as_bytes(), tag.as_str().as_bytes())
    }
}

impl FromStr for TagPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(PatternError::TooLong);
        }
        let (repository, tag) = match text.rsplit_once(':') {
            Some((repository, tag)) => (Some(repository), tag),
            None => (None, text),
        };
        if !is_made_of(tag, |c| c.is_ascii_alphanumeric(), "._-*?") {
            return Err(PatternError::Tag);
        }
        Ok(Self { repository: repository.map(str::parse).transpose()?, tag: tag.to_owned() })
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repository {
            Some(repository) => write!(f, "{repository}:{}", self.tag),
            None => f.write_str(&self.tag),
        }
    }
}

impl RepositoryPattern {
    /// Whether the pattern matches `repository`.
    #[must_use]
    pub fn matches(&self, repository: &RepositoryName) -> bool {
        glob(self.0.as_bytes(), repository.as_str().as_bytes())
    }
}

impl FromStr for RepositoryPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        match text {
            _ if text.len() > MAX_PATTERN_BYTES => Err(PatternError::TooLong),
            _ if !is_made_of(text, small, "._-/*?") => Err(PatternError::Repository),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_made_of(text: &str, plain: fn(char) -> bool, others: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| plain(c) || others.contains(c))
}

/// Whether `pattern` matches all of `text`, in time of the product of their lengths: row by row,
/// `ends[n]` says that what was read of the pattern matches the first n bytes.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    let mut rest = pattern;
    while let Some((&one, after)) = rest.split_first() {
        let deep = one == b'*' && after.first() == Some(&b'*');
        rest = if deep { &after[1..] } else { after };
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            let before = at.checked_sub(1).map(|last| (last, text[last]));
            next[at] = match one {
                b'*' => {
                    ends[at]
                        || before.is_some_and(|(last, byte)| next[last] && (deep || byte != b'/'))
                }
                b'?' => before.is_some_and(|(last, byte)| ends[last] && byte != b'/'),
                _ => before.is_some_and(|(last, byte)| ends[last] && byte == one),
            };
        }
        ends = next;
    }
    ends[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expect(pattern: &str, image: &str, wanted: bool) {
        let read: TagPattern = pattern.parse().expect("a pattern");
        assert_eq!(read.to_string(), pattern);
        let (repository, tag) = image.split_once(':').expect("a name and a tag");
        let (repository, tag) = (repository.parse().expect("a name"), tag.parse().expect("a tag"));
        assert_eq!(read.matches(&repository, &tag), wanted, "{pattern} on {image}");
    }

    #[test]
    fn a_pattern_is_about_whole_tags_of_every_repository() {
        expect("v*", "team/app:v1.0", true);
        expect("v*", "app:v", true);
        expect("v*", "app:dev", false);
        expect("v?", "app:v1", true);
        expect("v?", "app:v10", false);
        expect("latest", "app:latest", true);
        expect("latest", "app:latest2", false);
        expect("*-*-*", "app:a-b-c-d", true);
        expect("V1", "app:v1", false);
        expect("**", "a/b:x", true);
    }

    #[test]
    fn a_repository_may_be_named() {
        expect("team/app:release-*", "team/app:release-7", true);
        expect("team/app:release-*", "team/app2:release-7", false);
        expect("team/*:v*", "team/app:v1", true);
        expect("team/*:v*", "team/a/b:v1", false);
        expect("team/**:v*", "team/a/b:v1", true);
        expect("**/app:*", "a/b/app:x", true);
        expect("*:v1", "app:v1", true);
        expect("*:v1", "team/app:v1", false);
    }

    #[test]
    fn what_matches_nothing_is_refused() {
        for text in ["", "app:", "a b", "v[12]", "v{1,2}", "team/app", "!v1"] {
            assert_eq!(text.parse::<TagPattern>(), Err(PatternError::Tag), "{text}");
        }
        for text in [":v1", "Team:v1", "localhost:5000/app:v1"] {
            assert_eq!(text.parse::<TagPattern>(), Err(PatternError::Repository), "{text}");
        }
        let long = "x".repeat(MAX_PATTERN_BYTES + 1);
        assert_eq!(long.parse::<TagPattern>(), Err(PatternError::TooLong));
    }

    #[test]
    fn a_pattern_of_repositories_is_about_whole_names() {
        for (pattern, name, wanted) in [
            ("ci/**", "ci/a/b", true),
            ("ci/**", "ci", false),
            ("ci/*", "ci/a", true),
            ("ci/*", "ci/a/b", false),
            ("**", "a/b", true),
            ("app-?", "app-1", true),
        ] {
            let read: RepositoryPattern = pattern.parse().expect("a pattern");
            assert_eq!(read.to_string(), pattern);
            assert_eq!(read.matches(&name.parse().expect("a name")), wanted, "{pattern} on {name}");
        }
        for text in ["", "Team", "team/app:v1", "a b"] {
            assert_eq!(text.parse::<RepositoryPattern>(), Err(PatternError::Repository), "{text}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(MAX_PATTERN_BYTES / 2);
        let tag = "a".repeat(127) + "b";
        expect(&pattern, &format!("app:{tag}"), false);
    }
}
