//! Names of things: repository, tag, reference, and the form a person types.
//!
//! Decides the grammar of distribution-spec, "Pulling manifests", and the 255-byte and 128-byte
//! limits. Never normalises: a name is stored and compared as it was given, `library/` is not
//! implied and case is not folded.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::digest::{Digest, DigestError};
use crate::text::serde_as_text;

/// Longest repository name in bytes. The specification sets no limit; clients cap host and
/// name together at 255 characters.
pub const MAX_NAME_BYTES: usize = 255;

/// Longest tag in bytes (distribution-spec, "Pulling manifests").
pub const MAX_TAG_BYTES: usize = 128;

/// Longest host with port in an [`ImageReference`]: a DNS name, a colon and a port.
pub const MAX_HOST_BYTES: usize = 253 + 1 + 5;

/// The tag that is meant when a person gives none.
pub const DEFAULT_TAG: &str = "latest";

/// Why a text is not a name, tag or reference. The text is not repeated.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    /// Not a repository name.
    #[error(
        "invalid repository name: want lower-case letters, digits and single separators (. _ __ -) in components joined by /, at most 255 bytes"
    )]
    Name,
    /// Not a tag.
    #[error("invalid tag: want [a-zA-Z0-9_][a-zA-Z0-9._-]*, at most 128 bytes")]
    Tag,
    /// The host part of an image reference is not `name[:port]`.
    #[error("invalid host: want NAME or NAME:PORT")]
    Host,
    /// The part after `@`, or a reference with a colon, is not a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// A repository name such as `team/app`: at most [`MAX_NAME_BYTES`], cheap to clone.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepositoryName {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fits = text.len() <= MAX_NAME_BYTES;
        if fits && text.split('/').all(is_component) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(ReferenceError::Name)
        }
    }
}

/// A tag such as `1.0`: at most [`MAX_TAG_BYTES`], cheap to clone.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `latest`.
    #[must_use]
    pub fn latest() -> Self {
        Self(Arc::from(DEFAULT_TAG))
    }
}

impl FromStr for Tag {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let first_is_word = text.bytes().next().is_some_and(is_word);
        let rest_fits = text.bytes().all(|b| is_word(b) || b == b'.' || b == b'-');
        if first_is_word && rest_fits && text.len() <= MAX_TAG_BYTES {
            Ok(Self(Arc::from(text)))
        } else {
            Err(ReferenceError::Tag)
        }
    }
}

/// What stands after `/manifests/`: a tag, or a digest if it has a colon.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub enum Reference {
    /// By tag; what it names can change.
    Tag(Tag),
    /// By digest; what it names cannot change.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            Ok(Self::Digest(text.parse::<Digest>()?))
        } else {
            text.parse().map(Self::Tag)
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// What a person types: `[HOST/]NAME[:TAG][@DIGEST]`.
///
/// The first component is a host when it has a dot or a colon or is `localhost`, as docker has
/// it. Without tag and digest the tag is `latest`; with both the digest counts and the tag is
/// dropped, because only the digest says what is meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageReference {
    /// Registry host with optional port, if one was given.
    pub host: Option<String>,
    /// The repository.
    pub repository: RepositoryName,
    /// Tag or digest.
    pub reference: Reference,
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (text, digest) = match text.split_once('@') {
            Some((front, digest)) => (front, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (host, text) = split_host(text);
        let host = host.map(check_host).transpose()?;
        let (name, tag) = match text.split_once(':') {
            Some((name, tag)) => (name, Some(tag.parse::<Tag>()?)),
            None => (text, None),
        };
        let reference = match digest {
            Some(digest) => Reference::Digest(digest),
            None => Reference::Tag(tag.unwrap_or_else(Tag::latest)),
        };
        Ok(Self { host, repository: name.parse()?, reference })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        match &self.reference {
            Reference::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Reference::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

/// Text plumbing that the two validated string types share.
macro_rules! text_type {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_type!(RepositoryName);
text_type!(Tag);
serde_as_text!(RepositoryName, "a repository name");
serde_as_text!(Tag, "a tag");
serde_as_text!(Reference, "a tag or a digest");
serde_as_text!(ImageReference, "an image reference");

/// `[a-z0-9]+ ((\.|_|__|-+) [a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends_in_words = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    ends_in_words
        && bytes.split(is_word).filter(|separator| !separator.is_empty()).all(|separator| {
            matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

fn split_host(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

/// A DNS name, an IPv4 address or `[IPv6]`, then an optional port.
fn check_host(host: &str) -> Result<String, ReferenceError> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(ReferenceError::Host)?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
    let name_ok = if host.starts_with('[') {
        name.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !name.is_empty() && name.bytes().all(is_name_byte)
    };
    let port_ok = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    if name_ok && port_ok && host.len() <= MAX_HOST_BYTES {
        Ok(host.to_owned())
    } else {
        Err(ReferenceError::Host)
    }
}

#[cfg(test)]
mod tests;
