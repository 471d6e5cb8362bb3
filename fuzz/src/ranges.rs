//! Invariants of ranges: what a header asks for, a chunk's place, and a body of several parts.
//!
//! Each is held against a second reading that is written as simply as possible.

use std::ops::Range;

use ddr_oci::Digest;
use ddr_oci::multipart::{Multipart, Segment};
use ddr_oci::range::{MAX_RANGES, RangeOutcome, byte_range, content_range};

/// Up to this size the bytes of an answer are compared one by one with those that were asked for.
const MAX_COUNTED_BYTES: u64 = 4096;

/// A range header after a size: `SIZE HEADER`.
pub(crate) fn range(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (size, header) = text.split_once(' ').unwrap_or(("", text));
    let size = size.parse().unwrap_or(data.len() as u64);
    let outcome = byte_range(Some(header), size);
    let parts = match &outcome {
        RangeOutcome::Part { start, end } => std::iter::once(*start..*end).collect(),
        RangeOutcome::Parts(parts) => {
            assert!((2..=MAX_RANGES).contains(&parts.len()));
            parts.clone()
        }
        RangeOutcome::Whole | RangeOutcome::Unsatisfiable => return,
    };
    let mut sorted = parts.clone();
    sorted.sort_unstable_by_key(|part| part.start);
    assert!(sorted.iter().all(|part| part.start < part.end && part.end <= size));
    assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start), "a byte in two parts");
    if size <= MAX_COUNTED_BYTES {
        let covered = |at: u64| parts.iter().any(|part| part.contains(&at));
        let asked = asked(header, size);
        assert!((0..size).all(|at| covered(at) == asked.iter().any(|range| range.contains(&at))));
    }
    declared_length(size, parts);
}

/// The ranges in a header that is known to be one, as they stand there.
fn asked(header: &str, size: u64) -> Vec<Range<u64>> {
    let (_, set) = header.split_once('=').expect("a range header");
    let elements = set.split(',').map(str::trim).filter(|element| !element.is_empty());
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let range = |element: &str| match element.split_once('-').expect("a range") {
        ("", suffix) => size.saturating_sub(number(suffix))..size,
        (first, "") => number(first)..size,
        (first, last) => number(first)..number(last).saturating_add(1).min(size),
    };
    elements.map(range).collect()
}

/// The length of a body is known without its content, however large.
fn declared_length(size: u64, parts: Vec<Range<u64>>) {
    let content: u128 = parts.iter().map(|part| u128::from(part.end - part.start)).sum();
    let body = Multipart::new(&Digest::sha256(b""), size, "a/b", parts);
    let text = body.segments().map(|segment| match segment {
        Segment::Text(text) => text.len() as u128,
        Segment::Content(_) => 0,
    });
    let sum = content + text.sum::<u128>();
    assert_eq!(u128::from(body.content_length()), sum.min(u128::from(u64::MAX)));
}

/// The place of a chunk.
pub(crate) fn chunk_place(data: &[u8]) {
    let Ok(header) = std::str::from_utf8(data) else { return };
    match content_range(header) {
        Some((start, last)) => {
            assert!(start <= last && last < u64::MAX);
            let canonical = format!("{start}-{last}");
            assert_eq!(content_range(&canonical), Some((start, last)));
            let zeros = |part: &str| part.trim_start_matches('0').to_owned();
            let (first, second) = header.split_once('-').expect("one dash");
            let (one, two) = canonical.split_once('-').expect("one dash");
            assert_eq!((zeros(first), zeros(second)), (zeros(one), zeros(two)));
        }
        None => {
            let parts: Vec<&str> = header.split('-').collect();
            let number = |part: &&str| {
                let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
                digits.then(|| part.parse::<u64>().ok()).flatten()
            };
            let numbers: Vec<u64> = parts.iter().filter_map(number).collect();
            let good = parts.len() == 2 && numbers.len() == 2 && numbers[0] <= numbers[1];
            assert!(!good || numbers[1] == u64::MAX, "a chunk's place was refused: {header}");
        }
    }
}

/// A range header on the first line, then the content that it is about. What is written as
/// several parts is read back by a parser that knows only RFC 2046.
pub(crate) fn multipart(data: &[u8]) {
    let line = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(header) = std::str::from_utf8(&data[..line]) else { return };
    let content = data.get(line + 1..).unwrap_or_default();
    let size = content.len() as u64;
    let RangeOutcome::Parts(parts) = byte_range(Some(header), size) else { return };
    let body = Multipart::new(&Digest::sha256(content), size, "application/octet-stream", parts);
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for segment in body.segments() {
        match segment {
            Segment::Text(text) => bytes.extend(text),
            Segment::Content(range) => {
                bytes.extend(cut(content, &range));
                expected.push(range);
            }
        }
    }
    assert_eq!(bytes.len() as u64, body.content_length());
    let read = read_parts(&body.content_type(), &bytes);
    assert_eq!(read.len(), expected.len());
    for ((place, part), range) in read.iter().zip(expected) {
        assert_eq!(*place, format!("bytes {}-{}/{size}", range.start, range.end - 1));
        assert_eq!(*part, cut(content, &range));
    }
}

fn cut<'a>(content: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let at = |at: u64| usize::try_from(at).expect("in memory");
    &content[at(range.start)..at(range.end)]
}

/// The `Content-Range` and the bytes of each part. Looks for the boundary alone, as readers of
/// mail do, and takes no length at its word.
pub(crate) fn read_parts<'a>(content_type: &str, body: &'a [u8]) -> Vec<(String, &'a [u8])> {
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").expect("the type");
    let delimiter = format!("--{boundary}");
    let mut rest = body.strip_prefix(delimiter.as_bytes()).expect("begins with a delimiter");
    let next = format!("\r\n{delimiter}");
    let mut parts = Vec::new();
    loop {
        if rest == b"--\r\n" {
            return parts;
        }
        rest = rest.strip_prefix(b"\r\n").expect("a line break after the delimiter");
        let end = find(rest, next.as_bytes()).expect("a delimiter after the part");
        let (part, after) = (&rest[..end], &rest[end + next.len()..]);
        let blank = find(part, b"\r\n\r\n").expect("a blank line after the fields");
        let fields = std::str::from_utf8(&part[..blank]).expect("fields are text");
        let place = fields.lines().find_map(|line| line.strip_prefix("Content-Range: "));
        parts.push((place.expect("a place").to_owned(), &part[blank + 4..]));
        rest = after;
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
