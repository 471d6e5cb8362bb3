//! The query parameters of the API.
//!
//! Decides their limits and what a repeated parameter means: the same value twice is one, two
//! different values are an error (clients append `digest=` to whatever query is there).

use std::borrow::Cow;

use super::encoding::decode;
use super::{
    MAX_ARTIFACT_TYPE_BYTES, MAX_LAST_BYTES, MAX_QUERY_PARAMETERS, MAX_TAG_PARAMETERS, RouteError,
};
use crate::digest::{Algorithm, Digest};
use crate::reference::{MAX_HOST_BYTES, RepositoryName, Tag};

/// A query as sent; keys and values are decoded when they are asked for.
pub(super) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, RouteError> {
        if text.split('&').count() > MAX_QUERY_PARAMETERS {
            return Err(RouteError::TooLong);
        }
        Ok(Self(text))
    }

    /// `digest`, or `None` if absent.
    pub(super) fn digest(&self) -> Result<Option<Digest>, RouteError> {
        self.digest_named("digest")
    }

    /// `digest-algorithm`, or `None` if absent.
    pub(super) fn algorithm(&self) -> Result<Option<Algorithm>, RouteError> {
        let value = self.one("digest-algorithm")?;
        value.map(|v| v.parse().map_err(|_| RouteError::DigestInvalid)).transpose()
    }

    /// `mount` with `from`; an empty `from` is an absent one.
    pub(super) fn mount(&self) -> Result<Option<(Digest, Option<RepositoryName>)>, RouteError> {
        let Some(digest) = self.digest_named("mount")? else { return Ok(None) };
        let from = self.one("from")?.filter(|from| !from.is_empty());
        let from = from.map(|f| f.parse().map_err(|_| RouteError::NameInvalid)).transpose()?;
        Ok(Some((digest, from)))
    }

    /// `n` and `last`. A number over 64 bits is cut: it means "all". An empty `last` is absent.
    pub(super) fn page(&self) -> Result<(Option<u64>, Option<String>), RouteError> {
        let n = self.one("n")?.map(|n| page_size(&n)).transpose()?;
        let last = self.one("last")?.filter(|last| !last.is_empty());
        if last.as_ref().is_some_and(|last| last.len() > MAX_LAST_BYTES) {
            return Err(RouteError::PageInvalid);
        }
        Ok((n, last.map(Cow::into_owned)))
    }

    /// All `tag` parameters, without duplicates.
    pub(super) fn tags(&self) -> Result<Vec<Tag>, RouteError> {
        let mut tags: Vec<Tag> = Vec::new();
        for (given, value) in self.all("tag").enumerate() {
            if given >= MAX_TAG_PARAMETERS {
                return Err(RouteError::TooLong);
            }
            let tag = value?.parse().map_err(|_| RouteError::TagInvalid)?;
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        Ok(tags)
    }

    /// `artifactType`; an empty one is absent.
    pub(super) fn artifact_type(&self) -> Result<Option<String>, RouteError> {
        let value = self.one("artifactType")?.filter(|value| !value.is_empty());
        if value.as_ref().is_some_and(|value| value.len() > MAX_ARTIFACT_TYPE_BYTES) {
            return Err(RouteError::QueryInvalid);
        }
        Ok(value.map(Cow::into_owned))
    }

    /// `ns`; an empty one is absent.
    pub(super) fn namespace(&self) -> Result<Option<String>, RouteError> {
        let value = self.one("ns")?.filter(|value| !value.is_empty());
        if value.as_ref().is_some_and(|value| value.len() > MAX_HOST_BYTES) {
            return Err(RouteError::QueryInvalid);
        }
        Ok(value.map(Cow::into_owned))
    }

    fn digest_named(&self, key: &str) -> Result<Option<Digest>, RouteError> {
        match self.one(key) {
            Err(RouteError::QueryInvalid) => Err(RouteError::DigestInvalid),
            Err(other) => Err(other),
            Ok(value) => {
                value.map(|v| v.parse().map_err(|_| RouteError::DigestInvalid)).transpose()
            }
        }
    }

    /// The one value of `key`.
    fn one(&self, key: &str) -> Result<Option<Cow<'a, str>>, RouteError> {
        let mut values = self.all(key);
        let Some(first) = values.next().transpose()? else { return Ok(None) };
        for other in values {
            if other? != first {
                return Err(RouteError::QueryInvalid);
            }
        }
        Ok(Some(first))
    }

    /// Every value of `key`, in order. A key that cannot be decoded is one we do not know.
    fn all(&self, key: &str) -> impl Iterator<Item = Result<Cow<'a, str>, RouteError>> {
        self.0
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .filter(move |(name, _)| decode(name).is_ok_and(|name| name == key))
            .map(|(_, value)| decode(value))
    }
}

fn page_size(digits: &str) -> Result<u64, RouteError> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RouteError::PageInvalid);
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}
