//! Byte ranges of a download and content ranges of a chunked upload.
//!
//! Decides what parts of a blob a `Range` header asks for. Never fails: a header that is not
//! understood is ignored, as RFC 9110 section 14.2 allows, and the whole blob is sent.
//!
//! Ranges that overlap become one; ranges that only touch stay apart, because readers of
//! zstd:chunked layers take one part for each range they asked for, in the order they asked.

use std::ops::Range;

mod set;

/// Longest `Range` header that is looked at, in bytes; a longer one is ignored. Enough for
/// [`MAX_RANGES`] ranges within a blob of 1 TiB.
pub const MAX_RANGE_HEADER_BYTES: usize = 32 * 1024;

/// Most ranges in one header; more are ignored, and the whole blob is sent. podman asks for at
/// most this many chunks of a zstd:chunked layer at once.
pub const MAX_RANGES: usize = 1024;

/// What to answer to a `Range` header.
#[derive(Clone, Debug, Eq, PartialEq)]
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
    /// 206 with these 2 to [`MAX_RANGES`] parts, none empty, no byte in two of them, in the order
    /// in which they were asked for (see [`crate::multipart`]).
    Parts(Vec<Range<u64>>),
    /// 416 with `Content-Range: bytes */<size>`.
    Unsatisfiable,
}

/// What part of `size` bytes the header asks for (RFC 9110, section 14).
///
/// Ranges `a-b`, `a-` and `-n` of unit `bytes` are honoured and cut at `size`. Those of several
/// that start at or past the end are left out, and those that overlap are joined at the place of
/// the first; what remains is answered in parts. More than [`MAX_RANGES`], another unit and
/// garbage give [`RangeOutcome::Whole`]. When nothing remains, and for any reversed range `b < a`
/// (which the RFC calls invalid, and conformance tests want refused), it is
/// [`RangeOutcome::Unsatisfiable`]. Numbers too large for 64 bits count as very large.
#[must_use]
pub fn byte_range(header: Option<&str>, size: u64) -> RangeOutcome {
    match header.and_then(set::parse) {
        None => RangeOutcome::Whole,
        Some(specs) => set::answer(&specs, size),
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

/// A decimal number that fits in 64 bits.
fn exact(digits: &str) -> Option<u64> {
    if all_digits(digits) { digits.parse().ok() } else { None }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
