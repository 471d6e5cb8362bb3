//! Percent-decoding (RFC 3986, section 2.1).
//!
//! Decides that decoding happens once, that the result is UTF-8 without NUL, and that `+` is a
//! plus: no value of the API has a blank in it, while media types have a plus.

use std::borrow::Cow;

use super::RouteError;

/// Decodes one path segment, query key or query value.
pub(super) fn decode(text: &str) -> Result<Cow<'_, str>, RouteError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = after;
            continue;
        }
        let (&[high, low], after) = after.split_first_chunk::<2>().ok_or(RouteError::Encoding)?;
        match (nibble(high), nibble(low)) {
            (Some(0), Some(0)) | (None, _) | (_, None) => return Err(RouteError::Encoding),
            (Some(high), Some(low)) => out.push(high << 4 | low),
        }
        rest = after;
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| RouteError::Encoding)
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_once_and_keeps_plus() {
        assert_eq!(decode("sha256%3Aab").unwrap(), "sha256:ab");
        assert_eq!(decode("a%2fone").unwrap(), "a/one");
        assert_eq!(decode("%2541").unwrap(), "%41");
        assert_eq!(decode("a+b").unwrap(), "a+b");
        assert_eq!(decode("").unwrap(), "");
        assert_eq!(decode("%C3%A9").unwrap(), "é");
    }

    #[test]
    fn refuses_broken_encoding() {
        for bad in ["%", "%4", "a%zz", "%00", "%ff", "%C3", "%é", "%+1"] {
            assert_eq!(decode(bad), Err(RouteError::Encoding), "{bad}");
        }
    }
}
