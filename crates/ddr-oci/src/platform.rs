//! The platform of an image, as people write it and as an index states it.
//!
//! Decides when a member of an index is for a platform. Never normalises: `x86_64` is not `amd64`.

use std::fmt;
use std::str::FromStr;

use crate::descriptor::Descriptor;

/// Longest text of a platform in bytes.
pub const MAX_PLATFORM_BYTES: usize = 64;

/// `OS/ARCH[/VARIANT]`, such as `linux/arm64/v8` (image-spec, image-index.md, `platform`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// Not a platform.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("invalid platform: want OS/ARCH or OS/ARCH/VARIANT, such as linux/arm64/v8")]
pub struct PlatformError;

impl Platform {
    /// Whether a member of an index is for this platform. Without a variant here any will do.
    #[must_use]
    pub fn admits(&self, member: &Descriptor) -> bool {
        let stated = |field: &str| member.platform.as_ref()?.get(field)?.as_str();
        let variant_fits = |wanted: &str| stated("variant") == Some(wanted);
        stated("os") == Some(&self.os)
            && stated("architecture") == Some(&self.architecture)
            && self.variant.as_deref().is_none_or(variant_fits)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let is_word = |part: &str| {
            let is_part = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            !part.is_empty() && part.bytes().all(is_part)
        };
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        if text.len() > MAX_PLATFORM_BYTES || !parts.iter().all(|part| is_word(part)) {
            return Err(PlatformError);
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(PlatformError),
        };
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn member(platform: serde_json::Value) -> Descriptor {
        let mut member = Descriptor::new("a/b", Digest::sha256(b"x"), 1);
        member.platform = Some(platform);
        member
    }

    #[test]
    fn two_or_three_words_are_a_platform() {
        for text in ["linux/amd64", "linux/arm64/v8", "windows/amd64"] {
            assert_eq!(text.parse::<Platform>().map(|p| p.to_string()).as_deref(), Ok(text));
        }
        let long = format!("linux/{}", "a".repeat(MAX_PLATFORM_BYTES));
        for text in ["", "linux", "linux/", "/amd64", "a/b/c/d", "a/b/", "linux/a b", "é/b", &long]
        {
            assert_eq!(text.parse::<Platform>(), Err(PlatformError), "{text}");
        }
    }

    #[test]
    fn a_member_fits_when_it_states_the_same() {
        let platform = |text: &str| text.parse::<Platform>().expect("a platform");
        let v8 = serde_json::json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
        assert!(platform("linux/arm64").admits(&member(v8.clone())));
        assert!(platform("linux/arm64/v8").admits(&member(v8.clone())));
        assert!(!platform("linux/arm64/v7").admits(&member(v8.clone())));
        assert!(!platform("linux/amd64").admits(&member(v8)));
        let bare = serde_json::json!({ "os": "linux", "architecture": "arm64" });
        assert!(!platform("linux/arm64/v8").admits(&member(bare)));
        assert!(!platform("linux/arm64").admits(&member(serde_json::json!("linux/arm64"))));
        let mut none = member(serde_json::Value::Null);
        none.platform = None;
        assert!(!platform("linux/arm64").admits(&none));
    }
}
