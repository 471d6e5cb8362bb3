//! Several parts of one blob as one body (`multipart/byteranges`).
//!
//! Decides that one part is read at a time, when the one before it has been sent: however many
//! are asked for, the client costs what one stream costs. The bytes around the parts are those of
//! [`ddr_oci::multipart`].

use std::ops::Range;

use bytes::Bytes;
use ddr_node::Blob;
use ddr_oci::digest::Digest;
use ddr_oci::multipart::{Multipart, Segment};
use futures_util::future::{Either, ready};
use futures_util::stream::{self, StreamExt as _};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::respond::{self, Reply, ReplyBody};

/// 206 with these parts of the blob.
pub(crate) fn reply(
    blob: Blob,
    digest: &Digest,
    part_type: &'static str,
    parts: Vec<Range<u64>>,
) -> Reply {
    let body = Multipart::new(digest, blob.size(), part_type, parts);
    let (content_type, len) = (body.content_type(), body.content_length());
    let segments = (0..).map_while(move |place| body.segment(place));
    let stream = stream::iter(segments).flat_map(move |segment| match segment {
        Segment::Text(text) => Either::Left(stream::once(ready(Ok(Bytes::from(text))))),
        Segment::Content(range) => Either::Right(blob.stream(range)),
    });
    let body = ReplyBody::stream(Box::pin(stream), len);
    let mut reply = respond::with_body(StatusCode::PARTIAL_CONTENT, body, len);
    reply.headers_mut().insert(CONTENT_TYPE, respond::value(&content_type));
    reply
}
