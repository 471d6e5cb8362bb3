//! One request and its answer's head, and bodies of a known bound.
//!
//! Decides what goes with every request, how long an answer may take, when a request is sent a second time
//! and what a 429 means. Never follows a redirect and adds no credentials: that is [`crate::exchange`]'s.

use std::error::Error;
use std::time::{Duration, Instant, SystemTime};

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use reqwest::{Client, Request, Response, Url};
use tokio::time::timeout;

use crate::api::UpstreamError;
use crate::client;
use crate::config::{Settings, SettingsError};
use crate::hosts::{Reach, host_of};
use crate::pause::{Pause, retry_after};
use crate::resolver::Refused;

/// Longest wait for the head of an answer, connecting included.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Longest silence within a body.
pub(crate) const STALL_TIME: Duration = Duration::from_secs(30);
/// Longest time for a body that is read into memory.
const READ_TIME: Duration = Duration::from_mins(1);
/// What of a body that nobody wants is read, in bytes, so that its connection serves again.
const MAX_DISCARD_BYTES: usize = 16 * 1024;
/// And for how long.
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// The way to one registry and to where it leads.
pub(crate) struct Wire {
    client: Client,
    pub(crate) reach: Reach,
    pub(crate) pause: Pause,
}

impl Wire {
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let reach = Reach::new(settings, client::proxy_hosts(settings)?)?;
        let client = client::build(settings, &reach)?;
        Ok(Self { client, reach, pause: Pause::default() })
    }

    /// Sends `request` and returns the head of the answer, whatever its status but 429. A second time, once,
    /// if the connection broke before that: a kept one may have been closed meanwhile.
    pub(crate) async fn send(&self, request: Request) -> Result<Response, UpstreamError> {
        self.send_within(request, HEAD_TIME).await
    }

    /// The same with another wait for the head of the answer.
    pub(crate) async fn send_within(
        &self,
        request: Request,
        time: Duration,
    ) -> Result<Response, UpstreamError> {
        if let Some(left) = self.pause.left(Instant::now()) {
            return Err(UpstreamError::RateLimited(left));
        }
        self.reach.check_address(request.url())?;
        let (host, again) = (host_of(request.url()).to_owned(), request.try_clone());
        let answer = match (self.once(request, &host, time).await?, again) {
            (Err(error), Some(again)) if has_broken(&error) => {
                self.once(again, &host, time).await?
            }
            (answer, _) => answer,
        };
        let answer = answer.map_err(|error| failure(&host, &error))?;
        tracing::debug!(host, status = answer.status().as_u16(), "upstream answers");
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            return Err(self.rest(answer.headers()));
        }
        check_encoding(&host, answer.headers())?;
        Ok(answer)
    }

    async fn once(
        &self,
        request: Request,
        host: &str,
        time: Duration,
    ) -> Result<reqwest::Result<Response>, UpstreamError> {
        let slow = |_| {
            let secs = time.as_secs();
            UpstreamError::Unreachable(format!("{host} does not answer within {secs} s"))
        };
        timeout(time, Box::pin(self.client.execute(request))).await.map_err(slow)
    }

    /// Begins the pause that a 429 asks for.
    fn rest(&self, headers: &HeaderMap) -> UpstreamError {
        let time = retry_after(text(headers, RETRY_AFTER), SystemTime::now());
        self.pause.extend(Instant::now(), time);
        UpstreamError::RateLimited(time)
    }
}

/// Whether the connection was there and ended before an answer.
fn has_broken(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

/// What went wrong, by its innermost cause; without the URL, which may hold a signature.
fn failure(host: &str, error: &reqwest::Error) -> UpstreamError {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        if let Some(refused) = source.downcast_ref::<Refused>() {
            return UpstreamError::Forbidden(refused.to_string());
        }
        cause = source;
    }
    if error.source().is_none() || error.is_timeout() {
        return UpstreamError::Unreachable(format!("{host} cannot be reached in time"));
    }
    UpstreamError::Unreachable(format!("{host} cannot be reached: {cause}"))
}

fn check_encoding(host: &str, headers: &HeaderMap) -> Result<(), UpstreamError> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    if encodings.all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let text = format!("{host} sends an encoded body, though asked not to");
    Err(UpstreamError::Failed(text))
}

/// A header's text, if it is there and plain.
pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `Content-Length`; not what the library makes of it, which is 0 in answers to HEAD.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, CONTENT_LENGTH)?)
}

/// A decimal number without sign.
pub(crate) fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Host of an answer, for texts.
pub(crate) fn host(answer: &Response) -> String {
    url_host(answer.url())
}

/// Host and, where it is a special one, port of a URL, for texts.
pub(crate) fn url_host(url: &Url) -> String {
    let host = host_of(url);
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The next bytes of a body; `None` at its end.
pub(crate) async fn next_chunk(
    answer: &mut Response,
    host: &str,
) -> Result<Option<bytes::Bytes>, UpstreamError> {
    let ended = |_| UpstreamError::Unreachable(format!("{host}: the connection ended early"));
    let stalled = |_| {
        let secs = STALL_TIME.as_secs();
        UpstreamError::Unreachable(format!("{host}: nothing arrived for {secs} s"))
    };
    timeout(STALL_TIME, answer.chunk()).await.map_err(stalled)?.map_err(ended)
}

/// The whole body, of at most `max` bytes.
pub(crate) async fn read(mut answer: Response, max: usize) -> Result<Vec<u8>, UpstreamError> {
    let host = host(&answer);
    let long = || UpstreamError::Failed(format!("{host} sends more than {max} bytes"));
    let announced = content_length(answer.headers()).unwrap_or(0);
    if usize::try_from(announced).map_or(true, |announced| announced > max) {
        return Err(long());
    }
    let all = async {
        let mut body = Vec::new();
        while let Some(bytes) = next_chunk(&mut answer, &host).await? {
            if bytes.len() > max - body.len() {
                return Err(long());
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    };
    let slow = |_| UpstreamError::Unreachable(format!("{host}: the answer takes too long"));
    timeout(READ_TIME, all).await.map_err(slow)?
}

/// Reads the rest of a short body away.
pub(crate) async fn discard(mut answer: Response) {
    let rest = async {
        let mut count = 0;
        while let Ok(Some(bytes)) = answer.chunk().await {
            count += bytes.len();
            if count > MAX_DISCARD_BYTES {
                break;
            }
        }
    };
    // Whether it came to its end does not matter.
    let _ = timeout(DISCARD_TIME, rest).await;
}
