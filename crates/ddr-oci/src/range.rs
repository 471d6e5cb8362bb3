//! Byte ranges of a download and content ranges of a chunked upload.
//!
//! Decides what part of a blob a `Range` header asks for. Never fails: a header that is not
//! understood is ignored, as RFC 9110 section 14.2 allows, and the whole blob is sent.

/// Longest `Range` header that is looked at, in bytes; a longer one is ignored.
pub const MAX_RANGE_HEADER_BYTES: usize = 256;

/// What to answer to a `Range` header.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum RangeOutcome {
    /// 200 with all bytes.
    Whole,
    /// 206 with the bytes `start..end`; `start < end <= size`.
    Part {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// 416 with `Content-Range: bytes */<size>`.
    Unsatisfiable,
}

/// What part of `size` bytes the header asks for (RFC 9110, section 14).
///
/// One range `a-b`, `a-` or `-n` of unit `bytes` is honoured and cut at `size`. Several ranges,
/// another unit and garbage give [`RangeOutcome::Whole`]. A start at or past the end, `-0` and a
/// reversed range `b < a` (which the RFC calls invalid, and conformance tests want refused) give
/// [`RangeOutcome::Unsatisfiable`]. Numbers too large for 64 bits count as very large.
#[must_use]
pub fn byte_range(header: Option<&str>, size: u64) -> RangeOutcome {
    let Some(header) = header else { return RangeOutcome::Whole };
    match parse_range(header) {
        None => RangeOutcome::Whole,
        Some((None, None)) => RangeOutcome::Whole,
        Some((None, Some(0))) => RangeOutcome::Unsatisfiable,
        // An empty blob has no part to send; RFC 9110 calls the suffix satisfiable.
        Some((None, Some(_))) if size == 0 => RangeOutcome::Whole,
        Some((None, Some(suffix))) => {
            RangeOutcome::Part { start: size.saturating_sub(suffix), end: size }
        }
        Some((Some(start), last)) => {
            let reversed = last.is_some_and(|last| last < start);
            if reversed || start >= size {
                return RangeOutcome::Unsatisfiable;
            }
            let end = last.map_or(size, |last| last.saturating_add(1).min(size));
            RangeOutcome::Part { start, end }
        }
    }
}

/// First and last byte (inclusive) of an upload chunk from `Content-Range: <start>-<last>`.
///
/// Strict: `^[0-9]+-[0-9]+$` (distribution-spec, "Pushing a blob in chunks"), without the unit
/// and total that HTTP has elsewhere, and `start <= last < u64::MAX`; all else is `None`.
#[must_use]
pub fn content_range(header: &str) -> Option<(u64, u64)> {
    let (start, last) = header.split_once('-')?;
    let (start, last) = (exact(start)?, exact(last)?);
    (start <= last && last < u64::MAX).then_some((start, last))
}

/// `bytes = [first] "-" [last]` as written; `None` if the header is not one such range.
fn parse_range(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    if header.len() > MAX_RANGE_HEADER_BYTES {
        return None;
    }
    let (unit, range) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| if text.is_empty() { Some(None) } else { saturating(text).map(Some) };
    Some((number(first)?, number(last)?))
}

/// A decimal number that fits in 64 bits.
fn exact(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if all_digits { digits.parse().ok() } else { None }
}

/// A decimal number, cut at the largest 64-bit value.
fn saturating(digits: &str) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_ranges() {
        use RangeOutcome::{Part, Unsatisfiable, Whole};
        let huge = "99999999999999999999999";
        for (header, size, expected) in [
            ("bytes=0-0", 10, Part { start: 0, end: 1 }),
            ("bytes=2-5", 10, Part { start: 2, end: 6 }),
            ("bytes=0-", 10, Part { start: 0, end: 10 }),
            ("bytes=9-", 10, Part { start: 9, end: 10 }),
            ("bytes=-3", 10, Part { start: 7, end: 10 }),
            ("bytes=-30", 10, Part { start: 0, end: 10 }),
            ("bytes=5-500", 10, Part { start: 5, end: 10 }),
            ("BYTES=5-6", 10, Part { start: 5, end: 7 }),
            ("bytes= 5-6 ", 10, Part { start: 5, end: 7 }),
            (&format!("bytes=0-{huge}"), 10, Part { start: 0, end: 10 }),
            (&format!("bytes=-{huge}"), 10, Part { start: 0, end: 10 }),
            (&format!("bytes={huge}-"), 10, Unsatisfiable),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=10-20", 10, Unsatisfiable),
            ("bytes=500-0", 1000, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-5", 0, Whole),
            ("bytes=0-1,4-5", 10, Whole),
            ("items=0-1", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes", 10, Whole),
            ("", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=+1-2", 10, Whole),
            ("bytes=1--2", 10, Whole),
            ("bytes=0x1-2", 10, Whole),
            (&format!("bytes={}-", "0".repeat(300)), 10, Whole),
        ] {
            assert_eq!(byte_range(Some(header), size), expected, "{header} of {size}");
        }
        assert_eq!(byte_range(None, 10), Whole);
    }

    #[test]
    fn table_of_content_ranges() {
        assert_eq!(content_range("0-99"), Some((0, 99)));
        assert_eq!(content_range("100-100"), Some((100, 100)));
        for bad in [
            "",
            "-",
            "0-",
            "-9",
            "9",
            "9-0",
            "bytes 0-99",
            "bytes=0-99",
            "0-99/100",
            "0-99/*",
            " 0-99",
            "0-99 ",
            "+0-9",
            "0--9",
            "a-b",
            "0-18446744073709551615",
            "0-18446744073709551616",
        ] {
            assert_eq!(content_range(bad), None, "{bad:?}");
        }
    }
}
