//! Blobs: their size, and their bytes as they arrive.
//!
//! Decides that a body is neither longer nor shorter than its head says and that a part begins where it was
//! asked for. Proves no digest: that is the caller's, who may have bytes from elsewhere.

use bytes::Bytes;
use ddr_oci::{Digest, RepositoryName};
use futures_util::StreamExt as _;
use futures_util::stream;
use http::header::CONTENT_RANGE;
use http::{HeaderMap, Method, StatusCode};
use reqwest::Response;

use crate::api::{BlobBody, UpstreamError};
use crate::exchange::{Ask, Exchange, judge};
use crate::scope::Scope;
use crate::wire::{self, content_length, discard, number};

pub(super) async fn size(
    exchange: &Exchange,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<u64>, UpstreamError> {
    let answer = exchange.ask(&ask(exchange, repository, digest, Method::HEAD)).await?;
    // Some do not know HEAD; and the signed URLs of some storages are signed for GET.
    let is_unknown = matches!(answer.status().as_u16(), 405 | 501);
    let is_elsewhere = !exchange.wire.reach.is_origin(answer.url());
    if is_unknown || is_elsewhere && answer.status().is_client_error() {
        return size_by_get(exchange, repository, digest).await;
    }
    let Some(answer) = judge(answer).await? else { return Ok(None) };
    match content_length(answer.headers()) {
        Some(size) => Ok(Some(size)),
        None => size_by_get(exchange, repository, digest).await,
    }
}

/// Asks for the first byte, whose answer has the size of the whole.
async fn size_by_get(
    exchange: &Exchange,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<u64>, UpstreamError> {
    let mut ask = ask(exchange, repository, digest, Method::GET);
    ask.range = Some("bytes=0-0".to_owned());
    let answer = exchange.ask(&ask).await?;
    let host = wire::host(&answer);
    let size = match answer.status() {
        StatusCode::OK => content_length(answer.headers()),
        StatusCode::PARTIAL_CONTENT => part(answer.headers()).map(|part| part.size),
        // An empty blob has no first byte.
        StatusCode::RANGE_NOT_SATISFIABLE => {
            wire::text(answer.headers(), CONTENT_RANGE).filter(|t| *t == "bytes */0").map(|_| 0)
        }
        _ => {
            let refused = judge(answer).await?;
            return refused.map_or(Ok(None), |_| Err(no_length(&host)));
        }
    };
    if answer.status() != StatusCode::OK {
        discard(answer).await;
    }
    size.map(Some).ok_or_else(|| no_length(&host))
}

pub(super) async fn blob(
    exchange: &Exchange,
    repository: &RepositoryName,
    digest: &Digest,
    (start, last): (u64, Option<u64>),
) -> Result<Option<BlobBody>, UpstreamError> {
    let mut ask = ask(exchange, repository, digest, Method::GET);
    ask.range = match last {
        Some(last) => Some(format!("bytes={start}-{last}")),
        None => (start > 0).then(|| format!("bytes={start}-")),
    };
    let Some(answer) = judge(exchange.ask(&ask).await?).await? else { return Ok(None) };
    let is_part = answer.status() == StatusCode::PARTIAL_CONTENT;
    let (start, size) = extent(&answer, start)?;
    let end = last.filter(|_| is_part).map_or(size, |last| size.min(last.saturating_add(1)));
    let left = end.saturating_sub(start);
    let state = Arriving { host: wire::host(&answer), answer, left };
    let bytes = stream::try_unfold(state, Arriving::next).boxed();
    Ok(Some(BlobBody { size, start, bytes }))
}

fn ask(exchange: &Exchange, repository: &RepositoryName, digest: &Digest, method: Method) -> Ask {
    let url = exchange.url(repository, &format!("blobs/{digest}"));
    Ask::new(method, Scope::Pull(repository.clone()), url)
}

/// First byte and size of the whole, by the head of an answer to "from `asked` on".
fn extent(answer: &Response, asked: u64) -> Result<(u64, u64), UpstreamError> {
    let (host, headers) = (wire::host(answer), answer.headers());
    let length = content_length(headers);
    if answer.status() == StatusCode::OK {
        return Ok((0, length.ok_or_else(|| no_length(&host))?));
    }
    let part = part(headers)
        .ok_or_else(|| UpstreamError::Failed(format!("{host} does not say which part it sends")))?;
    if part.start != asked {
        let start = part.start;
        let text = format!("{host} sends a part from byte {start} on, asked for one from {asked}");
        return Err(UpstreamError::Lied(text));
    }
    if length.is_some_and(|length| length != part.last - part.start + 1) {
        return Err(UpstreamError::Lied(format!("{host} sends a part of another length")));
    }
    Ok((part.start, part.size))
}

fn no_length(host: &str) -> UpstreamError {
    UpstreamError::Failed(format!("{host} does not say how long the blob is"))
}

/// `start <= last < size`.
#[derive(Debug, Eq, PartialEq)]
struct Part {
    start: u64,
    last: u64,
    size: u64,
}

/// `Content-Range: bytes START-LAST/SIZE` (RFC 9110, section 14.4).
fn part(headers: &HeaderMap) -> Option<Part> {
    let (range, size) =
        wire::text(headers, CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last, size) = (number(start)?, number(last)?, number(size)?);
    (start <= last && last < size).then_some(Part { start, last, size })
}

/// A body of which `left` bytes are still to come.
struct Arriving {
    host: String,
    answer: Response,
    left: u64,
}

impl Arriving {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, UpstreamError> {
        let Some(bytes) = wire::next_chunk(&mut self.answer, &self.host).await? else {
            let text = || format!("{}: the body ended early, {} bytes short", self.host, self.left);
            return if self.left == 0 { Ok(None) } else { Err(UpstreamError::Unreachable(text())) };
        };
        let left = self.left.checked_sub(bytes.len() as u64);
        let long = || UpstreamError::Lied(format!("{} sends more than it announced", self.host));
        self.left = left.ok_or_else(long)?;
        Ok(Some((bytes, self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, text.parse().expect("a value"));
            part(&headers)
        };
        assert_eq!(read("bytes 2-4/10"), Some(Part { start: 2, last: 4, size: 10 }));
        assert_eq!(read("bytes 0-0/1"), Some(Part { start: 0, last: 0, size: 1 }));
        for bad in [
            "",
            "bytes",
            "bytes */10",
            "bytes 2-4/*",
            "bytes 4-2/10",
            "bytes 2-10/10",
            "bytes +2-4/10",
            "bytes 2-4/ 10",
            "items 2-4/10",
            "2-4/10",
            "bytes 0-99999999999999999999/100000000000000000000",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(part(&HeaderMap::new()), None);
    }
}
