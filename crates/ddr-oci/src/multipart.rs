//! Several parts of one blob in one response: `multipart/byteranges` (RFC 9110, section 14.6).
//!
//! Decides the bytes around the parts and how many there are in all, before the first is sent.
//! Never sees content: the caller puts the bytes of each [`Segment::Content`] in its place.

use std::ops::Range;

use crate::digest::Digest;

/// Characters of the boundary (RFC 2046, section 5.1.1, allows 70).
const BOUNDARY_CHARS: usize = 64;

/// One piece of the body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Segment {
    /// These bytes.
    Text(Vec<u8>),
    /// The bytes of the blob in this range.
    Content(Range<u64>),
}

/// A body of several parts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Multipart {
    boundary: String,
    part_type: &'static str,
    size: u64,
    parts: Vec<Range<u64>>,
}

impl Multipart {
    /// The body that has `parts` of the `size` bytes with this digest, each of the media type
    /// `part_type`. `parts` as in [`crate::RangeOutcome::Parts`].
    ///
    /// The boundary is the hash in the digest, cut to 64 characters: nobody can make content that
    /// has its own hash in it, so no blob looks like the end of a part.
    #[must_use]
    pub fn new(
        digest: &Digest,
        size: u64,
        part_type: &'static str,
        parts: Vec<Range<u64>>,
    ) -> Self {
        debug_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
        let mut boundary = digest.hex();
        boundary.truncate(BOUNDARY_CHARS);
        Self { boundary, part_type, size, parts }
    }

    /// Value of `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Value of `Content-Length`: the bytes of all segments. Cut at the largest 64-bit value,
    /// which no blob that can be stored comes near.
    #[must_use]
    pub fn content_length(&self) -> u64 {
        self.segments().fold(0, |sum, segment| {
            sum.saturating_add(match segment {
                Segment::Text(text) => text.len() as u64,
                Segment::Content(range) => range.end - range.start,
            })
        })
    }

    /// The body from its first byte to its last.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        (0..).map_while(|at| self.segment(at))
    }

    /// Segment `at` of the body, counted from 0; `None` after the last.
    #[must_use]
    pub fn segment(&self, at: usize) -> Option<Segment> {
        let (place, is_content) = (at / 2, at % 2 == 1);
        match self.parts.get(place) {
            Some(part) if is_content => Some(Segment::Content(part.clone())),
            Some(part) => Some(Segment::Text(self.head(place, part))),
            None if place == self.parts.len() && !is_content => {
                Some(Segment::Text(format!("\r\n--{}--\r\n", self.boundary).into_bytes()))
            }
            None => None,
        }
    }

    /// What stands before a part, with the line break that ends the part before it.
    fn head(&self, place: usize, part: &Range<u64>) -> Vec<u8> {
        let (boundary, part_type, size) = (&self.boundary, self.part_type, self.size);
        let (first, last) = (part.start, part.end - 1);
        let line_break = if place == 0 { "" } else { "\r\n" };
        format!(
            "{line_break}--{boundary}\r\nContent-Type: {part_type}\r\n\
             Content-Range: bytes {first}-{last}/{size}\r\n\r\n"
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_that_of_the_rfc() {
        let content = b"0123456789";
        let digest = Digest::sha256(content);
        let body = Multipart::new(&digest, 10, "text/plain", vec![7..10, 0..2]);
        let hex = digest.hex();
        assert_eq!(body.content_type(), format!("multipart/byteranges; boundary={hex}"));
        let mut bytes = Vec::new();
        for segment in body.segments() {
            match segment {
                Segment::Text(text) => bytes.extend(text),
                Segment::Content(range) => {
                    bytes.extend(&content[range.start as usize..range.end as usize]);
                }
            }
        }
        let expected = format!(
            "--{hex}\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-9/10\r\n\r\n789\r\n\
             --{hex}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/10\r\n\r\n01\r\n\
             --{hex}--\r\n"
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        assert_eq!(body.content_length(), expected.len() as u64);
    }

    #[test]
    fn the_boundary_of_a_long_hash_is_cut() {
        let digest = Digest::of(crate::digest::Algorithm::Sha512, b"x");
        let body = Multipart::new(&digest, 10, "a/b", vec![0..1, 2..3]);
        assert!(body.content_type().ends_with(&format!("={}", &digest.hex()[..64])));
    }
}
