//! Bytes of content, in order.
//!
//! Decides that parts follow each other without gaps, and that exactly the range that was asked for comes.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::channel::Channel;
use crate::decode;
use crate::error::ContainerdError;
use crate::grpc::{Answer, Call};
use crate::messages::{READ, ReadRequest};

/// The bytes of a range in order; the last item is an error where they do not all come. Nothing is held
/// against the digest.
pub type ContentBytes = BoxStream<'static, io::Result<Bytes>>;

/// Asks for a range, and waits for its first part, so that absence is told at once.
pub(crate) async fn read(
    channel: &Channel,
    namespace: &str,
    digest: &ddr_oci::Digest,
    range: Range<u64>,
) -> Result<ContentBytes, ContainerdError> {
    if range.is_empty() {
        return Ok(stream::empty().boxed());
    }
    let too_far = |_| ContainerdError::Failed("no content is that long".to_owned());
    let offset = i64::try_from(range.start).map_err(too_far)?;
    let size = i64::try_from(range.end - range.start).map_err(too_far)?;
    let request = ReadRequest { digest: digest.to_string(), offset, size };
    let answer = channel.ask(&Call::new(READ, &request).within(namespace)?).await?;
    let mut parts = Parts { answer, base: None, left: range };
    let first = parts.next().await?;
    let rest = stream::unfold(Some(parts), next);
    Ok(stream::iter(first.map(Ok)).chain(rest).boxed())
}

struct Parts {
    answer: Answer,
    /// Where offsets are counted from: containerd counts from the beginning of the range, and its protocol
    /// says from the beginning of the content. The first part tells.
    base: Option<u64>,
    /// What has not come yet.
    left: Range<u64>,
}

impl Parts {
    /// The next part; `None` after all of the range.
    async fn next(&mut self) -> Result<Option<Bytes>, ContainerdError> {
        let Some(message) = self.answer.next_soon().await? else {
            return if self.left.is_empty() { Ok(None) } else { Err(failed("ends early")) };
        };
        let (offset, bytes) = decode::part(message)?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let base = *self.base.get_or_insert(if offset == 0 { self.left.start } else { 0 });
        let begins_there = base.checked_add(offset) == Some(self.left.start);
        if !begins_there || length > self.left.end - self.left.start {
            return Err(failed("is another part than was asked for"));
        }
        self.left.start += length;
        Ok(Some(bytes))
    }
}

async fn next(parts: Option<Parts>) -> Option<(io::Result<Bytes>, Option<Parts>)> {
    let mut parts = parts?;
    match parts.next().await {
        Ok(bytes) => Some((Ok(bytes?), Some(parts))),
        Err(error) => Some((Err(error.into()), None)),
    }
}

fn failed(what: &str) -> ContainerdError {
    ContainerdError::Failed(format!("what containerd sends of content {what}"))
}
