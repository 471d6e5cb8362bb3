//! A domain name as it stands in a message: labels with their lengths, ASCII letters in lower case.
//!
//! Two names are the same when these bytes are (RFC 1035 section 2.3.3, RFC 4343). It must never
//! hold more than [`MAX_NAME_BYTES`].

use std::fmt;
use std::str::FromStr;

/// Bytes of a name with all its lengths and the empty label at its end (RFC 1035 section 2.3.4).
pub const MAX_NAME_BYTES: usize = 255;
/// Bytes of one label (RFC 1035 section 2.3.4).
pub const MAX_LABEL_BYTES: usize = 63;

/// A domain name, always from the root. The text form is `a.b.example`, without a dot at the end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

/// The text is no domain name: a label is empty or longer than [`MAX_LABEL_BYTES`], or all of them
/// together are longer than [`MAX_NAME_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a domain name")]
pub struct NameError;

impl Name {
    /// The root: a name without labels.
    pub fn root() -> Self {
        Self(vec![0])
    }

    /// True for the root, which as a target means "nothing here" (RFC 2782).
    pub fn is_root(&self) -> bool {
        self.0 == [0]
    }

    /// The name with one more label at its end.
    pub(super) fn push(&mut self, label: &[u8]) -> Result<(), NameError> {
        let fits = self.0.len() + 1 + label.len() <= MAX_NAME_BYTES;
        if label.is_empty() || label.len() > MAX_LABEL_BYTES || !fits {
            return Err(NameError);
        }
        self.0.pop();
        self.0.push(label.len() as u8);
        self.0.extend(label.iter().map(u8::to_ascii_lowercase));
        self.0.push(0);
        Ok(())
    }

    /// This name below `parent`: `a` below `example` is `a.example`.
    pub(super) fn below(label: &str, parent: &Self) -> Result<Self, NameError> {
        let mut name = Self::root();
        name.push(label.as_bytes())?;
        parent.labels().try_for_each(|label| name.push(label))?;
        Ok(name)
    }

    /// As it stands in a message.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The labels, the first one first.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (&len, more) = rest.split_first().filter(|(len, _)| **len > 0)?;
            let (label, more) = more.split_at_checked(usize::from(len))?;
            rest = more;
            Some(label)
        })
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut name = Self::root();
        let text = text.strip_suffix('.').unwrap_or(text);
        text.split('.').try_for_each(|label| name.push(label.as_bytes()))?;
        Ok(name)
    }
}

impl fmt::Display for Name {
    /// Dots and unprintable bytes inside a label are shown as `\DDD` (RFC 1035 section 5.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, label) in self.labels().enumerate() {
            if number > 0 {
                f.write_str(".")?;
            }
            for &byte in label {
                match byte {
                    b'.' | b'\\' => write!(f, "\\{byte:03}")?,
                    0x21..=0x7e => write!(f, "{}", char::from(byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_compared_without_case() {
        let name: Name = "_DDR._tcp.Example.org.".parse().unwrap();
        assert_eq!(name, "_ddr._tcp.example.org".parse().unwrap());
        assert_eq!(name.to_string(), "_ddr._tcp.example.org");
        assert_eq!(Name::below("a", &name).unwrap().to_string(), "a._ddr._tcp.example.org");
    }

    #[test]
    fn what_is_too_long_or_empty_is_no_name() {
        let long = "a".repeat(MAX_LABEL_BYTES);
        assert!(long.parse::<Name>().is_ok());
        for text in ["", ".", "a..b", ".a", &format!("{long}a")] {
            assert_eq!(text.parse::<Name>(), Err(NameError), "{text}");
        }
        let most = [long.as_str(); 4].join(".");
        assert!(most.parse::<Name>().is_err(), "257 bytes with its lengths");
        assert!(most[..most.len() - 2].parse::<Name>().is_ok(), "255 bytes");
    }

    #[test]
    fn a_dot_inside_a_label_is_shown_as_none() {
        let mut name = Name::root();
        name.push(b"a.b\x07").unwrap();
        assert_eq!(name.to_string(), "a\\046b\\007");
    }
}
